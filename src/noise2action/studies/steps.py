"""How good samples are after 5 to 1000 network calls, solver by solver, with exact denoisers: only the solver errs."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..diffusion.grids import Grid, Karras, LogSNR, Trailing
from ..diffusion.paths import MOST_TERMINAL_SNR, terminal_snr
from ..diffusion.samplers import NAMED
from ..errors import PathError
from ..evaluate.figures import INK
from ..evaluate.statistics import Estimate
from .plots import forest, legend_beside, level, line, panels, plain_ticks
from .quality import SHAPES, Bench, Run, exact, feasible
from .study import Cell, Findings, Progress, Settings, difference, listing, mean, paragraphs, points, verdict

CALLS = (5, 10, 25, 50, 100, 500, 1000)
FAST, SLOW = "dpm-solver++-2m", "ddim"
"""Ten calls of the first are held against fifty of the second."""
FEW, MANY = 10, 50

MAIN = "log-SNR -4 to 3 (power 0.6)"
GRIDS: Mapping[str, Grid] = {
    MAIN: LogSNR(low=-4.0, high=3.0, power=0.6),
    "log-SNR -5.1 to 3 (power 0.5)": LogSNR(low=-5.1, high=3.0, power=0.5),
    "log-SNR -2 to 3": LogSNR(low=-2.0, high=3.0),
    "log-SNR -3.5 to 3": LogSNR(low=-3.5, high=3.0),
    "log-SNR -5.1 to 5.1": LogSNR(),
    "Karras": Karras(),
    "trailing": Trailing(),
}
"""Every solver is shown on the first: from nearly pure noise, with its short steps where these data are decided."""

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "Runge-Kutta": ("euler", "midpoint", "heun", "rk4", "adaptive"),
    "DPM-Solver, single-step": ("dpm-solver-1", "dpm-solver-2", "dpm-solver-3", "dpm-solver++-2s"),
    "multistep": ("ddim", "adams", "dpm-solver++-2m", "dpm-solver++-3m", "unipc"),
    "with fresh noise": (
        "ddpm",
        "dpm-solver++-sde-2m",
        "hybrid",
        "hybrid-reverse",
        "euler-maruyama",
        "edm-stochastic",
        "predictor-corrector",
    ),
}
SHOWN_IN_TIME = ("ddim", "dpm-solver++-2m", "unipc", "heun", "rk4", "ddpm")

COLUMNS = (
    "data",
    "part",
    "grid",
    "sampler",
    "calls",
    "ms",
    "energy distance x 1000",
    "sliced Wasserstein x 100",
    f"energy minus {SLOW} at {MANY}, same grid, x 1000",
    f"energy minus {SLOW} at {MANY}, its best grid, x 1000",
)


@dataclass(frozen=True)
class Row:
    """One sampler with one number of calls on one grid; energies are times 1000, with `SLOW`'s at `MANY` subtracted."""

    data: str
    part: str
    """`solvers`: every solver on the main grid; `grids`: two solvers on every grid, with more samples and seeds."""
    grid: str
    sampler: str
    calls: int
    milliseconds: float | None
    energy: Estimate
    wasserstein: Estimate
    over_same: Estimate | None
    over_best: Estimate | None

    def cells(self) -> tuple[Cell, ...]:
        """Return the row under `COLUMNS`."""
        return tuple(vars(self).values())


def run(settings: Settings, progress: Progress) -> Findings:
    """Return quality against calls and time for every sampler, and 2M at 10 calls against DDIM at 50."""
    shapes = settings.pick(SHAPES, quick=("ring", "moons"), tiny=("moons",))
    calls = settings.pick(CALLS, quick=CALLS[:5], tiny=(10, 50))
    few = settings.pick((400, 6), quick=(300, 5), tiny=(50, 2))
    more = settings.pick((1000, 24), quick=(500, 8), tiny=(60, 2))
    rows: list[Row] = []
    for k, shape in enumerate(shapes):

        def step(done: int, total: int, k: int = k) -> None:
            progress(k * total + done, len(shapes) * total)

        rows += _grids(Bench(exact(shape), *more, settings.seed), shape)
        rows += _solvers(Bench(exact(shape), *few, settings.seed), shape, calls, step)
    return Findings(COLUMNS, [row.cells() for row in rows], _figure(rows, shapes), paragraph(rows))


