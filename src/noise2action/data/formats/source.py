"""Sources: the only way the formats read bytes. Nothing outside the root, nothing larger than the file justifies."""

import os
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable

from ...errors import DataError

MAX_BYTES = 1 << 36
"""No file, member or array above 64 GiB is read into memory."""

OLDEST = (1980, 1, 1, 0, 0, 0)
"""Time of the members that are written: without the time of day equal episodes are equal files."""

_DEFLATE_RATIO = 1040
"""Deflate cannot expand a byte to more than 1032 (RFC 1951: 258 bytes from 2 bits)."""


@runtime_checkable
class Source(Protocol):
    """A tree of named byte strings; names are relative and use `/`."""

    path: Path

    def names(self, folder: str) -> set[str]:
        """Return the names directly below `folder` ("" is the root); an absent folder is empty."""
        ...

    def read(self, name: str) -> bytes:
        """Return the bytes of `name`; raises `DataError` where it is absent, damaged or outside the root."""
        ...


class Folder:
    """The files below one folder; a link that leads out of it is an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = path.resolve()

    def names(self, folder: str) -> set[str]:
        """See `Source`."""
        try:
            with os.scandir(self.inside(folder)) as entries:
                return {entry.name for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except OSError as error:
            raise DataError(f"{self.path}: cannot list {folder!r} ({error.strerror})") from error

    def read(self, name: str) -> bytes:
        """See `Source`."""
        path = self.file(name)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise DataError(f"{self.path}: expected {name!r} of at most {MAX_BYTES} bytes, got more")
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.path}: cannot read {name!r} ({error.strerror}): copy it again") from error

    def file(self, name: str) -> Path:
        """Return the real path of `name`, or raise `DataError` unless it is a regular file in the folder."""
        path = self.inside(name)
        # Anything else, such as a named pipe, could block for ever.
        if not path.is_file():
            raise DataError(f"{self.path}: expected a regular file {name!r}, got none: the data set is incomplete")
        return path

    def inside(self, name: str) -> Path:
        """Return the real path of `name`, or raise `DataError` if it leads out of the folder."""
        try:
            path = (self._root / name).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(f"{self.path}: cannot follow {name!r} ({error})") from error
        if not path.is_relative_to(self._root):
            raise DataError(f"{self.path}: expected {name!r} inside the folder, got a link to {path}: copy the file in")
        return path


class Archive:
    """The members of a zip file, none of which can be larger than the file justifies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # zipfile raises many types on damaged directories
            raise DataError(f"{path}: expected a zip file, got a damaged one ({error})") from error
        try:
            self._check()
        except DataError:
            self._zip.close()
            raise
        self._members = {m.filename: m for m in self._zip.infolist() if not m.is_dir()}

    def __enter__(self) -> "Archive":
        """Return the archive."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._zip.close()

    def names(self, folder: str) -> set[str]:
        """See `Source`."""
        prefix = f"{folder}/" if folder else ""
        return {name[len(prefix) :].split("/", 1)[0] for name in self._members if name.startswith(prefix)}

    def read(self, name: str) -> bytes:
        """See `Source`; every byte is covered by the member's CRC-32."""
        if name not in self._members:
            raise DataError(f"{self.path}: expected a member {name!r}, got none: the data set is incomplete")
        try:
            return self._zip.read(self._members[name])
        except Exception as error:  # zipfile and zlib raise many types on damaged members
            raise DataError(f"{self.path}: cannot read {name!r}, it is damaged ({error})") from error

    def _check(self) -> None:
        members = self._zip.infolist()
        if len({m.filename for m in members}) != len(members):
            raise DataError(f"{self.path}: expected distinct member names, got duplicates")
        for member in members:
            parts = member.filename.split("/")
            if not member.filename or parts[0] == "" or ".." in parts or "\\" in member.filename or ":" in parts[0]:
                raise DataError(f"{self.path}: expected relative member names, got {member.filename!r}")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{self.path}: expected {member.filename!r} stored or deflated, got another method")
            if member.file_size > _DEFLATE_RATIO * member.compress_size:
                raise DataError(
                    f"{self.path}: {member.filename!r} claims {member.file_size} bytes from {member.compress_size}"
                )
            self._check_name(member)
        packed, unpacked = sum(m.compress_size for m in members), sum(m.file_size for m in members)
        # Overlapping members are how a small file claims a large total.
        if unpacked > MAX_BYTES or packed > self.path.stat().st_size:
            raise DataError(
                f"{self.path}: expected members of at most {MAX_BYTES} bytes in all, got {unpacked} from {packed}"
            )

    def _check_name(self, member: zipfile.ZipInfo) -> None:
        """Compare both places that hold the name: nothing else protects it, and a changed one would go unnoticed."""
        try:
            self._zip.open(member).close()
        except Exception as error:  # zipfile raises many types on damaged headers
            raise DataError(f"{self.path}: {member.filename!r} is damaged ({error})") from error


@contextmanager
def opened(path: Path) -> Generator[Source]:
    """Yield the source of a folder or zip file."""
    if path.is_dir():
        yield Folder(path)
        return
    with Archive(path) as archive:
        yield archive
