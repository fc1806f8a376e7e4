import json
import zipfile

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, from_dtype

from noise2action.data import formats
from noise2action.data.episodes import Episodes
from noise2action.errors import DataError

SUFFIXES = [known.suffix for known in formats.FORMATS]


def same(a, b):
    assert sorted(a.arrays) == sorted(b.arrays)
    assert np.array_equal(a.ends, b.ends)
    for key, array in a.arrays.items():
        assert b.arrays[key].dtype == array.dtype
        assert b.arrays[key].shape == array.shape
        assert b.arrays[key].tobytes() == array.tobytes()


@st.composite
def any_episodes(draw):
    ends = np.cumsum(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    dtypes = st.sampled_from(["float32", "float64", "float16", "uint8", "int64", "bool", ">f4"]).map(np.dtype)
    shapes = st.lists(st.integers(1, 3), max_size=2).map(lambda shape: (int(ends[-1]), *shape))
    made = {}
    for name in draw(st.lists(st.from_regex(r"[a-z][a-z_.0-9\-]{0,8}", fullmatch=True), min_size=1, max_size=3)):
        dtype = draw(dtypes)
        made[f"x{name}"] = draw(arrays(dtype, draw(shapes), elements=from_dtype(dtype)))
    return Episodes(made, ends)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=10)
@given(episodes=any_episodes())
def test_what_is_written_is_read_bit_for_bit(tmp_path_factory, suffix, episodes):
    path = tmp_path_factory.mktemp("round") / f"a{suffix}"
    formats.write(path, episodes)
    same(episodes, formats.read(path))
    described = formats.describe(path)
    assert np.array_equal(described.ends, episodes.ends)
    assert {k: (s.shape, s.dtype) for k, s in described.features.items()} == {
        k: (a.shape[1:], a.dtype.name) for k, a in episodes.arrays.items()
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_only_the_keys_asked_for_are_read(tmp_path, episodes, suffix):
    path = tmp_path / f"a{suffix}"
    formats.write(path, episodes)
    same(episodes.keep(["state", "flag"]), formats.read(path, ["state", "flag"]))
    with pytest.raises(DataError, match="did you mean 'state'"):
        formats.read(path, ["stat"])


def test_the_memory_mapped_folder_stays_on_disk(tmp_path, episodes):
    formats.write(tmp_path / "a.episodes", episodes)
    array = formats.read(tmp_path / "a.episodes").arrays["state"]
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable


def test_equal_episodes_make_equal_zip_files(tmp_path, episodes):
    for name in ("a", "b"):
        formats.write(tmp_path / f"{name}.zarr.zip", episodes)
    assert (tmp_path / "a.zarr.zip").read_bytes() == (tmp_path / "b.zarr.zip").read_bytes()


def test_large_arrays_are_split_into_chunks(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (40, 96, 96, 3)).astype(np.uint8)
    episodes = Episodes({"image": image}, np.array([17, 40]))
    formats.write(tmp_path / "a.zarr", episodes)
    assert len(list((tmp_path / "a.zarr/data/image").glob("*.0.0.0"))) == 2
    same(episodes, formats.read(tmp_path / "a.zarr"))


@pytest.mark.parametrize("suffix", [".zarr", ".zarr.zip"])
def test_zarr_itself_reads_what_we_write(tmp_path, episodes, suffix):
    path = tmp_path / f"a{suffix}"
    formats.write(path, episodes)
    store = zarr.storage.ZipStore(path, mode="r") if suffix == ".zarr.zip" else str(path)
    root = zarr.open_group(store, mode="r", zarr_format=2)
    assert np.array_equal(root["meta/episode_ends"][...], episodes.ends)
    for key, array in episodes.arrays.items():
        assert np.array_equal(root[f"data/{key}"][...], array)


CODECS = {
    "none": None,
    "blosc-lz4": numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE),
    "blosc-zlib": numcodecs.Blosc("zlib", 1, numcodecs.Blosc.NOSHUFFLE),
    "zstd": numcodecs.Zstd(3),
    "lz4": numcodecs.LZ4(),
    "zlib": numcodecs.Zlib(1),
    "gzip": numcodecs.GZip(1),
}


def foreign_store(path, codec, *, order="C", separator=".", filters=None):
    """Write a store with zarr itself, in chunks that divide nothing evenly."""
    values = np.arange(13 * 5, dtype=np.float32).reshape(13, 5)
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    for name, data, chunks in [("data/action", values, (4, 3)), ("meta/episode_ends", np.array([6, 13]), (5,))]:
        array = root.create_array(
            name, shape=data.shape, chunks=chunks, dtype=data.dtype, compressors=codec, order=order, filters=filters,
            chunk_key_encoding={"name": "v2", "separator": separator}, config={"write_empty_chunks": True},
        )  # fmt: skip
        array[...] = data
    return values


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("order", "separator"), [("C", "."), ("F", "/")])
def test_we_read_what_zarr_writes(tmp_path, codec, order, separator):
    values = foreign_store(tmp_path / "a.zarr", CODECS[codec], order=order, separator=separator)
    read = formats.read(tmp_path / "a.zarr")
    assert np.array_equal(read.arrays["action"], values)
    assert read.ends.tolist() == [6, 13]


