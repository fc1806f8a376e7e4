"""Work and precision: the error of each deterministic solver against its network calls, in float64, and its order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from ..diffusion.denoisers import Counted
from ..diffusion.exact import Mixture
from ..diffusion.paths import VE, Cosine, LinearVP, Path, Straight
from ..diffusion.samplers import NAMED, RK4
from ..evaluate.statistics import Estimate
from ..seeds import generator
from .plots import legend_beside, line, panels, plain_ticks
from .study import Cell, Findings, Progress, Settings, listing, mean, paragraphs, points

PATHS: Mapping[str, Path] = {"Straight": Straight(), "Cosine": Cosine(), "LinearVP": LinearVP(), "VE": VE()}
STEPS = (8, 16, 32, 64, 128)
LOW, HIGH = -3.0, 3.0
"""Half-log-SNR at the ends: both finite, so that no solver takes a step of its own kind at an end."""
FITTED = 3
"""The slope is fitted to this many finest grids: orders are laws of small steps."""
ROUNDING = 1e-11
"""Errors below are float64's own, and are left out of a fit."""
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "one step at a time": (
        "ddim", "midpoint", "heun", "rk4", "dpm-solver-2", "dpm-solver-3", "dpm-solver++-2s",
    ),
    "multistep": ("ddim", "adams", "dpm-solver++-2m", "dpm-solver++-3m", "unipc"),
}  # fmt: skip
SOLVERS = tuple(dict.fromkeys(name for names in FAMILIES.values() for name in names))
"""Without euler and dpm-solver-1, which are DDIM by other names."""

COLUMNS = ("data", "path", "sampler", "calls", "error", "order")


@dataclass(frozen=True)
class Row:
    """One solver with one number of calls; the finest grid's row holds the measured order."""

    data: str
    path: str
    sampler: str
    calls: int
    error: Estimate
    order: Estimate | None

    def cells(self) -> tuple[Cell, ...]:
        """Return the row under `COLUMNS`."""
        return tuple(vars(self).values())


@dataclass(frozen=True)
class Problem:
    """Points on a path at half-log-SNR `LOW`, and where the probability flow takes them by `HIGH`."""

    data: Mixture
    start: Float[Tensor, "n D"]
    end: Float[Tensor, "n D"]
    seeds: int

    def errors(self, name: str, steps: int) -> tuple[int, list[float]]:
        """Return the calls and, one a seed, the root mean square error of this solver."""
        counted = Counted(self.data.denoise)
        found = NAMED[name](counted, self.data.path, _grid(self.data.path, steps), self.start)
        squares = (found - self.end).square().mean(1)
        return counted.nfe, [float(part.mean().sqrt()) for part in squares.chunk(self.seeds)]


def _grid(path: Path, steps: int) -> Float[Tensor, "times"]:
    return path.time_at(torch.linspace(LOW, HIGH, steps + 1, dtype=torch.float64))


def gaussian(path: Path, n: int, seeds: int, *, steps: int, seed: int) -> Problem:
    """Return the problem of one Gaussian, whose flow is known: it stretches with the standard deviation."""
    del steps
    data = Mixture.gaussian(path, (0.4, -0.3), std=0.7)
    start = _start(data, n * seeds, seed)
    t, s = (path.time_at(torch.tensor(v, dtype=torch.float64)) for v in (LOW, HIGH))
    spread = [(path.alpha(v) ** 2 * 0.7**2 + path.sigma(v) ** 2).sqrt() for v in (t, s)]
    end = path.alpha(s) * data.means + spread[1] / spread[0] * (start - path.alpha(t) * data.means)
    return Problem(data, start, end, seeds)


def mixture(path: Path, n: int, seeds: int, *, steps: int, seed: int) -> Problem:
    """Return the problem of overlapping Gaussians; its flow is RK4 with 8 times the finest grid's steps."""
    data = Mixture.ring(path, modes=4, radius=1.2, std=0.4)
    start = _start(data, n * seeds, seed)
    return Problem(data, start, RK4()(data.denoise, path, _grid(path, 8 * steps), start), seeds)


def _start(data: Mixture, n: int, seed: int) -> Float[Tensor, "n D"]:
    g = generator(seed, "start")
    x0, _ = data.draw(n, g)
    eps = torch.randn(x0.shape, generator=g, dtype=torch.float64)
    return data.path.noised(x0, data.path.time_at(torch.tensor(LOW, dtype=torch.float64)), eps)


DATA: Mapping[str, Callable[..., Problem]] = {"Gaussian": gaussian, "mixture": mixture}


def run(settings: Settings, progress: Progress) -> Findings:
    """Return error over calls for every solver, path and data set, and the measured orders."""
    paths = settings.pick(tuple(PATHS), quick=("Cosine", "VE"), tiny=("Cosine",))
    steps = settings.pick((*STEPS, 256), quick=STEPS, tiny=(8, 16, 32))
    n, seeds = settings.pick((100, 16), quick=(32, 8), tiny=(16, 3))
    jobs = [(data, path) for data in DATA for path in paths]
    rows: list[Row] = []
    for done, (data, path) in enumerate(jobs):
        problem = DATA[data](PATHS[path], n, seeds, steps=max(steps), seed=settings.seed)
        for name in SOLVERS:
            rows += _rows(problem, data, path, name, steps)
        progress(done + 1, len(jobs))
    return Findings(COLUMNS, [row.cells() for row in rows], _figure(rows), paragraph(rows))


