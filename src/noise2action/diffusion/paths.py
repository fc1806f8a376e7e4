"""Paths: the forward process `x_t = alpha(t) x0 + sigma(t) eps`, from data (t = 0) to noise (t = 1)."""

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import PathError
from ..shapes import broadcast

HALF_PI = math.pi / 2


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
        return self.alpha(t).log() - self.sigma(t).log()

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
        t = broadcast(t, x0)
        return self.alpha(t) * x0 + self.sigma(t) * eps

    def drift(self, t: Tensor) -> Tensor:
        """Return f(t) = d log alpha / dt of the SDE `dx = f x dt + g dw`."""
        return self.rates(t)[0] / self.alpha(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """Return g(t)^2 = d sigma^2/dt - 2 f sigma^2 of the SDE `dx = f x dt + g dw`; finite at t = 0."""
        t = t.contiguous()
        variance_rate = torch.func.jvp(self.variance, (t,), (torch.ones_like(t),))[1]
        return variance_rate - 2 * self.drift(t) * self.variance(t)

    def snap(self, t: Tensor) -> Tensor:
        """Return the nearest times at which this path is defined and noisy (discrete paths round up)."""
        return t

    def ends(self) -> tuple[float, float]:
        """Return alpha(1) and sigma(1)."""
        one = torch.ones((), dtype=torch.float64)
        return float(self.alpha(one)), float(self.sigma(one))


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

    def variance(self, t: Tensor) -> Tensor:
        """Return sigma(t)^2, differentiable at t = 0 too."""
        growth = 2 * math.log(self.sigma_max / self.sigma_min)
        return self.sigma_max**2 * torch.expm1(growth * t) / math.expm1(growth)


def linear_betas(steps: int, *, beta_min: float = 1e-4, beta_max: float = 0.02) -> tuple[float, ...]:
    """Return betas linear in the step, given for 1000 steps and rescaled by 1000 / steps.

    Without the rescaling 100 steps would leave a third of the signal power.

    **Source:** Ho et al. 2020, section 4.
    """
    scale = 1000 / _steps(steps)
    return _betas(torch.linspace(beta_min * scale, beta_max * scale, steps, dtype=torch.float64))


def scaled_linear_betas(steps: int, *, beta_min: float = 8.5e-4, beta_max: float = 0.012) -> tuple[float, ...]:
    """Return betas whose square root is linear in the step, given for 1000 steps and rescaled.

    **Source:** Rombach et al. 2022, appendix; keeps about 0.5 % of the signal power at t = 1.
    """
    roots = torch.linspace(beta_min**0.5, beta_max**0.5, _steps(steps), dtype=torch.float64)
    return _betas(roots**2 * (1000 / steps))


def cosine_betas(steps: int, *, offset: float = 0.008) -> tuple[float, ...]:
    """Return betas with `abar(k) ~ cos^2(((k/steps + s)/(1 + s)) pi/2)`, clipped at 0.999.

    **Source:** Nichol & Dhariwal 2021, Eq. 17.
    """
    k = torch.arange(_steps(steps) + 1, dtype=torch.float64) / steps
    abar = torch.cos((k + offset) / (1 + offset) * HALF_PI) ** 2
    return _betas(1 - abar[1:] / abar[:-1])


def sigmoid_betas(steps: int, *, beta_min: float = 1e-4, beta_max: float = 0.02) -> tuple[float, ...]:
    """Return `sigmoid(linspace(-6, 6))` scaled into [beta_min, beta_max], given for 1000 steps and rescaled."""
    scale = 1000 / _steps(steps)
    shape = torch.sigmoid(torch.linspace(-6, 6, steps, dtype=torch.float64))
    return _betas((beta_min + shape * (beta_max - beta_min)) * scale)


def _steps(steps: int) -> int:
    if not 1 <= steps <= 100_000:
        raise PathError(f"expected 1 to 100000 steps, got {steps}")
    return steps


def _betas(betas: Tensor) -> tuple[float, ...]:
    return tuple(betas.clamp(max=0.999).tolist())


@dataclass(frozen=True)
class Table(Path):
    """A discrete variance-preserving process of T steps; step k = 0 .. T lies at t = k / T, k = 0 is data.

    `betas[k - 1]` is the variance added by step k: tables are 0-based, formulas 1-based. Between steps the path is
    not defined: times are rounded to the nearest step.
    """

    betas: tuple[float, ...] = field(default_factory=lambda: linear_betas(100))
    """Variance added by each step, in (0, 1); by default linear, for 100 steps."""

    def __post_init__(self) -> None:
        """Reject betas outside (0, 1)."""
        _steps(len(self.betas))
        bad = [b for b in self.betas if not 0 < b < 1]
        if bad:
            raise PathError(f"expected betas in (0, 1), got {bad[0]}: rescale the schedule to {len(self.betas)} steps")

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return len(self.betas)

    @cached_property
    def alpha_bar(self) -> Float[Tensor, "steps"]:
        """Cumulative signal power at k = 0 .. T, float64."""
        kept = 1 - torch.tensor(self.betas, dtype=torch.float64)
        return torch.cat([torch.ones(1, dtype=torch.float64), kept.cumprod(0)])

    def _lookup(self, table: Tensor, t: Tensor) -> Tensor:
        k = (t.detach().to(torch.float64) * self.steps).round().long().clamp(0, self.steps)
        return table.to(t.device)[k].to(t.dtype)

    def alpha(self, t: Tensor) -> Tensor:
        """Return sqrt(abar) of the nearest step."""
        return self._lookup(self.alpha_bar.sqrt(), t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return sqrt(1 - abar) of the nearest step."""
        return self._lookup((1 - self.alpha_bar).sqrt(), t)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Raise: the derivative of a lookup table is zero almost everywhere."""
        raise PathError(
            f"rates need a path that is differentiable in t, got a Table of {self.steps} steps at "
            f"t of shape {tuple(t.shape)}: use LinearVP or Cosine"
        )

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        """Return the time of the noisy step whose half-log-SNR is nearest."""
        known = ((self.alpha_bar / (1 - self.alpha_bar))[1:].log() / 2).to(half_log_snr.device)
        # Clamped, because every step is infinitely far from an infinite value.
        wanted = half_log_snr.to(torch.float64).clamp(known[-1], known[0]).unsqueeze(-1)
        distance = (wanted - known).abs()
        return (distance.argmin(-1) + 1).to(torch.float64) / self.steps

    def snap(self, t: Tensor) -> Tensor:
        """Return t rounded up to a step, at least step 1 (step 0 has no noise to learn from)."""
        return (t * self.steps - 1e-6).ceil().clamp(1, self.steps) / self.steps


AnyPath = Straight | Cosine | LinearVP | SubVP | VE | Table


def terminal_snr(path: Path) -> float:
    """Return the signal-to-noise power ratio (alpha / sigma)^2 at t = 1."""
    alpha, sigma = path.ends()
    return (alpha / sigma) ** 2


def check_terminal_snr(path: Path, *, limit: float = 1e-3, strict: bool = False) -> None:
    """Warn (`strict`: raise `PathError`) where the signal-to-noise ratio at t = 1 is above `limit`.

    **Source:** Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed".
    """
    snr = terminal_snr(path)
    if snr <= limit:
        return
    message = (
        f"expected a terminal SNR of at most {limit:g}, got {snr:.3g} on {type(path).__name__}: sampling would "
        "start from noise that the network never saw; use Cosine, or a schedule that adds more noise"
    )
    if strict:
        raise PathError(message)
    warnings.warn(message, TerminalSNRWarning, stacklevel=2)
