"""File formats of demonstrations; the suffix of a path chooses one.

| suffix | what |
|---|---|
| `.zarr` | Diffusion-Policy store, a folder |
| `.zarr.zip` | the same in one zip file |
| `.npz` | NumPy archive: one array a feature and `episode_ends` |
| `.episodes` | memory-mapped folder, opened without reading it |

Loading runs no code from a file, reads nothing outside it and allocates no more than it justifies.
"""

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from ...errors import DataError
from ..episodes import Episodes
from . import folder, npz, zarr_store
from .description import Description, Stored

__all__ = ["FORMATS", "Description", "Format", "Stored", "check_suffix", "describe", "locate", "read", "write"]


@runtime_checkable
class Write(Protocol):
    """Writes episodes under a new name, or over an old one."""

    def __call__(self, path: Path, episodes: Episodes, *, overwrite: bool = False) -> None:
        """Write `episodes` to `path`."""
        ...


@dataclass(frozen=True)
class Format:
    """One file format."""

    suffix: str
    is_folder: bool
    read: Callable[[Path, Collection[str] | None], Episodes]
    write: Write
    describe: Callable[[Path], Description]


FORMATS: tuple[Format, ...] = (
    Format(".zarr", True, zarr_store.read, zarr_store.write, zarr_store.describe),
    Format(".zarr.zip", False, zarr_store.read, zarr_store.write, zarr_store.describe),
    Format(".npz", False, npz.read, npz.write, npz.describe),
    Format(".episodes", True, folder.read, folder.write, folder.describe),
)
"""Every format, in the order in which `locate` prefers them."""


def read(path: Path | str, keys: Collection[str] | None = None) -> Episodes:
    """Return the episodes at `path` (see `locate`), or only their arrays named `keys`.

    Without `keys` every array is read, images too: look with `describe` first. Raises `DataError` where the data set is
    absent, damaged, inconsistent or hostile.
    """
    found = locate(path)
    with _naming(found):
        return _format(found).read(found, keys)


def write(path: Path | str, episodes: Episodes, *, overwrite: bool = False) -> None:
    """Write `episodes` to `path`, which appears complete or not at all.

    An existing target is a `DataError` unless `overwrite`. Raises `StorageError`, the old target intact, where the disk
    is full or fails.
    """
    _format(Path(path)).write(Path(path), episodes, overwrite=overwrite)


def describe(path: Path | str) -> Description:
    """Return what the data set at `path` (see `locate`) holds, without decoding its arrays."""
    found = locate(path)
    with _naming(found):
        return _format(found).describe(found)


def locate(path: Path | str) -> Path:
    """Return the data set that `path` is, or else the first one directly in that folder, in the order of `FORMATS`."""
    path = Path(path)
    if _matching(path):
        _check_kind(path)
        return path
    if not path.is_dir():
        raise DataError(f"{path}: expected a data set ({_suffixes()}) or a folder with one, got no such thing")
    for known in FORMATS:
        for child in sorted(path.iterdir()):
            if _matching(child) is known and not child.name.startswith(".") and child.is_dir() == known.is_folder:
                return child
    raise DataError(f"{path}: expected a data set ({_suffixes()}) in this folder, got none")


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Make every `DataError` name the data set."""
    try:
        yield
    except DataError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path}: {error}") from error


def check_suffix(path: Path | str) -> None:
    """Raise `DataError` unless the suffix of `path` names a format: before minutes of work are to be written there."""
    _format(Path(path))


def _matching(path: Path) -> Format | None:
    return next((known for known in FORMATS if path.name.endswith(known.suffix)), None)


def _format(path: Path) -> Format:
    known = _matching(path)
    if known is None:
        raise DataError(f"{path}: expected a name that ends in {_suffixes()}: the suffix chooses the format")
    return known


def _check_kind(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder: check the path")
    expected = "folder" if _format(path).is_folder else "file"
    if path.is_dir() != (expected == "folder"):
        raise DataError(f"{path}: expected a {expected}, got a {'folder' if path.is_dir() else 'file'}")


def _suffixes() -> str:
    return ", ".join(known.suffix for known in FORMATS)
