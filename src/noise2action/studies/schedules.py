"""Noise schedules: their curves, what signal they leave at the end, and what that does to samples.

The denoiser is exact, so that whatever is wrong with the samples is the schedule's doing: too few steps where they
matter, or a start from noise that is not the distribution of x_1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..diffusion.exact import Mixture
from ..diffusion.grids import Trailing
from ..diffusion.paths import (
    VE,
    Cosine,
    LinearVP,
    Path,
    Schedule,
    Straight,
    SubVP,
    Table,
    linear_betas,
    terminal_snr,
    zero_terminal_snr,
)
from ..diffusion.samplers import DDIM
from ..diffusion.sampling import sample
from ..evaluate.distances import energy_distance
from ..evaluate.figures import FAINT, FONT, INK, PALETTE
from ..evaluate.statistics import Estimate
from ..seeds import derive, generator
from .plots import panels, plain_ticks
from .study import Findings, Progress, Settings, difference, mean, paragraphs, verdict

# linear_betas rescales by 1000 / steps; this undoes it: the betas of 1000 steps on a tenth of them.
SHORT = linear_betas(100, beta_min=1e-5, beta_max=2e-3)
FAMILIES: Mapping[str, Mapping[str, Path]] = {
    "linear betas": {
        "linear, T = 1000": Schedule(steps=1000, name="linear"),
        "linear, T = 100": Schedule(steps=100, name="linear"),
        "not rescaled, T = 100": Table(SHORT),
        "not rescaled, zero-SNR end": Table(zero_terminal_snr(SHORT)),
    },
    "other betas": {
        "cosine betas": Schedule(steps=1000, name="cosine"),
        "sigmoid": Schedule(steps=1000, name="sigmoid"),
        # On 1000 steps its signal underflows to exactly 0 half-way.
        "sigmoid, raw, T = 100": Schedule(steps=100, name="sigmoid_raw"),
        "scaled-linear": Schedule(steps=1000, name="scaled_linear"),
    },
    "continuous": {
        "straight": Straight(),
        "cosine": Cosine(),
        "linear VP": LinearVP(),
        "sub-VP": SubVP(),
        "VE": VE(),
    },
}
PATHS = {name: path for family in FAMILIES.values() for name, path in family.items()}
FEW, MANY = 10, 100
LIMIT = 20.0
"""dB of signal over noise above which a step is nearly data, and below minus which it is nearly noise."""
LINES = ("-", "--", "-.", ":")
COLUMNS = (
    "schedule",
    "terminal SNR",
    "steps that are nearly noise (%)",
    "steps that are nearly data (%)",
    f"energy distance, {FEW} calls",
    f"energy distance, {MANY} calls",
    f"over data to data, {FEW} calls",
    f"over data to data, {MANY} calls",
)


@dataclass(frozen=True, eq=False)
class Quality:
    """Energy distances of one schedule to data, a seed each."""

    few: list[float]
    many: list[float]


def run(settings: Settings, progress: Progress) -> Findings:
    """Return curves, terminal SNR and the quality of DDIM samples with an exact denoiser, schedule by schedule."""
    seeds = settings.pick(12, quick=5, tiny=2)
    n = settings.pick(4000, quick=1000, tiny=100)
    found = {name: Quality([], []) for name in PATHS}
    floor: list[float] = []
    for k in range(seeds):
        seed = derive(settings.seed, "schedules", k)
        data, other = (_draw(n, derive(seed, name)) for name in ("data", "other"))
        floor.append(energy_distance(data, other))
        for j, (name, path) in enumerate(PATHS.items()):
            for nfe, values in ((FEW, found[name].few), (MANY, found[name].many)):
                values.append(energy_distance(_sample(path, n, nfe=nfe, seed=seed), data))
            progress(k * len(PATHS) + j + 1, seeds * len(PATHS))
    rows = [_row(name, found[name], floor) for name in PATHS]
    return Findings(COLUMNS, rows, _figure(found, mean(floor)), _paragraph(found, floor))


def _mixture(path: Path) -> Mixture:
    """Return a ring of eight Gaussians, off its centre as data are: half of them are three times as frequent."""
    ring = Mixture.ring(path)
    weights = torch.tensor([3.0, 3.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    return Mixture(path, weights / weights.sum(), ring.means, ring.covariances)


def _draw(n: int, seed: int) -> Tensor:
    return _mixture(Straight()).draw(n, generator(seed))[0].float()


def _sample(path: Path, n: int, *, nfe: int, seed: int) -> Tensor:
    # The same noise for every schedule: what differs between them is not luck.
    noise = generator(seed, "noise")
    like = torch.empty(n, 2)
    return sample(_mixture(path).denoise, path, like, sampler=DDIM(), grid=Trailing(), nfe=nfe, generator=noise)


def _decibels(path: Path) -> Tensor:
    """Return the signal-to-noise ratio in dB at every step, or at 1000 times of a continuous path."""
    steps = path.steps if isinstance(path, Table) else 1000
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    return path.half_log_snr(t) * (20 / math.log(10))


def shares(path: Path) -> tuple[float, float]:
    """Return the share of steps that are nearly noise and nearly data."""
    ratio = _decibels(path)
    return float((ratio < -LIMIT).double().mean()), float((ratio > LIMIT).double().mean())


def _row(name: str, quality: Quality, floor: Sequence[float]) -> tuple[str | float | Estimate, ...]:
    noise, data = shares(PATHS[name])
    measured = (mean(quality.few), mean(quality.many), difference(quality.few, floor), difference(quality.many, floor))
    return name, terminal_snr(PATHS[name]), 100 * noise, 100 * data, *measured


def _paragraph(found: Mapping[str, Quality], floor: Sequence[float]) -> str:
    left = [name for name, path in PATHS.items() if terminal_snr(path) > 1e-3]
    power = {name: terminal_snr(PATHS[name]) / (1 + terminal_snr(PATHS[name])) for name in left}
    sentences = [
        f"{len(left)} of {len(PATHS)} schedules leave more signal at t = 1 than 0.1 % of the noise: "
        + ", ".join(f"{name} ({100 * power[name]:.2g} % of the power)" for name in left)
        + "."
    ]
    noisy, clean = (max(PATHS, key=lambda name: shares(PATHS[name])[k]) for k in (0, 1))
    sentences.append(
        f"{noisy} spends {100 * shares(PATHS[noisy])[0]:.0f} % of its steps below -{LIMIT:g} dB, where x_t is nearly "
        f"noise; {clean} spends {100 * shares(PATHS[clean])[1]:.0f} % above {LIMIT:g} dB, where it is nearly data."
    )
    worst = max(found, key=lambda name: mean(found[name].many).value)
    excess = difference(found[worst].many, floor)
    sentences.append(
        f"After {MANY} DDIM calls with the exact denoiser the worst samples are those of {worst}: energy distance "
        f"{mean(found[worst].many).value:.3g} against {mean(floor).value:.3g} between two sets of data"
        + verdict(excess, below=" (below it)", above="", tie=", which is within the interval")
        + "."
    )
    cured = [name for name in found if not difference(found[name].many, floor).low > 0]
    sentences.append(f"{len(cured)} of {len(found)} schedules cannot be told from data at {MANY} calls.")
    sentences.append(_cost_of_terminal_snr(found))
    best = min(found, key=lambda name: mean(found[name].few).value)
    ties = [name for name in found if name != best and not difference(found[name].few, found[best].few).low > 0]
    sentences.append(
        f"With only {FEW} calls, evenly spaced in t, {best} is best ({mean(found[best].few).value:.3g})"
        + (f", not told apart from {', '.join(ties)}." if ties else ", apart from every other by its interval.")
    )
    return paragraphs(*sentences)


def _cost_of_terminal_snr(found: Mapping[str, Quality]) -> str:
    plain, rescaled, zero = (
        found[name] for name in ("not rescaled, T = 100", "linear, T = 100", "not rescaled, zero-SNR end")
    )
    parts = [
        f"{name} changes the energy distance by {gap.value:+.3g} [{gap.low:+.3g}, {gap.high:+.3g}], "
        + verdict(gap, below="an improvement", above="a loss", tie="not told from none")
        for name, gap in (
            ("rescaling its betas", difference(rescaled.many, plain.many)),
            ("zero terminal SNR", difference(zero.many, plain.many)),
        )
    ]
    return f"Of the betas of 1000 steps used on 100, {'; '.join(parts)}."


def _figure(found: Mapping[str, Quality], floor: Estimate) -> Figure:
    count = len(FAMILIES)
    figure, axes = panels([*FAMILIES, *[""] * (2 * count)], columns=count, width=4.4, height=2.7)
    t = torch.linspace(0, 1, 401, dtype=torch.float64)[1:]
    for column, family in enumerate(FAMILIES.values()):
        power, ratio, quality = axes[column::count]
        for index, (name, path) in enumerate(family.items()):
            colour, dash = PALETTE[index], LINES[index % len(LINES)]
            snr = (2 * path.half_log_snr(t)).exp()
            power.plot(t, snr / (1 + snr), color=colour, linestyle=dash, linewidth=1.5, label=name)
            ratio.plot(t, 10 * snr.clamp(min=1e-30).log10(), color=colour, linestyle=dash, linewidth=1.5)
            _dots(quality, index, found[name])
        _legend(power)
        power.set(ylabel="signal's share of the power", ylim=(-0.03, 1.03), xlabel="t (0 data, 1 noise)")
        ratio.axhspan(-LIMIT, LIMIT, color=FAINT, alpha=0.5, linewidth=0)
        ratio.set(ylabel="SNR (dB)", ylim=(-65, 65), xlabel="t (0 data, 1 noise)")
        quality.axvspan(floor.low, floor.high, color=INK, alpha=0.12, linewidth=0)
        quality.axvline(floor.value, color=INK, linewidth=1.0, linestyle=":", label="data to data")
        quality.set(xscale="log", xlabel="energy distance of samples to data")
        quality.set_yticks(range(len(family)), list(family))
        quality.invert_yaxis()
        quality.grid(visible=False, axis="y")
    _alike(axes[2 * count :])
    plain_ticks(axes[2 * count :])
    handles = [
        axes[0].errorbar(
            [], [], xerr=[], fmt=mark, color=INK, markerfacecolor=fill, label=f"{nfe} calls, 95 % interval"
        )
        for nfe, mark, fill in ((FEW, "o", "white"), (MANY, "o", INK))
    ]
    floor_line = axes[2 * count].get_lines()[-1]
    figure.legend(handles=[*handles, floor_line], loc="outside lower center", ncols=3, frameon=False, fontsize=FONT)
    return figure


def _dots(axes: Axes, row: int, quality: Quality) -> None:
    """Draw both numbers of calls in the colour of the schedule's curves."""
    for values, shift, fill in ((quality.few, -0.14, "white"), (quality.many, 0.14, PALETTE[row])):
        at = mean(values)
        low = max(at.low, at.value / 10)  # the axis is logarithmic
        axes.errorbar(
            [at.value],
            [row + shift],
            xerr=[[at.value - low], [at.high - at.value]],
            fmt="o",
            color=PALETTE[row],
            markerfacecolor=fill,
            markersize=5,
            capsize=3,
            linewidth=1.3,
        )


def _alike(axes: Sequence[Axes]) -> None:
    """Give the panels one range of x, so that dots compare across them."""
    ends = [place.get_xlim() for place in axes]
    for place in axes:
        place.set_xlim(min(low for low, _ in ends), max(high for _, high in ends))


def _legend(axes: Axes) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=2,
        frameon=False,
        labelcolor=INK,
        fontsize=FONT - 1,
        columnspacing=1.2,
    )
    axes.set_title(axes.get_title(), fontsize=FONT + 1, color=INK, pad=46)
