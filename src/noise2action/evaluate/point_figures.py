"""Figures and animations of points in the plane: data and samples, noising, denoising.

Points of more than two coordinates are drawn by their first two. All panels of a figure share their limits.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from ..errors import MissingExtraError
from ..storage import atomic_write
from .figures import FAINT, FONT, INK, PALETTE, png

try:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle
except ImportError as error:
    raise MissingExtraError("matplotlib", "report") from error

Cloud = Float[np.ndarray, "_ D"]
Labels = Int[np.ndarray, " _"]

DRAWN = 3000
"""Points of a panel at most: more only darken it."""


TITLES = ("state $x_t$", "network's estimate of $x_0$")


@dataclass(frozen=True)
class View:
    """Limits that the panels of a figure share; the same length a unit on both axes."""

    low: tuple[float, float]
    high: tuple[float, float]

    @classmethod
    def of(cls, *clouds: Cloud, margin: float = 0.08) -> "View":
        """Return a square view of all but the outermost 0.2 % of the points of each side."""
        both = np.concatenate([c[:, :2] for c in clouds])
        low, high = np.quantile(both, 0.001, axis=0), np.quantile(both, 0.999, axis=0)
        centre, half = (low + high) / 2, float((high - low).max()) * (0.5 + margin)
        (x, y) = centre.tolist()
        return cls((x - half, y - half), (x + half, y + half))


def panels(
    clouds: Sequence[Cloud],
    titles: Sequence[str],
    *,
    view: View,
    labels: Sequence[Labels | None] | None = None,
    disc: tuple[float, float, float] | None = None,
) -> Figure:
    """Return scatter plots side by side, coloured by class where there are `labels`, with a `disc` (x, y, radius)."""
    figure, axes = _canvas(titles, view)
    for place, cloud, classes in zip(axes, clouds, labels or [None] * len(clouds), strict=True):
        _scatter(place, cloud, classes, count=len(clouds))
        if disc is not None:
            place.add_patch(Circle(disc[:2], disc[2], fill=False, edgecolor=INK, linestyle="--", linewidth=1.2))
    return figure


def class_panels(data: Cloud, data_labels: Labels, samples: Cloud, labels: Labels, *, view: View) -> Figure:
    """Return one panel a class, at most 8: its samples in colour on the data of all classes in grey."""
    shown = np.unique(data_labels)[:8].tolist()
    figure, axes = _canvas([f"class {k}" for k in shown], view)
    for place, k in zip(axes, shown, strict=True):
        place.scatter(*data[:DRAWN, :2].T, s=4, color=FAINT, linewidths=0, rasterized=True)
        own = samples[labels == k][:DRAWN]
        place.scatter(*own[:, :2].T, s=5, color=_colour(k), alpha=0.5, linewidths=0, rasterized=True)
    return figure


def denoising(
    states: Float[np.ndarray, "k n D"],
    estimates: Float[np.ndarray, "k n D"],
    times: Sequence[float],
    *,
    view: View,
    labels: Labels | None = None,
) -> Figure:
    """Return the states x_t above the estimates of x0 that the network makes of them, at each of `times`."""
    figure, axes = _canvas([f"t = {t:.2f}" for t in times], view, rows=TITLES)
    for place, cloud in zip(axes, [*states, *estimates], strict=True):
        _scatter(place, cloud, labels, count=len(times))
    return figure


def curves(lines: Float[np.ndarray, "n k D"], background: Cloud, title: str, *, view: View) -> Figure:
    """Return each row of `lines` as a curve with its two ends marked, on `background` in grey."""
    figure, (place,) = _canvas([title], view)
    place.scatter(*background[:DRAWN, :2].T, s=4, color=FAINT, linewidths=0, rasterized=True)
    for k, line in enumerate(lines):
        colour = PALETTE[k % 6]
        place.plot(*line[:, :2].T, ".-", color=colour, linewidth=1.0, markersize=3.5, alpha=0.9)
        place.plot(*line[[0, -1], :2].T, "o", color=colour, markersize=6, markeredgecolor="white")
    return figure


def density(values: Float[np.ndarray, "h w"], background: Cloud, *, view: View) -> Figure:
    """Return the log-density (nats) that the model gives to the plane, beside the data; row 0 is the lowest."""
    figure, axes = _canvas(["data", "log-density of the model"], view)
    _scatter(axes[0], background, None, count=2)
    (left, bottom), (right, top) = view.low, view.high
    ceiling = float(np.nanmax(values))
    figure.set_figwidth(figure.get_figwidth() + 0.7)  # of the bar
    image = axes[1].imshow(
        values,
        extent=(left, right, bottom, top),
        origin="lower",
        cmap="Blues",
        vmin=ceiling - 8,
        vmax=ceiling,
        interpolation="bilinear",
    )
    bar = figure.colorbar(image, ax=axes[1], shrink=0.8)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(colors=INK, labelsize=FONT, length=0)
    bar.set_label("nats", color=INK, fontsize=FONT)
    return figure


def frames(
    states: Float[np.ndarray, "k n D"],
    estimates: Float[np.ndarray, "k n D"],
    times: Sequence[float],
    *,
    view: View,
    labels: Labels | None = None,
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yield pictures of the states x_t beside the estimates of x0 at each of `times`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    figure, axes = _canvas(TITLES, view, width=3.4)
    canvas = FigureCanvasAgg(figure)
    marks = [_scatter(place, cloud[0], labels, count=2) for place, cloud in zip(axes, (states, estimates), strict=True)]
    canvas.draw()
    figure.set_layout_engine("none")  # laid out once: panels that breathe distract
    for k, t in enumerate(times):
        for place, mark, cloud, name in zip(axes, marks, (states, estimates), TITLES, strict=True):
            mark.set_offsets(cloud[k, :DRAWN, :2])
            place.set_title(f"{name}, t = {t:.2f}", fontsize=FONT + 1, color=INK)
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_figure(folder: Path, name: str, figure: Figure) -> None:
    """Write `figure` as `name`.png and `name`.svg."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white", dpi=200)
    atomic_write(folder / f"{name}.svg", buffer.getvalue())
    atomic_write(folder / f"{name}.png", png(figure))


