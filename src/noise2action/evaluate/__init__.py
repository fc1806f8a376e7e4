"""Honest evaluation: rollouts over paired seeds, intervals, smoothness, latency, figures and a report."""
