"""Demonstrations of a task by its scripted demonstrator: the same data whatever the number of processes."""

import hashlib
import io
import itertools
import multiprocessing
import os
import signal
import threading
import zlib
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from .. import __version__, envs
from ..data.episodes import ACTION, Array, Episodes
from ..data.formats import describe, read
from ..envs.task import Task
from ..envs.tasks import Demonstration
from ..errors import ConfigError, DataError, TaskError
from ..evaluate.workers import WorkerError
from ..seeds import derive
from ..storage import atomic_write

Progress = Callable[[int], None]
"""Called with the number of demonstrations so far."""

DEMONSTRATION_SEEDS = 1 << 40
"""Seeds of demonstrations lie above this, those of evaluations below: no layout is in both."""
HOPELESS = 50
"""Attempts without one success after which a demonstrator is given up."""
ROUTE = "route"
"""Array [T, 1] of a generated data set: which of its routes an episode took, by position."""


@dataclass(frozen=True, eq=False)
class Demonstrated:
    """Simulated demonstrations and how they came about."""

    episodes: Episodes
    attempts: int
    taken: tuple[str, ...]
    """The route of each episode; empty for a task without routes."""

    @property
    def routes(self) -> dict[str, float]:
        """Share of the episodes by route."""
        return {name: self.taken.count(name) / len(self.taken) for name in sorted(set(self.taken))}

    def with_routes(self) -> Episodes:
        """Return the episodes with one more array, `ROUTE`, which says which of the routes was taken."""
        if not self.taken:
            return self.episodes
        names = tuple(sorted(set(self.taken)))
        lengths = np.diff(self.episodes.ends, prepend=0)
        positions = np.repeat([names.index(name) for name in self.taken], lengths)[:, None]
        arrays = {**self.episodes.arrays, ROUTE: positions.astype(np.int64)}
        return Episodes(arrays, self.episodes.ends, self.episodes.schema, {ROUTE: names})


def demonstrate(
    task: Task,
    count: int,
    *,
    seed: int,
    workers: int = 1,
    parts: Path | None = None,
    on_progress: Progress | None = None,
) -> Demonstrated:
    """Return `count` successful demonstrations of `task`; the failed ones are counted and left out.

    Attempts are made by `workers` processes. With a folder for `parts` each is kept there as soon as it is made, and
    found again by the next call with the same task and seed; in a folder of its own for every version of the tasks, so
    that a demonstrator that was mended starts anew. `TaskError` for a demonstrator that does not succeed, `ConfigError`
    for more than the memory holds, `WorkerError` for a process that died.
    """
    arrays: dict[str, Array] = {}
    ends: list[int] = []
    taken: list[str] = []
    tried = 0
    kept = None if parts is None else parts / _version(task)
    with closing(_attempts(task, seed, workers, kept)) as attempts:
        for made in attempts:
            tried += 1
            if made.success:
                _append(arrays, {**made.observations, ACTION: made.actions})
                ends.append(len(arrays[ACTION]))
                taken.extend(() if made.route is None else (made.route,))
                if len(ends) == 1:
                    _check_memory(sum(array.nbytes for array in arrays.values()), count)
                if on_progress is not None:
                    on_progress(len(ends))
            if len(ends) == count:
                break
            if tried >= (10 * count + 100 if ends else HOPELESS):
                raise TaskError(
                    f"expected {count} successful demonstrations of {task.name}, got {len(ends)} in {tried} attempts: "
                    "make its demonstrator better, or ask for fewer"
                )
    return Demonstrated(Episodes(arrays, np.array(ends), task.schema), tried, tuple(taken))


def routes_at(path: Path) -> dict[str, float]:
    """Return the share of the episodes by route, from the array `ROUTE` of a generated data set; else nothing."""
    if ROUTE not in describe(path).features:
        return {}
    episodes = read(path, [ROUTE])
    names = episodes.sentences.get(ROUTE, ())
    taken = episodes.arrays[ROUTE][episodes.ends - 1, 0]
    shares = {name: float(np.mean(taken == position)) for position, name in enumerate(names)}
    return {name: share for name, share in shares.items() if share}


