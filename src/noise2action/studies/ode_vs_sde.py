"""When sampling with fresh noise beats sampling without: with exact denoisers, and with denoisers wrong by design."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..diffusion.denoisers import Denoiser
from ..diffusion.exact import Mixture
from ..diffusion.grids import LogSNR
from ..diffusion.samplers import NAMED
from ..errors import PathError
from ..evaluate.figures import INK
from ..evaluate.statistics import Estimate
from ..seeds import generator
from ..shapes import broadcast
from .plots import legend_beside, level, line, panels, plain_ticks
from .quality import HALF_STOCHASTIC, STOCHASTIC, Bench, Run, deterministic, exact, feasible
from .study import Cell, Findings, Progress, Settings, by_chance, difference, listing, mean, paragraphs, points, verdict

GRID = LogSNR(low=-2.0, high=3.0)
CALLS = (10, 25, 50, 100, 400)
SIZE = 0.3
"""Error of a wrong denoiser, as a share of the uncertainty sigma / sqrt(alpha^2 + sigma^2) of unit data."""

WRONG: Mapping[str, tuple[float, float] | None] = {
    "exact": None,
    "wrong where noise > 1": (1.0, math.inf),
    "wrong where noise < 1": (0.0, 1.0),
}
"""Noise levels sigma / alpha at which the denoiser errs."""

SAME = ("euler", "dpm-solver-1")
"""In this library DDIM by other names: one of them is enough."""
ODE = tuple(name for name in deterministic() if name not in SAME)
SDE = (*STOCHASTIC, *HALF_STOCHASTIC)
SHOWN = ("ddim", "heun", "rk4", "dpm-solver-2", "dpm-solver++-2m", "dpm-solver++-3m", "unipc")
KINDS = {"deterministic": ODE, "stochastic": SDE}

COLUMNS = ("data", "denoiser", "kind", "sampler", "calls", "energy distance x 1000", "sliced Wasserstein x 100")


@dataclass(frozen=True)
class Row:
    """One sampler; or, of kind `difference`, the best stochastic minus the best deterministic one.

    Which are best is chosen on the first half of the seeds and compared on the second: choosing is not rewarded.
    """

    data: str
    denoiser: str
    kind: str
    sampler: str
    calls: int
    energy: Estimate
    wasserstein: Estimate

    def cells(self) -> tuple[Cell, ...]:
        """Return the row under `COLUMNS`."""
        return tuple(vars(self).values())


def wrong(data: Mixture, low: float, high: float, *, size: float, seed: int) -> Denoiser:
    """Return the exact denoiser plus a fixed smooth error, of amplitude `size` sigma / sqrt(alpha^2 + sigma^2).

    It errs where low <= sigma / alpha < high. The error is a function of x_t scaled to unit size: a network's mistake,
    the same in each call.
    """
    g = generator(seed, "error")
    turn = 2 * torch.randn(2, 2, generator=g, dtype=torch.float64)
    phase = 2 * math.pi * torch.rand(2, generator=g, dtype=torch.float64)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        time = broadcast(t, x_t)
        alpha, sigma = data.path.alpha(time), data.path.sigma(time)
        scale = (alpha**2 + sigma**2).sqrt()
        errs = (low * alpha <= sigma) & (sigma < high * alpha)
        bump = (x_t / scale @ turn.to(x_t.dtype) + phase.to(x_t.dtype)).sin()
        return data.denoise(x_t, t) + torch.where(errs, size * sigma / scale, 0.0) * bump

    return denoise


def run(settings: Settings, progress: Progress) -> Findings:
    """Return quality over calls for every sampler with exact and wrong denoisers."""
    shapes = settings.pick(("ring", "moons"), quick=("moons",), tiny=("ring",))
    calls = settings.pick(CALLS, quick=(10, 25, 50), tiny=(10, 25))
    n, seeds = settings.pick((500, 12), quick=(300, 10), tiny=(50, 4))
    rows: list[Row] = []
    jobs = [(shape, name) for shape in shapes for name in WRONG]
    for k, (shape, name) in enumerate(jobs):
        bench = Bench(exact(shape), n, seeds, settings.seed)

        def step(done: int, total: int, k: int = k) -> None:
            progress(k * total + done, len(jobs) * total)

        rows += _rows(bench, shape, name, calls, step)
    return Findings(COLUMNS, [row.cells() for row in rows], _figure(rows), paragraph(rows))


def _rows(bench: Bench, shape: str, denoiser: str, calls: Sequence[int], progress: Progress) -> list[Row]:
    levels = WRONG[denoiser]
    denoise = None if levels is None else wrong(bench.data, *levels, size=SIZE, seed=bench.seed)
    floor = bench.floor
    rows = [Row(shape, denoiser, "data", "exact draws", 0, _scaled(floor), _wasserstein(floor))]
    total, done = sum(calls), 0
    for nfe in calls:
        found: dict[str, dict[str, Run]] = {kind: {} for kind in KINDS}
        for kind, names in KINDS.items():
            for name in names:
                affordable = feasible(NAMED[name], nfe)
                if affordable is None:
                    continue
                try:
                    found[kind][name] = bench.run(NAMED[name], GRID, affordable, denoise=denoise)
                except PathError:  # the steps are too long for this sampler: there is nothing to show
                    continue
            rows += [
                Row(shape, denoiser, kind, name, judged.calls, _scaled(judged), _wasserstein(judged))
                for name, judged in found[kind].items()
            ]
        rows.append(_difference(shape, denoiser, nfe, found))
        done += nfe
        progress(done, total)
    return rows


def _scaled(found: Run) -> Estimate:
    return mean([1e3 * value for value in found.energy])


def _wasserstein(found: Run) -> Estimate:
    return mean([1e2 * value for value in found.wasserstein])


def _difference(shape: str, denoiser: str, nfe: int, found: Mapping[str, Mapping[str, Run]]) -> Row:
    half = len(next(iter(found["stochastic"].values())).energy) // 2
    sde, ode = (
        min(found[kind], key=lambda name: sum(found[kind][name].energy[:half]))
        for kind in ("stochastic", "deterministic")
    )
    a, b = found["stochastic"][sde], found["deterministic"][ode]
    energy = difference([1e3 * v for v in a.energy[half:]], [1e3 * v for v in b.energy[half:]])
    wasserstein = difference([1e2 * v for v in a.wasserstein[half:]], [1e2 * v for v in b.wasserstein[half:]])
    return Row(shape, denoiser, "difference", f"{sde} minus {ode}", nfe, energy, wasserstein)


def paragraph(rows: Sequence[Row]) -> str:
    """Return what the rows show."""
    settings = dict.fromkeys((row.data, row.denoiser) for row in rows)
    overs = [row.energy for row in rows if row.kind == "difference"]
    told = [verdict(over, below="better", above="worse", tie="tied") for over in overs]
    harms = [_harm(rows, *setting) for setting in settings if setting[1] != "exact"]
    return paragraphs(
        f"In {len(told)} comparisons of the best sampler with fresh noise and the best without, fresh noise is better "
        f"in {told.count('better')}, worse in {told.count('worse')} and makes no difference that shows in "
        f"{told.count('tied')}.",
        points(
            "The best sampler of each kind is chosen on half of the seeds, and compared by energy distance on the "
            "other half:",
            [_compared(rows, *setting) for setting in settings],
        ),
        by_chance(len(told)),
        points("Energy distances x 1000 with the most calls:", harms) if harms else "",
    )


def _compared(rows: Sequence[Row], shape: str, denoiser: str) -> str:
    """Return with how many calls fresh noise helps or hurts."""
    mine = [row for row in rows if (row.data, row.denoiser, row.kind) == (shape, denoiser, "difference")]
    told = [verdict(row.energy, below="helps", above="hurts", tie="makes no difference that shows") for row in mine]
    each = [
        f"fresh noise {kind} with {listing([str(r.calls) for r, v in zip(mine, told, strict=True) if v == kind])} calls"
        for kind in dict.fromkeys(told)
    ]
    last = mine[-1]
    return (
        f"On {shape}, denoiser {denoiser}, {', '.join(each)} (with {last.calls}, {last.sampler}: "
        f"{last.energy.value:+.2f} [{last.energy.low:+.2f}, {last.energy.high:+.2f}] x 0.001)"
    )


def _harm(rows: Sequence[Row], shape: str, denoiser: str) -> str:
    """Return which kind the error of the denoiser harms more, with the most calls."""
    told: list[str] = []
    for kind in KINDS:
        best: dict[str, Estimate] = {}
        for name in ("exact", denoiser):
            # Samplers that make several calls a step end at slightly fewer: the last row of each is meant.
            last = {
                row.sampler: row.energy for row in rows if (row.data, row.denoiser, row.kind) == (shape, name, kind)
            }
            best[name] = min(last.values(), key=lambda estimate: estimate.value)
        apart = best[denoiser].low > best["exact"].high
        told.append(
            f"the best {kind} one from {best['exact'].value:.3g} to {best[denoiser].value:.3g} "
            f"({'more than' if apart else 'within'} its intervals)"
        )
    return f"On {shape}, the denoiser {denoiser} takes {listing(told)}"


def _figure(rows: Sequence[Row]) -> Figure:
    settings = list(dict.fromkeys((row.data, row.denoiser) for row in rows))
    kinds = {"deterministic": SHOWN, "stochastic": SDE}
    columns = len(settings)
    titles = [f"{shape}, {denoiser}: {kind}" for kind in (*kinds, "difference") for shape, denoiser in settings]
    figure, axes = panels(titles, columns=columns, width=4.0, height=2.8)
    for k, place in enumerate(axes):
        mine = [row for row in rows if (row.data, row.denoiser) == settings[k % columns]]
        place.set(xscale="log")
        if k >= 2 * columns:
            shown = [row for row in mine if row.kind == "difference"]
            line(place, [row.calls for row in shown], [row.energy for row in shown], label="best against best", index=5)
            place.axhline(0, color=INK, linewidth=1.0, linestyle=":")
            place.set_xlabel("network calls")
            continue
        kind = list(kinds)[k // columns]
        place.set_yscale("log")
        for index, name in enumerate(kinds[kind]):
            shown = [row for row in mine if (row.kind, row.sampler) == (kind, name)]
            if shown:
                line(place, [row.calls for row in shown], [row.energy for row in shown], label=name, index=index)
        level(place, mine[0].energy, label="exact draws")
    for k in range(columns):
        pair = axes[k], axes[k + columns]
        limits = [place.get_ylim() for place in pair]
        for place in pair:
            place.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    plain_ticks(axes)
    for k, label in enumerate(("energy distance x 1000", "energy distance x 1000", "stochastic minus deterministic")):
        axes[k * columns].set_ylabel(label)
        legend_beside(axes[(k + 1) * columns - 1])
    return figure
