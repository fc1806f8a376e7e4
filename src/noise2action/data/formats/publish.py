"""Publishing: a file or folder appears under its final name complete, or not at all."""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from ...errors import DataError, StorageError
from ...storage import flush


def publish(target: Path, write: Callable[[Path], None], *, overwrite: bool) -> None:
    """Make `target` with `write(temporary)`: temporary sibling, fsync of everything, rename.

    An existing target is a `DataError` unless `overwrite`; whatever fails, it stays whole (the old one, or the new one
    if only the last fsync failed) and `StorageError` says why. A folder is replaced by two renames, the old one kept as
    a hidden sibling in between.
    """
    if not overwrite and os.path.lexists(target):
        raise DataError(f"{target} exists: choose another name, or remove it first")
    temporary = target.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _sync_tree(temporary)
        _replace(temporary, target)
        flush(target.parent)
    except OSError as error:
        raise StorageError(
            f"cannot write {target} ({error.strerror or error}): free some space or choose another folder; "
            "nothing half-written was left"
        ) from error
    finally:
        _remove(temporary)


def _replace(temporary: Path, target: Path) -> None:
    if temporary.is_file() or not target.is_dir():
        temporary.replace(target)
        return
    # Renaming over a folder that is not empty is impossible: the old one steps aside first.
    aside = temporary.with_name(f"{temporary.name}.old")
    target.rename(aside)
    try:
        temporary.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    _remove(aside)


def _sync_tree(path: Path) -> None:
    for folder, _, files in os.walk(path):
        for name in files:
            flush(Path(folder) / name)
        flush(Path(folder))
    if path.is_file():
        flush(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
