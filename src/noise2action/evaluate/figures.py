"""Figures of runs and evaluations: each function returns a matplotlib `Figure` and touches no global state.

Colours are Okabe and Ito's (told apart with any colour vision). `svg` replaces the colours of text, axes and the first
series by the page's own, so that one figure suits light and dark pages.
"""

import base64
import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import MissingExtraError
from .latency import Latency
from .statistics import Estimate

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle
    from matplotlib.ticker import LogFormatterMathtext, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
except ImportError as error:
    raise MissingExtraError("matplotlib", "report") from error

INK, FAINT, BLUE = "#1c2128", "#d3d8de", "#0072B2"
PALETTE = (BLUE, "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8c8c8c")
TRAIN, VALIDATION = PALETTE[0], PALETTE[4]
ROUTES: Mapping[str, str] = {"left": PALETTE[0], "right": PALETTE[1], "none": PALETTE[6]}
FONT = 9.0

Record = Mapping[str, Any]
"""One line of metrics.jsonl."""


@dataclass(frozen=True)
class Scene:
    """What is drawn under trajectories in the plane; lengths in `unit`."""

    low: tuple[float, float]
    high: tuple[float, float]
    unit: str = ""
    obstacles: Sequence[tuple[float, float, float]] = ()
    """Discs: centre x, centre y, radius."""
    goal: tuple[float, float, float] | None = None
    """Disc: centre x, centre y, radius."""
    start: tuple[float, float] | None = None


@dataclass(frozen=True)
class Trajectory:
    """One rollout in the plane."""

    points: Float[np.ndarray, "T 2"]
    route: str | None = None
    success: bool = True


@dataclass(frozen=True)
class Panel:
    """Trajectories of one policy under a title."""

    title: str
    trajectories: Sequence[Trajectory] = field(default_factory=tuple)


def loss_curves(records: Sequence[Record]) -> Figure:
    """Return training and validation loss, and the validation action error, over optimiser steps.

    Losses are on a log scale, but those that are not positive: a negative log-likelihood.
    """
    train = [r for r in records if r["kind"] == "train" and r["loss"] is not None]
    validation = [r for r in records if r["kind"] == "validation"]
    errors = [r for r in validation if r.get("action_error") is not None]
    figure, axes = _subplots(2 if errors else 1, width=4.4, height=3.1)
    steps, losses = _column(train, "step"), _column(train, "loss")
    axes[0].plot(steps, losses, color=TRAIN, alpha=0.25, linewidth=0.8)
    axes[0].plot(steps, _smoothed(losses), color=TRAIN, linewidth=1.8, label="train (smoothed)")
    if validation:
        axes[0].plot(*_columns(validation, "step", "loss"), "o-", color=VALIDATION, markersize=3.5, label="validation")
    axes[0].set(yscale=_loss_scale(losses), xlabel="optimiser step", ylabel="loss")
    number_ticks(axes[0])
    _legend(axes[0])
    if errors:
        axes[1].plot(*_columns(errors, "step", "action_error"), "o-", color=VALIDATION, markersize=3.5)
        unit = errors[-1].get("action_error_unit")
        axes[1].set(xlabel="optimiser step", ylabel=f"validation action error ({unit})" if unit else "action error")
        axes[1].set_ylim(bottom=0)
    return figure


def bucket_losses(records: Sequence[Record], *, moments: int = 4) -> Figure:
    """Return the loss by noise level: training records averaged over `moments` equal parts of the run.

    Bucket i of n covers t in [i / n, (i + 1) / n]; empty buckets (null) leave a gap.
    """
    train = [r for r in records if r["kind"] == "train" and r.get("buckets")]
    figure, (axes,) = _subplots(1, width=5.2, height=3.1)
    parts = [part for part in np.array_split(np.arange(len(train)), moments) if len(part)]
    for k, part in enumerate(parts):
        table = np.array([[math.nan if v is None else v for v in train[i]["buckets"]] for i in part], dtype=np.float64)
        count = np.isfinite(table).sum(axis=0)
        means = np.where(count, np.nansum(table, axis=0), math.nan) / np.maximum(count, 1)
        centres = (np.arange(table.shape[1]) + 0.5) / table.shape[1]
        label = f"steps {train[part[0]]['step']:,} to {train[part[-1]]['step']:,}"
        shade = 0.25 + 0.75 * (k + 1) / len(parts)
        axes.plot(centres, means, "o-", color=TRAIN, alpha=shade, markersize=3.5, linewidth=0.8 + shade, label=label)
    scale = _loss_scale(np.concatenate([np.empty(0), *(line.get_ydata() for line in axes.lines)]))
    axes.set(yscale=scale, xlabel="diffusion time t (0 data, 1 noise)", ylabel="mean training loss", xlim=(0, 1))
    number_ticks(axes)
    _legend(axes)
    return figure


