"""Comparison: every way of imitating on the same demonstrations, budget and episodes, told with what it is worth."""
