"""What the studies of samplers share: data with an exact denoiser, and how good a sampler's samples of it are."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..data.points import POINTS
from ..diffusion.denoisers import Counted, Denoiser
from ..diffusion.exact import Mixture
from ..diffusion.grids import Grid
from ..diffusion.paths import LinearVP, Path
from ..diffusion.samplers import NAMED
from ..diffusion.sampling import Sampler, sample
from ..errors import PathError
from ..evaluate.distances import energy_distance, sliced_wasserstein
from ..seeds import generator

SHAPES = ("ring", "swiss_roll", "moons", "checkerboard")
"""Data in the plane whose denoiser is exact: see `exact`."""

STOCHASTIC = ("ddpm", "dpm-solver++-sde-2m", "euler-maruyama", "edm-stochastic", "predictor-corrector")
"""Samplers of `NAMED` that draw fresh noise all the way."""

HALF_STOCHASTIC = ("hybrid", "hybrid-reverse")
"""Samplers of `NAMED` that draw fresh noise on a part of the way."""


def deterministic() -> list[str]:
    """Return the samplers of `NAMED` whose sample is a function of the first noise, but the adaptive one."""
    return [name for name in NAMED if name not in (*STOCHASTIC, *HALF_STOCHASTIC, "adaptive")]


def exact(shape: str, path: Path | None = None, *, centres: int = 48) -> Mixture:
    """Return a data set of `SHAPES`: 8 Gaussians on a ring, or `centres` draws of a toy set, each a small Gaussian.

    The latter are distributions of their own, with the shape of the toy; what matters is that nothing is estimated.
    """
    path = path or LinearVP()
    if shape == "ring":
        return Mixture.ring(path)
    return Mixture.around(path, POINTS[shape].draw(centres, 0).x, std=0.1)


def feasible(sampler: Sampler, nfe: int) -> int | None:
    """Return the most network calls, at most `nfe`, that this sampler can make; None where it needs more."""
    for calls in range(nfe, 0, -1):
        try:
            sampler.steps(calls)
        except PathError:
            continue
        return calls
    return None


@dataclass(frozen=True)
class Run:
    """One sampler's samples, judged seed by seed."""

    calls: int
    energy: list[float]
    """Energy distance to fresh exact draws, the V-statistic: see `Bench.floor` for what is unavoidable."""
    wasserstein: list[float]
    """Sliced Wasserstein distance to the same draws."""
    milliseconds: float
    """Time of all samples together, with the exact denoiser's and the sampler's preparation."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of a data set, one set a seed, and what they cost."""

    sets: Sequence[Tensor]
    calls: int
    milliseconds: float


@dataclass(frozen=True)
class Bench:
    """One data set and `seeds` repeats: each has its own exact draws to compare with, and its own first noise.

    Samplers share both, seed by seed, so that their differences are paired.
    """

    data: Mixture
    n: int
    seeds: int
    seed: int = 0

    @cached_property
    def references(self) -> list[Tensor]:
        """Fresh exact draws, one set a seed."""
        return self.draws("reference")

    @cached_property
    def floor(self) -> Run:
        """What a perfect sampler gets: the distance between two sets of exact draws."""
        return self.judged(Samples(self.draws("data"), 0, 0.0))

    def run(self, sampler: Sampler, grid: Grid, nfe: int, *, denoise: Denoiser | None = None) -> Run:
        """Return the quality of `sampler` with `nfe` network calls, by the exact denoiser unless given another.

        Raises `PathError` where the sampler cannot walk this grid.
        """
        return self.judged(self.samples(sampler, grid, nfe, denoise=denoise))

    def samples(self, sampler: Sampler, grid: Grid, nfe: int, *, denoise: Denoiser | None = None) -> Samples:
        """Return what `run` judges."""
        counted = Counted(denoise or self.data.denoise)
        like = torch.empty(self.n * self.seeds, self.data.means.shape[1])
        noise = generator(self.seed, "noise")
        began = time.perf_counter()
        x = sample(counted, self.data.path, like, sampler=sampler, grid=grid, nfe=nfe, generator=noise)
        return Samples(x.chunk(self.seeds), counted.nfe, (time.perf_counter() - began) * 1e3)

    def judged(self, samples: Samples) -> Run:
        """Return the distances of each seed's samples to the exact draws of that seed."""
        pairs = list(zip(samples.sets, self.references, strict=True))
        return Run(
            samples.calls,
            [energy_distance(x, reference) for x, reference in pairs],
            [sliced_wasserstein(x, reference, projections=32, seed=self.seed) for x, reference in pairs],
            samples.milliseconds,
        )

    def draws(self, use: str) -> list[Tensor]:
        """Return exact draws, one set a seed; another `use` is another set."""
        x, _ = self.data.draw(self.n * self.seeds, generator(self.seed, use))
        return list(x.chunk(self.seeds))
