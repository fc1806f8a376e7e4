"""What the verbs of the command line do, one file each; torch is imported here and not before."""
