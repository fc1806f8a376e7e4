"""Rollouts spread over processes: the same episodes, sooner."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ..control.executor import Executor
from ..envs.tasks import Task
from ..errors import Noise2ActionError
from ..policies.policy import Policy
from .rollouts import EpisodeResult, MakeExecutor, Progress, rollout
from .setting import AS_DRAWN, Setting


class WorkerError(Noise2ActionError):
    """A rollout process that died without a result."""

    exit_code = 1


def rollout_in_processes(
    task: Task,
    load: Callable[[], Policy],
    seeds: Sequence[int],
    *,
    workers: int,
    executor: MakeExecutor = Executor,
    sampler_seed: int = 0,
    record: int = 0,
    setting: Setting = AS_DRAWN,
    on_progress: Progress | None = None,
) -> tuple[EpisodeResult, ...]:
    """Return what `rollout` returns, computed by `workers` processes with one torch thread each.

    `load` makes the policy inside each process, so it and `executor` must be picklable (a module's function, or a
    `partial` of one with a run folder). An error in a process is raised here; every process is ended before this
    returns or raises.
    """
    if workers < 1:
        raise ValueError(f"expected at least 1 worker, got {workers}")
    recorded = set(seeds[:record])
    shares = [sorted(seeds[k::workers], key=lambda s: s not in recorded) for k in range(min(workers, len(seeds)))]
    context = multiprocessing.get_context("spawn")
    running: dict[Connection, Any] = {}
    try:
        for share in shares:
            ours, theirs = context.Pipe(duplex=False)
            frames = len(recorded.intersection(share))
            process = context.Process(
                target=_work, args=(theirs, task, load, share, executor, sampler_seed, frames, setting), daemon=True
            )
            process.start()
            theirs.close()
            running[ours] = process
        found = _collect(list(running), on_progress)
    finally:
        for connection, process in running.items():
            process.terminate()
            process.join()
            connection.close()
    by_seed = {result.seed: result for result in found}
    return tuple(by_seed[seed] for seed in seeds)


def _collect(connections: list[Connection], on_progress: Progress | None) -> list[EpisodeResult]:
    ended = dict.fromkeys(connections, 0)
    found: list[EpisodeResult] = []
    while connections:
        for connection in wait(connections):
            assert isinstance(connection, Connection)
            try:
                message = connection.recv()
            except EOFError as error:
                raise WorkerError("expected results from a rollout process, but it died: use fewer workers") from error
            if isinstance(message, BaseException):
                raise message
            if isinstance(message, int):
                ended[connection] = message
                if on_progress is not None:
                    on_progress(sum(ended.values()))
            else:
                found.extend(message)
                connections.remove(connection)
    return found


def _work(
    connection: Connection,
    task: Task,
    load: Callable[[], Policy],
    seeds: Sequence[int],
    executor: MakeExecutor,
    sampler_seed: int,
    record: int,
    setting: Setting,
) -> None:
    """Run one process' share; its messages are counts of ended episodes, then the results or an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent ends us
    torch.set_num_threads(1)
    try:
        results = rollout(
            task,
            load(),
            seeds,
            executor=executor,
            sampler_seed=sampler_seed,
            record=record,
            setting=setting,
            on_progress=connection.send,
        )
    except Exception as error:
        connection.send(error)
    else:
        connection.send(results)
