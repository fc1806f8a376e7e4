"""A fixed-grid sampler is a table of numbers (`Tableau`) that one short loop (`run`) runs.

Row i calls the network once, at the state and time i, and makes the next state:
`x <- keep_i base + sum_j gain_ij x0_hat[i - j] + fresh_i z`, where `base` is the state that the step began with. A
multistep method has one row a step; a Runge-Kutta method has one row a stage. Two identities hold in every row that
samples the path: `keep alpha_base + sum_j gain_j = alpha_next` and `keep^2 sigma_base^2 + fresh^2 = sigma_next^2`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ShapeError, SolverError
from ..seeds import Generators, randn_like
from ..shapes import Noisy
from .denoisers import Denoiser


@dataclass(frozen=True, eq=False)
class Step:
    """What a per-step callback sees: after step `index`, from time `t` to `s`, the state is `x`."""

    index: int
    t: float
    s: float
    x: Tensor
    x0_hat: Tensor


OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Row:
    """One network call, as Python numbers, so that the loop touches only tensors."""

    t: float
    """Time that the step began at."""
    s: float
    """Time of the state that the row makes."""
    keep: float
    gain: tuple[float, ...]
    fresh: float
    begins: bool
    """The row's input is the step's base."""
    ends: bool
    """The row's output ends the step."""


@dataclass(frozen=True, eq=False)
class Tableau:
    """A fixed-grid sampler as numbers, float64 on the CPU."""

    times: Float[Tensor, "times"]
    """Times of the N + 1 states, stages included."""
    keep: Float[Tensor, "N"]
    gain: Float[Tensor, "N J"]
    """`gain[i, j]` multiplies the x0_hat of row i - j."""
    fresh: Float[Tensor, "N"]
    base: tuple[int, ...]
    """`keep[i]` multiplies the state `base[i]` <= i, which the step of row i began with."""

    @property
    def nfe(self) -> int:
        """Network evaluations: one a row."""
        return len(self.keep)

    @cached_property
    def rows(self) -> list[Row]:
        """Return the rows as Python numbers."""
        times, keep, gain, fresh = (v.tolist() for v in (self.times, self.keep, self.gain, self.fresh))
        after = [*self.base[1:], self.nfe]
        return [
            Row(times[b], times[i + 1], keep[i], _trim(gain[i]), fresh[i], begins=b == i, ends=after[i] == i + 1)
            for i, b in enumerate(self.base)
        ]


def _trim(gain: list[float]) -> tuple[float, ...]:
    while len(gain) > 1 and gain[-1] == 0.0:
        gain = gain[:-1]
    return tuple(gain)


def one_call(
    times: Float[Tensor, "times"], keep: Float[Tensor, "N"], gain: Float[Tensor, "N J"], fresh: Float[Tensor, "N"]
) -> Tableau:
    """Return the tableau of a method with one network call a step."""
    return Tableau(times, keep, gain, fresh, tuple(range(len(keep))))


def join(parts: Sequence[Tableau]) -> Tableau:
    """Return one tableau that runs `parts` one after the other; each begins at the time where the last one ended."""
    depth = max(p.gain.shape[1] for p in parts)
    gains = [torch.nn.functional.pad(p.gain, (0, depth - p.gain.shape[1])) for p in parts]
    base: list[int] = []
    for p in parts:
        base += [len(base) + b for b in p.base]
    return Tableau(
        torch.cat([parts[0].times[:1], *(p.times[1:] for p in parts)]),
        torch.cat([p.keep for p in parts]),
        torch.cat(gains),
        torch.cat([p.fresh for p in parts]),
        tuple(base),
    )


def run(
    denoise: Denoiser,
    tableau: Tableau,
    x: Noisy,
    *,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Noisy:
    """Return the sample that `tableau` makes of the noise `x` (see `samplers.prior`).

    Raises `ShapeError` for a denoiser that returns another shape, `SolverError` where the sample is not finite.
    """
    base, step = x, 0
    history: list[Tensor] = []
    depth = tableau.gain.shape[1]
    clock = tableau.times.to(device=x.device, dtype=x.dtype).unbind()
    for i, row in enumerate(tableau.rows):
        if row.begins:
            base = x
        x0_hat = denoise(x, clock[i])
        if x0_hat.shape != x.shape:
            raise ShapeError(f"expected a denoiser that returns {tuple(x.shape)}, got {tuple(x0_hat.shape)}")
        history = [x0_hat, *history[: depth - 1]]
        x = row.keep * base if row.keep else torch.zeros_like(base)
        for weight, past in zip(row.gain, history, strict=False):
            x = x.add(past, alpha=weight)
        if row.fresh:
            x = x.add(randn_like(x, generator), alpha=row.fresh)
        if row.ends:
            if on_step is not None:
                on_step(Step(step, row.t, row.s, x, x0_hat))
            step += 1
    if not bool(x.isfinite().all()):
        raise SolverError(
            "expected finite samples, got NaN or infinite values: check that the network returns finite values, "
            "or use more steps or another grid"
        )
    return x
