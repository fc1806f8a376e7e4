"""Processes that run jobs: all of them are done, an error stays with its job, and a fatal one ends all."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch

from noise2action.compare.pool import Pool
from noise2action.errors import ConfigError, StorageError
from noise2action.evaluate.workers import WorkerError


def write(path: Path, tell) -> None:
    tell(0.5)
    path.write_text(f"{os.getpid()} {torch.get_num_threads()}")


def refuse(tell) -> None:
    raise ConfigError("expected a job, got none")


def fill(tell) -> None:
    raise StorageError("disk full")


def die(tell) -> None:
    os._exit(9)


def test_one_worker_runs_jobs_here_and_goes_on_after_an_error(tmp_path):
    seen = []
    with Pool(1) as pool:
        failed = pool.run(
            [partial(write, tmp_path / "a"), refuse, partial(write, tmp_path / "b")], lambda *s: seen.append(s)
        )
        assert {k: str(e) for k, e in failed.items()} == {1: "expected a job, got none"}
        assert seen == [(0, 0.0), (0, 0.5), (0, 1.0), (1, 0.0), (1, 1.0), (2, 0.0), (2, 0.5), (2, 1.0)]
        assert (tmp_path / "b").read_text() == f"{os.getpid()} 1"
        with pytest.raises(StorageError):
            pool.run([fill, refuse], lambda *_: None)


def test_processes_share_the_jobs_and_outlive_an_error(tmp_path):
    jobs = [partial(write, tmp_path / f"{k}") for k in range(5)]
    with Pool(2) as pool:
        failed = pool.run([*jobs[:4], refuse], lambda *_: None)
        assert {k: type(e) for k, e in failed.items()} == {4: ConfigError}
        seen = []
        pool.run(jobs[4:], lambda *s: seen.append(s))
        assert seen == [(0, 0.0), (0, 0.5), (0, 1.0)]
        told = [(tmp_path / f"{k}").read_text().split() for k in range(5)]
        assert {threads for _, threads in told} == {"1"}
        assert str(os.getpid()) not in {process for process, _ in told}
        with pytest.raises(WorkerError, match="run the same command again"):
            pool.run([die], lambda *_: None)
