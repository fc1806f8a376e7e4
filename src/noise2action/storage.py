"""Durable files: a reader, or a crash, sees the old file or the new one, never a part."""

import os
from pathlib import Path

from .errors import StorageError


def atomic_write(path: Path, body: bytes) -> None:
    """Write `body` to `path`, durable when this returns; `StorageError` and the old file where the disk refuses."""
    if path.exists() and not path.is_file():
        raise StorageError(f"expected a file to write, got something else in its place: {path}")
    path = path.resolve()  # a link stays a link
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, body)
    except OSError as error:
        raise StorageError(
            f"expected to write {path}, got {error.strerror or error}: free disk space, or choose another place"
        ) from error


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
