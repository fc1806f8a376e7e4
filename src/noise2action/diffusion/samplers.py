"""Samplers. A fixed-grid sampler is a table of numbers (`Tableau`) that one short loop runs.

`x <- keep_i x + sum_j gain_ij x0_hat[i - j] + fresh_i z`, with two identities in every row that samples the path:
`keep_i alpha_i + sum_j gain_ij = alpha_(i+1)` and `keep_i^2 sigma_i^2 + fresh_i^2 = sigma_(i+1)^2`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import PathError, ShapeError
from ..seeds import Generators, randn_like
from ..shapes import Noisy
from .denoisers import Denoiser
from .grids import Grid
from .paths import Path


@dataclass(frozen=True, eq=False)
class Step:
    """What a per-step callback sees: after step `index`, from time `t` to `s`, the state is `x`."""

    index: int
    t: float
    s: float
    x: Tensor
    x0_hat: Tensor


OnStep = Callable[[Step], None]


def prior(path: Path, like: Tensor, *, start: float = 1.0, generator: Generators | None = None) -> Tensor:
    """Return sampling's first state sigma(start) z, with the shape, dtype and device of `like` [B, ...]."""
    return randn_like(like, generator) * float(path.sigma(torch.tensor(start, dtype=torch.float64)))


@dataclass(frozen=True, eq=False)
class Tableau:
    """A fixed-grid sampler as numbers, float64 on the CPU."""

    times: Float[Tensor, "times"]
    keep: Float[Tensor, "N"]
    gain: Float[Tensor, "N J"]
    """`gain[i, j]` multiplies the x0_hat of step i - j."""
    fresh: Float[Tensor, "N"]

    @property
    def nfe(self) -> int:
        """Network evaluations: one a row."""
        return len(self.keep)

    @cached_property
    def rows(self) -> list[tuple[float, float, float, list[float], float]]:
        """Return (t, s, keep, gain, fresh) of each step as Python numbers, so that the loop touches only tensors."""
        times = self.times.tolist()
        table = zip(times, times[1:], self.keep.tolist(), self.gain.tolist(), self.fresh.tolist(), strict=False)
        return [(t, s, keep, _trim(gain), fresh) for t, s, keep, gain, fresh in table]


def _trim(gain: list[float]) -> list[float]:
    while len(gain) > 1 and gain[-1] == 0.0:
        gain = gain[:-1]
    return gain