def _rows(problem: Problem, data: str, path: str, name: str, steps: Sequence[int]) -> list[Row]:
    found = [problem.errors(name, n) for n in steps]
    rows = [Row(data, path, name, calls, mean(errors), None) for calls, errors in found]
    last = rows[-1]
    return [*rows[:-1], Row(data, path, name, last.calls, last.error, order(found))]


def order(found: Sequence[tuple[int, list[float]]]) -> Estimate | None:
    """Return minus the slope of log error against log calls over the finest grids, with its interval over seeds.

    None where rounding leaves fewer than two grids.
    """
    usable = [(calls, errors) for calls, errors in found if min(errors) > ROUNDING][-FITTED:]
    if len(usable) < 2:
        return None
    x = np.log([calls for calls, _ in usable])
    return mean([float(-np.polyfit(x, np.log(errors), 1)[0]) for errors in zip(*(e for _, e in usable), strict=True)])


def paragraph(rows: Sequence[Row]) -> str:
    """Return what the rows show."""
    found = {(row.data, row.path, row.sampler): row.order for row in rows if row.order}
    settings = list(dict.fromkeys((row.data, row.path) for row in rows))
    cheapest = points("The solvers with the least error:", [_cheapest(rows, *setting) for setting in settings])
    return paragraphs(_orders(found), _agreement(rows), cheapest)


def _orders(found: Mapping[tuple[str, str, str], Estimate]) -> str:
    """Return the measured orders of each solver over all data and paths, and where paths disagree."""
    words: list[str] = []
    for name in SOLVERS:
        mine = [estimate for (_, _, sampler), estimate in found.items() if sampler == name]
        if not mine:
            continue
        low, high = min(e.value for e in mine), max(e.value for e in mine)
        apart = max(e.low for e in mine) > min(e.high for e in mine)
        words.append(
            f"{name} {low:.1f}" if not apart or f"{low:.1f}" == f"{high:.1f}" else f"{name} {low:.1f} to {high:.1f}"
        )
    return (
        f"The measured orders are {listing(words)}. An order is minus the slope of log error over log calls on the "
        "finest grids; it is a range where the intervals of two data sets or paths do not meet."
    )


def _agreement(rows: Sequence[Row]) -> str:
    """Return by how much the errors of a solver differ between paths with the same data and calls."""
    alike: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        alike.setdefault((row.data, row.sampler, row.calls), []).append(row.error.value)
    paths = list(dict.fromkeys(row.path for row in rows))
    if len(paths) < 2:
        return ""
    worst, which = max((max(errors) / min(errors), key) for key, errors in alike.items() if min(errors) > ROUNDING)
    return (
        f"On the same half-log-SNR grid, errors on {listing(paths)} differ by at most a factor of {worst:.2f} "
        f"({which[1]} on {which[0]}, {which[2]} calls)."
    )


def _cheapest(rows: Sequence[Row], data: str, path: str) -> str:
    """Return which solver has the least error for few calls and for many."""
    mine = [row for row in rows if (row.data, row.path) == (data, path)]
    # The same work for all: what the cheapest solver spends on the coarsest and on the finest grid.
    budgets = (min(row.calls for row in mine), min(max(r.calls for r in mine if r.sampler == name) for name in SOLVERS))
    words: list[str] = []
    for budget in (2 * budgets[0], budgets[1]):
        affordable: dict[str, Row] = {}
        for row in mine:
            if row.calls <= budget:
                affordable[row.sampler] = row
        best = min(affordable.values(), key=lambda row: row.error.value)
        ties = [r.sampler for r in affordable.values() if r is not best and r.error.low <= best.error.high]
        tied = f", its interval meeting that of {listing(ties)}" if ties else ""
        words.append(f"{best.sampler} with at most {budget} calls ({best.error.value:.1e}{tied})")
    return f"On {data}, {path}: {listing(words)}"


def _figure(rows: Sequence[Row]) -> Figure:
    settings = list(dict.fromkeys((row.data, row.path) for row in rows))
    columns = len(settings) // len(DATA)
    kinds = [(data, family) for data in DATA for family in FAMILIES]
    titles = [f"{data}, {path}: {family}" for data, family in kinds for d, path in settings if d == data]
    figure, axes = panels(titles, columns=columns, width=3.4 if columns > 1 else 5.0, height=2.7)
    for k, place in enumerate(axes):
        data, family = kinds[k // columns]
        path = settings[k % columns][1]
        place.set(xscale="log", yscale="log")
        for index, name in enumerate(FAMILIES[family]):
            mine = [row for row in rows if (row.data, row.path, row.sampler) == (data, path, name)]
            line(place, [row.calls for row in mine], [row.error for row in mine], label=name, index=index)
        if k % columns == 0:
            place.set_ylabel("error (RMS)")
        if k // columns == len(kinds) - 1:
            place.set_xlabel("network calls")
    plain_ticks(axes)
    for k in range(columns, len(axes) + 1, columns):
        legend_beside(axes[k - 1])
    return figure
