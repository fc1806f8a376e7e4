"""Diffusion-Policy zarr: a version-2 store `{data/<key> [T, ...], meta/episode_ends [N]}`, as a folder or zipped.

Zarr decodes only what was checked here first: known codecs, every chunk present, and no chunk that claims more bytes
than its array declares.
"""

import itertools
import json
import math
import re
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...errors import DataError, did_you_mean
from ..episodes import Array, Episodes, checked_ends
from . import vocabulary
from .codecs import CODECS, claimed
from .description import Description, Stored
from .publish import publish
from .source import MAX_BYTES, OLDEST, Source, opened

_ENDS = "meta/episode_ends"
_DTYPE = re.compile(r"[<>|]([iu][1248]|f[248]|b1)")
_MAX_CHUNK = 1 << 31
_WRITTEN_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Layout:
    """The checked part of a `.zarray`."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: "np.dtype[Any]"
    codec: str | None
    separator: str

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk; the ones at the edge are stored whole."""
        return math.prod(self.chunks) * self.dtype.itemsize

    def names(self) -> Iterator[str]:
        """Yield the name of every chunk."""
        return (self.separator.join(map(str, at)) for at in itertools.product(*map(range, self.grid)))


def read(path: Path, keys: Collection[str] | None = None) -> Episodes:
    """Return the episodes, or only the arrays named `keys`; other arrays are neither read nor decoded."""
    with opened(path) as source:
        names, ends = _names(source), _ends(source)
        wanted = names if keys is None else list(keys)
        for key in wanted:
            if key not in names:
                raise DataError(f"{path}: expected an array {key!r}: {did_you_mean(key, names)}")
        # All shapes before the first array: an inconsistent store is told at once.
        layouts = {key: _feature(source, key, ends) for key in wanted}
        arrays = {key: _array(source, f"data/{key}", layout) for key, layout in layouts.items()}
        return Episodes(arrays, ends, sentences=vocabulary.read(source))


def write(path: Path, episodes: Episodes, *, overwrite: bool = False) -> None:
    """Write `episodes` (Blosc, zstd level 5, bitshuffle); a path that ends in `.zip` becomes one zip file."""

    def save(temporary: Path) -> None:
        pack = _save_zip if path.suffix == ".zip" else _save_folder
        pack(temporary, _files(episodes))

    publish(path, save, overwrite=overwrite)


def describe(path: Path) -> Description:
    """Return what the store holds, from its metadata."""
    with opened(path) as source:
        ends = _ends(source)
        layouts = {key: _feature(source, key, ends) for key in _names(source)}
    features = {key: Stored(layout.shape[1:], layout.dtype.name) for key, layout in layouts.items()}
    return Description(path, "zarr.zip" if path.is_file() else "zarr", features, ends)


def _names(source: Source) -> list[str]:
    names = sorted(name for name in source.names("data") if not name.startswith("."))
    if not names:
        raise DataError(f"{source.path}: expected arrays below data/, got none: is this a diffusion-policy zarr?")
    return names


def _ends(source: Source) -> Array:
    return checked_ends(_array(source, _ENDS, _layout(source, _ENDS)))


def _feature(source: Source, key: str, ends: Array) -> _Layout:
    layout = _layout(source, f"data/{key}")
    if layout.shape[0] != ends[-1]:
        raise DataError(
            f"{source.path}: {key!r}: expected {int(ends[-1])} time steps (the last episode end), "
            f"got {layout.shape[0]}: the data set is incomplete"
        )
    return layout


