"""What DDIM's eta does: fresh noise in each step, from none (0) to ancestral sampling (1), with exact denoisers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..diffusion.grids import Trailing
from ..diffusion.samplers import DDIM
from ..diffusion.sampling import prior
from ..evaluate.distances import precision_recall
from ..evaluate.statistics import Estimate
from ..seeds import generator
from .plots import legend, line, panels, plain_ticks
from .quality import SHAPES, Bench, exact
from .study import Cell, Findings, Progress, Settings, by_chance, difference, listing, mean, paragraphs, points, verdict

ETAS = (0.0, 0.5, 1.0)
CALLS = (5, 10, 20, 50, 100, 200)
GRID = Trailing()

COLUMNS = (
    "data",
    "eta",
    "calls",
    "energy distance x 1000",
    "precision",
    "recall",
    "spread",
    "share of fresh noise",
    "energy minus eta 0, x 1000",
    "recall minus eta 0",
)


@dataclass(frozen=True)
class Row:
    """One eta with one number of calls."""

    data: str
    eta: float
    calls: int
    energy: Estimate
    precision: Estimate
    recall: Estimate
    spread: Estimate
    """Root mean square distance to the nearest centre of the data, over that of exact draws: below 1, too narrow."""
    fresh: Estimate
    """Share of the samples' variance that the first noise does not decide."""
    energy_over: Estimate
    recall_over: Estimate

    def cells(self) -> tuple[Cell, ...]:
        """Return the row under `COLUMNS`."""
        return tuple(vars(self).values())


def run(settings: Settings, progress: Progress) -> Findings:
    """Return quality and diversity by eta and calls."""
    shapes = settings.pick(SHAPES, quick=("ring", "moons"), tiny=("ring",))
    calls = settings.pick(CALLS, quick=(5, 10, 20, 50, 100), tiny=(5, 20))
    n, seeds = settings.pick((800, 12), quick=(400, 8), tiny=(60, 3))
    rows: list[Row] = []
    for k, shape in enumerate(shapes):
        bench = Bench(exact(shape), n, seeds, settings.seed)
        for j, nfe in enumerate(calls):
            rows += _rows(bench, shape, nfe)
            progress(k * len(calls) + j + 1, len(shapes) * len(calls))
    return Findings(COLUMNS, [row.cells() for row in rows], _figure(rows, shapes), paragraph(rows))


def _rows(bench: Bench, shape: str, nfe: int) -> list[Row]:
    rows: list[Row] = []
    base: tuple[list[float], list[float]] | None = None
    for eta in ETAS:
        samples = bench.samples(DDIM(eta=eta), GRID, nfe)
        energy = [1e3 * value for value in bench.judged(samples).energy]
        pairs = list(zip(samples.sets, bench.references, strict=True))
        quality = [precision_recall(reference, x) for x, reference in pairs]
        precision, recall = [p for p, _ in quality], [r for _, r in quality]
        base = base or (energy, recall)
        spread = [_reach(x, bench) / _reach(reference, bench) for x, reference in pairs]
        rows.append(
            Row(
                shape,
                eta,
                nfe,
                mean(energy),
                mean(precision),
                mean(recall),
                mean(spread),
                mean(fresh_share(bench, eta, nfe)),
                difference(energy, base[0]),
                difference(recall, base[1]),
            )
        )
    return rows


def _reach(x: Tensor, bench: Bench) -> float:
    return float(torch.cdist(x.double(), bench.data.means).min(dim=1).values.square().mean().sqrt())


def fresh_share(bench: Bench, eta: float, nfe: int) -> list[float]:
    """Return, one a seed, E|x - x'|^2 of samples from one first noise over that of independent samples."""
    sampler, path = DDIM(eta=eta), bench.data.path
    times = GRID.times(path, nfe)
    first = prior(path, torch.empty(bench.n * bench.seeds, 2), generator=generator(bench.seed, "first"))
    once, again = (
        sampler(bench.data.denoise, path, times, first, generator=generator(bench.seed, "fresh", k)).chunk(bench.seeds)
        for k in range(2)
    )
    # Two independent samples differ by twice the variance.
    return [
        float((x - y).square().sum(1).mean() / (2 * x.var(dim=0, correction=0).sum()))
        for x, y in zip(once, again, strict=True)
    ]


