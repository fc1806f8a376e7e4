"""Generative models of points, images and latents: a network, its diffusion objective, and the scale of the data."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..diffusion.denoisers import Denoiser, cfg, check_guidance
from ..diffusion.denoisers import clip as clipped
from ..diffusion.grids import Grid, Trailing
from ..diffusion.objective import Diffusion, Losses
from ..diffusion.samplers import DDIM
from ..diffusion.sampling import Sampler, sample
from ..diffusion.tableau import OnStep
from ..diffusion.targets import EDM
from ..errors import ConfigError, ShapeError
from ..nets import AnyModelNet, PointMLPConfig
from ..seeds import Generators
from ..shapes import Noisy
from .scale import Scale


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance, see `diffusion.denoisers.cfg`."""

    w: float | tuple[float, ...] = 0.0
    """Weight: -1 unconditional, 0 conditional, more is sharper; or a weight for each of several labels."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Times between which it acts."""
    rescale: float = 0.0
    """Share of the result that is scaled back to the conditional's standard deviation."""

    def __post_init__(self) -> None:
        """Reject what no guidance can be, also where the weight is 0 and nothing would ask."""
        check_guidance(self.w, interval=self.interval, rescale=self.rescale)

    def weights(self, labels: int) -> tuple[float, ...]:
        """Return a weight for each of `labels` at a time: a number serves all; `ConfigError` where counts differ."""
        found = self.w if isinstance(self.w, tuple) else (self.w,) * labels
        if len(found) != labels:
            raise ConfigError(
                f"expected one guidance weight a label ({labels}), or one for all, got {len(found)}: {found}"
            )
        return found


Weights = float | Sequence[float] | Guidance
"""Guidance by its weight, by a weight for each of several labels, or whole."""


@dataclass(frozen=True)
class ModelConfig:
    """A generative model."""

    shape: tuple[int, ...]
    """Of one sample: (D,) for points, (channels, height, width) for images."""
    net: AnyModelNet = field(default_factory=PointMLPConfig)
    """Network."""
    objective: Diffusion = field(default_factory=Diffusion)
    """Path, target, training times and weight."""
    classes: int = 0
    """Number of classes that samples are labelled with; 0 for none."""
    p_uncond: float = 0.1
    """Probability that training hides a label behind the learned null; guidance needs it above 0."""

    def __post_init__(self) -> None:
        """Reject empty shapes, and probabilities outside [0, 1)."""
        if not self.shape or min(self.shape) < 1 or math.prod(self.shape) > 10**7:
            raise ConfigError(f"expected a shape of positive sizes, got {self.shape}")
        if not 0 <= self.classes <= 100_000:
            raise ConfigError(f"expected classes in [0, 100000], got {self.classes}")
        if not 0 <= self.p_uncond < 1:
            raise ConfigError(f"expected p_uncond in [0, 1), got {self.p_uncond}")
        target = self.objective.target
        if isinstance(target, EDM) and target.data_std != 1.0:
            raise ConfigError(
                f"expected EDM(data_std=1.0), got {target.data_std:g}: a model normalises its data to that"
            )

    def build(self) -> "Model":
        """Return the model with fresh weights (from the global generator)."""
        return Model(self)


