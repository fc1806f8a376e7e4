"""Targets: what the network regresses, `y = p x0 + q eps`, one row (p, q) each.

Together with `x_t = alpha x0 + sigma eps` this is a 2x2 system; one inverse decodes every target.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PathError
from ..shapes import broadcast
from .paths import Path

Scales = tuple[Tensor, Tensor]
"""(alpha, sigma) of a path, looked up once and passed on."""


class Target(ABC):
    """A linear combination of clean data and noise."""

    @abstractmethod
    def row_at(self, path: Path, t: Tensor, scales: Scales) -> tuple[Tensor, Tensor]:
        """Return (p, q) at `t`, elementwise, given the path's scales there."""

    def row(self, path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (p, q) at `t`, elementwise."""
        return self.row_at(path, t, path.scales(t))

    def determinant(self, path: Path, t: Tensor) -> Tensor:
        """Return alpha q - sigma p; the target says nothing about x0 where it is zero or infinite."""
        scales = path.scales(t)
        return _determinant(scales, self.row_at(path, t, scales))

    def encode(self, path: Path, t: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        """Return y = p x0 + q eps; `t` is [], [B] or [B, H]."""
        p, q = self.row(path, broadcast(t, x0))
        return p * x0 + q * eps

    def decode(self, path: Path, t: Tensor, x_t: Tensor, y: Tensor) -> Tensor:
        """Return x0_hat = (q x_t - sigma y) / (alpha q - sigma p)."""
        t = broadcast(t, x_t)
        _, from_x, from_y = self.coefficients(path, t, path.scales(t))
        return from_x * x_t + from_y * y

    def decode_noise(self, path: Path, t: Tensor, x_t: Tensor, y: Tensor) -> Tensor:
        """Return eps_hat = (alpha y - p x_t) / (alpha q - sigma p)."""
        t = broadcast(t, x_t)
        scales = path.scales(t)
        p, q = self.row_at(path, t, scales)
        return (scales[0] * y - p * x_t) / _determinant(scales, (p, q))

    def coefficients(self, path: Path, t: Tensor, scales: Scales) -> tuple[Tensor, Tensor, Tensor]:
        """Return (input scale, c, d) with x0_hat = c x_t + d y, elementwise: what a denoiser multiplies with."""
        p, q = self.row_at(path, t, scales)
        determinant = _determinant(scales, (p, q))
        return self.input_scale_at(scales), q / determinant, -scales[1] / determinant

    def input_scale(self, path: Path, t: Tensor) -> Tensor:
        """Return the factor that gives `x_t` unit variance before it enters the network."""
        return self.input_scale_at(path.scales(t))

    def input_scale_at(self, scales: Scales) -> Tensor:
        """Return `input_scale` where the path has these scales."""
        alpha, sigma = scales
        return (alpha**2 + sigma**2).rsqrt()

    def check(self, path: Path, *, start: float, end: float) -> None:
        """Raise `PathError` unless x0 can be decoded at `start` (the noisy end) and y is finite at `end`."""
        where = f"{type(self).__name__} target on {type(path).__name__}"
        # Where a network is trained: a table has no data at t = 0, its first step is noisy.
        first, last = path.snap(torch.tensor([start, end], dtype=torch.float64)).unbind()
        try:
            det = float(self.determinant(path, first))
            row = [float(c) for c in self.row(path, last)]
        except PathError as error:
            raise PathError(f"{where}: {error}") from error
        if not 1e-9 < abs(det) < 1e9:
            raise PathError(
                f"{where} cannot start at t={start:g} (alpha={float(path.alpha(first)):g}): "
                "use target=v or target=velocity, or a span that starts at t<1"
            )
        if not all(math.isfinite(c) for c in row):
            raise PathError(f"{where} is infinite at t={end:g}: use another target, or a span that ends at t>0")


def _determinant(scales: Scales, row: tuple[Tensor, Tensor]) -> Tensor:
    (alpha, sigma), (p, q) = scales, row
    return alpha * q - sigma * p


@dataclass(frozen=True)
class Epsilon(Target):
    """The noise eps: (0, 1). Singular where alpha = 0. **Source:** Ho et al. 2020, Eq. 14."""

    def row_at(self, path: Path, t: Tensor, scales: Scales) -> tuple[Tensor, Tensor]:
        """Return (0, 1)."""
        return torch.zeros_like(t), torch.ones_like(t)


@dataclass(frozen=True)
class Clean(Target):
    """The clean data x0: (1, 0). Never decoded wrongly, silent about eps at sigma = 0."""

    def row_at(self, path: Path, t: Tensor, scales: Scales) -> tuple[Tensor, Tensor]:
        """Return (1, 0)."""
        return torch.ones_like(t), torch.zeros_like(t)

    def coefficients(self, path: Path, t: Tensor, scales: Scales) -> tuple[Tensor, Tensor, Tensor]:
        """Return (input scale, 0, 1): exact at sigma = 0 too, where the 2x2 system is singular."""
        return self.input_scale_at(scales), torch.zeros_like(t), torch.ones_like(t)


@dataclass(frozen=True)
class V(Target):
    """Salimans & Ho's v = alpha eps - sigma x0: (-sigma, alpha). **Source:** Salimans & Ho 2022, appendix D."""

    def row_at(self, path: Path, t: Tensor, scales: Scales) -> tuple[Tensor, Tensor]:
        """Return (-sigma, alpha)."""
        alpha, sigma = scales
        return -sigma, alpha


@dataclass(frozen=True)
class Score(Target):
    """The conditional score -eps / sigma: (0, -1/sigma). Singular at sigma = 0 and alpha = 0."""

    def row_at(self, path: Path, t: Tensor, scales: Scales) -> tuple[Tensor, Tensor]:
        """Return (0, -1/sigma)."""
        return torch.zeros_like(t), -1 / scales[1]


@dataclass(frozen=True)
class Velocity(Target):
    """The flow velocity dx_t/dt: (d alpha/dt, d sigma/dt); eps - x0 on `Straight`.

    **Source:** Lipman et al. 2023, Eq. 14.
    """

    def row_at(self, path: Path, t: Tensor, scales: Scales) -> tuple[Tensor, Tensor]:
        """Return (d alpha/dt, d sigma/dt)."""
        return path.rates(t)


@dataclass(frozen=True)
class EDM(Target):
    """The preconditioned target of EDM: unit variance at every t, for data of standard deviation `data_std`.

    (sigma / (n s), -alpha s / n) with n = sqrt(alpha^2 s^2 + sigma^2).

    **Source:** Karras et al. 2022, Eq. 7 and table 1.
    """

    data_std: float = 0.5
    """Standard deviation s of the normalised data."""

    def __post_init__(self) -> None:
        """Reject a scale that is not positive."""
        if not self.data_std > 0:
            raise PathError(f"expected data_std > 0, got {self.data_std}")

    def norm(self, scales: Scales) -> Tensor:
        """Return n = sqrt(alpha^2 s^2 + sigma^2), the standard deviation of x_t."""
        alpha, sigma = scales
        return (alpha**2 * self.data_std**2 + sigma**2).sqrt()

    def row_at(self, path: Path, t: Tensor, scales: Scales) -> tuple[Tensor, Tensor]:
        """Return (sigma / (n s), -alpha s / n)."""
        n, (alpha, sigma) = self.norm(scales), scales
        return sigma / (n * self.data_std), -alpha * self.data_std / n

    def input_scale_at(self, scales: Scales) -> Tensor:
        """Return 1 / n."""
        return 1 / self.norm(scales)


AnyTarget = Epsilon | Clean | V | Score | Velocity | EDM
