"""Encoders: an observation history becomes a `Condition`, once per observation."""
