"""Diffusion policy: any path, target and sampler; flow matching is the path `Straight` with the target `Velocity`."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..condition import Condition
from ..config import kind
from ..data.actions import Absolute
from ..data.normalize import Normalizer
from ..data.windows import Batch
from ..diffusion.denoisers import Cost, Denoiser, cfg, check_guidance, clip, descend, pin
from ..diffusion.grids import AnyGrid, Trailing
from ..diffusion.objective import Diffusion, Losses
from ..diffusion.samplers import DDIM, AnySampler, Renoise
from ..diffusion.sampling import place, sample
from ..diffusion.tableau import OnStep
from ..encoders.fuse import EncoderConfig
from ..errors import ConfigError, did_you_mean
from ..nets import AnyNetConfig, MLPConfig
from ..schema import Schema
from ..seeds import Generators
from ..timing import Stopwatch
from .backbone import Backbone
from .policy import PolicySpec


@dataclass(frozen=True)
class Guided:
    """Classifier-free guidance by one modality, against its learned null; the rest of the observation stays."""

    modality: str
    """Feature by name, or `state`; one that the encoder was trained to miss (encoder.modality_dropout > 0)."""
    weight: float = 1.0
    """w: -1 ignores the modality, 0 is none, above 0 follows it more closely than the demonstrations did."""


@dataclass(frozen=True)
class Sampling:
    """How a chunk is sampled; may be changed after training."""

    sampler: AnySampler = field(default_factory=DDIM)
    """Solver."""
    grid: AnyGrid = field(default_factory=Trailing)
    """Where on the path the network is called."""
    nfe: int = 8
    """Network evaluations a plan."""
    clip: float | None = 1.0
    """Bound on |x0_hat| in normalised units (min-max actions lie in [-1, 1]); null for none."""
    guidance: float = 0.0
    """Classifier-free guidance weight w: -1 ignores the observation, 0 is none, above 0 sharper (scale s = 1 + w)."""
    guided: tuple[Guided, ...] = ()
    """Guidance by single modalities instead, such as what is said; several add up as if each had been told alone."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Smallest and largest t that are guided."""
    guidance_rescale: float = 0.0
    """In [0, 1]: how far a guided estimate is scaled back to the spread of the unguided one."""

    def __post_init__(self) -> None:
        """Reject a sampler of consistency maps and numbers out of range."""
        if isinstance(self.sampler, Renoise):
            raise ConfigError(
                "expected a sampler of denoisers, got renoise: it needs a consistency map; use ddim or adams"
            )
        if not 1 <= self.nfe <= 10_000 or (self.clip is not None and not self.clip > 0):
            raise ConfigError(f"expected 1 <= nfe <= 10000 and clip > 0 or null, got nfe={self.nfe}, clip={self.clip}")
        check_guidance(
            [self.guidance, *(told.weight for told in self.guided)],
            interval=self.guidance_interval,
            rescale=self.guidance_rescale,
        )
        names = [told.modality for told in self.guided]
        if len(set(names)) != len(names) or (names and self.guidance):
            raise ConfigError(
                "expected guidance by the whole observation or by single modalities, each once, got "
                f"guidance={self.guidance:g} and {names}"
            )
        self.sampler.steps(self.nfe)


