"""Policies: a spec, a normaliser, an encoder, a network and an objective, composed; stateless."""

from .diffusion import DiffusionConfig, DiffusionPolicy, Sampling
from .policy import Policy, PolicySpec
from .regression import RegressionConfig, RegressionPolicy

AnyPolicyConfig = DiffusionConfig | RegressionConfig
"""Every policy that a configuration can name."""
AnyPolicy = DiffusionPolicy | RegressionPolicy

__all__ = [
    "AnyPolicy",
    "AnyPolicyConfig",
    "DiffusionConfig",
    "DiffusionPolicy",
    "Policy",
    "PolicySpec",
    "RegressionConfig",
    "RegressionPolicy",
    "Sampling",
]
