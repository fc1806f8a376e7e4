"""Our own folder, opened without reading it: one memory-mapped `.npy` a feature and `episodes.json`."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...errors import DataError, did_you_mean
from ..episodes import Array, Episodes, check_name, checked_ends
from . import npy, vocabulary
from .description import Description, Stored
from .publish import publish
from .source import Folder

_INDEX = "episodes.json"
_VERSION = 1


def read(path: Path, keys: Collection[str] | None = None) -> Episodes:
    """Return the episodes, or only the arrays named `keys`, as read-only memory maps."""
    folder = Folder(path)
    names, ends = _index(folder)
    wanted = names if keys is None else list(keys)
    for key in wanted:
        if key not in names:
            raise DataError(f"{path}: expected an array {key!r}: {did_you_mean(key, names)}")
    return Episodes({key: _mapped(folder, key) for key in wanted}, ends, sentences=vocabulary.read(folder))


def write(path: Path, episodes: Episodes, *, overwrite: bool = False) -> None:
    """Write `episodes`, uncompressed."""

    def save(temporary: Path) -> None:
        temporary.mkdir()
        for key, array in episodes.arrays.items():
            np.save(temporary / f"{key}.npy", array, allow_pickle=False)
        index = {"version": _VERSION, "keys": list(episodes.arrays), "ends": episodes.ends.tolist()}
        (temporary / _INDEX).write_text(json.dumps(index), encoding="utf-8")
        for name, data in vocabulary.encoded(episodes).items():
            (temporary / name).write_bytes(data)

    publish(path, save, overwrite=overwrite)


def describe(path: Path) -> Description:
    """Return what the folder holds, from its index and the headers of its arrays."""
    folder = Folder(path)
    names, ends = _index(folder)
    arrays = {key: _mapped(folder, key) for key in names}
    return Description(path, "episodes", {k: Stored(a.shape[1:], a.dtype.name) for k, a in arrays.items()}, ends)


def _index(folder: Folder) -> tuple[list[str], Array]:
    where = f"{folder.path}/{_INDEX}"
    try:
        index: Any = json.loads(folder.read(_INDEX))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected JSON, got a damaged file ({error})") from error
    if not isinstance(index, dict) or set(cast(dict[str, Any], index)) != {"version", "keys", "ends"}:
        raise DataError(f"{where}: expected exactly version, keys and ends")
    if index["version"] != _VERSION:
        raise DataError(f"{where}: expected version {_VERSION}, got {index['version']!r}: use a newer noise2action")
    keys, ends = index["keys"], index["ends"]
    if not isinstance(keys, list) or not all(isinstance(k, str) for k in cast(list[Any], keys)):
        raise DataError(f"{where}: expected keys as a list of names")
    if not isinstance(ends, list) or not all(type(e) is int and 0 < e < 1 << 62 for e in cast(list[Any], ends)):
        raise DataError(f"{where}: expected ends as a list of positive integers")
    return [check_name(k) for k in cast(list[str], keys)], checked_ends(np.array(ends, np.int64))


def _mapped(folder: Folder, key: str) -> Array:
    name, where = f"{key}.npy", f"{folder.path}: {key!r}"
    path = folder.file(name)
    try:
        with path.open("rb") as file:
            head = npy.header(file.read(npy.HEADER_BYTES), where=where)
        size = path.stat().st_size
        if head.offset + head.size != size or not head.size:
            raise DataError(f"{where}: expected {head.size} bytes after the header, got {size - head.offset}")
        return np.memmap(path, head.dtype, "r", head.offset, head.shape, head.order)
    except OSError as error:
        raise DataError(f"{where}: cannot read {name} ({error.strerror}): copy it again") from error
