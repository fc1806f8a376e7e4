"""What is written on a figure lies on it, apart from what else is written there."""

import re
from collections.abc import Sequence
from io import BytesIO
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from noise2action.evaluate import image_figures as images
from noise2action.evaluate import point_figures as clouds
from noise2action.evaluate.figures import number_ticks
from noise2action.studies.plots import panels

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 2))
VIEW = clouds.View.of(X)
MANY = np.stack([X] * 6)
IMAGES = RNG.uniform(-1, 1, size=(3, 11, 8, 8))
LABELS = np.arange(50) % 3
TIMES = np.linspace(1, 0, 11) ** 3

FIGURES = {
    "one": lambda: clouds.panels([X], ["samples"], view=VIEW),
    "two": lambda: clouds.panels([X, X], ["data", "samples"], view=VIEW, labels=[LABELS, None], disc=(0.0, 0.0, 0.5)),
    "classes": lambda: clouds.class_panels(X, LABELS, X, LABELS, view=VIEW),
    "denoising": lambda: clouds.denoising(MANY, MANY, [0.5] * 6, view=VIEW),
    "curves": lambda: clouds.curves(RNG.normal(size=(3, 5, 2)), X, "spherical between latents $x_T$", view=VIEW),
    "density": lambda: clouds.density(RNG.normal(size=(9, 9)), X, view=VIEW),
    "tables": lambda: images.tables([IMAGES, IMAGES], ["data", "samples"], ["0", "1", "2"]),
    "a few images": lambda: images.tables([IMAGES[:2, :2]], ["samples"]),
    "strip": lambda: images.strip(IMAGES, IMAGES, TIMES.tolist(), ["0", "1", "2"]),
    "study": lambda: panels([f"Gaussian, {path}: one step at a time" for path in ("Straight", "VE")], width=3.4)[0],
}


def boxes(figure: Figure, artists: Sequence[Artist]) -> list[Bbox]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [artist.get_window_extent(canvas.get_renderer()) for artist in artists]


def ink(pixels: np.ndarray) -> bool:
    """Return whether anything is drawn in the uppermost or lowest two rows."""
    return bool((np.concatenate([pixels[:2], pixels[-2:]]) < 250).any())


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("draws", [1, 2])
def test_titles_lie_on_the_canvas_and_apart(name: str, draws: int) -> None:
    figure = FIGURES[name]()
    titles = [place.title for place in figure.axes if place.get_title()]
    found = [boxes(figure, titles) for _ in range(draws)][-1]
    assert found
    for box in found:
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height
    assert not any(a.overlaps(b) for a, b in combinations(found, 2))


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off_in_what_is_written(name: str, tmp_path: Path) -> None:
    clouds.write_figure(tmp_path, "figure", FIGURES[name]())
    assert not ink(np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")))
    svg = (tmp_path / "figure.svg").read_text()
    _, top, _, height = (float(v) for v in re.findall(r'viewBox="([^"]*)"', svg)[0].split())
    glyphs = [float(y) for y in re.findall(r"translate\([-\d.]+ ([-\d.]+)\) (?:rotate\(-90\) )?scale\([.\d]+ -", svg)]
    # The baselines of texts: a title at the upper edge has its own at least 7 points below it.
    assert glyphs
    assert top + 7 <= min(glyphs) <= max(glyphs) <= top + height


def test_nothing_is_cut_off_in_animations() -> None:
    films = [
        list(clouds.frames(MANY, MANY, [1.0, 0.5, 0.0], view=VIEW)),
        list(images.frames(np.stack([IMAGES] * 3), np.stack([IMAGES] * 3), [1.0, 0.5, 0.0])),
    ]
    for film in films:
        for buffer in (film, gif(film)):
            assert len(buffer) == 3
            assert not any(ink(picture) for picture in buffer)
            assert len({picture.shape for picture in buffer}) == 1


def gif(film: Sequence[np.ndarray]) -> list[np.ndarray]:
    opened = Image.open(BytesIO(clouds.encode_gif(film, 5.0)))
    frames: list[np.ndarray] = []
    for k in range(3):
        opened.seek(k)
        frames.append(np.asarray(opened.convert("RGB")))
    return frames


def test_the_times_below_a_strip_stay_apart() -> None:
    figure = FIGURES["strip"]()
    for place in figure.axes:
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes(figure, place.get_xticklabels())))


@pytest.mark.parametrize(("low", "high", "plain"), [(0.02, 200, True), (3e-10, 0.1, False), (1, 5e6, False)])
def test_the_numbers_of_a_log_axis_are_written_alike(low: float, high: float, plain: bool) -> None:
    figure, (place,) = panels(["error"])
    place.plot([1, 100], [low, high])
    place.set(xscale="log", yscale="log")
    number_ticks(place)
    FigureCanvasAgg(figure).draw()
    written = [text.get_text() for text in place.get_yticklabels()]
    assert all(("10^" in text) != plain for text in written)
    assert not any(re.search(r"\de", text) for text in written)