def _append(arrays: dict[str, Array], made: Mapping[str, Array]) -> None:
    """Lengthen `arrays` in place by an episode: pictures are many, and never in memory twice."""
    for name, new in made.items():
        array = arrays.setdefault(name, np.empty((0, *new.shape[1:]), new.dtype))
        array.resize((len(array) + len(new), *new.shape[1:]), refcheck=False)
        array[-len(new) :] = new


def _check_memory(size: int, count: int) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if count * size > memory:
        raise ConfigError(
            f"expected demonstrations that fit in {memory / 1e9:.3g} GB of memory, got {count:,} that need "
            f"{count * size / 1e9:,.3g} GB, by the first: ask for fewer, or for fewer or smaller pictures"
        )


def _version(task: Task) -> str:
    """Return what names the state of a task: package version, schema, and sources of all physics and demonstrators."""
    sources = (path.read_bytes() for folder in envs.__path__ for path in sorted(Path(folder).glob("*.py")))
    digest = hashlib.blake2b(b"".join([repr(task.schema).encode(), *sources]), digest_size=6)
    return f"{__version__}-{digest.hexdigest()}"


def _attempts(task: Task, seed: int, workers: int, parts: Path | None) -> Generator[Demonstration]:
    """Yield the demonstrations of attempt 0, 1, 2, ... without end."""
    make = partial(_attempt, task, seed, parts)
    if workers == 1:
        yield from map(make, itertools.count())
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_the_parent)
    # Ctrl-C is for this process alone: the others are started by a thread that blocks it, and inherit that.
    starter = ThreadPoolExecutor(1, initializer=signal.pthread_sigmask, initargs=(signal.SIG_BLOCK, {signal.SIGINT}))
    try:
        ahead: deque[Future[Demonstration]] = deque()
        for attempt in itertools.count():
            ahead.append(starter.submit(pool.submit, make, attempt).result())
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
    except BrokenProcessPool as error:
        raise WorkerError(
            "expected a demonstration from every process, but one died: use fewer --workers; the same command goes on"
        ) from error
    finally:
        starter.shutdown()
        pool.shutdown(cancel_futures=True)


def _end_with_the_parent() -> None:
    """Watch over the parent in a thread: one that was killed cannot end us."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _attempt(task: Task, seed: int, parts: Path | None, attempt: int) -> Demonstration:
    """Return one attempt, read from `parts` if it was made before."""
    path = None if parts is None else parts / f"{attempt:06d}.npz"
    if path is not None and path.exists():
        return _read(path)
    made = task.demonstrate(DEMONSTRATION_SEEDS + derive(seed, "demonstration", attempt) % DEMONSTRATION_SEEDS)
    if path is not None:
        _write(path, made)
    return made


_SEEN = "observations/"


def _write(path: Path, made: Demonstration) -> None:
    body = io.BytesIO()
    arrays = {_SEEN + name: array for name, array in made.observations.items()}
    route = () if made.route is None else (made.route,)
    summary = {"success": np.array(made.success), "score": np.array(made.score), "route": np.array(route, dtype=str)}
    np.savez(body, **arrays, **summary, actions=made.actions)  # pyright: ignore[reportArgumentType]
    atomic_write(path, body.getvalue())


def _read(path: Path) -> Demonstration:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Array] = dict(file.items())
    except (OSError, ValueError, BadZipFile, zlib.error) as error:
        raise DataError(f"expected a demonstration, got a damaged file, {path}: delete it") from error
    route = arrays["route"].tolist()
    return Demonstration(
        observations={name.removeprefix(_SEEN): array for name, array in arrays.items() if name.startswith(_SEEN)},
        actions=arrays["actions"],
        success=bool(arrays["success"]),
        score=float(arrays["score"]),
        route=route[0] if route else None,
    )
