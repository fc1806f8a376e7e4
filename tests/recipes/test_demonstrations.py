"""Demonstrations are the same however they are made: by one process or several, at once or after an interruption."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from noise2action.cli import main
from noise2action.data.formats import read
from noise2action.envs.episode import Demonstration
from noise2action.envs.tasks import find
from noise2action.errors import DataError, TaskError
from noise2action.recipes.demonstrations import HOPELESS, ROUTE, Demonstrated, demonstrate, routes_at

TASK = find("two_routes")


def _same(one: Demonstrated, other: Demonstrated) -> bool:
    a: Mapping[str, np.ndarray] = one.episodes.arrays
    return (
        (one.attempts, one.taken) == (other.attempts, other.taken)
        and np.array_equal(one.episodes.ends, other.episodes.ends)
        and all(np.array_equal(a[name], other.episodes.arrays[name]) for name in a)
    )


def test_processes_do_not_change_the_data() -> None:
    assert _same(demonstrate(TASK, 6, seed=3), demonstrate(TASK, 6, seed=3, workers=2))


def test_an_interrupted_generation_goes_on(tmp_path: Path) -> None:
    made: list[int] = []

    def stop(count: int) -> None:
        made.append(count)
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demonstrate(TASK, 5, seed=1, parts=tmp_path, on_progress=stop)
    assert made == [1, 2, 3]
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(kept) >= 3
    assert _same(demonstrate(TASK, 5, seed=1, parts=tmp_path), demonstrate(TASK, 5, seed=1))
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    demonstrate(TASK, 2, seed=1, parts=tmp_path)
    (tmp_path / "000001.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(DataError, match=r"000001\.npz: delete it"):
        demonstrate(TASK, 2, seed=1, parts=tmp_path)


def test_failures_are_counted_and_left_out() -> None:
    tried: list[int] = []

    def every_second(seed: int) -> Demonstration:
        tried.append(seed)
        return replace(TASK.demonstrate(seed), success=len(tried) % 2 == 0)

    made = demonstrate(replace(TASK, demonstrate=every_second), 4, seed=0)
    assert (made.attempts, len(made.episodes), len(made.taken)) == (8, 4, 4)
    assert len(set(tried)) == 8


def test_a_demonstrator_that_never_succeeds_is_given_up() -> None:
    hopeless = replace(TASK, demonstrate=lambda seed: replace(TASK.demonstrate(0), success=seed < 0))
    with pytest.raises(TaskError, match=f"got 0 in {HOPELESS} attempts: make its demonstrator better"):
        demonstrate(hopeless, 1, seed=0)


def test_the_route_of_every_episode_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "two.npz"
    assert main(["data", "generate", "two_routes", "--out", str(out), "--episodes", "9", "--seed", "4"]) == 0
    made = demonstrate(TASK, 9, seed=4)
    stored = read(out)
    names = stored.sentences[ROUTE]
    assert tuple(names[int(stored.arrays[ROUTE][end - 1, 0])] for end in stored.ends) == made.taken
    assert routes_at(out) == made.routes
    assert sum(made.routes.values()) == pytest.approx(1.0)
    # Nothing is left beside the data set.
    assert list(tmp_path.iterdir()) == [out]
    assert "the demonstrator succeeded in 9 of" in capsys.readouterr().out
