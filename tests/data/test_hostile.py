"""Damaged and hostile files: a typed error or the data that was written, nothing outside, nothing enormous."""

import io
import json
import os
import pickle
import resource
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numcodecs
import numpy as np
import pytest

from noise2action.data import formats
from noise2action.data.episodes import Episodes
from noise2action.errors import DataError

CHECKSUMMED = [".npz", ".zarr.zip"]


@pytest.fixture
def small():
    rng = np.random.default_rng(0)
    arrays = {"action": rng.normal(size=(12, 2)).astype(np.float32), "state": rng.normal(size=(12, 3))}
    return Episodes(arrays, np.array([5, 12]))


def equal(a, b):
    same = sorted(a.arrays) == sorted(b.arrays) and np.array_equal(a.ends, b.ends)
    return same and all(np.array_equal(x, b.arrays[k]) for k, x in a.arrays.items())


def damaged(data, rng):
    """Return `data` with a byte changed, bytes cut off the end, or a stretch removed or overwritten."""
    at, kind = int(rng.integers(len(data))), int(rng.integers(6))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + int(rng.integers(1, 40)) :]
    if kind == 2:
        noise = rng.bytes(int(rng.integers(1, 20)))
        return (data[:at] + noise + data[at + len(noise) :])[: len(data)]
    return data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :]


@pytest.mark.parametrize("suffix", CHECKSUMMED)
def test_no_damaged_checksummed_file_is_read_wrong(tmp_path, small, suffix):
    path = tmp_path / f"a{suffix}"
    formats.write(path, small)
    original = path.read_bytes()
    rng = np.random.default_rng(1)
    messages = []
    for _ in range(400):
        path.write_bytes(damaged(original, rng))
        for act in (formats.read, formats.describe):
            try:
                result = act(path)
            except DataError as error:
                messages.append(str(error))
            else:
                assert not isinstance(result, Episodes) or equal(result, small)
    assert len(messages) > 400
    assert all(str(path) in message for message in messages)


@pytest.mark.parametrize("suffix", [".zarr", ".episodes"])
def test_damaged_folders_raise_typed_errors_only(tmp_path, small, suffix):
    path = tmp_path / f"a{suffix}"
    formats.write(path, small)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    rng = np.random.default_rng(1)
    messages = []
    for _ in range(300):
        file = files[int(rng.integers(len(files)))]
        original = file.read_bytes()
        file.write_bytes(damaged(original, rng))
        try:
            # These have no checksum: what can be asked is the declared shapes and no other exception.
            result = formats.read(path)
            assert {a.shape[0] for a in result.arrays.values()} == {result.total}
        except DataError as error:
            messages.append(str(error))
        file.write_bytes(original)
    assert len(messages) > 50
    assert all(str(path) in message for message in messages)
    assert equal(formats.read(path), small)


@pytest.mark.parametrize("suffix", [".zarr", ".episodes"])
def test_every_missing_file_is_an_error_that_names_it(tmp_path, small, suffix):
    path = tmp_path / f"a{suffix}"
    formats.write(path, small)
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        if file.name in (".zattrs", ".zgroup"):
            continue
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(DataError, match=r"action|state|episode"):
            formats.read(path, ["action", "state"])
        file.write_bytes(content)
    assert equal(formats.read(path), small)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def npy(array_bytes, header):
    text = (repr(header) + " " * 20 + "\n").encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + array_bytes


def archive(path, members, *, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)


