"""Training: a plain loop, its run folder, and exact resumption."""
