"""Diffusion policies for robot control: from demonstrations to a policy that runs."""

__version__ = "0.1.0"
