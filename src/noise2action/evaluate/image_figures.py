"""Figures and animations of small grey images: tables of them, and denoising."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import MissingExtraError
from .figures import FONT, INK

try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
except ImportError as error:
    raise MissingExtraError("matplotlib", "report") from error

Table = Float[np.ndarray, "r c H W"]
"""Images in rows and columns, -1 the background, 1 the brightest ink."""

PIXEL = 0.035
"""Inches a pixel of an image."""


def tables(panels: Sequence[Table], titles: Sequence[str], rows: Sequence[str] = ()) -> Figure:
    """Return tables of images side by side under their titles; `rows` names the rows of the first."""
    figure, axes = _canvas(panels, titles)
    for place, panel in zip(axes, panels, strict=True):
        _draw(place, panel)
    _name_rows(axes[0], panels[0], rows)
    return figure


NAMES = ("state $x_t$", "network's estimate of $x_0$")


def strip(
    states: Table, estimates: Table, times: Sequence[float], rows: Sequence[str], *, names: Sequence[str] = NAMES
) -> Figure:
    """Return denoising from left to right: the states x_t above the network's estimates of x0, one row an image."""
    figure = Figure(figsize=(_size(states)[0] + 0.9, 2 * _size(states)[1] + 1.3), layout="compressed")
    for k, (panel, name) in enumerate(zip((states, estimates), names, strict=True)):
        place = figure.add_subplot(2, 1, k + 1)
        _draw(place, panel)
        _name_rows(place, panel, rows)
        place.set_title(name, fontsize=FONT + 1, color=INK)
        width = panel.shape[3] + 1
        place.set_xticks([width * (c + 0.5) for c in range(panel.shape[1])], [f"{t:.2f}" for t in times])
        place.set_xlabel("diffusion time t (1 noise, 0 data)", fontsize=FONT, color=INK)
    return figure


def frames(
    states: Float[np.ndarray, "k r c H W"], estimates: Float[np.ndarray, "k r c H W"], times: Sequence[float]
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yield pictures of the states beside the estimates of x0, at each of `times`."""
    figure, axes = _canvas((states[0], estimates[0]), ("", ""))
    canvas = FigureCanvasAgg(figure)
    marks = [_draw(place, panel) for place, panel in zip(axes, (states[0], estimates[0]), strict=True)]
    for k, t in enumerate(times):
        for place, mark, panel, name in zip(axes, marks, (states[k], estimates[k]), ("state", "estimate"), strict=True):
            mark.set_data(_joined(panel))
            place.set_title(f"{name}, t = {t:.2f}", fontsize=FONT + 1, color=INK)
        canvas.draw()
        figure.set_layout_engine("none")  # laid out once: panels that breathe distract
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _size(panel: Table) -> tuple[float, float]:
    r, c, height, width = panel.shape
    return max(PIXEL * c * (width + 1), 1.6), PIXEL * r * (height + 1)


def _canvas(panels: Sequence[Table], titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    sizes = [_size(panel) for panel in panels]
    width = sum(w for w, _ in sizes) + 0.35 * len(panels)
    figure = Figure(figsize=(width, max(h for _, h in sizes) + 0.55), layout="compressed")
    grid = figure.add_gridspec(1, len(panels), width_ratios=[w for w, _ in sizes])
    axes = [figure.add_subplot(grid[0, k]) for k in range(len(panels))]
    for place, title in zip(axes, titles, strict=True):
        place.set_title(title, fontsize=FONT + 1, color=INK)
    return figure, axes


def _draw(place: Axes, panel: Table) -> AxesImage:
    place.set(xticks=[], yticks=[])
    place.spines[:].set_visible(False)
    place.tick_params(length=0, labelsize=FONT, colors=INK)
    height, width = (panel.shape[0] * (panel.shape[2] + 1), panel.shape[1] * (panel.shape[3] + 1))
    return place.imshow(
        _joined(panel), cmap="gray_r", vmin=-1.15, vmax=1, interpolation="nearest", extent=(0, width, height, 0)
    )


def _joined(panel: Table) -> Float[np.ndarray, "h w"]:
    """Return the table as one image, with a white line after each row and column."""
    apart = np.pad(panel.clip(-1, 1), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=-1.15)
    return apart.transpose(0, 2, 1, 3).reshape(apart.shape[0] * apart.shape[2], -1)


def _name_rows(place: Axes, panel: Table, rows: Sequence[str]) -> None:
    if rows:
        height = panel.shape[2] + 1
        place.set_yticks([height * (k + 0.5) for k in range(len(rows))], list(rows))
