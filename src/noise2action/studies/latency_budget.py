"""How many network calls fit in 100 ms on this computer, one thread and batch 1, and how good that many calls are."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..condition import Condition
from ..diffusion.grids import LogSNR
from ..diffusion.paths import LinearVP
from ..diffusion.samplers import NAMED
from ..diffusion.sampling import sample
from ..evaluate.figures import INK
from ..evaluate.statistics import Estimate
from ..machine import hardware
from ..nets import UNet1dConfig
from ..nets.points import PointMLPConfig
from ..policies import DiffusionConfig
from ..recipes import find
from ..seeds import generator
from .plots import forest, legend_beside, panels, plain_ticks
from .quality import Bench, Run, exact, feasible
from .study import Cell, Findings, Progress, Settings, difference, listing, mean, paragraphs, points, verdict

BUDGET_MS = 100.0
TABULATED_US = 30.0
"""What a sampler may add to a network call."""
SAMPLERS = ("ddim", "dpm-solver++-2m", "unipc", "heun", "rk4", "ddpm")
"""Those whose quality is measured; the overhead is measured for all."""
TIMED = tuple(name for name in NAMED if name != "adaptive")
GRID = LogSNR(low=-2.0, high=3.0)
LIMIT = "dpm-solver++-2m"
"""Sampler that, with the most calls, stands for no solver error."""
HORIZON, ACTIONS, OBSERVED = 16, 2, 10
"""Shape of the policies' chunks, and numbers that they observe."""

COLUMNS = (
    "network",
    "parameters",
    "ms a call",
    "sampler",
    "us a call besides",
    f"calls in {BUDGET_MS:g} ms",
    "energy distance x 1000",
    "energy minus no solver error, x 1000",
)
CLOCKED = COLUMNS[2], COLUMNS[4], COLUMNS[5]
"""What was timed, several times over, not sampled seed by seed."""


@dataclass(frozen=True)
class Row:
    """One network with one sampler; without a network, the sampler's own time."""

    network: str
    parameters: int | None
    milliseconds: Estimate | None
    sampler: str
    microseconds: Estimate
    calls: Estimate | None
    energy: Estimate | None
    energy_over: Estimate | None

    def cells(self) -> tuple[Cell, ...]:
        """Return the row under `COLUMNS`."""
        return tuple(vars(self).values())


def networks() -> dict[str, tuple[nn.Module, Callable[[], object]]]:
    """Return every network with random weights, and one call of it for one sample, by name."""
    chunk, t = torch.zeros(1, HORIZON, ACTIONS), torch.tensor(0.5)
    told = Condition(torch.zeros(1, OBSERVED))
    sizes = {"horizon": HORIZON, "action_dim": ACTIONS, "condition_dim": OBSERVED}
    point = PointMLPConfig().build(shape=(2,)).eval()
    zero, label = torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)
    found: dict[str, tuple[nn.Module, Callable[[], object]]] = {"point MLP": (point, lambda: point(zero, t, label))}
    policies = {
        f"policy MLP of {name}": policy.net
        for name in ("two_routes", "pusht_state")
        if isinstance(policy := find(name).policy, DiffusionConfig)
    }
    for name, config in {**policies, "1-D U-Net": UNet1dConfig()}.items():
        net = config.build(**sizes).eval()

        def call(net: nn.Module = net) -> object:
            return net(chunk, t, told)

        found[name] = (net, call)
    return found


def blocks(call: Callable[[], object], *, count: int, calls: int) -> list[float]:
    """Return the median seconds of a call in each of `count` blocks of `calls`, after one block that is not counted."""
    medians: list[float] = []
    with torch.inference_mode():
        for _ in range(count + 1):
            took: list[float] = []
            for _ in range(calls):
                began = time.perf_counter()
                call()
                took.append(time.perf_counter() - began)
            medians.append(float(np.median(took)))
    return medians[1:]


