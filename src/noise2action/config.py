"""Frozen dataclasses to JSON and back, through closed unions.

A member of a union of dataclasses is written with its `kind`: the class name in snake case without a trailing
"Config". Reading admits the declared types and nothing else: no import by string, no unknown key, no infinite number.
"""

import dataclasses
import re
import sys
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from .errors import ConfigError, Noise2ActionError, did_you_mean

T = TypeVar("T")
JSON = Any
"""What `json.loads` returns."""
FLAGS = "--"
"""Place of what stands on the command line: a field in it is named as its flag, `--train.steps`."""


def kind(cls: type) -> str:
    """Return the name of a union's member: `LinearVP` is linear_vp, `UNet1dConfig` is unet1d; `KIND` names others."""
    if "KIND" in vars(cls):
        return cast("str", vars(cls)["KIND"])
    name = cls.__name__.removesuffix("Config")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z]{2})", "_", name).lower()


def members(declared: object) -> dict[str, type]:
    """Return the dataclasses of a union by kind; empty where `declared` is no union of dataclasses."""
    if get_origin(declared) not in (Union, types.UnionType):
        return {}
    options = [m for m in get_args(declared) if m is not type(None)]
    if len(options) < 2 or not all(dataclasses.is_dataclass(m) for m in options):
        return {}
    return {kind(m): m for m in options}


def field_types(cls: type) -> dict[str, Any]:
    """Return the declared type of every dataclass field."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def encode(value: object, declared: object = None) -> JSON:
    """Return `value` as JSON; members of a declared union carry their `kind`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        body = {name: encode(getattr(value, name), hint) for name, hint in field_types(type(value)).items()}
        return {"kind": kind(type(value)), **body} if members(declared) else body
    if isinstance(value, tuple | list):
        items = cast("tuple[object, ...]", value)
        return [encode(v, hint) for v, hint in zip(items, _item_types(declared, len(items)), strict=True)]
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in cast("Mapping[object, object]", value).items()}
    return value


def _item_types(declared: object, count: int) -> tuple[object, ...]:
    """Return the declared type of each of `count` items of a tuple or list, optional or not."""
    if get_origin(declared) in (Union, types.UnionType):
        declared = next((o for o in get_args(declared) if get_origin(o) in (tuple, list)), None)
    arguments = get_args(declared)
    if len(arguments) == count and Ellipsis not in arguments:
        return arguments
    return arguments[:1] * count if arguments else (None,) * count


def decode(declared: type[T], data: JSON, *, where: str = "config", default: T | None = None) -> T:
    """Return `data` as an instance of `declared`; keys that are absent come from `default`, else from the class.

    Raises `ConfigError` that names the place, for an unknown key or kind, a value of another type, or a value that the
    dataclass itself rejects.
    """
    return cast("T", _decode(declared, data, where, default))


def _decode(declared: object, data: JSON, where: str, default: object) -> object:
    origin = get_origin(declared)
    union = members(declared)
    if union and not (data is None and type(None) in get_args(declared)):
        return _decode_member(union, data, where, default)
    if dataclasses.is_dataclass(declared):
        return _decode_dataclass(cast("type", declared), data, where, default)
    if origin in (Union, types.UnionType):
        return _decode_optional(declared, data, where, default)
    if origin is Literal:
        if data not in get_args(declared):
            known = did_you_mean(str(data), map(str, get_args(declared)))
            raise ConfigError(f"{where}: expected one of its names, got {data!r}: {known}")
        return data
    if origin is dict and isinstance(data, dict):
        inner, body = get_args(declared)[1], cast("dict[str, JSON]", data)
        return {key: _decode(inner, value, f"{where}.{key}", None) for key, value in body.items()}
    if origin is tuple:
        return _decode_tuple(get_args(declared), data, where)
    return _decode_scalar(declared, data, where)


