"""Closed forms that the laws are measured against, and one instance of every listed member."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import get_args

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from torch import Tensor

from noise2action.diffusion.grids import AnyGrid, Grid, Karras, Leading, Linspace, LogSNR
from noise2action.diffusion.objective import AnyWeight, MinSNR, Weight
from noise2action.diffusion.paths import VE, AnyPath, LinearVP, Path, Schedule, SubVP, Table
from noise2action.diffusion.samplers import (
    DDIM,
    DDPM,
    Adams,
    Adaptive,
    AnySampler,
    DPMSolver,
    DPMSolverPP,
    DPMSolverPPSDE,
    EDMStochastic,
    EulerMaruyama,
    Heun,
    Hybrid,
    PredictorCorrector,
    Renoise,
    UniPC,
)
from noise2action.diffusion.sampling import TableSampler
from noise2action.diffusion.schedules import cosine_betas, sigmoid_betas
from noise2action.diffusion.targets import EDM, AnyTarget, Target
from noise2action.diffusion.times import AnyTimeLaw, LogitNormal, LogNormal, TimeLaw

# Every member of a union with its defaults, so that listing a new one tests it; then the variants that matter.
PATHS: list[Path] = [
    *(member() for member in get_args(AnyPath)),
    LinearVP(beta_min=0.5, beta_max=14.0),
    SubVP(beta_min=1.0, beta_max=15.0),
    VE(sigma_min=0.02, sigma_max=50.0),
    Table(cosine_betas(100)),
    Table(sigmoid_betas(400)),
    Schedule(steps=100, name="scaled_linear", zero_terminal=True),
]
OTHERS = PATHS[len(get_args(AnyPath)) :]
"""Of families that are listed already, with other constants."""
SMOOTH = [p for p in PATHS if not isinstance(p, Table)]
TABLES = [p for p in PATHS if isinstance(p, Table)]
TARGETS: list[Target] = [*(member() for member in get_args(AnyTarget)), EDM(data_std=1.7)]
GRIDS: list[Grid] = [
    *(member() for member in get_args(AnyGrid)),
    Leading(table=100),
    Linspace(table=100),
    LogSNR(low=-3.0, high=3.0),
    Karras(rho=1.0, sigma_min=0.05, sigma_max=20.0),
]
# Euler-Maruyama samples the path to first order only and wants many steps: it has tests of its own. `Adaptive` is no
# table: its tests are those of the ODE.
SAMPLERS: list[TableSampler] = [
    *(member() for member in get_args(AnySampler) if member not in (Adaptive, EulerMaruyama)),
    DDIM(eta=0.5),
    DDIM(eta=1.0),
    DDPM(variance="beta"),
    Adams(order=1),
    Adams(order=3),
    Adams(order=4),
    DPMSolver(order=1),
    DPMSolver(order=3),
    DPMSolverPP(order=3),
    UniPC(order=1),
    UniPC(order=3),
    PredictorCorrector(corrections=2, snr=0.3),
    Hybrid(Heun(), EDMStochastic(), switch=0.7),
    Hybrid(DPMSolverPPSDE(), Adams(), switch=0.7),
]
DENOISER_SAMPLERS = [s for s in SAMPLERS if not isinstance(s, Renoise)]
TIME_LAWS: list[TimeLaw] = [
    *(member() for member in get_args(AnyTimeLaw)),
    LogitNormal(mean=-0.5, std=0.7),
    LogNormal(mean=0.3, std=0.8),
]
WEIGHTS: list[Weight] = [*(member() for member in get_args(AnyWeight)), MinSNR(gamma=1.0)]


def often(paths: Sequence[Path]) -> list[ParameterSet]:
    """Return `paths` to test, those in `OTHERS` in `make test-slow` only: for laws of every sampler on every path."""
    slow = {id(path) for path in OTHERS}
    return [pytest.param(path, marks=pytest.mark.slow if id(path) in slow else ()) for path in paths]


def name(member: object) -> str:
    """Return a short test id: the member as it is written, a table by its number of steps."""
    return f"Table({member.steps})" if type(member) is Table else repr(member)


def nfe_of(sampler: TableSampler, steps: int) -> int:
    """Return the network calls of so many grid steps."""
    return sampler.calls * (steps - 1) + 1


def times_of(sampler: TableSampler, path: Path, grid: Grid, steps: int) -> Tensor:
    """Return the times that `sample` gives to the sampler."""
    return grid.times(path, steps, start=sampler.start(path, 1.0))


def is_stochastic(sampler: TableSampler) -> bool:
    """Return whether the sampler adds noise; every one that does adds it on this grid."""
    path = LinearVP()
    return bool(sampler.tableau(path, times_of(sampler, path, LogSNR(), 16)).fresh.any())


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def inner_times(path: Path) -> Tensor:
    """Return times strictly inside (0, 1), on the steps of a table."""
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    return path.snap(t)


def log_snr_grid(path: Path, steps: int, *, low: float = -3.0, high: float = 3.0) -> Tensor:
    """Return steps + 1 times, uniform in half-log-SNR; the last one is not data."""
    return path.time_at(torch.linspace(low, high, steps + 1, dtype=torch.float64))


@cache
def _scales_at(path: Path, t: float) -> tuple[float, float]:
    return path.scales_at(t)


def scales(path: Path, t: Tensor) -> tuple[Tensor, Tensor] | tuple[float, float]:
    """Return alpha and sigma; at a single time as numbers, since solvers ask for the same times again and again."""
    return path.scales(t) if t.ndim or t.requires_grad else _scales_at(path, float(t))


@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, std^2 I): its posterior mean and its probability flow in closed form."""

    path: Path
    mean: float = 0.4
    std: float = 0.7

    def marginal_std(self, t: Tensor) -> Tensor:
        return (self.path.alpha(t) ** 2 * self.std**2 + self.path.sigma(t) ** 2).sqrt()

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = scales(self.path, t)
        shrink = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + shrink * (x_t - alpha * self.mean)

    def flow(self, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Return where the probability flow that passes x_t at t is at s."""
        stretch = self.marginal_std(s) / self.marginal_std(t)
        return self.mean * self.path.alpha(s) + stretch * (x_t - self.path.alpha(t) * self.mean)

    def consistency(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.flow(x_t, t, torch.zeros_like(t))


@dataclass(frozen=True)
class Mixture:
    """Three Gaussians in the plane, far apart, with covariances of different shape: posterior mean in closed form."""

    path: Path
    weights: Tensor
    means: Tensor
    covariances: Tensor

    @classmethod
    def on(cls, path: Path) -> "Mixture":
        turn = torch.tensor([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]], dtype=torch.float64)
        tilted = turn @ torch.diag(f64(0.16, 0.03)) @ turn.T
        covariances = torch.stack([tilted, torch.diag(f64(0.04, 0.12)), torch.eye(2, dtype=torch.float64) * 0.07])
        means = torch.tensor([[-1.5, -0.6], [1.4, -0.9], [0.3, 1.6]], dtype=torch.float64)
        return cls(path, f64(0.5, 0.2, 0.3), means, covariances)

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = scales(self.path, t)
        log_weights, means, variances, axes, across = self.columns
        spread = alpha**2 * variances + sigma**2
        # Components first, in the axes of each, and samples last, [3, 2, B].
        offset = across @ (x_t.T - alpha * means)
        whitened = offset / spread
        posterior = (log_weights - 0.5 * (spread.log() + offset * whitened).sum(1)).softmax(0).unsqueeze(1)
        return (posterior * (means + axes @ (alpha * variances * whitened))).sum(0).T.contiguous()

    @cached_property
    def columns(self) -> tuple[Tensor, ...]:
        """Return log-weights [3, 1], means and variances along the axes [3, 2, 1], axes [3, 2, 2], and transposed."""
        variances, axes = torch.linalg.eigh(self.covariances)
        return self.weights.log()[:, None], self.means[..., None], variances[..., None], axes, axes.mT.contiguous()
