"""Policies of other code bases: read, converted with the same weights, normaliser and conventions, and written."""
