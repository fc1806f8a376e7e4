"""Videos of the methods side by side on one seed, and the last frames of failed episodes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..errors import MissingExtraError
from ..evaluate.figures import FONT, INK, PALETTE, Figure
from .actors import FAILURES
from .methods import Method
from .settings import Place, Settings

Frame = UInt8[np.ndarray, "h w 3"]
ACROSS = 4
STRIP = 28
"""Pixels of the line above a picture."""
REST = 1.0
"""Seconds that the end stays."""


@dataclass(frozen=True, eq=False)
class Film:
    """One filmed episode of a method."""

    label: str
    frames: Iterable[Frame]
    """At least one; gone through once, so that a video need not be in memory."""
    success: bool


def read_mp4(path: Path) -> Iterator[Frame]:
    """Yield the frames of a video; `MissingExtraError` without PyAV."""
    try:
        import av  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("PyAV", "report") from error
    with av.open(path) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def side_by_side(films: Sequence[Film], *, fps: float) -> Iterator[Frame]:
    """Yield frames in which all films run at once, each under its name; one that has ended says how."""
    reels = [iter(film.frames) for film in films]
    shown, coming = [next(reel) for reel in reels], [next(reel, None) for reel in reels]
    height, width = (max(picture.shape[k] for picture in shown) for k in (0, 1))
    across = min(ACROSS, len(films))
    blank = np.full((STRIP + height, width, 3), 255, dtype=np.uint8)
    strips = [[caption(text, width, colour) for text, colour in _said(film)] for film in films]
    rest = round(REST * fps)
    while rest >= 0:
        cells = list[Frame]()
        for picture, following, (running, ended) in zip(shown, coming, strips, strict=True):
            cell = blank.copy()
            cell[:STRIP] = ended if following is None else running
            cell[STRIP : STRIP + len(picture), : picture.shape[1]] = picture
            cells.append(cell)
        cells += [blank] * (-len(cells) % across)
        yield np.concatenate([np.concatenate(cells[i : i + across], axis=1) for i in range(0, len(cells), across)])
        rest -= all(following is None for following in coming)
        shown = [last if following is None else following for last, following in zip(shown, coming, strict=True)]
        coming = [None if c is None else next(reel, None) for c, reel in zip(coming, reels, strict=True)]


def _said(film: Film) -> tuple[tuple[str, str], tuple[str, str]]:
    ended = ("success", PALETTE[2]) if film.success else ("failed", PALETTE[4])
    return (film.label, INK), (f"{film.label}: {ended[0]}", ended[1])


def caption(text: str, width: int, colour: str) -> UInt8[np.ndarray, "strip width 3"]:
    """Return one line of text as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - figures.py says what is missing

    dpi = 100
    figure = Figure(figsize=(width / dpi, STRIP / dpi), dpi=dpi, facecolor="white")
    figure.text(0.02, 0.5, text, fontsize=FONT, color=colour, va="center", ha="left")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[:STRIP, :width, :3].copy()


def failures(settings: Settings, place: Place, method: Method) -> list[tuple[int, Frame]]:
    """Return (seed, last frame) of a method's failures with the lowest seeds, in its first training."""
    found: dict[int, Frame] = {}
    for block in settings.blocks:
        path = place.block(method.name, settings.seed, block[0]).with_suffix(".npz")
        if path.exists() and len(found) < FAILURES:
            with np.load(path, allow_pickle=False) as stored:
                found |= {int(name): stored[name] for name in stored.files}
    return sorted(found.items())[:FAILURES]


def films(
    settings: Settings, place: Place, *, succeeded: Mapping[str, Mapping[int, bool]]
) -> Iterator[tuple[int, list[Film]]]:
    """Yield the seed of each filmed episode and its films; `succeeded` says by method and seed how they ended.

    A method that it does not name, whose episodes are not all there, is left out.
    """
    for episode in settings.blocks[0][: settings.record]:
        found = [
            Film(method.label, read_mp4(path), succeeded[method.name][episode])
            for method in settings.compared
            if method.name in succeeded and (path := place.film(method.name, episode)).exists()
        ]
        if found:
            yield episode, found