def paragraph(rows: Sequence[Row]) -> str:
    """Return what the rows show."""
    told = [verdict(row.energy_over, below="closer", above="farther", tie="tied") for row in rows if row.eta != 0]
    return paragraphs(
        f"Of {len(told)} samplings with eta above 0, against eta 0 with as many calls, {told.count('farther')} are "
        f"farther from the data by energy distance, {told.count('closer')} closer and {told.count('tied')} tied.",
        points("By data set:", [_quality(rows, shape) for shape in dict.fromkeys(row.data for row in rows)]),
        _diversity(rows),
        by_chance(sum(row.eta in ETAS[1:] for row in rows) + sum(row.eta == 1 for row in rows)),
        _freedom(rows),
    )


def _quality(rows: Sequence[Row], shape: str) -> str:
    """Return at which numbers of calls each eta is better or worse than 0 on this shape."""
    words: list[str] = []
    for eta in ETAS[1:]:
        mine = [row for row in rows if (row.data, row.eta) == (shape, eta)]
        told = {row.calls: verdict(row.energy_over, below="closer", above="farther", tie="tied") for row in mine}
        kinds = [kind for kind in ("farther", "tied", "closer") if kind in told.values()]
        each = [f"{kind} at {listing([str(c) for c, v in told.items() if v == kind])}" for kind in kinds]
        words.append(f"eta {eta:g} is {', '.join(each)} calls")
    return f"On {shape} {'; '.join(words)}"


def _diversity(rows: Sequence[Row]) -> str:
    """Return whether fresh noise covers more or less of the data, and how narrow samples are."""
    told = [verdict(row.recall_over, below="lower", above="higher", tie="tied") for row in rows if row.eta == 1]
    counts = [f"{told.count(kind)} {kind}" for kind in ("higher", "tied", "lower") if kind in told]
    few = min(row.calls for row in rows)
    narrow = {eta: [row.spread.value for row in rows if (row.calls, row.eta) == (few, eta)] for eta in ETAS}
    spreads = listing([f"{sum(v) / len(v):.2f} (eta {eta:g})" for eta, v in narrow.items()])
    return (
        f"Recall at eta 1 against eta 0, over {len(told)} settings: {', '.join(counts)}. "
        f"With {few} calls samples spread {spreads} times as far around the centres as the data do, on average."
    )


def _freedom(rows: Sequence[Row]) -> str:
    """Return how much of a sample the first noise leaves open."""
    most = max(row.calls for row in rows)
    told: list[str] = []
    for eta in ETAS:
        shares = [100 * row.fresh.value for row in rows if (row.calls, row.eta) == (most, eta)]
        ends = dict.fromkeys(f"{share:.0f}" for share in (min(shares), max(shares)))
        told.append(f"{' to '.join(ends)} % at eta {eta:g}")
    above = [row.fresh for row in rows if row.calls == most and row.fresh.value > 1]
    held = sum(share.low <= 1 for share in above)
    beyond = (
        f" A share is the ratio of two estimates, and can exceed 100 %: {len(above)} of them do, and the intervals of "
        f"{held} of these hold 100 %."
    )
    return (
        f"With {most} calls fresh noise decides {listing(told)} of the variance of a sample, by data set; the first "
        f"noise decides the rest.{beyond if above else ''}"
    )


def _figure(rows: Sequence[Row], shapes: Sequence[str]) -> Figure:
    kinds = (
        ("energy", "energy distance x 1000"),
        ("recall", "recall"),
        ("spread", "spread over the data's"),
        ("fresh", "share of fresh noise"),
    )
    titles = [shape if k == 0 else "" for k in range(len(kinds)) for shape in shapes]
    figure, axes = panels(titles, columns=len(shapes), width=4.2 if len(shapes) < 3 else 3.2, height=2.3)
    for k, place in enumerate(axes):
        column, label = kinds[k // len(shapes)]
        place.set(xscale="log", yscale="log" if column == "energy" else "linear")
        if k % len(shapes) == 0:
            place.set_ylabel(label)
        if k // len(shapes) == len(kinds) - 1:
            place.set_xlabel("network calls")
        for index, eta in enumerate(ETAS):
            mine = [row for row in rows if (row.data, row.eta) == (shapes[k % len(shapes)], eta)]
            line(place, [r.calls for r in mine], [getattr(r, column) for r in mine], label=f"eta {eta:g}", index=index)
    plain_ticks(axes)
    legend(figure, axes)
    return figure
