"""Policies: a spec, a normaliser, an encoder, a network and an objective, composed; stateless."""

from .diffusion import DiffusionConfig, DiffusionPolicy, Guided, Sampling
from .latent import LatentDiffusionConfig, LatentDiffusionPolicy
from .mixture import MixtureConfig, MixturePolicy
from .policy import Policy, PolicySpec
from .regression import RegressionConfig, RegressionPolicy

AnyPolicyConfig = DiffusionConfig | LatentDiffusionConfig | RegressionConfig | MixtureConfig
"""Every policy that a configuration can name."""
SampledPolicy = DiffusionPolicy | LatentDiffusionPolicy
"""Policies that sample, and can be `resampled`."""
AnyPolicy = SampledPolicy | RegressionPolicy | MixturePolicy

__all__ = [
    "AnyPolicy",
    "AnyPolicyConfig",
    "DiffusionConfig",
    "DiffusionPolicy",
    "Guided",
    "LatentDiffusionConfig",
    "LatentDiffusionPolicy",
    "MixtureConfig",
    "MixturePolicy",
    "Policy",
    "PolicySpec",
    "RegressionConfig",
    "RegressionPolicy",
    "SampledPolicy",
    "Sampling",
]
