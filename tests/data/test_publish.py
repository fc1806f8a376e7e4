"""Writing is all or nothing."""

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from noise2action.data import formats
from noise2action.data.episodes import Episodes
from noise2action.errors import DataError, StorageError

SUFFIXES = [known.suffix for known in formats.FORMATS]


def made(value, steps=6):
    # Incompressible, so that a small limit on file sizes is reached by every format.
    noise = np.random.default_rng(value).normal(size=(steps, 4))
    return Episodes({"action": noise, "state": noise + 1}, np.array([2, steps]))


def holds(path, episodes):
    read = formats.read(path)
    return all(np.array_equal(read.arrays[k], a) for k, a in episodes.arrays.items())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_existing_target_is_replaced_only_when_asked(tmp_path, suffix):
    path = tmp_path / "new" / f"a{suffix}"
    formats.write(path, made(0))
    with pytest.raises(DataError, match="exists"):
        formats.write(path, made(1))
    assert holds(path, made(0))
    formats.write(path, made(1), overwrite=True)
    assert holds(path, made(1))
    assert [child.name for child in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_the_target_as_it_was(tmp_path, suffix, exists):
    path = tmp_path / f"a{suffix}"
    if exists:
        formats.write(path, made(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StorageError, match="free some space"):
            formats.write(path, made(1, steps=2000), overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [child.name for child in tmp_path.iterdir()] == ([path.name] if exists else [])
    assert not exists or holds(path, made(0))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("call", ["fsync", "rename", "replace"])
def test_a_failure_at_any_call_leaves_the_old_or_the_new(tmp_path, monkeypatch, suffix, call):
    path = tmp_path / f"a{suffix}"
    formats.write(path, made(0))
    owner, original = (os, os.fsync) if call == "fsync" else (Path, getattr(Path, call))
    for n in range(100):
        seen = 0

        def failing(*args, n=n):
            nonlocal seen
            seen += 1
            if seen == n + 1:
                raise OSError(errno.EIO, "input/output error")
            return original(*args)

        monkeypatch.setattr(owner, call, failing)
        try:
            formats.write(path, made(1), overwrite=True)
            failed = False
        except StorageError:
            failed = True
        finally:
            monkeypatch.setattr(owner, call, original)
        assert holds(path, made(0)) or holds(path, made(1))
        assert [child.name for child in tmp_path.iterdir()] == [path.name]
        if seen <= n:
            assert not failed
            return
    pytest.fail("the write never came to an end")