@dataclass(frozen=True)
class DiffusionConfig:
    """Diffusion policy."""

    spec: PolicySpec = field(default_factory=PolicySpec)
    """Step conventions."""
    net: AnyNetConfig = field(default_factory=MLPConfig)
    """Network."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Observation encoder."""
    objective: Diffusion = field(default_factory=Diffusion)
    """Path, target, training times and weight."""
    sampling: Sampling = field(default_factory=Sampling)
    """Sampler, grid and number of network evaluations."""
    p_uncond: float = 0.0
    """Share of training samples whose observation is hidden behind a learned null; guidance needs it (0.1 is usual)."""
    draws: int = 1
    """Noise levels and noises that an encoded sample is trained with at once; where encoding images costs more than
    calling the network, 4 or 8 teach more for almost the same time."""

    def __post_init__(self) -> None:
        """Reject a grid that does not exist on the path, and guidance without null training, before all training."""
        sampling, (_, start) = self.sampling, self.objective.span
        if not (0 <= self.p_uncond < 1 and 1 <= self.draws <= 1024):
            raise ConfigError(f"expected p_uncond in [0, 1) and draws in [1, 1024], got {self.p_uncond}, {self.draws}")
        if sampling.guidance and not self.p_uncond:
            single = "guide by what it may miss, n2a eval --guide NAME=W, or " if self.encoder.modality_dropout else ""
            raise ConfigError(
                f"expected a policy trained with p_uncond > 0 to guide, got guidance={sampling.guidance:g} on one "
                f"without: {single}train again with --policy.p-uncond 0.1"
            )
        place(sampling.sampler, self.objective.path, grid=sampling.grid, nfe=sampling.nfe, start=start)

    def build(self, schema: Schema, normalizer: Normalizer) -> "DiffusionPolicy":
        """Return the policy with fresh weights (from the global generator)."""
        return DiffusionPolicy(self, schema, normalizer)


