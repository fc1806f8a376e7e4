"""Figures of what a policy looks at, and of what its actions depend on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import MissingExtraError
from .explain import share_text
from .figures import FAINT, FONT, INK, PALETTE, style_axes
from .keypoints import Keypoints, Window
from .statistics import Estimate
from .views import View

try:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import StrMethodFormatter
except ImportError as error:
    raise MissingExtraError("matplotlib", "report") from error

HEAT = LinearSegmentedColormap.from_list("heat", ["#ffffff", "#f7d58a", PALETTE[1], PALETTE[4], "#5c1a00"])
"""White where there is nothing: the picture is multiplied by it."""
SIDE = 1.62
"""Inches of a picture's longer side."""
NAMED = 6
"""Keypoints that are told apart."""
FAR = 4
"""Times the largest other bar that the noise's is cut off beyond; half of it is drawn."""
COVERS = {"grey": "grey", "mean": "its mean colour", "background": "the background"}


@dataclass(frozen=True, eq=False)
class Heat:
    """A row of heat over pictures."""

    name: str
    values: Float[np.ndarray, "F h w"]
    """Of whole pictures, or cells that share the window."""
    unit: str


def looks(view: View, *, unit: str, control_hz: float) -> Figure:
    """Return pictures in columns; in rows keypoints and their attention, cross-attention, gradient, effect of covering.

    Every row of heat has one scale, up to what 0.5 % of its values exceed.
    """
    unit, keys = unit or "action units", view.keypoints
    heats = [
        Heat("gradient", view.gradient.square().sum(1).sqrt().numpy(), f"{unit} per brightness"),
        Heat(f"covered with\n{COVERS[view.cover]}", view.covered.numpy(), f"actions move ({unit})"),
    ]
    if view.attention is not None:
        heats.insert(0, Heat("cross-\nattention", view.attention.numpy(), "share of a cell"))
    if keys is not None:
        share = keys.influence / keys.influence.sum().clamp(min=1e-30)
        attention = (keys.weights * share[:, None, None]).sum(1).numpy()
        heats.insert(0, Heat("attention\nby influence", attention, "weight of a cell"))
    figure, (first, *others) = _table(view, 1 + len(heats), control_hz)
    for column, (place, picture) in enumerate(zip(first.places, view.pictures.numpy(), strict=True)):
        place.imshow(picture, interpolation="nearest")
        _frame(place, picture, view.window)
        if keys is not None:
            _mark(place, keys, column)
    first.places[0].set_ylabel("camera" if keys is None else "keypoints", fontsize=FONT, color=INK)
    for row, heat in zip(others, heats, strict=True):
        _heat_row(figure, row, view, heat)
    handles = [] if keys is None else _marks(keys, unit)
    title = None if keys is None else "how far the executed actions move when a keypoint is held at its mean place:"
    _legend(figure, [*handles, *_window_key(view)], title)
    return figure


def keypoint_maps(view: View, keys: Keypoints, *, unit: str, control_hz: float) -> Figure:
    """Return where each of the foremost keypoints looks: one row a keypoint, a cross at its expected place."""
    chosen = keys.foremost(NAMED)
    figure, table = _table(view, len(chosen), control_hz)
    for row, k in zip(table, chosen, strict=True):
        name = f"keypoint {k}\n{float(keys.influence[k]):.3g} {unit}"
        _heat_row(figure, row, view, Heat(name, keys.weights[:, k].numpy(), "weight"))
        for column, place in enumerate(row.places):
            x, y = keys.places[column, k].tolist()
            place.plot(x, y, "+", color=PALETTE[0], markersize=9, markeredgewidth=1.6)
    label = Line2D([], [], color=PALETTE[0], marker="+", linestyle="", markersize=8, label="expected place")
    _legend(figure, [label, *_window_key(view)])
    return figure


