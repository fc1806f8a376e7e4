"""Policies: a spec, a normaliser, an encoder, a network and an objective, composed; stateless."""

from ..errors import ConfigError
from .backbone import Backbone
from .diffusion import DiffusionConfig, DiffusionPolicy, Guided, Sampling
from .latent import LatentDiffusionConfig, LatentDiffusionPolicy
from .mixture import MixtureConfig, MixturePolicy
from .nearest import NearestConfig, NearestPolicy
from .policy import Policy, PolicySpec
from .regression import RegressionConfig, RegressionPolicy

AnyPolicyConfig = DiffusionConfig | LatentDiffusionConfig | RegressionConfig | MixtureConfig | NearestConfig
"""Every policy that a configuration can name."""
SampledPolicy = DiffusionPolicy | LatentDiffusionPolicy
"""Policies that sample, and can be `resampled`."""
AnyPolicy = SampledPolicy | RegressionPolicy | MixturePolicy | NearestPolicy


def backbone_of(policy: AnyPolicy) -> Backbone:
    """Return encoder and network of a policy; `ConfigError` for one that has none."""
    if isinstance(policy, NearestPolicy):
        raise ConfigError("expected a policy with a network, got nearest neighbour: it looks up what was demonstrated")
    return (policy.codes if isinstance(policy, LatentDiffusionPolicy) else policy).backbone


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
    "NearestConfig",
    "NearestPolicy",
    "Policy",
    "PolicySpec",
    "RegressionConfig",
    "RegressionPolicy",
    "SampledPolicy",
    "Sampling",
    "backbone_of",
]
