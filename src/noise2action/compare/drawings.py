"""Figures of a comparison: a panel a task, a row a method, in the order of the table."""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from types import MappingProxyType

import numpy as np
from jaxtyping import UInt8

from ..evaluate.figures import FAINT, FONT, INK, PALETTE, ROUTES, Axes, Figure, number_ticks, style_axes
from ..evaluate.statistics import Estimate
from ..evaluate.tables import jerk_unit
from .methods import CONTROL, GENERATIVE
from .rows import Row, TaskRows

ACROSS = 3
"""Panels side by side."""
ROW = 0.27
"""Height of a row in inches."""
FURTHER = (*PALETTE[2:6], "#F0E442", "#332288", "#8C510A")
"""Colours of routes that have none of their own."""
JOINTS: Mapping[str, bool] = {"within chunks": False, "between chunks": True}
"""Jumps of the action by where they are, and whether their dots are filled."""
KINDS: Mapping[str, str] = {
    "not learned": PALETTE[6],
    "cloning and look-up": PALETTE[5],
    "the control": PALETTE[0],
    "diffusion and flow": PALETTE[1],
}
"""Colours by kind of method."""


def kind_of(row: Row) -> str:
    """Return which of `KINDS` a row is."""
    if not row.learned:
        return "not learned"
    if row.method.name == CONTROL:
        return "the control"
    return "diffusion and flow" if row.method.name in GENERATIVE else "cloning and look-up"


def success(tasks: Sequence[TaskRows]) -> Figure:
    """Return success by method with its Wilson interval."""
    return _bars(tasks, lambda row: row.evaluation.success, scale=100.0, label="success (%)")


def score(tasks: Sequence[TaskRows]) -> Figure:
    """Return the mean score by method, of the tasks in which a score says more than success."""
    graded = [
        task for task in tasks if any(r.score != float(r.success) for row in task.rows for r in row.evaluation.results)
    ]
    return _bars(graded, lambda row: row.evaluation.score, scale=1.0, label="score")


def time_to_success(tasks: Sequence[TaskRows]) -> Figure:
    """Return the mean time of the successful episodes by method."""

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        _dots(axes, rows, [took for row in rows if (took := row.time_to_success)])
        axes.set(xlabel="time to success (s)")
        axes.set_xlim(left=0)

    return _panels(tasks, draw, keep=lambda row: row.time_to_success is not None, legend=True)


def differences(tasks: Sequence[TaskRows]) -> Figure:
    """Return success less that of the control on the same episodes, with Newcombe's interval."""

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        axes.axvline(0, color=INK, linewidth=0.8)
        gaps = [row.paired.success.difference for row in rows if row.paired]
        axes.scatter([100 * g.value for g in gaps], range(len(rows)), color=[KINDS[kind_of(r)] for r in rows], zorder=3)
        _whiskers(axes, gaps, scale=100.0)
        reach = max(10.0, *(100 * max(abs(g.low), abs(g.high)) for g in gaps)) * 1.05
        axes.set(xlim=(-reach, reach), xlabel="success less the control (percentage points)")

    return _panels(tasks, draw, keep=lambda row: row.paired is not None, legend=True)


def jerk(tasks: Sequence[TaskRows]) -> Figure:
    """Return the root mean square jerk by method, on a log scale."""

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        _dots(axes, rows, [row.evaluation.smoothness["jerk"] for row in rows])
        axes.set(xscale="log", xlabel=f"jerk, RMS ({jerk_unit(_unit(rows))})")
        number_ticks(axes)

    return _panels(
        tasks,
        draw,
        keep=lambda row: (e := row.evaluation.smoothness.get("jerk")) is not None and e.low > 0,
        legend=True,
    )


def jumps(tasks: Sequence[TaskRows]) -> Figure:
    """Return the mean jump where chunks join (filled) and within chunks (open)."""

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        for name, filled in zip(("within_jump", "boundary_jump"), JOINTS.values(), strict=True):
            known = [(k, e, KINDS[kind_of(r)]) for k, r in enumerate(rows) if (e := r.evaluation.smoothness.get(name))]
            axes.scatter(
                [e.value for _, e, _ in known],
                [k for k, _, _ in known],
                edgecolors=[colour for _, _, colour in known],
                facecolors=[colour if filled else "none" for _, _, colour in known],
                zorder=3,
                clip_on=False,
            )
        axes.set(xlabel=f"jump of the action ({_unit(rows)})")
        axes.set_xlim(left=0)

    return _panels(tasks, draw, keep=lambda row: row.learned, legend=True, marks=JOINTS)


