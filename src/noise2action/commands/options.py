"""The options of a command, and one line on what is wrong with the words that were given for them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import tyro

from ..errors import ConfigError, did_you_mean

KINDS: dict[object, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    Path: ("a path", "paths"),
}
"""What is expected for a type, one and several."""


@dataclass(frozen=True)
class Option:
    """A field of a command's dataclass as the command line knows it."""

    name: str
    """`--batch-size`, or the field's name for what has no flag."""
    declared: Any

    @property
    def words(self) -> int | None:
        """How many words it takes; None for any number."""
        if self.declared is bool:
            return 0
        inside = get_args(self.declared) if get_origin(self.declared) is tuple else (None,)
        return None if Ellipsis in inside else len(inside)

    def __str__(self) -> str:
        """Return what it expects, in words."""
        if get_origin(self.declared) is not tuple:
            return KINDS.get(self.declared, ("a value", ""))[0]
        several = KINDS.get(get_args(self.declared)[0], ("", "values"))[1]
        return several if self.words is None else f"{self.words} {several}"


def options(cls: type) -> dict[str, Option]:
    """Return the options of a command by their names."""
    hints, found = get_type_hints(cls, include_extras=True), list[Option]()
    for field in fields(cls):
        declared, *marks = get_args(hints[field.name]) if hasattr(hints[field.name], "__metadata__") else [None]
        declared = hints[field.name] if declared is None else declared
        if get_origin(declared) in (Union, UnionType):
            declared = next(part for part in get_args(declared) if part is not NoneType)
        own = next((name for mark in marks if isinstance(name := getattr(mark, "name", None), str)), field.name)
        flag = field.name if tyro.conf.Positional in marks else f"--{own.replace('_', '-')}"
        found.append(Option(flag, declared))
    return {option.name: option for option in found}


def check(cls: type, arguments: Sequence[str], *, usage: str, overrides: bool) -> None:
    """Raise `ConfigError` for a flag that the command does not have, and for an empty word where text makes no sense.

    With `overrides` other flags are fields of a recipe.
    """
    known, option, seen = options(cls), None, set[str]()
    flags = {name: o for name, o in known.items() if name.startswith("--")}
    for word in arguments:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            name = name.replace("_", "-")
            option = flags.get(name) or flags.get(f"--{name.removeprefix('--no-')}")
            if option is None and name != "--help" and not overrides:
                if name.removeprefix("--") in known:
                    raise ConfigError(f"{name.removeprefix('--')}: expected it without a flag, got {word!r}: {usage}")
                raise ConfigError(f"unknown option {word!r}; {did_you_mean(name, flags)}")
            # Of a list given twice the first half would be lost without a word.
            if option is not None and option.words is None and option.name in seen:
                raise ConfigError(f"{option.name}: expected it once, with all its {option} behind it, got it again")
            seen.add("" if option is None else option.name)
        if ((equals and not value) or not word) and (option is None or option.declared is not str):
            what = "expected a word" if option is None else f"{option.name}: expected {option}"
            raise ConfigError(f"{what}, got an empty one: {usage}")


def refusal(cls: type, arguments: Sequence[str], text: str, *, command: str, usage: str) -> ConfigError:
    """Return the error for `text`, with which tyro refused these arguments."""
    known = options(cls)
    if found := re.search(r"invalid choice '(.*?)' for argument '(.*?)'", text):
        option = known.get(found[2])
        names = cast("tuple[str, ...]", get_args(option.declared)) if option else ()
        if option and get_origin(option.declared) is Literal:
            return ConfigError(
                f"{found[2]}: expected one of its names, got {found[1]!r}; {did_you_mean(found[1], names)}"
            )
    if found := re.search(r"Error parsing ([\w-]+):|Missing value for argument '([\w-]+)'", text):
        option = known.get(found[1] or found[2])
        if option is not None:
            return ConfigError(
                f"{option.name}: expected {option}, got {_given(option, arguments)}: see {command} --help"
            )
    if "Missing from" in text:
        flag = re.search(r"Missing from [^:]*: (--[\w-]+)", text)
        return ConfigError(f"expected {flag[1] if flag else 'another word'}, got none: {usage}")
    return ConfigError(re.sub(r"\[/?bold\]", "", text))


def _given(option: Option, arguments: Sequence[str]) -> str:
    """Return the words that were given for an option, quoted."""
    for k, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == option.name:
            rest = [value] if equals else list(arguments[k + 1 :])
            end = next((i for i, w in enumerate(rest) if w.startswith("--")), len(rest))
            words = rest[:end][: option.words]
            return repr(" ".join(words)) if words else "none"
    return "none"