def run(
    denoise: Denoiser,
    tableau: Tableau,
    x: Noisy,
    *,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Noisy:
    """Return the sample that `tableau` makes of the noise `x` (see `prior`)."""
    history: list[Tensor] = []
    depth = tableau.gain.shape[1]
    clock = tableau.times.to(device=x.device, dtype=x.dtype).unbind()
    for i, (t, s, keep, gain, fresh) in enumerate(tableau.rows):
        x0_hat = denoise(x, clock[i])
        if x0_hat.shape != x.shape:
            raise ShapeError(f"expected a denoiser that returns {tuple(x.shape)}, got {tuple(x0_hat.shape)}")
        history = [x0_hat, *history[: depth - 1]]
        x = keep * x if keep else torch.zeros_like(x)
        for weight, past in zip(gain, history, strict=False):
            x = x.add(past, alpha=weight)
        if fresh:
            x = x.add(randn_like(x, generator), alpha=fresh)
        if on_step is not None:
            on_step(Step(i, t, s, x, x0_hat))
    return x


def _scales(path: Path, grid: Tensor) -> tuple[Tensor, Tensor]:
    return path.alpha(grid), path.sigma(grid)


def ddim(path: Path, grid: Float[Tensor, "times"], *, eta: float = 0.0) -> Tableau:
    """Return DDIM on any path: deterministic at eta = 0, ancestral with the posterior variance at eta = 1.

    On `Straight` eta = 0 is the Euler step of flow matching; on `VE` eta = 1 is ancestral sampling.

    **Source:** Song et al. 2021 (DDIM), Eq. 12 and 16, with alpha and sigma of any path.
    """
    if not 0 <= eta <= 1:
        raise PathError(f"expected eta in [0, 1], got {eta}")
    alpha, sigma = _scales(path, grid)
    a, b = alpha[:-1], alpha[1:]
    overlap = a * sigma[1:] / (b * sigma[:-1])
    fresh = eta * sigma[1:] * (1 - overlap**2).clamp(min=0).sqrt()
    keep = (sigma[1:] ** 2 - fresh**2).clamp(min=0).sqrt() / sigma[:-1]
    return Tableau(grid, keep, (b - keep * a).unsqueeze(1), fresh)


def ddpm(path: Path, grid: Float[Tensor, "times"], *, variance: Literal["posterior", "beta"] = "posterior") -> Tableau:
    """Return DDPM ancestral sampling with the posterior variance beta~ or the step's own variance beta.

    `posterior` equals `ddim(eta=1)`. `beta`, the upper bound, adds more noise than the path has: the second tableau
    identity holds for `posterior` only. Neither adds noise in the last step.

    **Source:** Ho et al. 2020, Eq. 6-7 and section 3.2.
    """
    tableau = ddim(path, grid, eta=1.0)
    if variance == "posterior":
        return tableau
    alpha, sigma = _scales(path, grid)
    beta = sigma[:-1] ** 2 - (alpha[:-1] / alpha[1:] * sigma[1:]) ** 2
    fresh = torch.where(sigma[1:] > 0, beta.clamp(min=0).sqrt(), 0.0)
    return Tableau(grid, tableau.keep, tableau.gain, fresh)


def adams(path: Path, grid: Float[Tensor, "times"], *, order: int = 2) -> Tableau:
    """Return exponential Adams-Bashforth in half-log-SNR: order 1 is DDIM, order 2 converges like DPM-Solver++ 2M.

    The exact flow is `x_s = (sigma_s / sigma_t) x_t + sigma_s int e^l x0_hat(l) dl`; x0_hat is extrapolated by the
    polynomial through the last `order` evaluations. Steps from or to an infinite half-log-SNR have no polynomial: there
    the order falls to 1. The first step has no past and order 1: orders 3 and 4 hold from the steps where their past
    is complete, and a whole run converges with order 2.

    **Source:** Hochbruck & Ostermann 2010, section 2.4; Lu et al. 2022 (DPM-Solver++), Eq. 9.
    """
    if not 1 <= order <= 4:
        raise PathError(f"expected an order of 1 to 4, got {order}")
    alpha, sigma = _scales(path, grid)
    lam = path.half_log_snr(grid).tolist()
    keep = sigma[1:] / sigma[:-1]
    gain = torch.zeros(len(keep), order, dtype=torch.float64)
    for i in range(len(keep)):
        total = float(alpha[i + 1] - keep[i] * alpha[i])
        nodes = [lam[i - j] - lam[i] for j in range(min(order, i + 1)) if math.isfinite(lam[i - j])]
        weights = _extrapolation(nodes, lam[i + 1] - lam[i], float(alpha[i + 1]))
        gain[i, 1 : len(weights)] = torch.tensor(weights[1:], dtype=torch.float64)
        gain[i, 0] = total - sum(weights[1:])  # the first identity to the last bit
    return Tableau(grid, keep, gain, torch.zeros_like(keep))


def _extrapolation(nodes: list[float], h: float, alpha: float) -> list[float]:
    """Return alpha int_0^h e^(u - h) L_j(u) du for the Lagrange basis L_j over `nodes` (the newest first, at 0)."""
    if len(nodes) < 2 or not math.isfinite(h):
        return [0.0]
    points, weights = _legendre(48)
    u = (points + 1) * (h / 2)
    measure = weights * (h / 2) * np.exp(u - h) * alpha
    basis = [np.prod([(u - other) / (node - other) for other in nodes if other != node], axis=0) for node in nodes]
    return [float((measure * b).sum()) for b in basis]


@lru_cache
def _legendre(
    n: int,
) -> tuple["np.ndarray[tuple[int], np.dtype[np.float64]]", "np.ndarray[tuple[int], np.dtype[np.float64]]"]:
    return np.polynomial.legendre.leggauss(n)


def renoise(path: Path, grid: Float[Tensor, "times"]) -> Tableau:
    """Return multistep consistency sampling: jump to x0, add fresh noise for the next time. For a `ConsistencyMap`.

    **Source:** Song et al. 2023 (consistency models), algorithm 1.
    """
    alpha, sigma = _scales(path, grid)
    return Tableau(grid, torch.zeros_like(sigma[1:]), alpha[1:].unsqueeze(1), sigma[1:])


def heun(
    denoise: Denoiser,
    path: Path,
    grid: Float[Tensor, "times"],
    x: Noisy,
    *,
    on_step: OnStep | None = None,
) -> Noisy:
    """Return the probability-flow solution by Heun's method, `2 N - 1` network evaluations.

    The flow is `dx = x0_hat d alpha + eps_hat d sigma`; the trapezoidal rule in alpha and sigma needs no rates, does
    not depend on how the path is clocked, and is EDM's sampler on `VE`. The last step is Euler's: at sigma = 0 eps_hat
    is 0/0.

    **Source:** Karras et al. 2022, algorithm 1.
    """
    alpha, sigma = (values.tolist() for values in _scales(path, grid))
    times = grid.tolist()
    clock = grid.to(device=x.device, dtype=x.dtype).unbind()
    for i in range(len(grid) - 1):
        x0_hat = denoise(x, clock[i])
        eps_hat = (x - alpha[i] * x0_hat) / sigma[i]
        euler = alpha[i + 1] * x0_hat + sigma[i + 1] * eps_hat
        if sigma[i + 1] > 0:
            x0_next = denoise(euler, clock[i + 1])
            eps_next = (euler - alpha[i + 1] * x0_next) / sigma[i + 1]
            half_alpha, half_sigma = (alpha[i + 1] - alpha[i]) / 2, (sigma[i + 1] - sigma[i]) / 2
            x = x + half_alpha * (x0_hat + x0_next) + half_sigma * (eps_hat + eps_next)
        else:
            x = euler
        if on_step is not None:
            on_step(Step(i, times[i], times[i + 1], x, x0_hat))
    return x


class Sampler(ABC):
    """A named way from noise to a sample, with its options."""

    @abstractmethod
    def steps(self, nfe: int) -> int:
        """Return the number of grid steps that `nfe` network evaluations allow; `PathError` where none do."""

    @abstractmethod
    def __call__(
        self,
        denoise: Denoiser,
        path: Path,
        grid: Float[Tensor, "times"],
        x: Tensor,
        *,
        generator: Generators | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return the sample made of the noise `x` along `grid`."""


class TableSampler(Sampler):
    """A sampler that is a tableau."""

    @abstractmethod
    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return the table of numbers on this grid."""

    def steps(self, nfe: int) -> int:
        """Return nfe: one evaluation a step."""
        return nfe

    def __call__(
        self,
        denoise: Denoiser,
        path: Path,
        grid: Float[Tensor, "times"],
        x: Tensor,
        *,
        generator: Generators | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return the sample made of the noise `x` along `grid`."""
        return run(denoise, _tableau(self, path, tuple(grid.tolist())), x, generator=generator, on_step=on_step)


@lru_cache(maxsize=64)
def _tableau(sampler: TableSampler, path: Path, times: tuple[float, ...]) -> Tableau:
    return sampler.tableau(path, torch.tensor(times, dtype=torch.float64))


@dataclass(frozen=True)
class DDIM(TableSampler):
    """DDIM; flow Euler on `Straight`."""

    eta: float = 0.0
    """0: deterministic; 1: ancestral with the posterior variance."""

    def __post_init__(self) -> None:
        """Reject eta outside [0, 1]."""
        if not 0 <= self.eta <= 1:
            raise PathError(f"expected eta in [0, 1], got {self.eta}")

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `ddim(path, grid, eta)`."""
        return ddim(path, grid, eta=self.eta)


@dataclass(frozen=True)
class DDPM(TableSampler):
    """DDPM ancestral sampling."""

    variance: Literal["posterior", "beta"] = "posterior"
    """beta~ of the posterior, or beta of the step."""

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `ddpm(path, grid, variance)`."""
        return ddpm(path, grid, variance=self.variance)


@dataclass(frozen=True)
class Adams(TableSampler):
    """Exponential Adams-Bashforth multistep (the DPM-Solver++ multistep family)."""

    order: int = 2
    """1 is DDIM; 2 converges like DPM-Solver++ 2M."""

    def __post_init__(self) -> None:
        """Reject orders outside 1 to 4."""
        if not 1 <= self.order <= 4:
            raise PathError(f"expected an order of 1 to 4, got {self.order}")

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `adams(path, grid, order)`."""
        return adams(path, grid, order=self.order)


@dataclass(frozen=True)
class Renoise(TableSampler):
    """Multistep consistency sampling."""

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `renoise(path, grid)`."""
        return renoise(path, grid)


@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's second-order method on the probability flow."""

    def steps(self, nfe: int) -> int:
        """Return (nfe + 1) / 2: two evaluations a step, one in the last; `PathError` for an even `nfe`."""
        if nfe % 2 == 0:
            raise PathError(
                f"expected an odd number of network evaluations for Heun (2 N - 1), got {nfe}: "
                f"ask for {max(nfe - 1, 1)}"
            )
        return (nfe + 1) // 2

    def __call__(
        self,
        denoise: Denoiser,
        path: Path,
        grid: Float[Tensor, "times"],
        x: Tensor,
        *,
        generator: Generators | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return the sample made of the noise `x` along `grid`; deterministic."""
        return heun(denoise, path, grid, x, on_step=on_step)


AnySampler = DDIM | DDPM | Adams | Heun | Renoise


def sample(
    denoise: Denoiser,
    path: Path,
    like: Noisy,
    *,
    sampler: Sampler,
    grid: Grid,
    nfe: int,
    start: float = 1.0,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Noisy:
    """Return samples with the shape, dtype and device of `like`, in `nfe` network evaluations, reproducible by seed."""
    times = _times(grid, path, sampler.steps(nfe), start)
    x = prior(path, like, start=float(times[0]), generator=generator)
    return sampler(denoise, path, times, x, generator=generator, on_step=on_step)


@lru_cache(maxsize=64)
def _times(grid: Grid, path: Path, steps: int, start: float) -> Tensor:
    return grid.times(path, steps, start=start)