def latency_bars(latencies: Mapping[str, Latency], *, period_ms: float, stride: int) -> Figure:
    """Return p50 (bar) and p99 (whisker) of one plan by policy, against the control period (log scale).

    A plan must end within one period, or within `stride` periods where it is computed beside the execution.
    """
    figure, (axes,) = _subplots(1, width=7.0, height=0.9 + 0.42 * len(latencies))
    rows = np.arange(len(latencies))
    p50 = np.array([latency.total.p50 for latency in latencies.values()])
    p99 = np.array([latency.total.p99 for latency in latencies.values()])
    axes.barh(rows, p50, height=0.55, color=PALETTE[0])
    axes.errorbar(p50, rows, xerr=[np.zeros_like(p50), p99 - p50], fmt="none", ecolor=INK, capsize=4, linewidth=1.2)
    limit = stride * period_ms
    for x, text, align in (
        (period_ms, f"one tick {period_ms:g} ms ", "right"),
        (limit, f" chunk {limit:g} ms", "left"),
    ):
        axes.axvline(x, color=PALETTE[4], linewidth=1.2, linestyle="--" if x == period_ms else ":")
        axes.annotate(
            text, (x, 1.0), xycoords=("data", "axes fraction"), va="bottom", ha=align, color=INK, fontsize=FONT
        )
    for row, middle, high in zip(rows, p50, p99, strict=True):
        text = f"{_short(middle)} / {_short(high)} ms"
        axes.annotate(text, (1.02, row), xycoords=("axes fraction", "data"), va="center", color=INK, fontsize=FONT)
    axes.set(xscale="log", xlabel="one plan, batch 1, one thread: p50 / p99 (ms)", yticks=rows)
    axes.set_xlim(min(p50.min(), period_ms) / 3, max(p99.max() * 2, limit * 3))
    axes.set_yticks(rows, list(latencies))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    number_ticks(axes)
    return figure


def success_bars(rates: Mapping[str, Estimate]) -> Figure:
    """Return success rates by policy with their 95 % Wilson intervals and episode counts."""
    figure, (axes,) = _subplots(1, width=7.0, height=0.8 + 0.42 * len(rates))
    rows = np.arange(len(rates))
    values = np.array([100 * rate.value for rate in rates.values()])
    low = values - [100 * rate.low for rate in rates.values()]
    high = np.array([100 * rate.high for rate in rates.values()]) - values
    axes.barh(rows, values, height=0.55, color=PALETTE[0])
    axes.errorbar(values, rows, xerr=np.abs([low, high]), fmt="none", ecolor=INK, capsize=4, linewidth=1.2)
    for row, rate in zip(rows, rates.values(), strict=True):
        text = f"{100 * rate.value:.1f} %, n = {rate.n}"
        axes.annotate(
            text,
            (100 * rate.high, row),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=FONT,
        )
    axes.set(xlabel="success rate (%), bar: mean, whisker: 95 % Wilson interval", xlim=(0, 128))
    axes.set_xticks([0, 20, 40, 60, 80, 100])
    axes.set_yticks(rows, list(rates))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return figure


def plane_trajectories(scene: Scene, panels: Sequence[Panel]) -> Figure:
    """Return the trajectories of several policies side by side, coloured by route; a cross ends a failure."""
    figure, axes = _planes(scene, [panel.title for panel in panels], margin=1.35)
    seen = {t.route for panel in panels for t in panel.trajectories if t.route}
    routes = [*(route for route in ROUTES if route in seen), *sorted(seen.difference(ROUTES))]
    extra = [route for route in routes if route not in ROUTES]
    colours = {**ROUTES, **dict(zip(extra, PALETTE[2:6] * len(extra), strict=False))}
    for place, panel in zip(axes, panels, strict=True):
        for trajectory in panel.trajectories:
            colour = colours[trajectory.route] if trajectory.route else PALETTE[0]
            place.plot(*trajectory.points.T, color=colour, alpha=0.55, linewidth=1.0)
            if not trajectory.success:
                place.plot(*trajectory.points[-1], "x", color=PALETTE[4], markersize=6, markeredgewidth=1.8)
        n, solved = len(panel.trajectories), sum(t.success for t in panel.trajectories)
        place.set_title(f"{panel.title}\n{solved} of {n} reach the goal", fontsize=FONT + 1, color=INK)
    for route in routes:
        axes[0].plot([], [], color=colours[route], label=route)
    if routes:
        figure.legend(loc="outside lower center", ncols=len(routes), frameon=False, labelcolor=INK, fontsize=FONT)
    return figure


def denoising_chunks(scene: Scene, levels: Sequence[float], paths: Float[np.ndarray, "N k H 2"]) -> Figure:
    """Return sampled chunks, drawn as paths in the plane, at each noise level of `levels` (1 noise to 0 data).

    `paths[i, j]` is chunk j at `levels[i]`; a chunk keeps its colour.
    """
    figure, axes = _planes(scene, [f"t = {level:.2f}" for level in levels], margin=0.9)
    for place, chunks in zip(axes, paths, strict=True):
        for j, chunk in enumerate(chunks):
            place.plot(*chunk.T, ".-", color=PALETTE[j % 6], alpha=0.75, linewidth=1.0, markersize=2.5)
    return figure


