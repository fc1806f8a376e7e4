"""Mixture density behavioural cloning: one network call gives several Gaussians over the whole chunk.

Where regression ends at the average of two ways to do a thing, a mixture can keep both. A component is one way to do
the whole chunk, not one action: drawing a component a step would change its mind sixteen times a chunk. With
`horizon` 1 the two are the same, and the policy is the usual BC-GMM; with one component it is Gaussian cloning.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..condition import Condition
from ..data.normalize import Normalizer
from ..data.windows import Batch
from ..diffusion.objective import Losses, without_padding
from ..diffusion.tableau import OnStep
from ..encoders.fuse import EncoderConfig
from ..errors import ConfigError
from ..nets import AnyNetConfig, MLPConfig
from ..schema import Feature, Schema
from ..seeds import Generators, randn_like
from ..shapes import Chunk, Valid
from ..timing import Stopwatch
from .backbone import Backbone
from .policy import PolicySpec

Take = Literal["component", "sample", "mode"]
"""component: the mean of a drawn component. sample: a draw from the mixture. mode: the mean of the likeliest one."""

INITIAL_SPREAD = 0.5
"""Standard deviation of the components' first means, in normalised units: equal components would stay equal."""


@dataclass(frozen=True)
class MixtureConfig:
    """Behavioural cloning by a mixture of Gaussians (BC-GMM)."""

    spec: PolicySpec = field(default_factory=PolicySpec)
    """Step conventions."""
    net: AnyNetConfig = field(default_factory=MLPConfig)
    """Network."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Observation encoder."""
    components: int = 5
    """Gaussians; 1 is Gaussian behavioural cloning."""
    min_std: float = 0.01
    """Smallest standard deviation, in normalised units; without one the likelihood has no bound."""
    take: Take = "component"
    """What a plan is: the mean of a drawn component, a sample with its noise, or the mode (no randomness)."""

    def __post_init__(self) -> None:
        """Reject mixtures without components or with unbounded likelihood."""
        if not 1 <= self.components <= 1024 or not 0 < self.min_std <= 1:
            raise ConfigError(
                f"expected components in [1, 1024] and min_std in (0, 1], got {self.components} and {self.min_std}"
            )

    def build(self, schema: Schema, normalizer: Normalizer) -> "MixturePolicy":
        """Return the policy with fresh weights (from the global generator)."""
        return MixturePolicy(self, schema, normalizer)


@dataclass(frozen=True, eq=False)
class ChunkMixture:
    """A mixture of K Gaussians with diagonal covariances over chunks, in normalised units."""

    log_weights: Float[Tensor, "B K"]
    """Normalised: their exponentials sum to 1."""
    means: Float[Tensor, "B K H A"]
    stds: Float[Tensor, "B K H A"]

    def log_prob(self, chunk: Chunk, valid: Valid) -> Float[Tensor, "B"]:
        """Return log p(chunk) in nats; where `valid` is False the action is integrated out."""
        return (self.log_weights + self._of_components(chunk, valid)).logsumexp(1)

    def given(self, known: Float[Tensor, "B L A"]) -> "ChunkMixture":
        """Return the mixture of chunks that begin with `known`, exactly: it decides between components, no more.

        Inside a component actions are independent, so the means and standard deviations of the rest stay.
        """
        likelihood = replace(self, means=self.means[:, :, : known.shape[1]], stds=self.stds[:, :, : known.shape[1]])
        there = known.new_ones(known.shape[:2], dtype=torch.bool)
        return replace(self, log_weights=(self.log_weights + likelihood._of_components(known, there)).log_softmax(1))

    def draw(self, take: Take, generator: Generators | None) -> Chunk:
        """Return one chunk a row."""
        chosen = self.log_weights.argmax(1) if take == "mode" else _draw_index(self.log_weights, generator)
        rows = torch.arange(len(chosen), device=chosen.device)
        mean = self.means[rows, chosen]
        return mean + self.stds[rows, chosen] * randn_like(mean, generator) if take == "sample" else mean

    def _of_components(self, chunk: Chunk, valid: Valid) -> Float[Tensor, "B K"]:
        """Return log N(chunk; mean, std) of every component."""
        z = (without_padding(chunk, valid).unsqueeze(1) - self.means) / self.stds
        density = -0.5 * z**2 - self.stds.log() - 0.5 * math.log(2 * math.pi)
        return (density * valid[:, None, :, None]).sum((2, 3))