@pytest.mark.parametrize(
    ("codec", "filters", "message"),
    [
        (numcodecs.BZ2(), None, "compressor among"),
        (numcodecs.LZMA(), None, "compressor among"),
        (None, [numcodecs.Delta("<f4")], "no filters"),
    ],
)
def test_codecs_off_the_list_are_refused(tmp_path, codec, filters, message):
    foreign_store(tmp_path / "a.zarr", codec, filters=filters)
    with pytest.raises(DataError, match=message):
        formats.read(tmp_path / "a.zarr")


def test_npz_of_other_collections(tmp_path, caplog):
    np.savez(
        tmp_path / "a.npz",
        actions=np.ones((7, 2)), observations=np.zeros((7, 3)), init_qpos=np.zeros((2, 5)), fps=np.array(10),
        episode_ends=np.array([3, 7]),
    )  # fmt: skip
    assert sorted(formats.read(tmp_path / "a.npz").arrays) == ["action", "observations"]
    notes = formats.describe(tmp_path / "a.npz").notes
    assert [note.split()[0] for note in notes] == ["fps", "init_qpos"]
    with pytest.raises(DataError, match="'init_qpos': expected 7 time steps"):
        formats.read(tmp_path / "a.npz", ["init_qpos"])


def test_lengths_that_do_not_add_up_show_both_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", action=np.ones((8, 2)), episode_ends=np.array([3, 7]))
    with pytest.raises(DataError, match=r"'action': expected 7 time steps .* got 8"):
        formats.read(tmp_path / "a.npz")
    formats.write(tmp_path / "a.zarr", Episodes({"action": np.ones((8, 2))}, np.array([8])))
    zarr.open_array(str(tmp_path / "a.zarr/meta/episode_ends"), zarr_format=2)[...] = 7
    for act in (formats.read, formats.describe):
        with pytest.raises(DataError, match=r"'action': expected 7 time steps .* got 8"):
            act(tmp_path / "a.zarr")


def test_locate_prefers_the_documented_order(tmp_path, episodes):
    with pytest.raises(DataError, match="in this folder, got none"):
        formats.locate(tmp_path)
    (tmp_path / ".tmp-1-a.zarr").mkdir()
    for suffix in reversed(SUFFIXES):
        formats.write(tmp_path / f"a{suffix}", episodes)
        assert formats.locate(tmp_path) == tmp_path / f"a{suffix}"
        assert formats.locate(tmp_path / f"a{suffix}") == tmp_path / f"a{suffix}"
    same(episodes, formats.read(str(tmp_path)))


def test_paths_that_are_no_data_set(tmp_path, episodes):
    (tmp_path / "file.zarr").write_bytes(b"")
    (tmp_path / "folder.npz").mkdir()
    for name, message in [
        ("absent.npz", "no such file"),
        ("absent", "expected a data set"),
        ("file.zarr", "expected a folder, got a file"),
        ("folder.npz", "expected a file, got a folder"),
    ]:
        with pytest.raises(DataError, match=message):
            formats.read(tmp_path / name)
    with pytest.raises(DataError, match="the suffix chooses the format"):
        formats.write(tmp_path / "a.hdf5", episodes)


def test_a_zarr_without_data_says_so(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr/.zgroup").write_text(json.dumps({"zarr_format": 2}))
    with pytest.raises(DataError, match="diffusion-policy zarr"):
        formats.read(tmp_path / "a.zarr")


def test_the_real_pusht_store_equals_its_npz_and_round_trips(real_data, tmp_path):
    folder = real_data / "pusht_cchi_v7_zarr"
    assert formats.locate(folder).suffix == ".zarr"
    store = formats.read(folder, ["action", "state", "keypoint", "n_contacts"])
    same(store, formats.read(folder / "pusht_cchi_v7_lowdim.npz"))
    described = formats.describe(folder)
    assert (described.episodes, described.steps) == (206, 25650)
    assert described.features["img"].shape == (96, 96, 3)
    assert described.megabytes > 2800
    small = store.keep(["action", "state"])
    for suffix in SUFFIXES:
        formats.write(tmp_path / f"a{suffix}", small)
        same(small, formats.read(tmp_path / f"a{suffix}"))


def test_the_real_dapg_archive(real_data):
    read = formats.read(real_data / "dapg_door_v0")
    assert {key: array.shape for key, array in read.arrays.items()} == {
        "action": (6729, 28), "observations": (6729, 39), "rewards": (6729,),
    }  # fmt: skip
    assert len(formats.describe(real_data / "dapg_door_v0").notes) == 3


def test_zip_members_are_stored_with_their_checksums(tmp_path, episodes):
    formats.write(tmp_path / "a.zarr.zip", episodes)
    with zipfile.ZipFile(tmp_path / "a.zarr.zip") as archive:
        assert archive.testzip() is None
