"""NumPy archives: one `.npy` a feature [T, ...] and `episode_ends` [N]."""

import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

from ...errors import DataError, did_you_mean
from ..episodes import ACTION, Array, Episodes, checked_ends
from . import npy, vocabulary
from .description import Description, Stored
from .publish import publish
from .source import OLDEST, Archive

_ENDS = "episode_ends"
_ALIASES = {ACTION: "actions"}
"""Our name of an array to the name that other collections use."""


def read(path: Path, keys: Collection[str] | None = None) -> Episodes:
    """Return the episodes, or only the arrays named `keys`; per-episode and scalar arrays are left out.

    An array `actions` is read as `action`.
    """
    with Archive(path) as archive:
        names = _names(archive)
        ends = _ends(archive)
        wanted = list(names) if keys is None else list(keys)
        arrays: dict[str, Array] = {}
        for key in wanted:
            if key not in names:
                raise DataError(f"{path}: expected an array {key!r}: {did_you_mean(key, names)}")
            array = npy.decoded(archive.read(names[key]), where=f"{path}: {key!r}")
            if keys is not None or not _left_out(array.shape, ends):
                arrays[key] = array
        return Episodes(arrays, ends, sentences=vocabulary.read(archive))


def write(path: Path, episodes: Episodes, *, overwrite: bool = False) -> None:
    """Write `episodes`, compressed."""
    if _ENDS in episodes.arrays:
        raise DataError(f"expected no feature named {_ENDS!r}: rename it")
    arrays = {**episodes.arrays, _ENDS: episodes.ends}

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
            for name, data in vocabulary.encoded(episodes).items():
                archive.writestr(zipfile.ZipInfo(name, OLDEST), data)

    publish(path, save, overwrite=overwrite)


def describe(path: Path) -> Description:
    """Return what the archive holds; only the episode ends are kept."""
    features: dict[str, Stored] = {}
    notes: list[str] = []
    with Archive(path) as archive:
        ends = _ends(archive)
        for key, name in _names(archive).items():
            head = npy.header(archive.read(name), where=f"{path}: {key!r}")
            if _left_out(head.shape, ends):
                notes.append(f"{key} {head.shape} is left out: it has no entry a time step")
            else:
                features[key] = Stored(head.shape[1:], head.dtype.name)
    return Description(path, "npz", features, ends, tuple(notes))


def _names(archive: Archive) -> dict[str, str]:
    stems = {name.removesuffix(".npy") for name in archive.names("") if name.endswith(".npy")} - {_ENDS}
    ours = {alias: name for name, alias in _ALIASES.items() if name not in stems}
    return {ours.get(stem, stem): f"{stem}.npy" for stem in sorted(stems)}


def _ends(archive: Archive) -> Array:
    return checked_ends(npy.decoded(archive.read(f"{_ENDS}.npy"), where=f"{archive.path}: {_ENDS!r}"))


def _left_out(shape: tuple[int, ...], ends: Array) -> bool:
    return not shape or (shape[0] == len(ends) and shape[0] != int(ends[-1]))