class MixturePolicy(nn.Module):
    """Observation history to a mixture of chunks, trained by its negative log-likelihood.

    The network is the one of the other policies, called once at t = 1 with K (2 A + 1) numbers an action: mean and
    standard deviation of every element, and a share of the component's logit, which is averaged over the chunk.

    **Source:** Bishop 1994, "Mixture density networks"; Mandlekar et al. 2021 (robomimic), BC-GMM, with softplus
    standard deviations above a minimum. `take = "component"` is its `low_noise_eval`.
    """

    def __init__(self, config: MixtureConfig, schema: Schema, normalizer: Normalizer) -> None:
        super().__init__()
        self.config, self.schema, self.spec, self.normalizer = config, schema, config.spec, normalizer
        width = config.components * (2 * schema.action_dim + 1)
        wide = replace(schema, action=Feature(schema.action.name, (width,)))
        self.backbone = Backbone(
            config.net, encoder=config.encoder, spec=config.spec, schema=wide, normalizer=normalizer
        )
        # Networks start at zero output, where all components are one and the gradient keeps them so.
        self.start = nn.Parameter(INITIAL_SPREAD * torch.randn(config.components, 1, schema.action_dim))

    def mixture(self, condition: Condition) -> ChunkMixture:
        """Return the mixture under `condition`, in float32 whatever the network computes in."""
        empty = torch.zeros_like(self.backbone.chunk_like(condition))
        t = torch.ones((), device=empty.device)
        raw = self.backbone(empty, t, condition).float()
        dim = self.schema.action_dim
        components = raw.unflatten(2, (self.config.components, 2 * dim + 1)).transpose(1, 2)
        means, stds, logits = components.split([dim, dim, 1], dim=3)
        return ChunkMixture(
            logits.mean((2, 3)).log_softmax(1),
            means + self.start.float(),
            self.config.min_std + nn.functional.softplus(stds),
        )

    def loss(self, batch: Batch, *, generator: torch.Generator) -> Losses:
        """Return the negative log-likelihood a sample in nats an action element; padded actions do not count."""
        nats = -self.mixture(self.backbone.encoder(batch.observations, generator=generator)).log_prob(
            batch.actions, batch.valid
        )
        elements = batch.valid.sum(1).clamp(min=1) * self.schema.action_dim
        return Losses(nats / elements, torch.ones_like(nats))

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
        """Return a chunk [B, H, A] in robot units; see `Policy.plan`. `committed` actions choose the component."""
        watch, action = watch or Stopwatch(), self.schema.action.name
        with watch("encode"):
            condition = self.backbone.condition(history)
        with watch("denoise"):
            mixture = self.mixture(condition)
            if committed is not None:
                self.spec.check_committed(committed, dim=self.schema.action_dim)
                mixture = mixture.given(self.normalizer.encode(action, self.spec.learnt(committed, history)))
            chunk = mixture.draw(self.config.take, generator)
        with watch("decode"):
            return self.spec.keeping(committed, self.spec.commanded(self.normalizer.decode(action, chunk), history))


def _draw_index(log_weights: Float[Tensor, "B K"], generators: Generators | None) -> Tensor:
    """Return an index a row, drawn by inverting the distribution function with one uniform number a row."""
    if isinstance(generators, Sequence):
        uniform = torch.cat([torch.rand(1, generator=g, device=log_weights.device) for g in generators])
    else:
        uniform = torch.rand(len(log_weights), generator=generators, device=log_weights.device)
    reached = log_weights.exp().cumsum(1)
    # Rounding may leave the sum below the number drawn: the last component then.
    return (reached <= uniform.unsqueeze(1)).sum(1).clamp(max=log_weights.shape[1] - 1)
