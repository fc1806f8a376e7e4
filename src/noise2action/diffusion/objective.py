"""The diffusion objective: how a network is trained on a path, and the denoiser that it then is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import PathError, ShapeError
from ..seeds import randn_like
from ..shapes import Noisy, Valid, broadcast
from .denoisers import Denoiser
from .paths import AnyPath, Cosine, Path, check_terminal_snr
from .targets import AnyTarget, Target, V
from .times import AnyTimeLaw, LossSecondMoment, Stratified

MOST_TIMES = 10_000
"""Times whose coefficients a denoiser keeps."""

Net = Callable[[Tensor, Tensor], Tensor]
"""(scaled x_t, t) -> y, the target; the condition is already bound."""


class Weight(ABC):
    """A weight on the squared error of x0_hat, as a function of time."""

    @abstractmethod
    def on_target(self, path: Path, target: Target, t: Tensor) -> Tensor:
        """Return the factor on the target's squared error, which is (sigma / det)^2 times the weight on x0_hat's."""

    def check(self, path: Path, target: Target, *, start: float, end: float) -> None:
        """Raise `PathError` unless the factor is finite wherever the span is trained."""
        ends = path.snap(torch.tensor([start, end], dtype=torch.float64))
        if not bool(self.on_target(path, target, ends).isfinite().all()):
            raise PathError(
                f"expected a finite {type(self).__name__} weight on the span, got {(end, start)} with "
                f"{type(target).__name__} target on {type(path).__name__}: use a span from t>0, such as "
                f"(0.001, {start:g}), or another weight"
            )


@dataclass(frozen=True)
class Uniform(Weight):
    """The target's own mean squared error ("simple" loss). **Source:** Ho et al. 2020, Eq. 14."""

    def on_target(self, path: Path, target: Target, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class SNR(Weight):
    """alpha^2 / sigma^2 on x0_hat: the noise estimate's squared error, whatever the target."""

    def on_target(self, path: Path, target: Target, t: Tensor) -> Tensor:
        """Return (alpha / det)^2: infinite at sigma = 0 for the target `Clean` only."""
        return (path.alpha(t) / target.determinant(path, t)) ** 2


@dataclass(frozen=True)
class MinSNR(Weight):
    """min(SNR, gamma) on x0_hat. **Source:** Hang et al. 2023, Eq. 8."""

    gamma: float = 5.0
    """Largest weight."""

    def __post_init__(self) -> None:
        """Reject a weight that is not positive."""
        if not self.gamma > 0:
            raise PathError(f"expected gamma > 0, got {self.gamma}")

    def on_target(self, path: Path, target: Target, t: Tensor) -> Tensor:
        """Return min(alpha^2, gamma sigma^2) / det^2."""
        capped = torch.minimum(path.alpha(t) ** 2, self.gamma * path.sigma(t) ** 2)
        # 0 / 0 is the target `Clean` at sigma = 0: its weight is the cap.
        return (capped / target.determinant(path, t) ** 2).nan_to_num(nan=self.gamma)


@dataclass(frozen=True)
class Likelihood(Weight):
    """g(t)^2 on the squared error of the score: the loss is then a bound on the data's log-likelihood.

    With uniform times over a span of length T, `T D / 2` times the mean loss is, up to a constant of the data, the
    bound in nats for D dimensions. Infinite at t = 0 where sigma = 0: needs a span from t > 0, but on a table.

    **Source:** Song et al. 2021b ("Maximum likelihood training of score-based diffusion models"), theorem 1.
    """

    def on_target(self, path: Path, target: Target, t: Tensor) -> Tensor:
        """Return (g alpha / (sigma det))^2, written so that alpha = 0 is no division by zero."""
        alpha, variance = path.alpha(t), path.variance(t)
        # alpha^2 g^2, from g^2 = d sigma^2/dt - 2 sigma^2 d log alpha/dt.
        power = alpha * (alpha * path.variance_rate(t) - 2 * path.rates(t)[0] * variance)
        return power / (variance * target.determinant(path, t) ** 2)


AnyWeight = Uniform | SNR | MinSNR | Likelihood


@dataclass(frozen=True, eq=False)
class Losses:
    """A loss a sample, divided by the density of times that a law has learnt; and the times they were drawn at."""

    value: Float[Tensor, "B"]
    t: Float[Tensor, "B"]
    importance: Float[Tensor, "B"] | None = None
    """What `value` was divided by, where the times were drawn by importance."""

    @property
    def at_time(self) -> Float[Tensor, "B"]:
        """The loss of a sample at its time, however often that time is drawn."""
        return self.value if self.importance is None else self.value * self.importance


@dataclass(frozen=True)
class Diffusion:
    """Path, target, law of training times and weight: together a training loss, and a denoiser from the trained net."""

    path: AnyPath = field(default_factory=Cosine)
    """Forward process from data to noise."""
    target: AnyTarget = field(default_factory=V)
    """What the network predicts."""
    times: AnyTimeLaw = field(default_factory=Stratified)
    """How training times are drawn."""
    weight: AnyWeight = field(default_factory=Uniform)
    """Weight of the loss over time."""
    span: tuple[float, float] = (0.0, 1.0)
    """Smallest and largest time; sampling starts from the largest."""
    strict: bool = False
    """Raise, instead of warn, where signal is left at the noise end."""

    def __post_init__(self) -> None:
        """Reject a target that is singular on the span; warn about a high terminal SNR."""
        end, start = self.span
        if not 0 <= end < start <= 1:
            raise PathError(f"expected a span 0 <= low < high <= 1, got {self.span}")
        self.target.check(self.path, start=start, end=end)
        self.weight.check(self.path, self.target, start=start, end=end)
        check_terminal_snr(self.path, t=start, strict=self.strict)

    def draw_times(self, n: int, generator: torch.Generator) -> Float[Tensor, "n"]:
        """Return `n` training times inside the span, float64."""
        return self._in_span(self.times.draw(n, path=self.path, generator=generator))

    def _in_span(self, t: Tensor) -> Tensor:
        end, start = self.span
        return self.path.snap(end + (start - end) * t)

    def loss(
        self,
        net: Net,
        x0: Noisy,
        *,
        generator: torch.Generator,
        valid: Valid | None = None,
        memory: Tensor | None = None,
    ) -> Losses:
        """Return the weighted squared error of the target, a sample; entries where `valid` is False are ignored.

        `memory`, from `times.memory()`, is what a learning law of times draws from, and is changed in place.
        """
        if memory is None or not isinstance(self.times, LossSecondMoment):
            return self._loss(net, x0, self.draw_times(len(x0), generator), generator=generator, valid=valid)
        place, density = self.times.draw_learnt(len(x0), path=self.path, memory=memory, generator=generator)
        losses = self._loss(net, x0, self._in_span(place), generator=generator, valid=valid)
        self.times.remember(memory, place, losses.value)
        density = density.to(losses.value.dtype)
        return Losses(losses.value / density, losses.t, density)

    def _loss(
        self, net: Net, x0: Noisy, t: Float[Tensor, "B"], *, generator: torch.Generator, valid: Valid | None
    ) -> Losses:
        if valid is not None:
            x0 = without_padding(x0, valid)
        eps = randn_like(x0, generator)
        time = t.to(x0.dtype)
        # Scales in float64, cast once: float32 would lose the small ends of the path.
        column = broadcast(t, x0)
        scales = self.path.scales(column)
        factors = (*scales, self.target.input_scale_at(scales), *self.target.row_at(self.path, column, scales))
        alpha, sigma, scale, p, q = (f.to(x0.dtype) for f in factors)
        y = net((alpha * x0 + sigma * eps) * scale, time)
        if y.shape != x0.shape:
            raise ShapeError(f"expected a network that returns {tuple(x0.shape)}, got {tuple(y.shape)}")
        error = (y.to(x0.dtype) - (p * x0 + q * eps)) ** 2
        weight = self.weight.on_target(self.path, self.target, t).to(x0.dtype)
        return Losses(weight * masked_mean(error, valid), time)

    @cached_property
    def _coefficients(self) -> dict[float, tuple[float, float, float]]:
        """What `denoiser` multiplies with, by time: filled as sampling asks, kept for the next plan."""
        return {}

    def denoiser(self, net: Net) -> Denoiser:
        """Return the denoiser x0_hat(x_t, t) of a trained network; scalar times are looked up, not recomputed."""
        table = self._coefficients

        def at(time: float) -> tuple[float, float, float]:
            t, *scales = torch.tensor([time, *self.path.scales_at(time)], dtype=torch.float64).unbind()
            scale, from_x, from_y = self.target.coefficients(self.path, t, (scales[0], scales[1]))
            return float(scale), float(from_x), float(from_y)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            if t.ndim == 0:
                key = float(t)
                if key not in table:
                    if len(table) >= MOST_TIMES:  # an adaptive solver never asks for the same time twice
                        table.clear()
                    table[key] = at(key)
                scale, from_x, from_y = table[key]
                y = net(x_t if scale == 1.0 else x_t * scale, t)
                return torch.add(x_t * from_x, y, alpha=from_y) if from_x else y * from_y
            column = broadcast(t.to(torch.float64), x_t)
            coefficients = self.target.coefficients(self.path, column, self.path.scales(column))
            scale, from_x, from_y = (c.to(x_t.dtype) for c in coefficients)
            return from_x * x_t + from_y * net(x_t * scale, t)

        return denoise


def without_padding(x0: Noisy, valid: Valid) -> Noisy:
    """Return `x0` with zeros where `valid` is False: what padding holds reaches neither network nor gradient."""
    return torch.where(broadcast(valid, x0), x0, 0.0)


def masked_mean(error: Noisy, valid: Valid | None) -> Float[Tensor, "B"]:
    """Return the mean of `error` [B, H, ...] over each sample's valid entries; 0 where it has none."""
    if valid is None:
        return error.flatten(1).mean(1)
    per_step = error.flatten(2).mean(2) if error.ndim > 2 else error
    # `where`, not a product: a NaN in a padded entry must not reach the loss.
    kept = torch.where(valid, per_step, 0.0)
    return kept.sum(1) / valid.sum(1).clamp(min=1)