def _layout(source: Source, name: str) -> _Layout:
    where = f"{source.path}: {name}/.zarray"
    try:
        meta: Any = json.loads(source.read(f"{name}/.zarray"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected JSON, got a damaged file ({error})") from error
    if not isinstance(meta, dict):
        raise DataError(f"{where}: expected a JSON object")
    meta = cast(dict[str, Any], meta)
    if meta.get("zarr_format") != 2 or meta.get("order") not in ("C", "F") or meta.get("filters") not in (None, []):
        raise DataError(f"{where}: expected zarr_format 2, order C or F and no filters")
    shape, chunks = _sizes(meta.get("shape"), where), _sizes(meta.get("chunks"), where)
    if len(shape) != len(chunks):
        raise DataError(f"{where}: expected a chunk size for every axis of {shape}, got {chunks}")
    dtype, separator = meta.get("dtype"), meta.get("dimension_separator", ".")
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise DataError(f"{where}: expected a numeric dtype such as '<f4', got {dtype!r}")
    if separator not in (".", "/"):
        raise DataError(f"{where}: expected dimension_separator '.' or '/', got {separator!r}")
    layout = _Layout(shape, chunks, np.dtype(dtype), _codec(meta.get("compressor"), where), separator)
    if layout.chunk_bytes >= _MAX_CHUNK or math.prod(shape) * layout.dtype.itemsize > MAX_BYTES:
        raise DataError(
            f"{where}: expected chunks below {_MAX_CHUNK} and an array of at most {MAX_BYTES} bytes, "
            f"got chunks {chunks} of {shape} {dtype}"
        )
    return layout


def _sizes(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or len(cast(list[Any], value)) > 32:
        raise DataError(f"{where}: expected a list of sizes, got {value!r}")
    sizes = cast(list[Any], value)
    if not all(type(size) is int and 0 < size < 1 << 48 for size in sizes):
        raise DataError(f"{where}: expected positive sizes, got {sizes}")
    return tuple(sizes)


def _codec(compressor: object, where: str) -> str | None:
    if compressor is None:
        return None
    codec = cast(dict[str, Any], compressor).get("id") if isinstance(compressor, dict) else None
    if not isinstance(codec, str) or codec not in CODECS:
        raise DataError(f"{where}: expected a compressor among {sorted(CODECS)}, got {codec!r}")
    return codec


def _array(source: Source, name: str, layout: _Layout) -> Array:
    import zarr  # noqa: PLC0415 - half a second that only this format pays
    from zarr.core.buffer import default_buffer_prototype  # noqa: PLC0415
    from zarr.storage import MemoryStore  # noqa: PLC0415

    buffer = default_buffer_prototype().buffer
    checked = {f"a/{chunk}": buffer.from_bytes(data) for chunk, data in _chunks(source, name, layout)}
    checked["a/.zarray"] = buffer.from_bytes(source.read(f"{name}/.zarray"))
    try:
        array = zarr.open_array(MemoryStore(checked), path="a", mode="r", zarr_format=2)
        values = np.asarray(array[...])
    except Exception as error:  # codecs raise what they like on damaged chunks
        raise DataError(f"{source.path}: {name}: cannot decode, it is damaged ({error})") from error
    if values.shape != layout.shape or values.dtype != layout.dtype:
        raise DataError(f"{source.path}: {name}: expected {layout.shape} {layout.dtype}, got {values.shape}")
    return values


def _chunks(source: Source, name: str, layout: _Layout) -> Iterator[tuple[str, bytes]]:
    """Yield every chunk's name and bytes, each checked to decode to exactly one chunk of the array."""
    wanted = math.prod(layout.grid)
    if layout.separator == ".":
        present = len(source.names(name))
        # Before counting through a grid that may be absurd.
        if present < wanted:
            raise DataError(f"{source.path}: {name}: expected {wanted} chunks, got at most {present}: copy it again")
    for chunk in layout.names():
        data = source.read(f"{name}/{chunk}")
        size = claimed(layout.codec, data, layout.chunk_bytes)
        if size != layout.chunk_bytes:
            raise DataError(
                f"{source.path}: {name}/{chunk}: expected {layout.chunk_bytes} bytes once decoded, "
                f"got {size if size is not None else 'a damaged chunk'}"
            )
        yield chunk, data


def _files(episodes: Episodes) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of every file of the store, with one compressed array in memory at a time."""
    group = json.dumps({"zarr_format": 2}).encode()
    yield from ((name, group) for name in (".zgroup", "data/.zgroup", "meta/.zgroup"))
    yield from vocabulary.encoded(episodes).items()
    arrays = [(f"data/{key}", array) for key, array in episodes.arrays.items()]
    for name, array in [*arrays, (_ENDS, episodes.ends)]:
        yield from ((f"{name}/{file}", data) for file, data in sorted(_encoded(array).items()))


def _encoded(array: Array) -> dict[str, bytes]:
    import zarr  # noqa: PLC0415
    from numcodecs import Blosc  # noqa: PLC0415
    from zarr.core.buffer import Buffer  # noqa: PLC0415
    from zarr.storage import MemoryStore  # noqa: PLC0415

    files: dict[str, Buffer] = {}
    stored = zarr.create_array(
        MemoryStore(files),
        zarr_format=2,
        shape=array.shape,
        chunks=(max(1, min(len(array), _WRITTEN_CHUNK // array[0].nbytes)), *array.shape[1:]),
        dtype=array.dtype,
        compressors=Blosc("zstd", clevel=5, shuffle=Blosc.BITSHUFFLE),
        # Zarr would leave out chunks of zeros, which nobody can tell from lost ones.
        config={"write_empty_chunks": True},
    )
    stored[...] = array
    return {name: buffer.to_bytes() for name, buffer in files.items()}


def _save_folder(folder: Path, files: Iterator[tuple[str, bytes]]) -> None:
    for name, data in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _save_zip(target: Path, files: Iterator[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, OLDEST), data)