def integrate(
    velocities: Float[np.ndarray, "*k H 2"], start: Float[np.ndarray, " 2"], control_hz: float
) -> Float[np.ndarray, "*k H1 2"]:
    """Return the path that velocity commands make from `start`, the start included (H + 1 points)."""
    path = np.cumsum(velocities, axis=-2) / control_hz + start
    return np.concatenate([np.broadcast_to(start, path[..., :1, :].shape), path], axis=-2)


def svg(figure: Figure, name: str, description: str) -> str:
    """Return inline SVG that follows the page's colours and width; `name` keeps its ids apart from other figures."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for marker, colour in ((INK, "currentColor"), (FAINT, "var(--line)"), (BLUE.lower(), "var(--blue)")):
        text = text.replace(marker, colour)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None, "matplotlib writes a viewBox"
    width = figure.get_figwidth() * 96
    opening = f'<svg {box[0]} role="img" aria-label="{html.escape(description)}" style="width:{width:.0f}px"'
    opening += ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1">'
    return opening + text[text.index(">") + 1 :]


def png_uri(figure: Figure, *, dpi: float = 144.0) -> str:
    """Return the figure as a `data:` URI of a PNG on white."""
    return "data:image/png;base64," + base64.b64encode(png(figure, dpi=dpi)).decode()


def png(figure: Figure, *, dpi: float = 144.0) -> bytes:
    """Return the figure as a PNG on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def _subplots(columns: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    axes = [figure.add_subplot(1, columns, k + 1) for k in range(columns)]
    for place in axes:
        style_axes(place)
    return figure, axes


def style_axes(axes: Axes) -> None:
    """Give axes the look of all figures here."""
    axes.set_facecolor("none")
    axes.grid(visible=True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(which="both", colors=INK, labelsize=FONT, length=0)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=FONT)


def _planes(scene: Scene, titles: Sequence[str], *, margin: float) -> tuple[Figure, list[Axes]]:
    aspect = (scene.high[1] - scene.low[1]) / (scene.high[0] - scene.low[0])
    width = min(3.4, 12.0 / len(titles))
    figure, axes = _subplots(len(titles), width=width, height=(width - 0.3) * aspect + margin)
    for place, title in zip(axes, titles, strict=True):
        place.grid(visible=False)
        place.spines[:].set_visible(True)
        place.spines[:].set_color(FAINT)
        place.set(xlim=(scene.low[0], scene.high[0]), ylim=(scene.low[1], scene.high[1]), aspect="equal")
        place.set_title(title, fontsize=FONT + 1, color=INK)
        place.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
        place.set_xlabel(f"x ({scene.unit})" if scene.unit else "x")
        for x, y, radius in scene.obstacles:
            place.add_patch(Circle((x, y), radius, facecolor=FAINT, edgecolor=INK, linewidth=0.8))
        if scene.goal is not None:
            x, y, radius = scene.goal
            place.add_patch(Circle((x, y), radius, facecolor="#009E7344", edgecolor=PALETTE[2], linewidth=1.4))
        if scene.start is not None:
            place.plot(*scene.start, "o", color=INK, markersize=4, zorder=5)
    axes[0].set_ylabel(f"y ({scene.unit})" if scene.unit else "y")
    for place in axes[1:]:
        place.tick_params(labelleft=False)
    return figure, axes


def number_ticks(axes: Axes) -> None:
    """Write 0.02 and 100 on log axes, and powers of ten where an axis reaches beyond 0.0001 or 100,000."""
    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        if scale == "log":
            low, high = axis.get_view_interval()
            span = high / low
            subs = (1, 1.5, 2, 3, 4, 6, 8) if span < 6 else (1, 2, 5) if span < 150 else (1,)
            axis.set_major_locator(LogLocator(subs=subs))
            plain = low >= 1e-4 and high < 1e6
            axis.set_major_formatter(StrMethodFormatter("{x:g}") if plain else LogFormatterMathtext())
            axis.set_minor_formatter(NullFormatter())


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, labelcolor=INK, fontsize=FONT)


def _loss_scale(losses: Float[np.ndarray, " n"]) -> str:
    return "linear" if (losses <= 0).any() else "log"


def _column(records: Sequence[Record], key: str) -> Float[np.ndarray, " n"]:
    return np.array([r[key] for r in records], dtype=np.float64)


def _columns(records: Sequence[Record], *keys: str) -> list[Float[np.ndarray, " n"]]:
    return [_column(records, key) for key in keys]


def _smoothed(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return the centred moving average over a tenth of the values at most, shorter at the ends."""
    half = max(len(values) // 40, 1)
    total = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