def encode_gif(pictures: Sequence[UInt8[np.ndarray, "h w 3"]], fps: float) -> bytes:
    """Return a GIF of the pictures that repeats for ever."""
    try:
        from PIL import Image  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("pillow", "report") from error
    first, *rest = (Image.fromarray(p).quantize(64) for p in pictures)
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return buffer.getvalue()


def _canvas(
    titles: Sequence[str], view: View, *, rows: Sequence[str] = ("",), width: float | None = None
) -> tuple[Figure, list[Axes]]:
    """Return square panels, row by row: titles over the first row, the names of `rows` beside the first column."""
    side = width or min(3.4, 13.0 / len(titles))
    # Compressed: squares leave their places, and constrained layout alone would put the titles over the edge.
    figure = Figure(figsize=(side * len(titles), side * len(rows) + 0.4), layout="compressed")
    axes = [figure.add_subplot(len(rows), len(titles), k + 1) for k in range(len(rows) * len(titles))]
    for k, place in enumerate(axes):
        place.set(xlim=(view.low[0], view.high[0]), ylim=(view.low[1], view.high[1]), aspect="equal")
        place.set(xticks=[], yticks=[])
        place.spines[:].set_color(FAINT)
        if k < len(titles):
            place.set_title(titles[k], fontsize=FONT + 1, color=INK)
        if k % len(titles) == 0:
            place.set_ylabel(rows[k // len(titles)], fontsize=FONT + 1, color=INK)
    return figure, axes


def _scatter(place: Axes, cloud: Cloud, labels: Labels | None, *, count: int) -> PathCollection:
    colours = PALETTE[0] if labels is None else [_colour(k) for k in labels[:DRAWN].tolist()]
    size = 5.0 if count <= 2 else 3.0
    return place.scatter(*cloud[:DRAWN, :2].T, s=size, c=colours, alpha=0.45, linewidths=0, rasterized=True)


def _colour(label: int) -> tuple[float, float, float, float]:
    return to_rgba(PALETTE[label % len(PALETTE)])
