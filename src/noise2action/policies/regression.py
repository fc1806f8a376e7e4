"""Regression (behavioural cloning): the denoiser called once at t = 1, where the posterior mean is E[x0 | c].

It shares network, encoder and normaliser with the diffusion policy, and is its control experiment.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..data.normalize import Normalizer
from ..data.windows import Batch
from ..diffusion.objective import Losses, masked_mean, without_padding
from ..diffusion.tableau import OnStep
from ..encoders.fuse import EncoderConfig
from ..nets import AnyNetConfig, MLPConfig
from ..schema import Schema
from ..seeds import Generators
from ..timing import Stopwatch
from .backbone import Backbone
from .policy import PolicySpec


@dataclass(frozen=True)
class RegressionConfig:
    """Behavioural cloning by mean squared error."""

    spec: PolicySpec = field(default_factory=PolicySpec)
    """Step conventions."""
    net: AnyNetConfig = field(default_factory=MLPConfig)
    """Network."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Observation encoder."""

    def build(self, schema: Schema, normalizer: Normalizer) -> "RegressionPolicy":
        """Return the policy with fresh weights (from the global generator)."""
        return RegressionPolicy(self, schema, normalizer)


class RegressionPolicy(nn.Module):
    """Observation history to the mean chunk of the demonstrations."""

    def __init__(self, config: RegressionConfig, schema: Schema, normalizer: Normalizer) -> None:
        super().__init__()
        self.config, self.schema, self.spec = config, schema, config.spec
        self.backbone = Backbone(
            config.net, encoder=config.encoder, spec=config.spec, schema=schema, normalizer=normalizer
        )

    def loss(self, batch: Batch, *, generator: torch.Generator) -> Losses:
        """Return the squared error a sample, in normalised units; padded actions do not count."""
        condition = self.backbone.encoder(batch.observations, generator=generator)
        t = torch.ones(len(batch.actions), device=batch.actions.device)
        mean = self.backbone(torch.zeros_like(batch.actions), t, condition)
        error = (mean.to(batch.actions.dtype) - without_padding(batch.actions, batch.valid)) ** 2
        return Losses(masked_mean(error, batch.valid), t)

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
        """Return the mean chunk [B, H, A] in robot units; see `Policy.plan`. It needs no randomness."""
        if committed is not None:
            self.spec.check_committed(committed, dim=self.schema.action_dim)
        watch = watch or Stopwatch()
        with watch("encode"):
            condition = self.backbone.condition(history)
        with watch("denoise"):
            chunk = self.backbone(torch.zeros_like(self.backbone.chunk_like(condition)), torch.ones(()), condition)
        with watch("decode"):
            return self.spec.keeping(committed, self.spec.commanded(self.backbone.robot_actions(chunk), history))
