"""The forward process: what 0 to 1000 steps of noise leave of a spiral, by the jump and step by step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..data.points import POINTS
from ..diffusion.chain import forward_chain
from ..diffusion.paths import Path, Schedule
from ..evaluate.distances import energy_distance
from ..evaluate.figures import FONT, INK
from ..evaluate.statistics import Estimate
from ..seeds import derive, generator
from .plots import level, line, panels
from .study import Findings, Progress, Settings, difference, mean, paragraphs

STEPS = 1000
SHOWN = (0, 100, 300, 500, 800, 1000)
SCHEDULES: dict[str, Path] = {
    "linear": Schedule(steps=STEPS, name="linear"),
    "cosine": Schedule(steps=STEPS, name="cosine"),
}
COLUMNS = (
    "schedule",
    "step",
    "alpha",
    "sigma",
    "SNR (dB)",
    "correlation with x0, exact",
    "correlation with x0",
    "energy distance to the prior",
    "less that of two priors",
    "energy distance, jump to chain",
    "less that of two jumps",
)


@dataclass(frozen=True, eq=False)
class Level:
    """One schedule at one step: the values of every seed, in the order of the seeds."""

    schedule: str
    step: int
    correlation: list[float]
    to_prior: list[float]
    prior_floor: list[float]
    to_chain: list[float]
    jump_floor: list[float]

    @property
    def t(self) -> Tensor:
        """Time of the step, float64."""
        return torch.tensor(self.step / STEPS, dtype=torch.float64)


def run(settings: Settings, progress: Progress) -> Findings:
    """Return signal, noise, correlation and distance to the prior at `SHOWN` steps of two schedules."""
    seeds = settings.pick(12, quick=5, tiny=2)
    n = settings.pick(4000, quick=1500, tiny=120)
    levels = [Level(name, step, [], [], [], [], []) for name in SCHEDULES for step in SHOWN]
    for k in range(seeds):
        _measure(levels, n, derive(settings.seed, "forward", k))
        progress(k + 1, seeds)
    rows = [_row(found) for found in levels]
    return Findings(COLUMNS, rows, _figure(levels, settings.seed), _paragraph(levels))


def _data(n: int, seed: int) -> Tensor:
    """Return `n` points of the spiral with mean 0 and a variance of 1 a coordinate: alpha^2 is the signal's power."""
    x = POINTS["swiss_roll"].draw(n, seed).x.to(torch.float64)
    x = x - x.mean(0)
    return x / x.square().mean().sqrt()


def _chain(path: Path, x0: Tensor, noise: torch.Generator) -> dict[int, Tensor]:
    """Return x_k at the `SHOWN` steps, each of all steps made from the one before."""
    walk = forward_chain(path, x0, times=[k / STEPS for k in range(1, STEPS + 1)], generator=noise)
    return {0: x0, **{k: x for k, x in enumerate(walk, start=1) if k in SHOWN}}


def _measure(levels: Sequence[Level], n: int, seed: int) -> None:
    noise = generator(seed, "noise")
    x0, other, third = (_data(n, derive(seed, name)) for name in ("jump", "chain", "second jump"))
    chains = {name: _chain(path, other, noise) for name, path in SCHEDULES.items()}
    prior, second_prior = (torch.randn(n, 2, generator=noise, dtype=torch.float64) for _ in range(2))
    floor = energy_distance(prior, second_prior)
    for found in levels:
        path = SCHEDULES[found.schedule]
        x_t, x_t2 = (path.noised(x, found.t, torch.randn(n, 2, generator=noise, dtype=x.dtype)) for x in (x0, third))
        found.correlation.append(float((x_t * x0).mean() / (x_t.square().mean() * x0.square().mean()).sqrt()))
        found.to_prior.append(energy_distance(x_t, prior))
        found.prior_floor.append(floor)
        found.to_chain.append(energy_distance(x_t, chains[found.schedule][found.step]))
        found.jump_floor.append(energy_distance(x_t, x_t2))


def _scales(found: Level) -> tuple[float, float]:
    path = SCHEDULES[found.schedule]
    return float(path.alpha(found.t)), float(path.sigma(found.t))


def _exact(found: Level) -> float:
    """Return the correlation of x_t with x0 of unit variance: alpha / sqrt(alpha^2 + sigma^2)."""
    alpha, sigma = _scales(found)
    return alpha / math.hypot(alpha, sigma)


