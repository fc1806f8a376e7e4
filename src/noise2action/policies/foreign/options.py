"""Options of a foreign configuration: every one that is used has to be there, of its type; none is assumed."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from ...errors import CheckpointError, ConfigError, did_you_mean

MOST_BYTES = 4 << 20
"""Largest JSON file that is read."""


class Options:
    """A JSON object, read field by field; remembers what was asked for."""

    def __init__(self, body: object, *, where: str) -> None:
        if not isinstance(body, dict):
            raise CheckpointError(f"{where}: expected an object, got {_short(body)}")
        self._body, self.where = cast("dict[str, Any]", body), where
        self._asked: set[str] = set()

    def __contains__(self, name: str) -> bool:
        """Return whether there is such a field."""
        return name in self._body

    @property
    def names(self) -> list[str]:
        """Names of all fields, in the file's order."""
        return list(self._body)

    @property
    def unread(self) -> dict[str, Any]:
        """Fields that were never asked for."""
        return {name: value for name, value in self._body.items() if name not in self._asked}

    def value(self, name: str) -> Any:  # noqa: ANN401
        """Return a field as it is; `CheckpointError` that names it where it is missing."""
        self._asked.add(name)
        if name not in self._body:
            raise CheckpointError(
                f"{self.where}: expected a field {name!r}, got none: defaults changed between versions, none is assumed"
            )
        return self._body[name]

    def inner(self, name: str) -> "Options":
        """Return a field that is an object."""
        return Options(self.value(name), where=f"{self.where}: {name}")

    def text(self, name: str, known: Sequence[str] = ()) -> str:
        """Return a field that is a text, one of `known` where there are any."""
        value = self._of(name, str, "a text")
        if known and value not in known:
            raise CheckpointError(
                f"{self.where}: expected a supported {name!r}, got {value!r}: {did_you_mean(value, known)}"
            )
        return value

    def flag(self, name: str) -> bool:
        """Return a field that is true or false."""
        return self._of(name, bool, "true or false")

    def integer(self, name: str) -> int:
        """Return a field that is an integer."""
        return self._of(name, int, "an integer")

    def real(self, name: str) -> float:
        """Return a field that is a number."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CheckpointError(f"{self.where}: expected {name!r} to be a number, got {_short(value)}")
        return float(value)

    def integers(self, name: str) -> tuple[int, ...]:
        """Return a field that is a list of integers."""
        value = self.value(name)
        if not isinstance(value, list) or not all(type(v) is int for v in cast("list[Any]", value)):
            raise CheckpointError(f"{self.where}: expected {name!r} to be a list of integers, got {_short(value)}")
        return tuple(cast("list[int]", value))

    def unsupported(self, name: str) -> CheckpointError:
        """Return the error for an option that cannot be had here."""
        return CheckpointError(f"{self.where}: expected {name!r} that is supported, got {_short(self.value(name))}")

    def expect(self, name: str, wanted: object) -> None:
        """Raise `CheckpointError` unless the field has this very value: no other is supported."""
        if self.value(name) != wanted:
            raise CheckpointError(
                f"{self.where}: expected {name!r} to be {_short(wanted)}, got {_short(self._body[name])}: "
                "it is not supported here"
            )

    @contextmanager
    def naming(self, *names: str) -> Generator[None]:
        """Name the file and the fields where what they say cannot be built."""
        try:
            yield
        except ConfigError as error:
            raise CheckpointError(f"{self.where}: {', '.join(names)}: {error}") from error

    def _of(self, name: str, declared: type, what: str) -> Any:  # noqa: ANN401
        value = self.value(name)
        if type(value) is not declared:
            raise CheckpointError(f"{self.where}: expected {name!r} to be {what}, got {_short(value)}")
        return value


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Return the JSON in `path`; `CheckpointError` where there is none, or too much."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CheckpointError(f"{path}: expected at most {MOST_BYTES >> 20} MiB of JSON, got more")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"expected a readable file, got {error.strerror}: {path}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected JSON, got {error}") from error


def shapes(options: Options) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """Return (type, shape) of every feature `name: {type, shape}`, in the file's order."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in options.names:
        feature = options.inner(name)
        found[name] = feature.text("type"), feature.integers("shape")
    return found


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
