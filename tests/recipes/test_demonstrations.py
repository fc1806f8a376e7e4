"""Demonstrations are the same however they are made: by one process or several, at once or after an interruption."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from noise2action import envs
from noise2action.cli import main
from noise2action.data.episodes import Episodes
from noise2action.data.formats import read, write
from noise2action.envs.episode import Demonstration
from noise2action.envs.tasks import find
from noise2action.errors import ConfigError, DataError, TaskError
from noise2action.evaluate.workers import WorkerError
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
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert len(kept) >= 3
    assert _same(demonstrate(TASK, 5, seed=1, parts=tmp_path), demonstrate(TASK, 5, seed=1))
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    demonstrate(TASK, 2, seed=1, parts=tmp_path)
    (damaged,) = tmp_path.rglob("000001.npz")
    damaged.write_bytes(b"PK\x03\x04 cut off")
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


def test_a_mended_demonstrator_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hopeless = replace(TASK, demonstrate=lambda seed: replace(TASK.demonstrate(0), success=seed < 0))
    parts, sources = tmp_path / "parts", tmp_path / "envs"
    sources.mkdir()
    monkeypatch.setattr(envs, "__path__", [str(sources)])
    with pytest.raises(TaskError):
        demonstrate(hopeless, 2, seed=0, parts=parts)
    (sources / "two_routes.py").write_text("mended = True")
    assert _same(demonstrate(TASK, 2, seed=0, parts=parts), demonstrate(TASK, 2, seed=0))


def test_more_than_the_memory_holds_is_told_by_the_first() -> None:
    with pytest.raises(ConfigError, match=r"GB of memory, got 1,000,000,000 that need .* GB.*: ask for fewer"):
        demonstrate(TASK, 10**9, seed=0)


def test_pictures_are_in_memory_once() -> None:
    def seen(seed: int) -> Demonstration:
        made = TASK.demonstrate(seed)
        return replace(
            made, observations={**made.observations, "film": np.full((len(made.actions), 10**5), 7, np.uint8)}
        )

    tracemalloc.start()
    try:
        made = demonstrate(replace(TASK, demonstrate=seen), 12, seed=0)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    film = made.episodes.arrays["film"]
    assert film.nbytes <= held < peak < 1.4 * film.nbytes
    assert (film == 7).all()


def _die(seed: int) -> Demonstration:
    os.kill(os.getpid(), signal.SIGKILL)
    return TASK.demonstrate(seed)


@pytest.mark.faults
def test_a_process_that_died_is_told() -> None:
    with pytest.raises(WorkerError, match=r"one died: use fewer --workers; the same command goes on"):
        demonstrate(replace(TASK, demonstrate=_die), 1, seed=0, workers=2)


@contextmanager
def _begun(out: Path, until: Callable[[int], bool]) -> Generator["subprocess.Popen[str]"]:
    """Yield an endless generation by two processes, begun `until` it is so far; it leads a group of processes."""
    words = ["data", "generate", "two_routes", "--episodes", "1000000", "--workers", "2", "--out", str(out)]
    code = "import sys; from noise2action.cli import main; sys.exit(main())"
    begun = subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while not until(begun.pid):
            assert time.monotonic() < deadline
            assert begun.poll() is None
            time.sleep(0.02)
        yield begun
    finally:
        with suppress(ProcessLookupError):
            os.killpg(begun.pid, signal.SIGKILL)
        begun.communicate()


@pytest.mark.faults
def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    with _begun(tmp_path / "two.npz", lambda _: any(tmp_path.rglob("*.npz"))) as begun:
        begun.kill()
        # The end of the pipe: the last process that holds it is gone.
        begun.communicate(timeout=60)


@pytest.mark.faults
def test_an_interrupt_while_processes_start_is_one_line(tmp_path: Path) -> None:
    def started(parent: int) -> bool:
        children = [file.read_text().split() for file in Path(f"/proc/{parent}/task").glob("*/children")]
        return sum(map(len, children)) >= 3  # the third is Python's own resource tracker

    with _begun(tmp_path / "two.npz", started) as begun:
        time.sleep(0.3)
        os.killpg(begun.pid, signal.SIGINT)
        _, said = begun.communicate(timeout=120)
    assert begun.returncode == 130
    assert "n2a: interrupted" in said
    assert "Traceback" not in said


def test_the_route_of_every_episode_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "two.npz"
    assert main(["data", "generate", "two_routes", "--out", str(out), "--episodes", "9", "--seed", "4"]) == 0
    made = demonstrate(TASK, 9, seed=4)
    stored = read(out)
    names = stored.sentences[ROUTE]
    assert tuple(names[int(stored.arrays[ROUTE][end - 1, 0])] for end in stored.ends) == made.taken
    assert routes_at(out) == made.routes
    assert sum(made.routes.values()) == pytest.approx(1.0)
    # A route that is named and was not taken is none of them.
    other = Episodes(stored.arrays, stored.ends, sentences={ROUTE: (*names, "under")})
    write(tmp_path / "other.npz", other)
    assert routes_at(tmp_path / "other.npz") == made.routes
    (tmp_path / "other.npz").unlink()
    # Nothing is left beside the data set.
    assert list(tmp_path.iterdir()) == [out]
    assert "the demonstrator succeeded in 9 of" in capsys.readouterr().out
