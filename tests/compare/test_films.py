"""Films side by side: each runs once, holds its last picture, and only a frame of each is in memory."""

import numpy as np
import pytest
from stand_in_comparison import tiny

from noise2action.compare.films import STRIP, Film, films, side_by_side
from noise2action.compare.settings import FRESH, Place
from noise2action.evaluate.video import write_mp4

pytest.importorskip("av")


def shades(count):
    """Yield pictures that differ: the k-th is of shade k."""
    for k in range(count):
        yield np.full((8, 300, 3), k, dtype=np.uint8)


def test_all_run_at_once_and_the_end_of_each_stays():
    asked = []

    def watched():
        for picture in shades(5):
            asked.append(picture[0, 0, 0])
            yield picture

    frames = side_by_side([Film("a", shades(2), success=True), Film("b", watched(), success=False)], fps=3.0)
    first = next(frames)
    assert asked == [0, 1]  # one picture ahead, to know which is the last
    rest = list(frames)
    assert len(rest) == 4 + 3  # a second of the end
    assert first.shape == (STRIP + 8, 600, 3)
    pictures = [frame[STRIP:] for frame in (first, *rest)]
    assert [int(p[0, 0, 0]) for p in pictures] == [0, 1, 1, 1, 1, 1, 1, 1]
    assert [int(p[0, 300, 0]) for p in pictures] == [0, 1, 2, 3, 4, 4, 4, 4]
    # What is said of an episode changes with its last picture.
    said = [frame[:STRIP, 300:] for frame in (first, *rest)]
    assert [bool((s == said[0]).all()) for s in said] == [True] * 4 + [False] * 4


def test_films_come_episode_by_episode(tmp_path):
    place, settings = Place(tmp_path, "two_routes"), tiny(record=3, methods=("bc", "ddim"))
    place.film("bc", FRESH).parent.mkdir(parents=True)
    for name, episode in (("bc", FRESH), ("ddim", FRESH), ("bc", FRESH + 2)):
        write_mp4(place.film(name, episode), shades(3), 10.0)
    ended = {name: dict.fromkeys(range(FRESH, FRESH + 6), name == "bc") for name in settings.methods}
    found = list(films(settings, place, succeeded=ended))
    assert [(episode, [film.success for film in each]) for episode, each in found] == [
        (FRESH, [True, False]),
        (FRESH + 2, [True]),
    ]
    assert [len(list(film.frames)) for _, each in found for film in each] == [3, 3, 3]
    # A method whose other episodes are not there has films, and no row.
    del ended["ddim"]
    assert [len(each) for _, each in films(settings, place, succeeded=ended)] == [1, 1]