def overhead(name: str, *, count: int, calls: int) -> list[float]:
    """Return the seconds that a sampler adds to a network call, in each of `count` blocks."""
    nfe = feasible(NAMED[name], 50)
    assert nfe is not None, "every sampler can make 50 calls"
    like, noise = torch.zeros(1, HORIZON, ACTIONS), generator(0, "overhead")

    def identity(x_t: Tensor, t: Tensor) -> Tensor:
        del t
        return x_t

    def whole() -> Tensor:
        return sample(identity, PATH, like, sampler=NAMED[name], grid=GRID, nfe=nfe, generator=noise)

    return [seconds / nfe for seconds in blocks(whole, count=count, calls=calls)]


PATH = LinearVP()


def run(settings: Settings, progress: Progress) -> Findings:
    """Return call times, overheads, the calls that fit and their quality."""
    count, calls = settings.pick((12, 40), quick=(8, 12), tiny=(3, 2))
    n, seeds, most = settings.pick((500, 8, 500), quick=(300, 6, 500), tiny=(40, 3, 30))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        besides = {name: overhead(name, count=count, calls=calls) for name in TIMED}
        nets = networks()
        took = {name: blocks(call, count=count, calls=calls) for name, (_, call) in nets.items()}
    finally:
        torch.set_num_threads(threads)
    parameters = {name: sum(p.numel() for p in net.parameters()) for name, (net, _) in nets.items()}
    rows = [Row("none", None, None, name, _micro(besides[name]), None, None, None) for name in TIMED]
    bench = Bench(exact("moons"), n, seeds, settings.seed)
    limit = bench.run(NAMED[LIMIT], GRID, most)
    jobs = [(net, sampler) for net in nets for sampler in SAMPLERS]
    for done, (net, sampler) in enumerate(jobs):
        milliseconds, us = _milli(took[net]), _micro(besides[sampler])
        fit = _fit(milliseconds, us)
        judged = _quality(bench, sampler, min(int(fit.value), most), limit)
        rows.append(Row(net, parameters[net], milliseconds, sampler, us, fit, *judged))
        progress(done + 1, len(jobs))
    return Findings(
        COLUMNS, [row.cells() for row in rows], _figure(rows), paragraph(rows), dict.fromkeys(CLOCKED, "timings")
    )


def _micro(seconds: Sequence[float]) -> Estimate:
    return mean([1e6 * s for s in seconds])


def _milli(seconds: Sequence[float]) -> Estimate:
    return mean([1e3 * s for s in seconds])