def _grids(bench: Bench, shape: str) -> list[Row]:
    slow = {grid: bench.run(NAMED[SLOW], GRIDS[grid], MANY) for grid in GRIDS}
    fast = {grid: bench.run(NAMED[FAST], GRIDS[grid], FEW) for grid in GRIDS}
    best = min(slow.values(), key=lambda found: mean(found.energy).value)
    rows = [_draws(bench, shape, "grids")]
    for name, runs in ((SLOW, slow), (FAST, fast)):
        rows += [
            _row((shape, "grids", grid, name), found, _over(found, slow[grid]), _over(found, best))
            for grid, found in runs.items()
        ]
    return rows


def _solvers(bench: Bench, shape: str, calls: Sequence[int], progress: Progress) -> list[Row]:
    runs: dict[tuple[str, int], Run] = {(SLOW, MANY): bench.run(NAMED[SLOW], GRIDS[MAIN], MANY)}
    jobs = [(name, nfe) for name in NAMED if name != "adaptive" for nfe in calls] + [("adaptive", calls[0])]
    # Calls cost alike: progress counts them, not samplers.
    total, done = sum(nfe for _, nfe in jobs), 0
    for name, nfe in jobs:
        affordable = feasible(NAMED[name], nfe)
        if affordable is not None and (name, affordable) not in runs:
            with suppress(PathError):  # the grid's steps are too long for this sampler: there is nothing to show
                found = bench.run(NAMED[name], GRIDS[MAIN], affordable)
                runs[name, found.calls] = found
        done += nfe
        progress(done, total)
    rows = [_draws(bench, shape, "solvers")]
    for (name, _), found in sorted(runs.items()):
        rows.append(_row((shape, "solvers", MAIN, name), found, _over(found, runs[SLOW, MANY]), None))
    return rows


def _draws(bench: Bench, shape: str, part: str) -> Row:
    return Row(shape, part, "-", "exact draws", 0, None, _energy(bench.floor), _wasserstein(bench.floor), None, None)


def _row(of: tuple[str, str, str, str], found: Run, same: Estimate, best: Estimate | None) -> Row:
    return Row(*of, found.calls, found.milliseconds, _energy(found), _wasserstein(found), same, best)


def _energy(found: Run) -> Estimate:
    return mean([1e3 * value for value in found.energy])


def _wasserstein(found: Run) -> Estimate:
    return mean([1e2 * value for value in found.wasserstein])


def _over(found: Run, other: Run) -> Estimate:
    return difference([1e3 * value for value in found.energy], [1e3 * value for value in other.energy])


def paragraph(rows: Sequence[Row]) -> str:
    """Return what the rows show."""
    shapes = list(dict.fromkeys(row.data for row in rows))
    solvers = [row for row in rows if row.part == "solvers"]
    return paragraphs(
        _claim([row for row in rows if row.part == "grids"]),
        points(
            f"The fewest calls on the grid {MAIN} that are not told apart from {SLOW} with {MANY}, or better:",
            [_fewest(solvers, shape) for shape in shapes],
        ),
        _noisy(solvers, shapes),
    )


def _claim(rows: Sequence[Row]) -> str:
    """Return the words for `FAST` at `FEW` calls against `SLOW` at `MANY`, grid by grid."""
    floors = {row.data: row.energy.value for row in rows if row.sampler == "exact draws"}
    words: list[str] = []
    nowhere_worse: list[str] = []
    for grid in GRIDS:
        found = {row.data: row for row in rows if (row.grid, row.sampler, row.calls) == (grid, FAST, FEW)}
        same = {shape: row.over_same for shape, row in found.items() if row.over_same}
        best = {shape: row.over_best for shape, row in found.items() if row.over_best}
        if all(over.low <= 0 for over in (*same.values(), *best.values())):
            nowhere_worse.append(grid)
        most = max(over.high / floors[shape] for shape, over in best.items())
        words.append(
            f"On {grid}, from SNR {_start(GRIDS[grid]):.2g}, it is {_groups(same)} against the same grid, and "
            f"{_groups(best)} against {SLOW}'s best grid, with an excess of at most {100 * most:.0f} %"
        )
    where = f"nowhere worse on {listing(nowhere_worse)}" if nowhere_worse else "worse somewhere on every grid"
    noisy = [grid for grid in nowhere_worse if _start(GRIDS[grid]) <= MOST_TERMINAL_SNR]
    fair = f" Sampling ought to start at an SNR of at most {MOST_TERMINAL_SNR:g}, as it does on {listing(noisy)}."
    return paragraphs(
        f"{FAST} with {FEW} calls, against {SLOW} with {MANY}, is {where}.{fair if noisy else ''}",
        points(
            "Energy distances are paired by seed, and a tie is a difference whose 95 % interval holds zero. Each line "
            "ends with the largest excess over the best grid that the intervals allow, in percent of the energy "
            "distance between two sets of exact draws:",
            words,
        ),
    )


