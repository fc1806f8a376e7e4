"""Overrides: `--train.minutes 5` and the same in JSON are one thing, decoded by one codec.

Precedence: defaults < recipe < `--config file.json` < flags. A flag names any field by its dotted path; a field that is
a union takes the name of the member, as in `--policy.net unet1d`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

from ..config import decode, field_types, members
from ..errors import ConfigError
from ..recipes.experiment import Experiment

ALIASES = {"data": "data.path"}
"""`--data PATH` is what everybody types."""


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Return flags `--a.b value`, `--a.b=value` or `--a.b v1 v2` as nested JSON; values are JSON where they parse."""
    edits: dict[str, Any] = {}
    seen = set[str]()
    position = 0
    while position < len(arguments):
        flag = arguments[position]
        if not flag.startswith("--") or len(flag) < 3:
            raise ConfigError(f"expected an option --name value, got {flag!r}")
        name, equals, value = flag[2:].partition("=")
        position += 1
        values = [value] if equals else []
        while not equals and position < len(arguments) and not arguments[position].startswith("--"):
            values.append(arguments[position])
            position += 1
        if not values:
            raise ConfigError(f"--{name}: expected a value, got none")
        path = ALIASES.get(name, name).replace("-", "_")
        # Of a list given twice the first half would be lost without a word.
        if path in seen and path in (known for known, declared in _fields(Experiment) if _is_list(declared)):
            raise ConfigError(f"--{name}: expected it once, with all its values behind it, got it again")
        seen.add(path)
        found = list(values) if name in ALIASES else [_value(v) for v in values]
        _put(edits, path.split("."), found[0] if len(found) == 1 else found)
    return edits


def _value(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except ValueError:
        return {"None": None, "True": True, "False": False}.get(text, text)


def _put(edits: dict[str, Any], path: list[str], value: Any) -> None:  # noqa: ANN401
    *parents, last = path
    for key in parents:
        inside = edits.setdefault(key, {})
        # `--policy.net mlp --policy.net.width 64`: the name first, then its fields.
        if isinstance(inside, str):
            inside = edits[key] = {"kind": inside}
        if not isinstance(inside, dict):
            raise ConfigError(f"--{'.'.join(path)}: expected {key!r} to have fields, got it set to {inside!r}")
        edits = inside
    if isinstance(edits.get(last), dict) and isinstance(value, str):
        edits[last]["kind"] = value
    else:
        edits[last] = value


def apply(experiment: Experiment, edits: dict[str, Any], *, where: str) -> Experiment:
    """Return `experiment` with `edits` applied, everything validated; raises `ConfigError` naming the field."""
    return decode(Experiment, edits, where=where, default=experiment)


def read_config(path: Path) -> dict[str, Any]:
    """Return the JSON object in a --config file."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"--config: expected a readable file, got {error.strerror}: {path}") from error
    except ValueError as error:
        raise ConfigError(f"--config: expected JSON in {path}, got {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"--config: expected a JSON object in {path}, got {type(found).__name__}")
    return found


def choices(cls: type) -> dict[str, list[str]]:
    """Return the names that every union field below the dataclass `cls` accepts, by dotted path."""
    return {path: list(union) for path, declared in _fields(cls) if (union := members(declared))}


def _fields(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every field below the dataclass `cls` by its dotted path, with its declared type."""
    for name, declared in field_types(cls).items():
        yield prefix + name, declared
        for option in _options(declared):
            if is_dataclass(option):
                yield from _fields(cast("type", option), f"{prefix}{name}.")


def _options(declared: object) -> tuple[object, ...]:
    return get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)


def _is_list(declared: object) -> bool:
    return any(get_origin(option) is tuple for option in _options(declared))