class Model(nn.Module):
    """Noise to samples, under a label where the data has labels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.net = config.net.build(shape=config.shape, classes=config.classes)
        self.scale = Scale(config.shape)
        memory = config.objective.times.memory()
        # Sampling does not need what the law of times has learnt.
        self.memory = None if memory is None else nn.Buffer(memory, persistent=False)

    def fit_scale(self, x: Noisy) -> None:
        """Store the mean of each coordinate (or channel) of `x` [n, *shape] and one standard deviation of all."""
        self._check(x)
        self.scale.fit(x)

    def normalised(self, x: Noisy) -> Noisy:
        """Return `x` (raw units) with mean 0 and standard deviation 1."""
        return self.scale.normalised(x)

    def raw(self, y: Noisy) -> Noisy:
        """Return `y` (normalised) in the units of the data."""
        return self.scale.raw(y)

    def loss(self, x: Noisy, labels: Int[Tensor, "B"] | None = None, *, generator: torch.Generator) -> Losses:
        """Return the diffusion loss a sample of `x` [B, *shape] in raw units; labels are hidden with `p_uncond`."""
        self._check(x)
        told = self._labels(labels, len(x))
        if self.config.classes and self.config.p_uncond:
            hidden = torch.rand(len(x), generator=generator, device=generator.device) < self.config.p_uncond
            told = torch.where(hidden, self.config.classes, told)
        return self.config.objective.loss(
            lambda x_t, t: self.net(x_t, t, told),
            self.normalised(x),
            generator=generator,
            # Measuring a loss must not change what the next one is.
            memory=self.memory if self.training else None,
        )

    def denoiser(self, labels: Int[Tensor, "*K B"] | None = None, *, w: Weights = 0.0) -> Denoiser:
        """Return the denoiser of normalised samples under `labels`, guided where the weight `w` is not 0.

        Labels [K, B] give each sample K labels at once, each with its weight, in one batched call a step, see `cfg`.
        Without labels it is unconditional: every label is the null. Raises `ConfigError` where guidance or the null
        was not trained, and where there are other numbers of labels and weights.
        """
        guidance = w if isinstance(w, Guidance) else Guidance(tuple(w) if isinstance(w, Sequence) else w)
        told = [] if labels is None else list(labels.reshape(-1, labels.shape[-1]))
        weights = guidance.weights(max(1, len(told)))
        guided = len(told) > 1 or any(weights)
        if guided or not told:
            self._check_null(guided=guided)
        if not guided:
            return self._bound(lambda n: self._labels(told[0] if told else None, n))
        if not told:
            raise ConfigError(f"expected labels to guide towards, got none with a guidance weight of {guidance.w}")
        blocks = [*(self._labels(k, len(k)) for k in told), self._labels(None, len(told[0]))]
        stacked = torch.cat(blocks)
        return cfg(
            self._bound(lambda _: stacked),
            weights,
            alone=lambda k: self._bound(lambda _: blocks[k]),
            interval=guidance.interval,
            rescale=guidance.rescale,
        )

    @torch.no_grad()
    def sample(  # noqa: PLR0913 - every choice of a sample, by name
        self,
        n: int,
        *,
        sampler: Sampler | None = None,
        grid: Grid | None = None,
        nfe: int = 20,
        labels: Int[Tensor, "*K n"] | None = None,
        w: Weights = 0.0,
        clip: float | None = None,
        guide: Callable[[Denoiser], Denoiser] | None = None,
        generator: Generators | None = None,
        on_step: OnStep | None = None,
    ) -> Noisy:
        """Return `n` samples [n, *shape] in raw units, by DDIM on a trailing grid unless told otherwise.

        `labels` are one a sample, or K [K, n], and `w` is the weight of guidance, or K weights; see `denoiser`.
        `clip` bounds |x0_hat|, and `guide` is any further guidance, applied last; both see normalised samples, as does
        `on_step`.
        """
        objective = self.config.objective
        if labels is not None and labels.shape[-1] != n:
            raise ShapeError(f"expected one label a sample ({n}), got {tuple(labels.shape)}")
        denoise = self.denoiser(labels, w=w)
        if clip is not None:
            denoise = clipped(denoise, -clip, clip)
        if guide is not None:
            denoise = guide(denoise)
        x = sample(
            denoise,
            objective.path,
            self.scale.mean.new_empty(n, *self.config.shape),
            sampler=sampler or DDIM(),
            grid=grid or Trailing(),
            nfe=nfe,
            start=objective.span[1],
            generator=generator,
            on_step=on_step,
        )
        return self.raw(x)

    def _bound(self, told: Callable[[int], Tensor]) -> Denoiser:
        return self.config.objective.denoiser(lambda x_t, t: self.net(x_t, t, told(len(x_t))))

    def _labels(self, labels: Int[Tensor, "B"] | None, n: int) -> Int[Tensor, "B"]:
        """Return `labels`, checked; without any the null for all `n`."""
        if labels is None:
            return torch.full((n,), self.config.classes, device=self.scale.mean.device)
        if labels.shape != (n,):
            raise ShapeError(f"expected one label a sample ({n}), got {tuple(labels.shape)}")
        low, high = (int(labels.min()), int(labels.max())) if n else (0, 0)
        if low < 0 or high >= self.config.classes:
            raise ConfigError(f"expected labels below {self.config.classes} classes, got {low} to {high}")
        return labels

    def _check(self, x: Tensor) -> None:
        if x.shape[1:] != self.config.shape:
            raise ShapeError(f"expected samples of shape {self.config.shape}, got {tuple(x.shape[1:])}")

    def _check_null(self, *, guided: bool) -> None:
        config = self.config
        if guided and not config.classes:
            raise ConfigError(
                "expected a model of labelled data to guide, got one without classes: leave guidance at 0"
            )
        if config.classes and not config.p_uncond:
            raise ConfigError(
                "expected a model that was trained with its labels hidden now and then, got p_uncond=0: "
                "train with p_uncond=0.1, or give labels and leave guidance at 0"
            )
