"""Jobs that write their own results, in several processes: an interrupt or a kill loses no finished job."""

import ctypes
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import torch

from ..errors import MissingExtraError, Noise2ActionError, RunLockedError, StorageError
from ..evaluate.workers import WorkerError

Tell = Callable[[float], None]
"""Called with how much of a job is done."""
Job = Callable[[Tell], None]
"""Picklable where several processes work; it leaves its result on the disk, whole or not at all."""
OnProgress = Callable[[int, float], None]
"""Called with the position of a job, and how much of it is done: 0 when it begins, 1 when it has ended."""
FATAL = (StorageError, RunLockedError, MissingExtraError, WorkerError)
"""What the next job would meet as well."""
PATIENCE_S = 60.0
"""A training that is told to stop ends its step and saves."""
_DEATH_SIGNAL = 1


class Pool:
    """Processes with one torch thread each; with one worker jobs run in this process."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._processes: dict[Connection, Any] = {}

    def __enter__(self) -> "Pool":
        """Return the pool; processes start with the first jobs."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process; a training saves its state first."""
        for process in self._processes.values():
            process.terminate()
        for connection, process in self._processes.items():
            process.join(PATIENCE_S)
            process.kill()
            process.join()
            connection.close()

    def run(
        self, jobs: Sequence[Job], on_progress: OnProgress, *, ready: Callable[[int], bool] = lambda position: True
    ) -> Mapping[int, Noise2ActionError]:
        """Run the jobs, return the errors of those that failed by their position; `FATAL` ones are raised at once.

        Of the jobs that are left, the first that is `ready` is next: one that needs another's result comes after it.
        Those that never are ready, because what they need failed, are left out.
        """
        if self._workers == 1:
            return _run_here(jobs, on_progress, ready)
        while len(self._processes) < min(self._workers, len(jobs)):
            self._start()
        waiting, busy = list(range(len(jobs))), dict[Connection, int]()
        idle = list(self._processes)
        failed: dict[int, Noise2ActionError] = {}
        while True:
            while idle and (position := next(filter(ready, waiting), None)) is not None:
                waiting.remove(position)
                connection = idle.pop()
                connection.send(jobs[position])
                busy[connection] = position
                on_progress(position, 0.0)
            if not busy:
                return failed
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                message = _received(connection)
                if isinstance(message, float):
                    on_progress(busy[connection], message)
                    continue
                position = busy.pop(connection)
                idle.append(connection)
                if message is not None:
                    failed[position] = _kept(message)
                on_progress(position, 1.0)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process


def _run_here(
    jobs: Sequence[Job], on_progress: OnProgress, ready: Callable[[int], bool]
) -> Mapping[int, Noise2ActionError]:
    failed: dict[int, Noise2ActionError] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for position, job in enumerate(jobs):
            if not ready(position):
                continue
            on_progress(position, 0.0)
            try:
                job(lambda done, position=position: on_progress(position, done))
            except Noise2ActionError as error:
                failed[position] = _kept(error)
            on_progress(position, 1.0)
    finally:
        torch.set_num_threads(threads)
    return failed


def _kept(error: BaseException) -> Noise2ActionError:
    """Return an error that concerns one job; raise any other."""
    if not isinstance(error, Noise2ActionError) or isinstance(error, FATAL):
        raise error
    return error


def _received(connection: Connection) -> Any:  # noqa: ANN401
    try:
        return connection.recv()
    except EOFError as error:
        raise WorkerError(
            "expected the result of a job, but its process died: run the same command again, with fewer --workers"
        ) from error


def _serve(connection: Connection) -> None:
    """Run jobs until told to stop; the messages are shares done, then None or the error."""
    os.setpgrp()  # Ctrl-C is for the parent, who tells us once
    with suppress(OSError, AttributeError):  # Linux alone can say so: nobody works for a parent that was killed
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    torch.set_num_threads(1)
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            job: Job = connection.recv()
            try:
                job(lambda done: connection.send(float(done)))
            except Exception as error:  # the parent says what becomes of it
                error.add_note(traceback.format_exc())
                connection.send(error)
            else:
                connection.send(None)
