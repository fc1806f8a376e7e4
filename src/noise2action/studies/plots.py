"""Figures of studies: small multiples of lines with their 95 % intervals, in the style of `evaluate.figures`."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluate.figures import FONT, INK, PALETTE, number_ticks, style_axes
from ..evaluate.statistics import Estimate

MARKERS = "osD^vPX"
LETTERS = 10.5
"""Letters of a title to an inch of a panel, of which its numbers at the side take a part."""


def panels(
    titles: Sequence[str], *, columns: int = 3, width: float = 3.6, height: float = 2.9
) -> tuple[Figure, list[Axes]]:
    """Return a figure with one styled panel a title, `columns` a row; `width` and `height` of a panel in inches."""
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, k + 1) for k in range(len(titles))]
    for place, title in zip(axes, _fitted(titles, int(LETTERS * width)), strict=True):
        style_axes(place)
        place.set_title(title, fontsize=FONT + 1, color=INK)
    return figure, axes


def _fitted(titles: Sequence[str], letters: int) -> list[str]:
    """Return the titles on more lines if one is too long: layouts let it run into that of the next panel."""
    if all(len(title) <= letters for title in titles):
        return list(titles)
    return ["\n".join(textwrap.fill(part, letters) for part in title.split(": ")) for title in titles]


def line(
    axes: Axes,
    x: Sequence[float | int],
    estimates: Sequence[Estimate],
    *,
    label: str,
    index: int = 0,
    dashed: bool = False,
) -> None:
    """Draw one line with markers and a band for the 95 % intervals; colour and marker by `index`.

    Set the scales of `axes` before: a log axis is kept to the values, and a band that reaches zero runs off its edge.
    """
    colour = PALETTE[index % len(PALETTE)]
    values = [e.value for e in estimates]
    logarithmic = axes.get_yscale() == "log"
    edge = min(values) * 1e-6
    low = [max(e.low, edge) if logarithmic else e.low for e in estimates]
    axes.fill_between(x, low, [e.high for e in estimates], color=colour, alpha=0.12, linewidth=0)
    style = "--" if dashed else "-"
    marker = MARKERS[index % len(MARKERS)]
    axes.plot(x, values, color=colour, marker=marker, markersize=3.5, linewidth=1.4, linestyle=style, label=label)
    _fit(axes)


def level(axes: Axes, estimate: Estimate, *, label: str) -> None:
    """Draw a horizontal line with its interval, such as the distance between two sets of data."""
    axes.axhspan(estimate.low, estimate.high, color=INK, alpha=0.12, linewidth=0)
    axes.axhline(estimate.value, color=INK, linewidth=1.0, linestyle=":", label=label)
    _fit(axes)


def _fit(axes: Axes) -> None:
    """Keep a log axis to the values of its lines."""
    if axes.get_yscale() == "log":
        shown = [float(y) for drawn in axes.get_lines() for y in np.asarray(drawn.get_ydata()) if y > 0]
        axes.set_ylim(min(shown) / 1.5, max(shown) * 1.5)


def forest(
    axes: Axes, labels: Sequence[str], estimates: Sequence[Estimate], *, label: str, index: int = 0, of: int = 1
) -> None:
    """Draw one estimate a row with its interval: the series `index` of `of`, side by side within a row."""
    rows = np.arange(len(labels)) + 0.8 * ((index + 0.5) / of - 0.5)
    values = [e.value for e in estimates]
    spread = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
    axes.errorbar(
        values,
        rows,
        xerr=spread,
        label=label,
        color=PALETTE[index],
        marker=MARKERS[index],
        linestyle="none",
        capsize=3,
        markersize=4,
    )
    if index == 0:
        axes.set_yticks(np.arange(len(labels)), list(labels))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")


def legend_beside(axes: Axes) -> None:
    """Write the legend of one panel to its right, where it covers no data."""
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, labelcolor=INK, fontsize=FONT)


def legend(figure: Figure, axes: Sequence[Axes], *, columns: int = 4) -> None:
    """Write one legend of all panels below the figure, where it covers no data."""
    seen = {label: handle for place in axes for handle, label in zip(*place.get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(seen.values()),
        list(seen),
        loc="outside lower center",
        ncols=min(columns, len(seen)),
        frameon=False,
        labelcolor=INK,
        fontsize=FONT,
    )


def plain_ticks(axes: Sequence[Axes]) -> None:
    """Write the numbers of log axes alike on each axis."""
    for place in axes:
        number_ticks(place)