def routes(tasks: Sequence[TaskRows]) -> Figure:
    """Return the share of the episodes by route, beneath that of the demonstrations; right of it, how varied it is."""
    shown = [task for task in tasks if any(row.evaluation.routes for row in task.rows)]
    found = [row.evaluation for task in shown for row in task.rows]
    names = sorted({name for each in found for known in (each.routes, each.reference) for name in known or {}})
    # A route has one colour in all panels.
    colours = {**ROUTES, **dict(zip((name for name in names if name not in ROUTES), cycle(FURTHER), strict=False))}
    above = ("demonstrations",) if any(each.reference for each in found) else ()

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        bars = [rows[0].evaluation.reference or {} for _ in above] + [row.evaluation.routes or {} for row in rows]
        left, where = np.zeros(len(bars)), range(-len(above), len(rows))
        for name in (name for name in names if any(name in bar for bar in bars)):
            width = np.array([100 * bar.get(name, 0.0) for bar in bars])
            axes.barh(where, width, left=left, height=0.62, color=colours[name], label=name)
            left += width
        modes = [row.modes for row in rows]
        told = [f"{m.reference_entropy:.2f} bit" for m in modes[:1] if m]
        told += [f"{m.entropy:.2f} bit, {100 * m.coverage:.0f} %" for m in modes if m]
        for line, text in zip(where if told else (), told, strict=True):
            axes.text(101, line, text, fontsize=FONT - 2, color=INK, va="center")
        axes.set(xlim=(0, 100), xlabel="share of the episodes (%)")
        axes.legend(
            frameon=False,
            labelcolor=INK,
            fontsize=FONT - 1,
            ncols=2,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            handlelength=1.2,
            columnspacing=1.0,
        )

    return _panels(shown, draw, keep=lambda row: row.evaluation.routes is not None, below=0.55, above=above)


def latency(tasks: Sequence[TaskRows]) -> Figure:
    """Return the time of one plan, p50 (dot) and p99 (end of the line), on a log scale; right of it, network calls."""

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        for k, row in enumerate(rows):
            assert row.timing is not None, "only what was timed is drawn"
            colour = KINDS[kind_of(row)]
            axes.plot([row.timing.p50_ms, row.timing.p99_ms], [k, k], color=colour, linewidth=1.6)
            axes.scatter([row.timing.p50_ms], [k], color=colour, zorder=3)
            calls = f"{row.timing.nfe} call{'' if row.timing.nfe == 1 else 's'}"
            axes.text(1.02, k, calls, fontsize=FONT - 2, color=INK, va="center", transform=axes.get_yaxis_transform())
        axes.set(xscale="log", xlabel="one plan (ms): p50 to p99")
        number_ticks(axes)

    return _panels(tasks, draw, keep=lambda row: row.timing is not None, legend=True)


def training(tasks: Sequence[TaskRows]) -> Figure:
    """Return the minutes of a training, the mean over seeds."""

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        minutes = [row.timing.train_s / 60 for row in rows if row.timing is not None]
        axes.barh(range(len(rows)), minutes, height=0.62, color=[KINDS[kind_of(row)] for row in rows])
        axes.set(xlabel="one training (min)")

    return _panels(tasks, draw, keep=lambda row: row.timing is not None, legend=True)


def gallery(pictures: Sequence[tuple[str, Sequence[tuple[int, UInt8[np.ndarray, "h w 3"]]]]]) -> Figure:
    """Return last frames of failed episodes: a row a method, the seed above each."""
    across = max(len(frames) for _, frames in pictures)
    figure = Figure(figsize=(1.6 + 1.7 * across, 1.9 * len(pictures)), layout="constrained")
    for k, (label, frames) in enumerate(pictures):
        for j, (episode, frame) in enumerate(frames):
            axes = figure.add_subplot(len(pictures), across, k * across + j + 1)
            axes.imshow(frame)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(FAINT)
            axes.set_title(f"seed {episode}", fontsize=FONT - 1, color=INK)
            if j == 0:
                axes.set_ylabel(label.replace(" (", "\n("), fontsize=FONT, color=INK)
    return figure


