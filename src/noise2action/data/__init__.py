"""Demonstrations: files -> `Episodes` -> `Windows` -> normalised `Batch`es."""