def influence_bars(parts: Mapping[str, Estimate], *, unit: str, whole: str, noise: str) -> Figure:
    """Return how far the actions move by part of the observation, with intervals; `whole` and `noise` are grey.

    The bar of a `noise` that would make all others short is cut off, its length written beside it.
    """
    largest = max(e.value for name, e in parts.items() if name != noise)
    texts = [share_text(e.value, parts[whole].value) for e in parts.values()]
    label = f"the executed actions move by ({unit or 'action units'}); in per cent of {whole}"
    far = noise in parts and parts[noise].value > FAR * largest > 0
    if far:
        texts[list(parts).index(noise)] += f": {parts[noise].value:.3g} \N{RIGHTWARDS ARROW}"
    return _bars(parts, texts, label, grey=(whole, noise), reach=FAR * largest / 2 if far else np.inf)


def attention_bars(shares: Mapping[str, Estimate]) -> Figure:
    """Return by part of the observation which share of the network's cross-attention it has, with intervals."""
    texts = [f"{100 * e.value:.0f} %" for e in shares.values()]
    return _bars(shares, texts, "share of the trajectory's cross-attention", grey=())


def _bars(
    parts: Mapping[str, Estimate], texts: Sequence[str], label: str, *, grey: Sequence[str], reach: float = np.inf
) -> Figure:
    figure = Figure(figsize=(7.0, 0.9 + 0.36 * len(parts)), layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes)
    rows = np.arange(len(parts))
    values = np.array([e.value for e in parts.values()])
    ends = np.array([[e.low, e.high] for e in parts.values()])
    ends = np.where(np.isfinite(ends).all(axis=1, keepdims=True), ends, values[:, None])
    axes.barh(rows, values, height=0.55, color=[PALETTE[6] if n in grey else PALETTE[0] for n in parts])
    axes.errorbar(values, rows, xerr=np.abs(ends.T - values), fmt="none", ecolor=INK, capsize=4, linewidth=1.2)
    for row, (text, high) in enumerate(zip(texts, ends[:, 1], strict=True)):
        axes.annotate(
            text,
            (min(high, reach), row),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=FONT,
        )
    axes.set_yticks(rows, list(parts))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # a power of ten beside the axis would lie on its label
    axes.set_xlim(0, min(axes.get_xlim()[1], reach))
    axes.set_xlabel(label)
    return figure


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a figure."""

    places: Sequence[Axes]
    """One a picture."""
    bar: Axes
    """For the colour bar."""


def _table(view: View, rows: int, control_hz: float) -> tuple[Figure, list[Row]]:
    count, height, width = view.pictures.shape[:3]
    scale = SIDE / max(height, width)
    size = count * (scale * width + 0.06) + 1.3, rows * (scale * height + 0.06) + 1.1
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(rows, count + 1, width_ratios=[1.0] * count + [0.07])
    table = [
        Row([figure.add_subplot(grid[r, c]) for c in range(count)], figure.add_subplot(grid[r, -1]))
        for r in range(rows)
    ]
    for place in (place for row in table for place in row.places):
        place.set(xticks=[], yticks=[])
        place.spines[:].set_color(FAINT)
    for row in table:
        row.bar.set_axis_off()
    for place, tick in zip(table[0].places, view.moments.ticks, strict=True):
        place.set_title(f"{tick / control_hz:.1f} s", fontsize=FONT, color=INK)
    figure.suptitle(f"{view.camera}, episode {view.moments.episodes[0]}", fontsize=FONT + 1, color=INK)
    return figure, table


def _heat_row(figure: Figure, row: Row, view: View, heat: Heat) -> None:
    scale = Normalize(0, float(np.quantile(heat.values, 0.995)) or float(heat.values.max()) or 1.0, clip=True)
    for place, picture, values in zip(row.places, view.pictures.numpy(), heat.values, strict=True):
        full = values if values.shape == picture.shape[:2] else _placed(values, view.window, picture.shape[:2])
        place.imshow(_light(picture)[..., None] * HEAT(scale(full))[..., :3], interpolation="nearest")
        _frame(place, picture, view.window)
    row.places[0].set_ylabel(heat.name, fontsize=FONT, color=INK)
    row.bar.set_axis_on()
    bar = figure.colorbar(ScalarMappable(scale, HEAT), cax=row.bar)
    bar.set_label(heat.unit, fontsize=FONT - 1, color=INK)
    bar.ax.spines[:].set_visible(False)
    bar.ax.tick_params(labelsize=FONT - 1, colors=INK, length=0)


def _light(picture: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """Return the picture in light greys, on which heat is seen."""
    return 0.5 + 0.5 * (picture @ np.array([0.299, 0.587, 0.114])) / 255


def _placed(values: Float[np.ndarray, "h w"], window: Window, size: tuple[int, ...]) -> Float[np.ndarray, "H W"]:
    """Return the cells of a window as pixels of the whole picture, 0 outside."""
    full = np.zeros(size)
    rows = np.arange(window.height) * values.shape[0] // window.height
    columns = np.arange(window.width) * values.shape[1] // window.width
    inside = values[rows][:, columns]
    full[window.top : window.top + window.height, window.left : window.left + window.width] = inside
    return full


def _crops(view_window: Window, size: tuple[int, ...]) -> bool:
    return (view_window.height, view_window.width) != size


def _frame(place: Axes, picture: UInt8[np.ndarray, "H W 3"], window: Window) -> None:
    if _crops(window, picture.shape[:2]):
        corner = (window.left - 0.5, window.top - 0.5)
        shape = Rectangle(corner, window.width, window.height, fill=False, edgecolor=INK, linewidth=0.8, linestyle=":")
        place.add_patch(shape)


def _mark(place: Axes, keys: Keypoints, column: int) -> None:
    """Draw the foremost keypoints as numbered discs, the others as small rings."""
    chosen, places = keys.foremost(NAMED), keys.places[column].numpy()
    others = [k for k in range(len(places)) if k not in chosen]
    place.plot(*places[others].T, "o", color="white", markeredgecolor=INK, markersize=3, alpha=0.8)
    for rank, k in reversed(list(enumerate(chosen))):
        x, y = places[k]
        place.plot(x, y, "o", color=PALETTE[rank], markeredgecolor="white", markersize=8.5, markeredgewidth=0.8)
        place.annotate(str(rank + 1), (x, y), ha="center", va="center_baseline", color="white", fontsize=6.5)


def _marks(keys: Keypoints, unit: str) -> list[Line2D]:
    found = [
        _dot(PALETTE[rank], PALETTE[rank], 7.0, f"{rank + 1}: keypoint {k}, {float(keys.influence[k]):.3g} {unit}")
        for rank, k in enumerate(keys.foremost(NAMED))
    ]
    return [*found, *([_dot("white", INK, 3.5, "other keypoints")] if len(keys.influence) > len(found) else [])]


def _dot(colour: str, edge: str, size: float, label: str) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=colour, markeredgecolor=edge, markersize=size, label=label)


def _window_key(view: View) -> list[Line2D]:
    if not _crops(view.window, tuple(view.pictures.shape[1:3])):
        return []
    return [Line2D([], [], color=INK, linewidth=0.8, linestyle=":", label="what the policy sees")]


def _legend(figure: Figure, keys: Sequence[Line2D], title: str | None = None) -> None:
    if keys:
        legend = figure.legend(
            handles=list(keys),
            loc="outside lower center",
            ncols=min(len(keys), 4),
            frameon=False,
            labelcolor=INK,
            fontsize=FONT - 0.5,
            title=title,
            title_fontsize=FONT - 0.5,
        )
        legend.get_title().set_color(INK)
        figure.draw_without_rendering()
        width, needed = figure.get_figwidth(), legend.get_window_extent().width / figure.dpi + 0.2
        if needed > width:  # a few pictures stand in its middle
            figure.set_figwidth(needed)
            figure.set_layout_engine("constrained", rect=((1 - width / needed) / 2, 0, width / needed, 1))