def _panels(
    tasks: Sequence[TaskRows],
    draw: Callable[[Axes, Sequence[Row]], None],
    *,
    keep: Callable[[Row], bool] = lambda row: True,
    legend: bool = False,
    below: float = 0.0,
    above: Sequence[str] = (),
    marks: Mapping[str, bool] = MappingProxyType({}),
) -> Figure:
    """Return a figure with a panel a task, of the rows to keep; the names of methods stand on the left of each line.

    Without such rows it is empty.
    `below` is further height (in) of a panel; `above` names lines above those of the methods, at -1 and up;
    `marks` are dots for the legend, filled or not.
    """
    kept = {task.task: [row for row in task.rows if keep(row)] for task in tasks}
    kept = {task: rows for task, rows in kept.items() if rows}
    across = min(ACROSS, max(1, len(kept)))
    down = -(-len(kept) // across)
    most = max((len(rows) for rows in kept.values()), default=1) + len(above)
    figure = Figure(figsize=(1.2 + 3.4 * across, (1.05 + ROW * most + below) * down + 0.3), layout="constrained")
    for k, (task, rows) in enumerate(kept.items()):
        axes = figure.add_subplot(down, across, k + 1)
        style_axes(axes)
        draw(axes, rows)
        axes.set_title(task, fontsize=FONT + 1, color=INK, loc="left")
        axes.set_yticks(range(-len(above), len(rows)), [*above, *(row.method.label for row in rows)])
        axes.set_ylim(len(rows) - 0.5, -0.5 - len(above))
        axes.grid(visible=False, axis="y")
        axes.tick_params(labelleft=k % across == 0 or _differ(kept, k))
        for label in (axes.xaxis.label, *axes.get_yticklabels()):
            label.set(color=INK, fontsize=FONT)
    if legend and kept:
        used = {kind_of(row) for rows in kept.values() for row in rows}
        handles = [
            figure.axes[0].scatter([], [], color=colour, label=name) for name, colour in KINDS.items() if name in used
        ]
        handles += [
            figure.axes[0].scatter([], [], edgecolors=INK, facecolors=INK if filled else "none", label=name)
            for name, filled in marks.items()
        ]
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=2 if across == 1 else len(handles),
            frameon=False,
            labelcolor=INK,
            fontsize=FONT,
        )
    return figure


def _bars(tasks: Sequence[TaskRows], of: Callable[[Row], Estimate], *, scale: float, label: str) -> Figure:
    """Return bars from 0 to `scale` of what lies in [0, 1]."""

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        found = [of(row) for row in rows]
        colours = [KINDS[kind_of(row)] for row in rows]
        axes.barh(range(len(rows)), [scale * e.value for e in found], height=0.62, color=colours)
        _whiskers(axes, found, scale=scale)
        axes.set(xlim=(0, 1.02 * scale), xlabel=label)

    return _panels(tasks, draw, legend=True)


def _dots(axes: Axes, rows: Sequence[Row], found: Sequence[Estimate]) -> None:
    axes.scatter([e.value for e in found], range(len(rows)), color=[KINDS[kind_of(r)] for r in rows], zorder=3)
    _whiskers(axes, found)


def _differ(kept: Mapping[str, Sequence[Row]], position: int) -> bool:
    """Return whether a panel has other methods than the one before it."""
    panels = [[row.method.name for row in rows] for rows in kept.values()]
    return panels[position] != panels[position - 1]


def _whiskers(axes: Axes, estimates: Sequence[Estimate], *, scale: float = 1.0) -> None:
    values = np.array([scale * e.value for e in estimates])
    ends = np.abs([values - [scale * e.low for e in estimates], np.array([scale * e.high for e in estimates]) - values])
    axes.errorbar(values, range(len(estimates)), xerr=ends, fmt="none", ecolor=INK, capsize=2.5, linewidth=1.0)


def _unit(rows: Sequence[Row]) -> str:
    return rows[0].evaluation.about.action_unit or "action units"