def _fit(milliseconds: Estimate, microseconds: Estimate) -> Estimate:
    """Return the whole calls in the budget; the interval is that of times all fast or all slow."""

    def whole(ms: float, us: float) -> float:
        return float(BUDGET_MS // max(ms + us / 1e3, 1e-3))

    slow, fast = whole(milliseconds.high, microseconds.high), whole(milliseconds.low, microseconds.low)
    return Estimate(whole(milliseconds.value, microseconds.value), slow, fast, milliseconds.n)


def _quality(bench: Bench, sampler: str, calls: int, limit: Run) -> tuple[Estimate | None, Estimate | None]:
    """Return the energy distance with at most this many calls, and how much above `limit`'s; None where none fit."""
    nfe = feasible(NAMED[sampler], calls)
    if nfe is None:
        return None, None
    found = [1e3 * value for value in bench.run(NAMED[sampler], GRID, nfe).energy]
    return mean(found), difference(found, [1e3 * value for value in limit.energy])


def paragraph(rows: Sequence[Row]) -> str:
    """Return what the rows show."""
    alone = [row for row in rows if row.network == "none"]
    nets = list(dict.fromkeys(row.network for row in rows if row.network != "none"))
    mine = {net: [row for row in rows if row.network == net] for net in nets}
    counts = listing([f"{_count(rows)} of {net}" for net, rows in mine.items()])
    return paragraphs(
        f"The calls that fit in {BUDGET_MS:g} ms are {counts}.",
        points("Whether they are enough, by energy distance:", [_budget(rows) for rows in mine.values()]),
        _besides(alone),
    )


def _count(mine: Sequence[Row]) -> str:
    """Return how many calls fit for one network, e.g. `481 to 491`."""
    fits = [row.calls.value for row in mine if row.calls]
    if not fits:
        return "0"
    return " to ".join(dict.fromkeys(f"{count:.0f}" for count in (min(fits), max(fits))))


def _besides(alone: Sequence[Row]) -> str:
    least, most = (pick(alone, key=lambda row: row.microseconds.value) for pick in (min, max))
    over = [row.sampler for row in alone if row.microseconds.low > TABULATED_US]
    under = [row.sampler for row in alone if row.microseconds.high <= TABULATED_US]
    return (
        f"On {hardware()}, one thread, batch 1, samplers add {least.microseconds.value:.0f} ({least.sampler}) to "
        f"{most.microseconds.value:.0f} us ({most.sampler}) to a network call; by their intervals {len(under)} of "
        f"{len(alone)} add at most {TABULATED_US:g} us{', more than that ' + listing(over) if over else ''}."
    )


def _budget(mine: Sequence[Row]) -> str:
    """Return what fits for one network, and whether that many calls are enough."""
    first = mine[0]
    assert first.milliseconds is not None, "a network has a time"
    told: dict[str, list[str]] = {}
    for row in mine:
        words = (
            "no step fits for"
            if row.energy_over is None
            else verdict(
                row.energy_over,
                above="the solver's error shows for",
                below="closer to the data than without solver error, by these draws, is",
                tie="no solver error shows for",
            )
        )
        told.setdefault(words, []).append(row.sampler)
    energies = {row.sampler: row.energy for row in mine if row.energy}
    lead = (
        f"{first.network} ({first.milliseconds.value:.2f} ms a call): "
        f"{'; '.join(f'{words} {listing(names)}' for words, names in told.items())}"
    )
    if not energies:
        return lead
    best = min(energies, key=lambda name: energies[name].value)
    ties = [name for name, e in energies.items() if name != best and e.low <= energies[best].high]
    tied = f"; the intervals of {listing(ties)} meet its" if ties else ""
    return (
        f"{lead}; {best} has the least distance ({energies[best].value:.3g} "
        f"[{energies[best].low:.3g}, {energies[best].high:.3g}] x 0.001{tied})"
    )


def _figure(rows: Sequence[Row]) -> Figure:
    figure, (besides, fits, quality) = panels(
        ["time besides the network", f"calls that fit in {BUDGET_MS:g} ms", "energy distance above no solver error"],
        columns=3,
        width=4.6,
        height=4.2,
    )
    alone = [row for row in rows if row.network == "none"]
    forest(besides, [row.sampler for row in alone], [row.microseconds for row in alone], label="")
    besides.axvline(TABULATED_US, color=INK, linewidth=1.0, linestyle=":")
    besides.set_xlabel("us a network call")
    nets = list(dict.fromkeys(row.network for row in rows if row.network != "none"))
    _by_sampler(fits, {s: [_of(rows, net, s).calls for net in nets] for s in SAMPLERS}, nets)
    fits.set(xscale="log", xlabel="network calls")
    _by_sampler(quality, {s: [_of(rows, net, s).energy_over for net in nets] for s in SAMPLERS}, nets)
    quality.set_xlabel("energy distance x 1000")
    quality.axvline(0, color=INK, linewidth=1.0, linestyle=":")
    quality.tick_params(labelleft=False)
    legend_beside(quality)
    plain_ticks([fits])
    return figure


def _of(rows: Sequence[Row], network: str, sampler: str) -> Row:
    return next(row for row in rows if (row.network, row.sampler) == (network, sampler))


def _by_sampler(axes: Axes, values: Mapping[str, Sequence[Estimate | None]], nets: Sequence[str]) -> None:
    unknown = Estimate(float("nan"), float("nan"), float("nan"), 0)
    for index, (name, estimates) in enumerate(values.items()):
        forest(axes, nets, [e or unknown for e in estimates], label=name, index=index, of=len(values))
