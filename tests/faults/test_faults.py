"""The fault table of training runs: `make test-faults` prints it, measured."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from noise2action.errors import CheckpointError
from noise2action.policies import DiffusionConfig
from noise2action.policies.checkpoint import complete, load, save, verify
from noise2action.train import loop
from noise2action.train.config import TrainConfig
from noise2action.train.loop import _State, fit
from small_policies import NET, SPEC, job

pytestmark = pytest.mark.faults

STEPS, INTERVAL = 60, 5
CONFIG = TrainConfig(steps=STEPS, precision="fp32", log_every=5, save_steps=INTERVAL, warmup_steps=4)


def fresh():
    return job(DiffusionConfig(spec=SPEC, net=NET), train=CONFIG)


def _train(run: str, resume: bool) -> None:
    torch.set_num_threads(1)
    fit(fresh(), Path(run), resume=resume)


def kill_at(run: Path, seconds: float) -> None:
    child = multiprocessing.get_context("fork").Process(target=_train, args=(str(run), True))
    child.start()
    time.sleep(seconds)
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
    child.join()


def test_kill_9_of_the_trainer_at_a_random_time(tmp_path):
    rng, n, survived = random.Random(0), 200, 0
    whole = tmp_path / "whole"
    began = time.monotonic()
    fit(fresh(), whole)
    duration = time.monotonic() - began
    expected = load(whole).tensors
    for k in range(n):
        run = tmp_path / f"run{k}"
        run.mkdir()
        kill_at(run, rng.uniform(0, duration))
        before = load(run).step if complete(run) else 0
        visible = complete(run)
        assert all(verify(folder) for folder in visible)
        fit(fresh(), run, resume=True)
        found = load(run).tensors
        same = all(torch.equal(found[p][name], t) for p, group in expected.items() for name, t in group.items())
        assert same, f"killed run {k} resumed from step {before} to other bits"
        survived += 1
    print(f"\n| kill -9 of the trainer at a random time | {n} | {survived} resumed to the same bits |")


def test_bit_flips_and_truncations_of_a_checkpoint(tmp_path):
    rng, n, detected = random.Random(0), 10_000, 0
    state = _State(fresh(), half=False)
    folder = save(tmp_path, state.checkpoint())
    bodies = {p.name: p.read_bytes() for p in folder.iterdir()}
    names = sorted(bodies)
    for k in range(n):
        name = rng.choice(names)
        body = bytearray(bodies[name])
        at = rng.randrange(len(body))
        if k % 2:
            body[at] ^= 1 << rng.randrange(8)
        else:
            del body[at:]
        (folder / name).write_bytes(body)
        try:
            verify(folder)
        except CheckpointError:
            detected += 1
        (folder / name).write_bytes(bodies[name])
    print(f"\n| bit flip or truncation of a checkpoint | {n} | {detected} detected |")
    assert detected == n


def test_resume_exactness(tmp_path, monkeypatch):
    rng, n = random.Random(1), 50
    fit(fresh(), tmp_path / "whole")
    expected = load(tmp_path / "whole").tensors
    for k in range(n):
        run, at = tmp_path / f"run{k}", rng.randrange(1, STEPS)
        original = loop._step

        def step_and_interrupt(state, at=at, original=original):
            done = original(state)
            if state.step == at:
                os.kill(os.getpid(), signal.SIGINT)
            return done

        with monkeypatch.context() as patch:
            patch.setattr(loop, "_step", step_and_interrupt)
            assert fit(fresh(), run) is False
        assert load(run).step == at
        fit(fresh(), run, resume=True)
        found = load(run).tensors
        assert all(torch.equal(found[p][i], t) for p, group in expected.items() for i, t in group.items())
    print(f"\n| resume exactness | {n} | bit-equal |")


def test_two_trainers_at_once(tmp_path):
    n = 10
    words = [sys.executable, "-m", "noise2action", "train", "two_routes", "--train.steps", "150", "--out"]
    for k in range(n):
        both = [
            subprocess.Popen([*words, str(tmp_path / f"run{k}")], stderr=subprocess.PIPE, text=True) for _ in range(2)
        ]
        errors = [child.communicate()[1] for child in both]
        codes = sorted(child.returncode for child in both)
        # The later one either finds the folder in use, or, if the first is already done, finds its checkpoints.
        assert codes in ([0, 4], [0, 2]), errors
        if codes == [0, 4]:
            assert any('"pid":' in e and '"host":' in e for e in errors)
    print(f"\n| two trainers at once | {n} | exactly one runs |")
