"""Durable files: a reader, or a crash, sees the old file or the new one, never a part."""

import errno
import os
import tempfile
from pathlib import Path

from .errors import ConfigError, StorageError

REMEDIES = {
    errno.ENOTDIR: "a part of the path is a file: choose another place",
    errno.EEXIST: "a part of the path is a file: choose another place",
    errno.ENOENT: "choose a place where folders can be made",
    errno.EACCES: "choose a place that you may write to",
    errno.EPERM: "choose a place that you may write to",
    errno.EROFS: "choose a place that you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""What to do about what the disk refused; all else is a matter of space."""


def check_place(path: Path, *, flag: str) -> None:
    """Raise `ConfigError` that names `flag` where no file or folder can be made at `path`; nothing is left there."""
    parent = next((p for p in path.absolute().parents if os.path.lexists(p)), None)
    if parent is not None and not parent.is_dir():
        raise ConfigError(f"{flag}: expected a path through folders, got the file {parent} in {path}: choose another")
    here = path if path.exists() else parent
    if here is None:
        return
    try:
        # Some folders (/proc, a full disk) refuse what their permissions grant: only trying tells.
        Path(tempfile.mkdtemp(prefix=".tmp-", dir=here if here.is_dir() else parent)).rmdir()
        refused = None if os.access(here, os.W_OK) else "it is read-only"
    except OSError as error:
        refused = error.strerror
    if refused is not None:
        raise ConfigError(f"{flag}: expected a place that you may write to, got {here} ({refused}): choose another")


def atomic_write(path: Path, body: bytes) -> None:
    """Write `body` to `path`, durable when this returns; `StorageError` and the old file where the disk refuses."""
    try:
        if path.exists() and not path.is_file():
            raise StorageError(f"expected a file to write, got something else in its place: {path}")
        path = path.resolve()  # a link stays a link
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, body)
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "free disk space, or choose another place")
        raise StorageError(f"expected to write {path}, got {error.strerror or error}: {remedy}") from error


def replace_file(path: Path, body: bytes) -> None:
    """Write `body` beside `path`, flush it, and rename it over `path`; `OSError` leaves nothing behind."""
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        write_durable(temporary, body)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def write_durable(path: Path, body: bytes) -> None:
    """Write `body` to `path` and flush it to the disk."""
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
