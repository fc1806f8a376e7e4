"""Grids: the N + 1 times that a sampler visits, from noise down to exactly 0, in float64."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..config import kind
from ..errors import PathError
from .paths import Path, Table


class Grid(ABC):
    """A rule that places `steps` + 1 times on a path."""

    @abstractmethod
    def noisy(self, path: Path, steps: int, start: float) -> Float[Tensor, "N"]:
        """Return the N times above zero, decreasing, the first at most `start`."""

    def times(self, path: Path, steps: int, *, start: float = 1.0) -> Float[Tensor, "times"]:
        """Return N + 1 strictly decreasing times from about `start` to exactly 0; `PathError` where they coincide."""
        if steps < 1:
            raise PathError(f"expected at least 1 sampler step, got {steps}")
        noisy = path.nearest(self.noisy(path, steps, start))
        if not bool((noisy.diff() < 0).all()):
            raise PathError(
                f"expected {steps} distinct times, got repeated ones from {described(self, path)}: "
                "ask for fewer steps, or another grid"
            )
        return torch.cat([noisy, noisy.new_zeros(1)])


@dataclass(frozen=True)
class Trailing(Grid):
    """Uniform, `t_i = start (1 - i / N)`: starts at the noise end."""

    def noisy(self, path: Path, steps: int, start: float) -> Float[Tensor, "N"]:
        """Return start, ..., start / N."""
        return start * torch.arange(steps, 0, -1, dtype=torch.float64) / steps


@dataclass(frozen=True)
class Leading(Grid):
    """Uniform on a table of `table` steps, counted from its first step: ends at 1 / table, starts below 1.

    The public DDPM code's default; the start is cleaner than the noise that sampling starts from.
    """

    table: int = 1000
    """Steps of the discrete process that the spacing refers to."""

    def __post_init__(self) -> None:
        """Reject a table without steps."""
        if self.table < 1:
            raise PathError(f"expected table >= 1, got {self.table}")

    def noisy(self, path: Path, steps: int, start: float) -> Float[Tensor, "N"]:
        """Return ((N - 1 .. 0) * (table // N) + 1) / table."""
        _fits(steps, self.table)
        k = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (self.table // steps) + 1
        return start * k / self.table


@dataclass(frozen=True)
class Linspace(Grid):
    """Uniform on a table of `table` steps, from its last step to its first, both included."""

    table: int = 1000
    """Steps of the discrete process that the spacing refers to."""

    def __post_init__(self) -> None:
        """Reject a table without steps."""
        if self.table < 1:
            raise PathError(f"expected table >= 1, got {self.table}")

    def noisy(self, path: Path, steps: int, start: float) -> Float[Tensor, "N"]:
        """Return N times from start to start / table."""
        _fits(steps, self.table)
        # Rounded as 0-based indices: the public code's halves fall to the even index.
        k = torch.linspace(self.table - 1, 0, steps, dtype=torch.float64).round() + 1
        return start * k / self.table


@dataclass(frozen=True)
class Quadratic(Grid):
    """`t_i = start (1 - i / N)^2`: more steps near the data. **Source:** Song et al. 2021 (DDIM), appendix D.2."""

    def noisy(self, path: Path, steps: int, start: float) -> Float[Tensor, "N"]:
        """Return start, ..., start / N^2."""
        return start * (torch.arange(steps, 0, -1, dtype=torch.float64) / steps) ** 2


@dataclass(frozen=True)
class LogSNR(Grid):
    """Half-log-SNRs `low + (high - low) (i / (N - 1))^power`, clipped so that neither end diverges; uniform at power 1.

    With a power below 1 the first steps are the longest. Where there is hardly any signal x0_hat hardly changes: a step
    of h from lambda moves it by about (e^h - 1) e^lambda of the data's size. Uniform steps spend calls there, which few
    calls lack where the data is decided; the first step of a multistep method, of order 1, may be long as well.

    **Source:** Lu et al. 2022 (DPM-Solver), section 3.3, for power 1; the clip at -5.1 is that of its public code.
    """

    low: float = -5.1
    """Half-log-SNR to start from where the path starts lower."""
    high: float = 5.1
    """Half-log-SNR of the last network call, where the path has a step as clean as that."""
    power: float = 1.0
    """Below 1: longer steps at the noisy end, as few calls ask for; above 1: at the clean end."""

    def __post_init__(self) -> None:
        """Reject an empty interval, and a power that is not positive."""
        if not (self.low < self.high and self.power > 0):
            raise PathError(f"expected low < high and power > 0, got {self.low:g}, {self.high:g} and {self.power:g}")

    def noisy(self, path: Path, steps: int, start: float) -> Float[Tensor, "N"]:
        """Return the times of N half-log-SNRs, equally spaced for power 1."""
        first, last = max(self.low, _half_log_snr(path, start)), min(self.high, _cleanest(path))
        way = torch.linspace(0, 1, steps, dtype=torch.float64) ** self.power
        return path.time_at(first + (last - first) * way)


@dataclass(frozen=True)
class Karras(Grid):
    """Uniform in (sigma / alpha)^(1 / rho) from `sigma_max` to `sigma_min`. **Source:** Karras et al. 2022, Eq. 5."""

    rho: float = 7.0
    """Larger: more steps near the data."""
    sigma_min: float = 0.002
    """sigma / alpha of the last network call, where the path has a step as clean as that."""
    sigma_max: float = 80.0
    """sigma / alpha to start from where the path starts noisier."""

    def __post_init__(self) -> None:
        """Reject an empty interval."""
        if not (0 < self.sigma_min < self.sigma_max and self.rho > 0):
            raise PathError(
                "expected 0 < sigma_min < sigma_max and rho > 0, got "
                f"{self.sigma_min:g}, {self.sigma_max:g} and {self.rho:g}"
            )

    def noisy(self, path: Path, steps: int, start: float) -> Float[Tensor, "N"]:
        """Return the times of Karras' N noise levels."""
        first = min(self.sigma_max, math.exp(-_half_log_snr(path, start)))
        last = max(self.sigma_min, math.exp(-_cleanest(path)))
        high, low = first ** (1 / self.rho), last ** (1 / self.rho)
        ratio = torch.linspace(high, low, steps, dtype=torch.float64) ** self.rho
        return path.time_at(-ratio.log())


def described(grid: Grid, path: Path) -> str:
    """Return `the leading grid on a table of 100 steps`: both as a user names them."""
    where = f"a table of {path.steps} steps" if isinstance(path, Table) else f"the path {kind(type(path))}"
    return f"the {kind(type(grid))} grid on {where}"


def _half_log_snr(path: Path, t: float) -> float:
    return max(float(path.half_log_snr(torch.tensor(t, dtype=torch.float64))), -700.0)


def _cleanest(path: Path) -> float:
    """Return the half-log-SNR of the first noisy step; infinite on a path that is not discrete."""
    return _half_log_snr(path, float(path.nearest(torch.zeros((), dtype=torch.float64))))


def _fits(steps: int, table: int) -> None:
    if steps > table:
        raise PathError(f"expected at most {table} steps on a table of {table}, got {steps}")


AnyGrid = Trailing | Leading | Linspace | Quadratic | LogSNR | Karras
