"""Paths: the forward process `x_t = alpha(t) x0 + sigma(t) eps`, from data (t = 0) to noise (t = 1)."""

import math
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import PathError
from ..shapes import broadcast
from .schedules import (
    cosine_betas,
    f64,
    linear_betas,
    scaled_linear_betas,
    sigmoid_betas,
    sigmoid_raw_betas,
    step_count,
    zero_terminal_snr,
)

HALF_PI = math.pi / 2

N = TypeVar("N", float, Tensor)
"""A number, or a tensor of them."""


class TerminalSNRWarning(UserWarning):
    """The path leaves signal at t = 1, so that sampling starts from noise that the network never saw."""


class Path(ABC):
    """A forward process. Members give `alpha` and `sigma`, exact at both ends; everything else is derived."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Return the signal scale at `t`, elementwise; alpha(0) = 1."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise scale at `t`, elementwise; sigma(0) = 0."""

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha(t) and sigma(t); one look-up on a path that has to look them up."""
        return self.alpha(t), self.sigma(t)

    def scales_at(self, t: float) -> tuple[float, float]:
        """Return alpha and sigma at one time, as numbers: what a sampler asks for at every new time."""
        alpha, sigma = self.scales(torch.tensor(t, dtype=torch.float64))
        return float(alpha), float(sigma)

    def variance(self, t: Tensor) -> Tensor:
        """Return sigma(t)^2."""
        return self.sigma(t) ** 2

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return d alpha/dt and d sigma/dt (the latter is infinite at t = 0 where sigma ~ sqrt(t))."""
        t = t.contiguous()  # forward-mode differentiation rejects an expanded tensor
        one = torch.ones_like(t)
        return torch.func.jvp(self.alpha, (t,), (one,))[1], torch.func.jvp(self.sigma, (t,), (one,))[1]

    def half_log_snr(self, t: Tensor) -> Tensor:
        """Return lambda = log(alpha / sigma): +inf at data, -inf where no signal is left."""
        alpha, sigma = self.scales(t)
        return alpha.log() - sigma.log()

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        """Return the time with this half-log-SNR, by bisection in float64; clamps to [0, 1]."""
        target = half_log_snr.to(torch.float64)
        low, high = torch.zeros_like(target), torch.ones_like(target)
        for _ in range(60):
            middle = (low + high) / 2
            noisier = self.half_log_snr(middle) < target
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        # Whatever lies beyond an end has left the other bound untouched there: both ends are exact.
        return torch.where(high < 1, low, high)

    def noised(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Return `x_t = alpha(t) x0 + sigma(t) eps`; `t` is [], [B] or [B, H]."""
        alpha, sigma = self.scales(broadcast(t, x0))
        return alpha * x0 + sigma * eps

    def drift(self, t: Tensor) -> Tensor:
        """Return f(t) = d log alpha / dt of the SDE `dx = f x dt + g dw`."""
        return self.rates(t)[0] / self.alpha(t)

    def variance_rate(self, t: Tensor) -> Tensor:
        """Return d sigma^2/dt, finite at t = 0 too."""
        t = t.contiguous()
        return torch.func.jvp(self.variance, (t,), (torch.ones_like(t),))[1]

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """Return g(t)^2 = d sigma^2/dt - 2 f sigma^2 of the SDE `dx = f x dt + g dw`; finite at t = 0."""
        return self.variance_rate(t) - 2 * self.drift(t) * self.variance(t)

    def snap(self, t: Tensor) -> Tensor:
        """Return the times at which a network is trained (discrete paths round up to a step)."""
        return t

    def nearest(self, t: Tensor) -> Tensor:
        """Return the nearest times at which a network is trained: where samplers call it."""
        return t

    def ends(self) -> tuple[float, float]:
        """Return alpha(1) and sigma(1)."""
        return self.scales_at(1.0)


@dataclass(frozen=True)
class Straight(Path):
    """Linear interpolation, `alpha = 1 - t`, `sigma = t`.

    **Source:** flow matching (Lipman et al. 2023, Eq. 20 with sigma_min = 0); rectified flow (Liu et al. 2023, Eq. 1).
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Return 1 - t."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return -1 and 1."""
        return -torch.ones_like(t), torch.ones_like(t)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        """Return 1 / (1 + exp(lambda))."""
        return torch.sigmoid(-half_log_snr.to(torch.float64))


@dataclass(frozen=True)
class Cosine(Path):
    """Variance-preserving quarter circle, `alpha = cos(t pi/2)`, `sigma = sin(t pi/2)`.

    **Source:** Nichol & Dhariwal 2021, Eq. 17, with offset s = 0; Salimans & Ho 2022, section 3.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Return cos(t pi/2), written so that it is exactly 0 at t = 1."""
        return torch.sin((1 - t) * HALF_PI)

    def sigma(self, t: Tensor) -> Tensor:
        """Return sin(t pi/2)."""
        return torch.sin(t * HALF_PI)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        """Return arctan(exp(-lambda)) 2/pi."""
        return torch.atan((-half_log_snr.to(torch.float64)).exp()) / HALF_PI


@dataclass(frozen=True)
class LinearVP(Path):
    """Variance-preserving SDE with linear beta(t): `log alpha = -(beta_min t + (beta_max - beta_min) t^2/2) / 2`.

    **Source:** Song et al. 2021, Eq. 32-33.
    """

    beta_min: float = 0.1
    """beta(0)"""
    beta_max: float = 20.0
    """beta(1)"""

    def __post_init__(self) -> None:
        """Reject rates that do not grow."""
        if not 0 < self.beta_min <= self.beta_max:
            raise PathError(f"expected 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}")

    def log_alpha(self, t: Tensor) -> Tensor:
        """Return log alpha(t)."""
        return -0.5 * (self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t)

    def alpha(self, t: Tensor) -> Tensor:
        """Return exp(log_alpha(t))."""
        return self.log_alpha(t).exp()

    def lost_power(self, t: Tensor) -> Tensor:
        """Return 1 - alpha^2, without cancellation near t = 0."""
        return -torch.expm1(2 * self.log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        """Return sqrt(1 - alpha^2)."""
        return self.lost_power(t).sqrt()

    def variance(self, t: Tensor) -> Tensor:
        """Return 1 - alpha^2."""
        return self.lost_power(t)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        """Return the time with this half-log-SNR: the root of a quadratic; clamps to [0, 1]."""
        return self._time_of(nn.functional.softplus(-2 * half_log_snr.to(torch.float64), threshold=700))

    def _time_of(self, lost: Tensor) -> Tensor:
        """Return the time at which -2 log alpha = `lost`."""
        growth = self.beta_max - self.beta_min
        lost = lost.clamp(max=(self.beta_min + self.beta_max) / 2)
        return (2 * lost / (self.beta_min + (self.beta_min**2 + 2 * growth * lost).sqrt())).clamp(max=1)


@dataclass(frozen=True)
class SubVP(LinearVP):
    """Sub-variance-preserving SDE: alpha of `LinearVP`, `sigma = 1 - alpha^2`.

    **Source:** Song et al. 2021, Eq. 29.
    """

    def sigma(self, t: Tensor) -> Tensor:
        """Return 1 - alpha^2."""
        return self.lost_power(t)

    def variance(self, t: Tensor) -> Tensor:
        """Return (1 - alpha^2)^2."""
        return self.sigma(t) ** 2

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        """Return the time with this half-log-SNR, from alpha^2 + exp(-lambda) alpha = 1; clamps to [0, 1]."""
        ratio = (-half_log_snr.to(torch.float64)).exp().clamp(max=1e150)
        # 1 / alpha = (ratio + sqrt(ratio^2 + 4)) / 2, as one plus a small number.
        excess = (ratio + ratio**2 / (2 + (ratio**2 + 4).sqrt())) / 2
        return self._time_of(2 * excess.log1p())


@dataclass(frozen=True)
class VE(Path):
    """Variance-exploding SDE: `alpha = 1`, `sigma^2 ~ (sigma_max/sigma_min)^(2t) - 1`, scaled to sigma(1) = sigma_max.

    Geometric in t above sigma_min; the subtracted one makes t = 0 exactly data.

    **Source:** Song et al. 2021, Eq. 30-31.
    """

    sigma_min: float = 0.01
    """Noise scale below which sigma(t) falls linearly to zero; in units of the normalised data."""
    sigma_max: float = 80.0
    """sigma(1)"""

    def __post_init__(self) -> None:
        """Reject scales that do not grow."""
        if not 0 < self.sigma_min < self.sigma_max:
            raise PathError(f"expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    def alpha(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise scale, without cancellation near t = 0."""
        return self.variance(t).sqrt()

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        """Return the time with sigma = exp(-lambda); clamps to [0, 1]."""
        growth = 2 * math.log(self.sigma_max / self.sigma_min)
        power = (-2 * half_log_snr.to(torch.float64)).exp().clamp(max=self.sigma_max**2) / self.sigma_max**2
        return ((power * math.expm1(growth)).log1p() / growth).clamp(max=1)

    def variance(self, t: Tensor) -> Tensor:
        """Return sigma(t)^2, differentiable at t = 0 too."""
        growth = 2 * math.log(self.sigma_max / self.sigma_min)
        return self.sigma_max**2 * torch.expm1(growth * t) / math.expm1(growth)


@dataclass(frozen=True)
class EDMPath(Path):
    """EDM's process: `alpha = 1`, `sigma = sigma_max t`; made for log-normal training times and the Karras grid.

    **Source:** Karras et al. 2022, table 1, with time in units of sigma_max.
    """

    KIND: ClassVar = "edm"

    sigma_max: float = 80.0
    """sigma(1), in units of the normalised data."""

    def __post_init__(self) -> None:
        """Reject a scale that is not positive."""
        if not self.sigma_max > 0:
            raise PathError(f"expected sigma_max > 0, got {self.sigma_max}")

    def alpha(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_max t."""
        return self.sigma_max * t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return 0 and sigma_max."""
        return torch.zeros_like(t), torch.full_like(t, self.sigma_max)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        """Return exp(-lambda) / sigma_max; clamps to 1."""
        return ((-half_log_snr.to(torch.float64)).exp() / self.sigma_max).clamp(max=1)


@dataclass(frozen=True)
class Table(Path):
    """A discrete variance-preserving process of T steps; step k = 0 .. T lies at t = k / T, k = 0 is data.

    `betas[k - 1]` is the variance added by step k: tables are 0-based, formulas 1-based. Between steps alpha is linear
    in t and `sigma^2 = 1 - alpha^2`, so that derivatives and integrators have a path. That only clocks the process:
    what happens between two steps is the same as a function of half-log-SNR, whatever joins them.
    """

    betas: tuple[float, ...] = field(default_factory=lambda: linear_betas(100))
    """Variance added by each step, in (0, 1), the last at most 1; by default linear, for 100 steps."""
    steps: int = field(init=False, repr=False, compare=False)
    """T, the number of steps."""

    def __post_init__(self) -> None:
        """Reject betas outside (0, 1); a last one of exactly 1 leaves no signal and is a zero terminal SNR."""
        object.__setattr__(self, "steps", step_count(len(self.betas)))
        bad = [b for b in self.betas[:-1] if not 0 < b < 1] + [b for b in self.betas[-1:] if not 0 < b <= 1]
        if bad:
            raise PathError(f"expected betas in (0, 1), got {bad[0]}: rescale the schedule to {self.steps} steps")

    @cached_property
    def alpha_bar(self) -> Float[Tensor, "steps"]:
        """Cumulative signal power at k = 0 .. T, float64."""
        kept = 1 - f64(self.betas)
        return torch.cat([torch.ones(1, dtype=torch.float64), kept.cumprod(0)])

    @cached_property
    def _nodes(self) -> Float[Tensor, "steps 4"]:
        """Return alpha, 1 - alpha and the fall of alpha towards the data and towards the noise, at k = 0 .. T."""
        power = self.alpha_bar
        alpha = power.sqrt()
        # Near the data summed rather than 1 - power, which has no digits left there.
        spent = torch.cat([torch.zeros(1, dtype=torch.float64), (power[:-1] * f64(self.betas)).cumsum(0)])
        lost = torch.where(power > 0.5, spent, 1 - power) / (1 + alpha)
        fall = lost.diff()
        # Beyond an end there is nothing: the derivative there is that of the segment inside.
        return torch.stack([alpha, lost, torch.cat([fall[:1], fall]), torch.cat([fall, fall[-1:]])], dim=1)

    def _between(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and 1 - alpha in float64, from the nearest step, without cancellation at either end."""
        position = (t.to(torch.float64) * self.steps).clamp(0, self.steps)
        k = position.detach().round()
        node = self._nodes.to(t.device)[k.long()].unbind(-1)
        return _from_step(position, position.detach() - k, k, node, torch.finfo(t.dtype).eps)

    def alpha(self, t: Tensor) -> Tensor:
        """Return sqrt(abar) at the steps, linear in t between them."""
        return self._between(t)[0].to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        """Return sqrt(1 - alpha^2)."""
        return self.scales(t)[1]

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha(t) and sigma(t) by one look-up."""
        alpha, lost = self._between(t)
        return alpha.to(t.dtype), (lost * (1 + alpha)).sqrt().to(t.dtype)

    def scales_at(self, t: float) -> tuple[float, float]:
        """Return alpha and sigma at one time, as numbers and by numbers: tensors take some thirty times as long."""
        position = min(max(t * self.steps, 0.0), float(self.steps))
        k = round(position)
        alpha, lost = _from_step(position, position - k, float(k), self._numbers[k], sys.float_info.epsilon)
        return alpha, math.sqrt(lost * (1 + alpha))

    @cached_property
    def _numbers(self) -> list[list[float]]:
        return self._nodes.tolist()

    def variance(self, t: Tensor) -> Tensor:
        """Return 1 - alpha^2, differentiable at t = 0 too."""
        alpha, lost = self._between(t)
        return (lost * (1 + alpha)).to(t.dtype)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        """Return the time with this half-log-SNR, exact between the steps; clamps to [0, 1]."""
        wanted = half_log_snr.to(torch.float64)
        log_alpha = nn.functional.logsigmoid(2 * wanted) / 2
        alpha, lost = log_alpha.exp(), -log_alpha.expm1()
        nodes = self._nodes.to(wanted.device)
        k = torch.searchsorted(self._lost.to(wanted.device), lost).clamp(1, self.steps) - 1
        alpha_k, lost_k, _, fall = nodes[k].unbind(-1)
        # From alpha where little signal is left, from 1 - alpha elsewhere: neither cancels.
        spent = torch.where(wanted < 0, alpha_k - alpha, lost - lost_k)
        t = (k + (spent / fall).clamp(0, 1)) / self.steps
        return torch.where(alpha > nodes[-1, 0], t, 1.0)

    @cached_property
    def _lost(self) -> Float[Tensor, "steps"]:
        """Return 1 - alpha at k = 0 .. T, side by side for the search."""
        return self._nodes[:, 1].contiguous()

    def snap(self, t: Tensor) -> Tensor:
        """Return t rounded up to a step, at least step 1 (step 0 has no noise to learn from)."""
        return (t * self.steps - 1e-6).ceil().clamp(1, self.steps) / self.steps

    def nearest(self, t: Tensor) -> Tensor:
        """Return t rounded to the nearest step, at least step 1."""
        return (t * self.steps).round().clamp(1, self.steps) / self.steps


def _from_step(position: N, off: N, k: N, node: Sequence[N], eps: float) -> tuple[N, N]:
    """Return alpha and 1 - alpha at `position`, `off` its nearest step k; of tensors or of numbers."""
    alpha, lost, before, after = node
    # A step's own time in the type of t is the step, to the last bit: its rounding is taken out of the distance.
    distance = position - k - (off <= eps * k) * (off >= -eps * k) * off
    # At a step itself the derivative is that of the step's own segment, the one towards the data.
    change = distance * ((distance <= 0) * before + (distance > 0) * after)
    return alpha - change, lost + change


@dataclass(frozen=True)
class Schedule(Table):
    """A table by the name of its schedule."""

    betas: tuple[float, ...] = field(init=False, repr=False, compare=False)
    """Variance added by each step, in (0, 1), the last at most 1."""
    steps: int = 1000
    """T, the number of steps."""
    name: Literal["linear", "cosine", "sigmoid", "scaled_linear", "sigmoid_raw"] = "linear"
    """Schedule of the betas; sigmoid_raw, which spends most of its steps on pure noise, is there for comparison."""
    zero_terminal: bool = False
    """Rescale the schedule so that no signal is left at t = 1; needs target=v, velocity or clean."""

    def __post_init__(self) -> None:
        """Make the betas; reject a number of steps out of range."""
        betas = SCHEDULES[self.name](self.steps)
        object.__setattr__(self, "betas", zero_terminal_snr(betas) if self.zero_terminal else betas)
        super().__post_init__()


SCHEDULES: dict[str, Callable[[int], tuple[float, ...]]] = {
    "linear": linear_betas,
    "cosine": cosine_betas,
    "sigmoid": sigmoid_betas,
    "scaled_linear": scaled_linear_betas,
    "sigmoid_raw": sigmoid_raw_betas,
}
"""Betas of every named schedule, by the number of steps."""

AnyPath = Straight | Cosine | LinearVP | SubVP | VE | EDMPath | Table | Schedule


def terminal_snr(path: Path, *, t: float = 1.0) -> float:
    """Return the signal-to-noise power ratio (alpha / sigma)^2 at `t`, where sampling starts."""
    alpha, sigma = path.scales_at(t)
    return (alpha / sigma) ** 2 if sigma else math.inf


MOST_TERMINAL_SNR = 1e-3
"""Signal-to-noise power ratio at which sampling may start."""


def check_terminal_snr(path: Path, *, t: float = 1.0, limit: float = MOST_TERMINAL_SNR, strict: bool = False) -> None:
    """Warn (`strict`: raise `PathError`) where the signal-to-noise ratio at `t` is above `limit`.

    **Source:** Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed".
    """
    snr = terminal_snr(path, t=t)
    if snr <= limit:
        return
    remedy = (
        "use Cosine, a schedule that adds more noise, or zero_terminal_snr"
        if t == 1
        else "start from a noisier time (grid=trailing, or a span up to 1)"
    )
    message = (
        f"expected a terminal SNR of at most {limit:g}, got {snr:.3g} at t={t:.3g} on {type(path).__name__}: sampling "
        f"would start from noise that the network never saw; {remedy}"
    )
    if strict:
        raise PathError(message)
    warnings.warn(message, TerminalSNRWarning, stacklevel=2)