def stored(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


ENDS = {"episode_ends.npy": stored(np.array([2, 4]))}


def test_pickles_are_never_opened(tmp_path, small, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bomb = npy(pickle.dumps(Bomb()), {"descr": "|O", "fortran_order": False, "shape": (4,)})
    archive(tmp_path / "a.npz", {**ENDS, "action.npy": bomb})
    formats.write(tmp_path / "a.episodes", small)
    (tmp_path / "a.episodes/action.npy").write_bytes(bomb)
    for name in ("a.npz", "a.episodes"):
        for act in (formats.read, formats.describe):
            with pytest.raises(DataError, match="'action': expected numbers"):
                act(tmp_path / name)
    formats.write(tmp_path / "a.zarr", small)
    for change in ({"dtype": "|O"}, {"filters": [{"id": "pickle"}]}, {"compressor": {"id": "pickle"}}):
        edit(tmp_path / "a.zarr/data/action/.zarray", **change)
        with pytest.raises(DataError, match=r"dtype|filters|compressor"):
            formats.read(tmp_path / "a.zarr", ["action"])
        edit(tmp_path / "a.zarr/data/action/.zarray", dtype="<f4", filters=None, compressor={"id": "blosc"})
    assert not (tmp_path / "executed").exists()


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def little_memory():
    """Allow 2 GB more than is used now; whoever believes a false header fails at once."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.usefixtures("little_memory")
def test_headers_that_claim_terabytes_allocate_nothing(tmp_path, small):
    huge = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 4)}
    archive(tmp_path / "a.npz", {**ENDS, "action.npy": npy(b"\0" * 64, huge)})
    formats.write(tmp_path / "a.episodes", small)
    (tmp_path / "a.episodes/action.npy").write_bytes(npy(b"\0" * 64, huge))
    formats.write(tmp_path / "a.zarr", small)
    meta = tmp_path / "a.zarr/data/action/.zarray"
    for path in (tmp_path / "a.npz", tmp_path / "a.episodes"):
        with pytest.raises(DataError, match=r"'action': expected .* bytes"):
            formats.read(path)
    for shape, chunks, message in [
        ([12, 1 << 40], [12, 1 << 40], "expected chunks below"),
        ([12, 1 << 30], [12, 1 << 10], "expected .* chunks, got at most"),
        ([12, 1 << 20], [12, 1 << 20], "bytes once decoded"),
        ([1 << 47] * 4, [1] * 4, "expected 12 time steps|an array of at most"),
        ([12, 2.5], [12, 2], "sizes"),
        ([12, -2], [12, 2], "sizes"),
        ([12, True], [12, 2], "sizes"),
        ([12, 2], [12], "for every axis"),
        ("12", [12], "list of sizes"),
    ]:
        edit(meta, shape=shape, chunks=chunks)
        with pytest.raises(DataError, match=message):
            formats.read(tmp_path / "a.zarr")


def zstd_frame(size):
    """Return a frame header with an 8-byte content size and nothing behind it."""
    return b"\x28\xb5\x2f\xfd" + bytes([0b11100000]) + struct.pack("<Q", size)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("codec", "chunk"),
    [
        ("blosc", struct.pack("<BBBBIII", 2, 1, 0x91, 4, 0x7FFFFFF0, 1 << 18, 16)),
        ("lz4", struct.pack("<I", 0x7FFFFFFF) + b"\0" * 8),
        ("zstd", zstd_frame(1 << 40)),
        ("zstd", b"\x28\xb5\x2f\xfd\x00\x58" + b"\0" * 8),
        ("zlib", zlib.compress(bytes(200_000_000), 1)),
        ("gzip", numcodecs.GZip(1).encode(bytes(96)) + numcodecs.GZip(1).encode(bytes(100_000_000))),
        ("blosc", b""),
        ("lz4", b""),
        ("zstd", b""),
        ("zlib", b""),
        ("gzip", b""),
    ],
)
def test_chunks_that_claim_more_than_their_array_are_refused(tmp_path, small, codec, chunk):
    formats.write(tmp_path / "a.zarr", small)
    edit(tmp_path / "a.zarr/data/action/.zarray", compressor={"id": codec})
    (tmp_path / "a.zarr/data/action/0.0").write_bytes(chunk)
    with pytest.raises(DataError, match=r"data/action/0\.0: expected 96 bytes once decoded"):
        formats.read(tmp_path / "a.zarr")


def test_a_chunk_cannot_justify_any_size(tmp_path, small):
    formats.write(tmp_path / "a.zarr", small)
    edit(tmp_path / "a.zarr/data/action/.zarray", shape=[12, 1 << 26], chunks=[1, 1 << 26], compressor={"id": "lz4"})
    for step in range(12):
        (tmp_path / f"a.zarr/data/action/{step}.0").write_bytes(struct.pack("<I", 1 << 28) + b"\0" * 60)
    with pytest.raises(DataError, match="a damaged chunk"):
        formats.read(tmp_path / "a.zarr")


@pytest.mark.parametrize("name", ["../escape.npy", "/abs.npy", "a/../../b.npy", "C:/x.npy", "a\\..\\b.npy"])
def test_zip_names_that_lead_out_are_refused(tmp_path, name):
    for suffix in CHECKSUMMED:
        archive(tmp_path / f"a{suffix}", {**ENDS, name: stored(np.zeros((4, 2)))})
        with pytest.raises(DataError, match="relative member names"):
            formats.read(tmp_path / f"a{suffix}")


def test_zip_tricks_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    archive(path, {**ENDS, "action.npy": stored(np.zeros((4, 2)))}, compression=zipfile.ZIP_BZIP2)
    with pytest.raises(DataError, match="stored or deflated"):
        formats.read(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("action.npy", stored(np.zeros((4, 2))))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("action.npy", stored(np.ones((4, 2))))
    with pytest.raises(DataError, match="duplicates"):
        formats.read(path)
    archive(path, ENDS)
    original = path.read_bytes()
    data = bytearray(original)
    at = data.rindex(b"PK\x01\x02")
    data[at + 28], data[at + 32] = 0, data[at + 28]  # the name is declared a comment
    path.write_bytes(data)
    with pytest.raises(DataError, match="relative member names, got ''"):
        formats.read(path)
    data = bytearray(original)
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 0xFFFF0000)
    path.write_bytes(data)
    with pytest.raises(DataError, match="claims 4294901760 bytes"):
        formats.read(path)


@pytest.mark.parametrize(("suffix", "name"), [(".zarr", "data/action/0.0"), (".episodes", "action.npy")])
def test_links_out_of_the_folder_are_not_followed(tmp_path, small, suffix, name):
    path, outside = tmp_path / f"a{suffix}", tmp_path / "outside"
    formats.write(path, small)
    shutil.move(path / name, outside)
    (path / name).symlink_to(outside)
    with pytest.raises(DataError, match="inside the folder"):
        formats.read(path)
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(DataError, match="regular file"):
        formats.read(path)
    shutil.rmtree(path / "data", ignore_errors=True)
    (path / "data").symlink_to(tmp_path)
    if suffix == ".zarr":
        with pytest.raises(DataError, match="inside the folder"):
            formats.read(path)


def test_an_index_cannot_name_files_elsewhere(tmp_path, small):
    formats.write(tmp_path / "a.episodes", small)
    index = tmp_path / "a.episodes/episodes.json"
    for change, message in [
        ({"keys": ["../a"]}, "feature name"),
        ({"keys": "action"}, "list of names"),
        ({"ends": [5, 2**70]}, "list of positive integers"),
        ({"ends": [12, 5]}, "episode 1"),
        ({"version": 2}, "newer"),
        ({"extra": 1}, "exactly"),
    ]:
        original = index.read_text()
        edit(index, **change)
        with pytest.raises(DataError, match=message):
            formats.read(tmp_path / "a.episodes")
        index.write_text(original)
    index.write_text("[" * 100_000)
    with pytest.raises(DataError, match="expected JSON"):
        formats.read(tmp_path / "a.episodes")