class DiffusionPolicy(nn.Module):
    """Observation history to a sampled action chunk. **Source:** Chi et al. 2023."""

    def __init__(self, config: DiffusionConfig, schema: Schema, normalizer: Normalizer) -> None:
        super().__init__()
        self.config, self.schema, self.spec = config, schema, config.spec
        self.backbone = Backbone(
            config.net, encoder=config.encoder, spec=config.spec, schema=schema, normalizer=normalizer
        )
        # Absent unless used, so that policies without keep their weights, their files and their random numbers.
        self.null = nn.Parameter(torch.randn(self.backbone.encoder.dim)) if config.p_uncond else None
        memory = config.objective.times.memory()
        self.memory = None if memory is None else nn.Buffer(memory)
        self.slopes: tuple[tuple[Cost, float], ...] = ()
        self._check_guided(config.sampling)

    def resampled(self, sampling: Sampling) -> "DiffusionPolicy":
        """Return this policy, on the same weights, with another way of sampling."""
        self._check_guided(sampling)
        other = copy.copy(self)
        other.config = replace(self.config, sampling=sampling)
        return other

    def _check_guided(self, sampling: Sampling) -> None:
        """Raise `ConfigError` unless the encoder was trained without each of the modalities that guide."""
        known = self.backbone.encoder.droppable
        for told in sampling.guided:
            if told.modality not in known:
                raise ConfigError(
                    f"expected a modality that the policy was trained to miss to guide by, got {told.modality!r}: "
                    f"{did_you_mean(told.modality, known)}; train with --policy.encoder.modality-dropout 0.1"
                )

    def descending(self, cost: Cost, *, scale: float = 1.0) -> "DiffusionPolicy":
        """Return this policy, on the same weights, planning down the slope of `cost`; see `descend`.

        `cost` takes chunks [B, H, A] in robot units and returns a cost a sample [B]: away from an obstacle, say.
        """
        if not isinstance(self.spec.action_space, Absolute):
            raise ConfigError(
                "expected a policy of absolute actions to descend a cost of robot units, got "
                f"{kind(type(self.spec.action_space))} ones"
            )
        other = copy.copy(self)
        other.slopes = (*self.slopes, (lambda chunk: cost(self.backbone.robot_actions(chunk)), scale))
        return other

    def loss(self, batch: Batch, *, generator: torch.Generator) -> Losses:
        """Return the diffusion loss a sample, `draws` times as many as the batch has; padded actions do not count."""
        condition = self.backbone.encoder(batch.observations, generator=generator)
        if self.null is not None:
            hidden = (
                torch.rand(len(condition.vector), 1, generator=generator, device=generator.device)
                < self.config.p_uncond
            )
            condition = self._hidden(condition, hidden)
        if self.config.draws > 1:
            condition = Condition.stack([condition] * self.config.draws)
        return self.config.objective.loss(
            lambda x, t: self.backbone(x, t, condition),
            batch.actions.repeat(self.config.draws, 1, 1),
            generator=generator,
            valid=batch.valid.repeat(self.config.draws, 1),
            # Validation neither learns from what it sees nor depends on what training saw.
            memory=self.memory if self.training else None,
        )

    def _hidden(self, condition: Condition, where: Tensor) -> Condition:
        """Return `condition` with the learned null, and no tokens, `where` [B, 1]."""
        assert self.null is not None
        vector = torch.where(where, self.null.to(condition.vector.dtype), condition.vector)
        if condition.tokens is None:
            return Condition(vector)
        seen = ~where.expand(-1, condition.tokens.shape[1])
        return Condition(vector, condition.tokens, seen if condition.mask is None else seen & condition.mask)

    def denoiser(self, condition: Condition, committed: Tensor | None = None) -> Denoiser:
        """Return the denoiser of chunks under `condition`: guided, clipped, then pinned to what is committed.

        `committed` is in the policy's action space, not normalised.
        """
        denoise, bound = self._guided(condition), self.config.sampling.clip
        for cost, scale in self.slopes:
            denoise = descend(denoise, cost, path=self.config.objective.path, scale=scale)
        if bound is not None:
            denoise = clip(denoise, -bound, bound)
        if committed is not None:
            denoise = pin(denoise, *_known(self.backbone, committed))
        return denoise

    def _guided(self, condition: Condition) -> Denoiser:
        """Return the denoiser under `condition`, guided away from the learned null where the sampling asks for it."""
        objective, sampling = self.config.objective, self.config.sampling

        def under(told: Condition) -> Denoiser:
            return objective.denoiser(lambda x, t: self.backbone(x, t, told))

        rows = torch.ones(len(condition.vector), dtype=torch.bool, device=condition.vector.device)
        if sampling.guided:
            weights = [told.weight for told in sampling.guided]
            blocks = self._told_apart(condition, [told.modality for told in sampling.guided], rows)
        elif sampling.guidance:
            weights = [sampling.guidance]
            blocks = [self._hidden(condition, ~rows[:, None]), self._hidden(condition, rows[:, None])]
        else:
            return under(condition)
        return cfg(
            under(Condition.stack(blocks)),
            weights,
            alone=lambda k: under(blocks[k]),
            interval=sampling.guidance_interval,
            rescale=sampling.guidance_rescale,
        )

    def _told_apart(self, condition: Condition, names: list[str], rows: Tensor) -> list[Condition]:
        """Return `condition` with only one of the modalities `names`, for each; then with none of them."""
        hide = self.backbone.encoder.hide
        alone = [hide(condition, {other: rows for other in names if other != name}) for name in names]
        return [*alone, hide(condition, dict.fromkeys(names, rows))]

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
        """Return a sampled chunk [B, H, A] in robot units; see `Policy.plan`."""
        watch = watch or Stopwatch()
        sampling, objective = self.config.sampling, self.config.objective
        with watch("encode"):
            condition = self.backbone.condition(history)
            known = None if committed is None else self.spec.learnt(committed, history)
        with watch("denoise"):
            chunk = sample(
                self.denoiser(condition, known),
                objective.path,
                self.backbone.chunk_like(condition),
                sampler=sampling.sampler,
                grid=sampling.grid,
                nfe=sampling.nfe,
                start=objective.span[1],
                generator=generator,
                on_step=on_step,
            )
        with watch("decode"):
            return self.spec.commanded(self.backbone.robot_actions(chunk), history)


def _known(backbone: Backbone, committed: Tensor) -> tuple[Tensor, Tensor]:
    """Return (value, mask) [B, H, A] of the committed actions [B, K, A], in normalised units."""
    backbone.spec.check_committed(committed, dim=backbone.schema.action_dim)
    horizon = backbone.spec.horizon
    missing = horizon - committed.shape[1]
    value = nn.functional.pad(backbone.normalised_actions(committed), (0, 0, 0, missing))
    mask = torch.arange(horizon, device=committed.device) < committed.shape[1]
    return value, mask.reshape(1, -1, 1)
