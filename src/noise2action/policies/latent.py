"""Latent diffusion policy: an autoencoder of action chunks, and a diffusion policy whose actions are its codes."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ..data.actions import Absolute
from ..data.normalize import Affine, Normalizer
from ..data.windows import Batch
from ..diffusion.objective import Diffusion, Losses, masked_mean, without_padding
from ..diffusion.tableau import OnStep
from ..encoders.fuse import EncoderConfig
from ..errors import ConfigError
from ..nets import AnyNetConfig, MLPConfig
from ..nets.autoencoder import MLPAutoencoderConfig
from ..schema import Feature, Schema
from ..seeds import Generators
from ..timing import Stopwatch
from .diffusion import DiffusionConfig, Sampling
from .policy import PolicySpec


@dataclass(frozen=True)
class LatentDiffusionConfig:
    """Diffusion policy on the codes of an autoencoder of action chunks."""

    spec: PolicySpec = field(default_factory=PolicySpec)
    """Step conventions."""
    net: AnyNetConfig = field(default_factory=MLPConfig)
    """Network of codes."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Observation encoder."""
    autoencoder: MLPAutoencoderConfig = field(default_factory=lambda: MLPAutoencoderConfig(latent=(4, 4)))
    """Action chunks to codes [steps, dim] and back."""
    objective: Diffusion = field(default_factory=Diffusion)
    """Path, target, training times and weight, for codes."""
    sampling: Sampling = field(default_factory=Sampling)
    """Sampler, grid, guidance and number of network evaluations; the clip bounds decoded actions, not codes."""
    p_uncond: float = 0.0
    """Share of training samples whose observation is hidden behind a learned null; guidance needs it (0.1 is usual)."""

    def __post_init__(self) -> None:
        """Reject codes that are no chunk, and what a diffusion policy would reject."""
        if len(self.autoencoder.latent) != 2:
            raise ConfigError(f"expected autoencoder.latent = (steps, dim), got {self.autoencoder.latent}")
        _ = self.codes

    @cached_property
    def codes(self) -> DiffusionConfig:
        """The diffusion policy to which a code is a chunk of `steps` actions of `dim` numbers without bounds."""
        steps, absolute = self.autoencoder.latent[0], Absolute()
        spec = replace(self.spec, horizon=steps, stride=1, first_action=0, action_space=absolute)
        sampling = replace(self.sampling, clip=None)
        return DiffusionConfig(spec, self.net, self.encoder, self.objective, sampling, self.p_uncond)

    def build(self, schema: Schema, normalizer: Normalizer) -> "LatentDiffusionPolicy":
        """Return the policy with fresh weights (from the global generator)."""
        return LatentDiffusionPolicy(self, schema, normalizer)


class LatentDiffusionPolicy(nn.Module):
    """Observation history to a sampled code to an action chunk.

    One loss trains all: the error of the reconstructed chunk, and the diffusion loss of its code, whose gradient ends
    at the code. Codes have mean 0 and mean square 1 by construction, so the diffusion's scale never moves.

    **Source:** Rombach et al. 2022, on chunks instead of images.
    """

    def __init__(self, config: LatentDiffusionConfig, schema: Schema, normalizer: Normalizer) -> None:
        super().__init__()
        self.config, self.schema, self.spec, self.normalizer = config, schema, config.spec, normalizer
        self.autoencoder = config.autoencoder.build(shape=(config.spec.horizon, schema.action_dim))
        action, dim = schema.action.name, config.autoencoder.latent[1]
        one = torch.ones(dim, dtype=torch.float64, device="cpu")  # a normaliser's tables, whatever the default device
        unchanged = Normalizer({**normalizer.affines, action: Affine("identity", one, 0 * one)}, normalizer.device)
        self.codes = config.codes.build(replace(schema, action=Feature(action, (dim,))), unchanged)

    def resampled(self, sampling: Sampling) -> "LatentDiffusionPolicy":
        """Return this policy, on the same weights, with another way of sampling."""
        self.codes.resampled(sampling)  # refuses to be guided by what it was not trained to miss
        other = copy.copy(self)
        other.config = replace(self.config, sampling=sampling)
        return other

    def loss(self, batch: Batch, *, generator: torch.Generator) -> Losses:
        """Return reconstruction error plus diffusion loss, a sample; padded actions count in neither."""
        actions = without_padding(batch.actions, batch.valid)
        code, again = self.autoencoder(actions, generator=generator)
        whole = torch.ones(code.shape[:2], dtype=torch.bool, device=code.device)
        diffusion = self.codes.loss(Batch(batch.observations, code.detach(), whole), generator=generator)
        return Losses(diffusion.value + masked_mean((again - actions) ** 2, batch.valid), diffusion.t)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the chunks [B, H, A], in the action space, that `codes` [B, steps, dim] stand for."""
        chunk, bound = self.autoencoder.decode(codes), self.config.sampling.clip
        chunk = chunk if bound is None else chunk.clamp(-bound, bound)
        return self.normalizer.decode(self.schema.action.name, chunk)

    @torch.no_grad()
    def plan(
        self,
        history: Mapping[str, Tensor],
        committed: Tensor | None = None,
        *,
        generator: Generators | None = None,
        watch: Stopwatch | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return a sampled chunk [B, H, A] in robot units; see `Policy.plan`. `on_step` sees codes.

        `committed` actions are put back into the decoded chunk: a code belongs to the chunk as a whole, so the rest of
        the plan does not know of them and may not continue them smoothly.
        """
        if committed is not None:
            self.spec.check_committed(committed, dim=self.schema.action_dim)
        watch = watch or Stopwatch()
        policy = copy.copy(self.codes)
        policy.config = self.config.codes  # not those of the training: this policy may be a resampled one
        codes = policy.plan(history, generator=generator, watch=watch, on_step=on_step)
        with watch("decoder"):
            return self.spec.keeping(committed, self.spec.commanded(self.decode(codes), history))