def _decode_member(union: Mapping[str, type], data: JSON, where: str, default: object) -> object:
    if isinstance(data, str):
        data = {"kind": data}
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected an object with a kind, got {_name(data)}: {did_you_mean('', union)}")
    body = dict(cast("dict[str, JSON]", data))
    name = body.pop("kind", kind(type(default)) if default is not None else None)
    if not isinstance(name, str) or name not in union:
        raise ConfigError(f"{where}: expected a known kind, got {name!r}: {did_you_mean(str(name), union)}")
    chosen = union[name]
    return _decode_dataclass(chosen, body, where, default if isinstance(default, chosen) else _shared(chosen, default))


def _shared(cls: type, other: object) -> dict[str, object]:
    """Return the components that `other`, of another kind, has in common with `cls`.

    A policy of another kind so keeps its network and step conventions. Plain numbers are not carried over: they mean
    other things.
    """
    if other is None:
        return {}
    mine, theirs = field_types(cls), field_types(type(other))
    same = [name for name, hint in mine.items() if theirs.get(name) == hint]
    return {n: getattr(other, n) for n in same if dataclasses.is_dataclass(getattr(other, n))}


def _decode_dataclass(cls: type, data: JSON, where: str, default: object) -> object:
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected an object, got {_name(data)}")
    hints = field_types(cls)
    body = cast("dict[str, JSON]", data)
    for key in body:
        if key not in hints:
            raise ConfigError(f"{_named(where)}: unknown key {key!r}; {did_you_mean(key, hints)}")
    values: dict[str, object] = dict(cast("dict[str, object]", default)) if isinstance(default, dict) else {}
    if dataclasses.is_dataclass(default):
        values = {name: getattr(default, name) for name in hints}
    for key, value in body.items():
        inside = f"--{key}" if where == FLAGS else f"{where}.{key}"
        values[key] = _decode(hints[key], value, inside, values.get(key))
    missing = [f.name for f in dataclasses.fields(cls) if f.init and f.name not in values and _required(f)]
    if missing:
        raise ConfigError(f"{_named(where)}: expected a value for {missing[0]!r}, got none")
    try:
        return cls(**values)
    except Noise2ActionError as error:
        raise ConfigError(f"{_named(where)}: {error}") from error


def _named(where: str) -> str:
    return "options" if where == FLAGS else where


def _required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _decode_optional(declared: object, data: JSON, where: str, default: object) -> object:
    options = get_args(declared)
    if data is None and type(None) in options:
        return None
    errors: list[ConfigError] = []
    for option in (o for o in options if o is not type(None)):
        try:
            return _decode(option, data, where, default)
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _decode_tuple(arguments: tuple[object, ...], data: JSON, where: str) -> tuple[object, ...]:
    if not isinstance(data, list) and not where.startswith(FLAGS):
        raise ConfigError(f"{where}: expected a list, got {_name(data)}")
    # One word on the command line is a list of one.
    items = cast("list[JSON]", data if isinstance(data, list) else [data])
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_decode(arguments[0], v, f"{where}[{i}]", None) for i, v in enumerate(items))
    if len(items) != len(arguments):
        raise ConfigError(f"{where}: expected {len(arguments)} values, got {len(items)}")
    pairs = zip(arguments, items, strict=True)
    return tuple(_decode(a, v, f"{where}[{i}]", None) for i, (a, v) in enumerate(pairs))


def _decode_scalar(declared: object, data: JSON, where: str) -> object:
    if declared is float and isinstance(data, int | float) and not isinstance(data, bool):
        # JSON integers have any size: beyond the largest float is infinite as well.
        if not abs(data) <= sys.float_info.max:
            raise ConfigError(f"{where}: expected a finite number, got {str(data)[:40]}")
        return float(data)
    if declared in (int, str, bool) and type(data) is declared:
        return data
    expected = declared.__name__ if isinstance(declared, type) else str(declared)
    raise ConfigError(f"{where}: expected {expected}, got {_name(data)}")


def _name(data: JSON) -> str:
    if data is None:
        return "null"
    return f"{type(data).__name__} {str(data)[:40]!r}"
