"""Control: from chunks to one action a tick. Sees the `Policy` protocol only."""
