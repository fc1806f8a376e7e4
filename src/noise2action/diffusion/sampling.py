"""Sampling: from noise to a sample, by any sampler on any path and grid."""

import math
import warnings
from abc import ABC, abstractmethod
from functools import lru_cache
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import PathError
from ..seeds import Generators, randn_like
from ..shapes import Noisy
from .denoisers import Denoiser
from .grids import Grid, described
from .paths import Path, check_terminal_snr
from .tableau import OnStep, Tableau, run


def prior(path: Path, like: Tensor, *, start: float = 1.0, generator: Generators | None = None) -> Tensor:
    """Return sampling's first state sigma(start) z, with the shape, dtype and device of `like` [B, ...]."""
    return randn_like(like, generator) * path.scales_at(start)[1]


class Sampler(ABC):
    """A named way from noise to a sample, with its options."""

    @abstractmethod
    def steps(self, nfe: int) -> int:
        """Return the number of grid steps that `nfe` network evaluations allow; `PathError` where none do."""

    def start(self, path: Path, start: float) -> float:
        """Return the time to start from, at most `start`."""
        del path
        return start

    def times(self, path: Path, grid: Grid, *, nfe: int, start: float) -> Float[Tensor, "times"]:
        """Return the times that the sampler visits in `nfe` network evaluations."""
        return grid.times(path, self.steps(nfe), start=self.start(path, start))

    def check(self, path: Path, grid: Float[Tensor, "times"]) -> None:
        """Raise `PathError` where the sampler cannot follow `grid` on `path`."""
        del path, grid

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

    @property
    def calls(self) -> int:
        """Network evaluations a step; the step that lands on data has one."""
        return 1

    def steps(self, nfe: int) -> int:
        """Return N with `calls (N - 1) + 1 = nfe`; `PathError`, with the nearest below, where there is none."""
        if nfe < 1:
            raise PathError(f"expected at least 1 network evaluation, got {nfe}")
        if (nfe - 1) % self.calls:
            below = (nfe - 1) // self.calls * self.calls + 1
            raise PathError(
                f"expected {self.calls} n + 1 network evaluations for {type(self).__name__}, got {nfe}: "
                f"ask for {below} or {below + self.calls}"
            )
        return (nfe - 1) // self.calls + 1

    def check(self, path: Path, grid: Float[Tensor, "times"]) -> None:
        """Raise `PathError` where there is no table for `grid` on `path`; a good one is kept for the run."""
        _tableau(self, path, tuple(grid.tolist()))

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
    """Return samples with the shape, dtype and device of `like`, in `nfe` network evaluations, reproducible by seed.

    `Adaptive` makes as many evaluations as its tolerance asks for (wrap `denoise` in `denoisers.Counted`).
    """
    times = place(sampler, path, grid=grid, nfe=nfe, start=start)
    x = prior(path, like, start=float(times[0]), generator=generator)
    return sampler(denoise, path, times, x, generator=generator, on_step=on_step)


@lru_cache(maxsize=64)
def place(sampler: Sampler, path: Path, *, grid: Grid, nfe: int, start: float = 1.0) -> Float[Tensor, "times"]:
    """Return the times that `sample` visits; `PathError` where the sampler cannot follow this grid on this path.

    Warns where samples would be poor whatever the network: a start with signal that pure noise does not have, or steps
    that are all spent on noise.
    """
    times = sampler.times(path, grid, nfe=nfe, start=start)
    sampler.check(path, times)
    if float(times[0]) < start:  # the objective has checked its own start
        check_terminal_snr(path, t=float(times[0]))
    _check_steps(path, grid, times)
    return times


MANY, LONG, NOISY = 8, 2.0, 0.75
"""From this many steps on, none ought to be longer than this in half-log-SNR where signal and noise are of a size, and
the last call ought to be at least this clean."""


class CoarseGridWarning(UserWarning):
    """A grid that spends its steps on noise, and leaps where the data is decided."""


def _check_steps(path: Path, grid: Grid, times: Float[Tensor, "times"]) -> None:
    lam = path.half_log_snr(times[:-1]).tolist()
    leaps = [b - a for a, b in pairwise(lam) if math.isfinite(a) and a < 1.5 and b > -1.5 and b - a > LONG]
    if len(lam) >= MANY and (leaps or lam[-1] < NOISY):
        what = f"a step of {max(leaps):.3g}" if leaps else f"the last network call at {lam[-1]:.3g}"
        warnings.warn(
            f"expected {len(lam)} steps to be short in half-log-SNR, got {what} from {described(grid, path)}, "
            "which spends the others on noise: use --grid karras, or --grid log_snr",
            CoarseGridWarning,
            stacklevel=3,
        )