def _start(grid: Grid) -> float:
    """Return the signal-to-noise ratio that a grid starts at, of which pure noise knows nothing."""
    path = exact(SHAPES[0]).path
    return terminal_snr(path, t=float(NAMED[FAST].times(path, grid, nfe=FEW, start=1.0)[0]))


def _groups(overs: Mapping[str, Estimate]) -> str:
    """Return e.g. `better on ring, tied on moons and checkerboard`."""
    verdicts = {shape: verdict(over, below="better", above="worse", tie="tied") for shape, over in overs.items()}
    kinds = [kind for kind in ("better", "tied", "worse") if kind in verdicts.values()]
    return ", ".join(f"{kind} on {listing([s for s, v in verdicts.items() if v == kind])}" for kind in kinds)


def _fewest(rows: Sequence[Row], shape: str) -> str:
    """Return the fewest calls with which each sampler is no worse than `SLOW` at `MANY` on the main grid."""
    reached: dict[int, list[str]] = {}
    for name in NAMED:
        good = [
            row.calls
            for row in rows
            if (row.data, row.sampler) == (shape, name) and row.over_same and row.over_same.low <= 0
        ]
        if good:
            reached.setdefault(min(good), []).append(name)
    never = [name for name in NAMED if not any(name in names for names in reached.values())]
    told = [f"{calls} calls for {listing(names)}" for calls, names in sorted(reached.items())]
    if never:
        told.append(f"more than were tried for {listing(never)}")
    return f"On {shape}: {'; '.join(told)}"


def _noisy(rows: Sequence[Row], shapes: Sequence[str]) -> str:
    """Return which samplers, with all their calls, cannot be told from exact draws or are worse than those."""
    words: list[str] = []
    for shape in shapes:
        floor = next(row for row in rows if (row.data, row.sampler) == (shape, "exact draws"))
        last = {row.sampler: row for row in rows if row.data == shape and row.grid == MAIN}
        apart = [name for name, row in last.items() if row.energy.low > floor.energy.high]
        worse = f"samples of {listing(apart)} stay farther" if apart else "no sampler's samples stay farther"
        words.append(f"On {shape} two sets of exact draws are {floor.energy.value:.2g} x 0.001 apart, and {worse}")
    return points("With the most calls tried, by energy distances and their intervals:", words)


def _figure(rows: Sequence[Row], shapes: Sequence[str]) -> Figure:
    kinds = {**FAMILIES, "against time": SHOWN_IN_TIME}
    titles = [f"{shape}: {kind}" for kind in (*kinds, "grids") for shape in shapes]
    figure, axes = panels(titles, columns=len(shapes), width=4.4 if len(shapes) < 3 else 3.5, height=2.5)
    for k, place in enumerate(axes):
        mine = [row for row in rows if row.data == shapes[k % len(shapes)]]
        if k >= len(shapes) * len(kinds):
            _differences(place, [row for row in mine if row.part == "grids"])
            place.tick_params(labelleft=k % len(shapes) == 0)
            continue
        kind = list(kinds)[k // len(shapes)]
        mine = [row for row in mine if row.part == "solvers"]
        place.set(xscale="log", yscale="log")
        if k % len(shapes) == 0:
            place.set_ylabel("energy distance x 1000")
        place.set_xlabel("ms for all samples" if kind == "against time" else "network calls")
        for index, name in enumerate(kinds[kind]):
            shown = [row for row in mine if row.sampler == name]
            x = [row.milliseconds if kind == "against time" and row.milliseconds else row.calls for row in shown]
            if shown:
                line(place, x, [row.energy for row in shown], label=name, index=index)
        level(place, mine[0].energy, label="exact draws")
    plain_ticks(axes[: len(shapes) * len(kinds)])
    for k in range(len(shapes), len(axes) + 1, len(shapes)):
        legend_beside(axes[k - 1])
    return figure


def _differences(place: Axes, rows: Sequence[Row]) -> None:
    """Draw how much worse (right of zero) `FAST` is than `SLOW`, by grid."""
    found = {row.grid: row for row in rows if (row.sampler, row.calls) == (FAST, FEW)}
    for index, (column, label) in enumerate((("over_same", "same grid"), ("over_best", f"{SLOW}'s best grid"))):
        forest(place, list(found), [getattr(row, column) for row in found.values()], label=label, index=index, of=2)
    place.axvline(0, color=INK, linewidth=1.0, linestyle=":")
    place.set_xlabel(f"{FAST} at {FEW}\nminus {SLOW} at {MANY} (x 1000)")
