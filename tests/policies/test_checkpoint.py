import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from noise2action import storage
from noise2action.errors import CheckpointError, StorageError
from noise2action.policies import DiffusionConfig, RegressionConfig
from noise2action.policies.checkpoint import (
    KEEP,
    MANIFEST,
    DamagedCheckpointWarning,
    build,
    complete,
    load,
    name_of,
    save,
    verify,
)
from noise2action.train.loop import _State
from small_policies import NET, SPEC, job


def checkpoint(step=1, policy=None):
    state = _State(job(policy or DiffusionConfig(spec=SPEC, net=NET)), half=False)
    state.step = step
    return state.checkpoint()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("run")
    save(run, checkpoint())
    return run


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("policy", [DiffusionConfig(spec=SPEC, net=NET), RegressionConfig(spec=SPEC, net=NET)])
def test_what_is_loaded_is_what_was_saved(tmp_path, policy):
    written = checkpoint(7, policy)
    save(tmp_path, written)
    found = load(tmp_path)
    assert (found.step, found.deployed, found.state) == (7, written.deployed, written.state)
    assert all(same(found.tensors[name], written.tensors[name]) for name in written.tensors)
    assert same(dict(build(found).state_dict()), written.tensors["ema"])
    assert (tmp_path / "checkpoints" / "LATEST").read_text() == "step-00000007\n"


@given(data=st.data())
def test_removing_one_byte_anywhere_is_detected(saved, data):
    (folder,) = complete(saved)
    name = data.draw(st.sampled_from(sorted(p.name for p in folder.iterdir())))
    body = (folder / name).read_bytes()
    at = data.draw(st.integers(0, len(body) - 1))
    try:
        (folder / name).write_bytes(body[:at] + body[at + 1 :])
        with pytest.raises(CheckpointError, match="expected"):
            verify(folder)
    finally:
        (folder / name).write_bytes(body)
    verify(folder)


@given(data=st.data())
def test_flipping_one_bit_anywhere_is_detected(saved, data):
    (folder,) = complete(saved)
    name = data.draw(st.sampled_from(sorted(p.name for p in folder.iterdir())))
    body = bytearray((folder / name).read_bytes())
    at, bit = data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(0, 7))
    whole = bytes(body)
    body[at] ^= 1 << bit
    try:
        (folder / name).write_bytes(body)
        with pytest.raises(CheckpointError):
            verify(folder)
    finally:
        (folder / name).write_bytes(whole)


def test_every_byte_of_the_manifest_counts(saved):
    (folder,) = complete(saved)
    body = (folder / MANIFEST).read_bytes()
    for at in range(len(body)):
        (folder / MANIFEST).write_bytes(body[:at] + body[at + 1 :])
        with pytest.raises(CheckpointError):
            verify(folder)
    (folder / MANIFEST).write_bytes(body)


def test_a_damaged_newest_falls_back_loudly_to_the_one_before(tmp_path):
    for step in (1, 2):
        save(tmp_path, checkpoint(step))
    newest = complete(tmp_path)[0] / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(DamagedCheckpointWarning, match="using step-00000001"):
        assert load(tmp_path).step == 1


def test_only_the_newest_are_kept_and_damaged_ones_do_not_count(tmp_path):
    for step in range(1, 5):
        save(tmp_path, checkpoint(step))
    assert [p.name for p in complete(tmp_path)] == [name_of(4), name_of(3)]
    (complete(tmp_path)[0] / "state.json").write_text("{}")
    save(tmp_path, checkpoint(5))
    intact = [p for p in complete(tmp_path) if p.name != name_of(4)]
    assert len(intact) == KEEP


def test_another_format_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("noise2action.policies.checkpoint.FORMAT", 2)
    save(tmp_path, checkpoint())
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="expected checkpoint format 1, got 2"):
        load(tmp_path)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    found = checkpoint()
    ema = dict(found.tensors["ema"])
    name = next(iter(ema))
    for change, message in (
        ({}, "missing"),
        ({name: ema[name][:1]}, "as torch.float32"),
        ({name: ema[name].double()}, "float64"),
        ({name: torch.full_like(ema[name], float("nan"))}, "finite"),
    ):
        tensors = {k: v for k, v in ema.items() if k != name} | change
        broken = type(found)(found.step, found.deployed, {**found.tensors, "ema": tensors}, found.state)
        with pytest.raises(CheckpointError, match=message):
            build(broken)


class _Disk:
    """Fails the n-th write, flush or rename, as a full or dying disk does."""

    def __init__(self, monkeypatch, n, code):
        self.left, self.code = n, code
        for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "mkdir")):
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, original):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                raise OSError(self.code, os.strerror(self.code))
            return original(*args, **kwargs)

        return call


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_step_of_a_save_leaves_the_previous_checkpoint_intact(tmp_path, code):
    start = tmp_path / "start"
    save(start, checkpoint(1))
    failures = 0
    for n in range(1, 60):
        run = tmp_path / f"run{n}"
        shutil.copytree(start, run)
        with pytest.MonkeyPatch.context() as patch:
            disk = _Disk(patch, n, code)
            try:
                save(run, checkpoint(2))
            except StorageError:
                failures += 1
        assert load(run).step in (1, 2)
        assert not list((run / "checkpoints").glob(".tmp-step*"))
        if disk.left > 0:
            break
    else:
        raise AssertionError("expected a save to end within 60 disk operations")
    assert failures >= 10
    assert StorageError.exit_code == 3


def test_too_little_space_is_told_before_anything_is_written(tmp_path, monkeypatch):
    save(tmp_path, checkpoint(1))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(StorageError, match="what was saved before is intact"):
        save(tmp_path, checkpoint(2))
    assert [p.name for p in complete(tmp_path)] == [name_of(1)]


def test_leftovers_of_a_killed_save_are_not_checkpoints_and_go_with_the_next(tmp_path):
    save(tmp_path, checkpoint(1))
    leftover = tmp_path / "checkpoints" / ".tmp-step-00000002-99"
    shutil.copytree(complete(tmp_path)[0], leftover)
    assert load(tmp_path).step == 1
    save(tmp_path, checkpoint(3))
    assert not leftover.exists()


def test_paths_that_hold_no_checkpoint_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="train first"):
        load(tmp_path)


def test_an_atomic_write_replaces_or_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    storage.atomic_write(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(StorageError, match="full"):
        storage.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