def _row(found: Level) -> tuple[str | int | float | Estimate, ...]:
    alpha, sigma = _scales(found)
    ratio = 20 * math.log10(alpha / sigma) if sigma else math.inf
    return (
        *(found.schedule, found.step, alpha, sigma, ratio, _exact(found)),
        *(mean(found.correlation), mean(found.to_prior), difference(found.to_prior, found.prior_floor)),
        *(mean(found.to_chain), difference(found.to_chain, found.jump_floor)),
    )


def _paragraph(levels: Sequence[Level]) -> str:
    sentences: list[str] = []
    for name, path in SCHEDULES.items():
        mine = [found for found in levels if found.schedule == name]
        apart = [k for k, found in enumerate(mine) if difference(found.to_prior, found.prior_floor).low > 0]
        noise = [found.step for found in mine[max(apart, default=-1) + 1 :]]
        equal = float(path.time_at(torch.zeros((), dtype=torch.float64)))
        told = (
            f"and from step {noise[0]} on the energy distance no longer tells x_t from the prior"
            if noise
            else f"and at step {STEPS} the energy distance still tells x_t from the prior"
        )
        sentences.append(
            f"On the {name} schedule noise is more than half of the power after step {equal * STEPS:.0f}, {told}."
        )
    middle = {found.schedule: mean(found.correlation) for found in levels if found.step == STEPS // 2}
    first, last = sorted(middle, key=lambda name: middle[name].value)
    apart = middle[first].high < middle[last].low
    sentences.append(
        f"Half-way, at step {STEPS // 2}, the correlation with x0 is {middle[first].value:.2f} on {first} and "
        f"{middle[last].value:.2f} on {last}"
        + (f": {first} destroys the data earlier." if apart else ", and their intervals overlap.")
    )
    off = [found for found in levels if not _holds(mean(found.correlation), _exact(found))]
    sentences.append(
        f"The measured correlation agrees with alpha / sqrt(alpha^2 + sigma^2) in {len(levels) - len(off)} "
        f"of {len(levels)} rows (a 95 % interval misses one in twenty by chance)."
    )
    gaps = [difference(found.to_chain, found.jump_floor) for found in levels]
    far = sum(gap.low > 0 for gap in gaps)
    sentences.append(
        f"Points that walked all steps of the chain are as far from points that jumped as two sets of jumps are from "
        f"each other in {len(gaps) - far} of {len(gaps)} rows."
    )
    return paragraphs(*sentences)


def _holds(estimate: Estimate, value: float) -> bool:
    # At step 0 both are exactly 1, up to rounding.
    return estimate.low - 1e-9 <= value <= estimate.high + 1e-9


def _figure(levels: Sequence[Level], seed: int) -> Figure:
    width = len(SHOWN) + 1
    titles = [title for _ in SCHEDULES for title in (*(f"step {step}" for step in SHOWN), "")]
    figure, axes = panels(titles, columns=width, width=2.0, height=2.3)
    x0 = _data(1500, derive(seed, "forward", "shown"))
    order = x0.norm(dim=1)
    for row, (name, path) in enumerate(SCHEDULES.items()):
        noise = generator(seed, "shown")
        for place, step in zip(axes[row * width :], SHOWN, strict=False):
            t = torch.tensor(step / STEPS, dtype=torch.float64)
            x_t = path.noised(x0, t, torch.randn(x0.shape, generator=noise, dtype=x0.dtype))
            place.scatter(*x_t.T.numpy(), c=order.numpy(), cmap="viridis", s=2, linewidths=0, rasterized=True)
            place.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
        axes[row * width].set_ylabel(f"{name} betas", fontsize=FONT, color=INK)
    _curve(axes[width - 1], levels, "correlation with x0")
    _curve(axes[2 * width - 1], levels, "distance to the prior")
    return figure


def _curve(axes: Axes, levels: Sequence[Level], title: str) -> None:
    axes.set_title(title, fontsize=FONT + 1, color=INK)
    correlation = title.startswith("correlation")
    for index, name in enumerate(SCHEDULES):
        mine = [found for found in levels if found.schedule == name]
        values = [mean(found.correlation if correlation else found.to_prior) for found in mine]
        line(axes, [float(found.step) for found in mine], values, label=name, index=index)
    if not correlation:
        axes.set_ylim(bottom=0)
        level(axes, mean(levels[0].prior_floor), label="two priors")
    axes.set_xlabel("step", fontsize=FONT, color=INK)
    axes.set_xticks([0, 500, 1000])
    axes.legend(frameon=False, labelcolor=INK, fontsize=FONT - 1.5)
