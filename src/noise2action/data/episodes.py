"""Episodes: every demonstration of a data set, end to end, in flat arrays by feature name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from ..schema import Schema

Array = NDArray[Any]

ACTION = "action"
"""Name of the action array."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


@dataclass(frozen=True, eq=False)
class Episodes:
    """All episodes of a data set.

    `arrays` holds flat arrays [T, ...] of numbers by name, the action under `"action"`; `ends` [N] holds the exclusive
    end of each episode, so episode i is `[ends[i-1], ends[i])` and the last end is T. The arrays are read-only views of
    the ones given (nothing is copied, so memory-mapped arrays stay on disk). Raises `DataError` for anything else.
    """

    arrays: Mapping[str, Array]
    ends: NDArray[np.int64]
    schema: Schema | None = None
    """What the arrays are (kind, unit, range), where it is known: a file has no room for it, a task brings it."""
    sentences: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """What the positions of a text mean, by feature, where it is known; those of the schema where there is one."""

    def __post_init__(self) -> None:
        """Check and freeze."""
        ends = checked_ends(self.ends)
        if not self.arrays:
            raise DataError("expected at least one array, got none: name the keys to read")
        object.__setattr__(self, "ends", _frozen(ends))
        object.__setattr__(
            self, "arrays", MappingProxyType({k: _checked(k, a, int(ends[-1])) for k, a in self.arrays.items()})
        )
        said = {**self.sentences, **({} if self.schema is None else vocabulary(self.schema))}
        known = {name: sentences for name, sentences in said.items() if name in self.arrays}
        object.__setattr__(self, "sentences", MappingProxyType(known))
        if self.schema is not None:
            self.schema.check({name: array.shape[1:] for name, array in self.arrays.items()}, where="episodes")

    def __len__(self) -> int:
        """Return N, the number of episodes."""
        return len(self.ends)

    @property
    def total(self) -> int:
        """T, the number of time steps of all episodes."""
        return int(self.ends[-1])

    @property
    def starts(self) -> NDArray[np.int64]:
        """First index of each episode, [N]."""
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Time steps of each episode, [N]."""
        return np.diff(self.ends, prepend=np.int64(0))

    def bounds(self, index: int) -> tuple[int, int]:
        """Return the first and the exclusive last time step of episode `index` (negative counts from the end)."""
        if not -len(self) <= index < len(self):
            raise DataError(f"expected an episode from 0 to {len(self) - 1}, got {index}")
        index %= len(self)
        return (int(self.ends[index - 1]) if index else 0), int(self.ends[index])

    def locate(self, step: int) -> tuple[int, int]:
        """Return the episode that holds time step `step` and the frame within it."""
        episode = int(np.searchsorted(self.ends, step, side="right"))
        return episode, step - self.bounds(episode)[0]

    def slice(self, index: int) -> dict[str, Array]:
        """Return the arrays [L, ...] of episode `index`, as views."""
        start, end = self.bounds(index)
        return {key: array[start:end] for key, array in self.arrays.items()}

    def keep(self, keys: Iterable[str]) -> "Episodes":
        """Return the same episodes with only the arrays named `keys`."""
        keys = list(keys)
        missing = [k for k in keys if k not in self.arrays]
        if missing:
            raise DataError(f"expected arrays {keys}, got only {sorted(self.arrays)}: {missing} are missing")
        return Episodes({k: self.arrays[k] for k in keys}, self.ends, sentences=self.sentences)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "Episodes":
        """Return the episodes at `indices`, in that order, copied."""
        if len(indices) == 0:
            raise DataError("expected at least one episode to select, got none")
        chosen = Episodes.concatenate(self.slice(int(i)) for i in indices)
        return Episodes(chosen.arrays, chosen.ends, self.schema, self.sentences)

    @staticmethod
    def concatenate(trajectories: Iterable[Mapping[str, ArrayLike]]) -> "Episodes":
        """Return episodes from trajectories, each a mapping of name to array [L, ...] with the same names."""
        parts = [{k: np.asarray(a) for k, a in t.items()} for t in trajectories]
        if not parts:
            raise DataError("expected at least one trajectory, got none")
        keys = list(parts[0])
        lengths = [_trajectory_length(i, part, keys) for i, part in enumerate(parts)]
        arrays = {key: _joined(key, [part[key] for part in parts]) for key in keys}
        return Episodes(arrays, np.cumsum(lengths, dtype=np.int64))


def vocabulary(schema: Schema) -> dict[str, tuple[str, ...]]:
    """Return the sentences of every text."""
    return {f.name: f.sentences for f in schema.observations if f.sentences}


def check_sentences(wanted: Mapping[str, tuple[str, ...]], got: Mapping[str, tuple[str, ...]], *, where: str) -> None:
    """Raise `DataError` where the sentences of a text are others than `wanted`; a text that has none is believed."""
    for name, sentences in wanted.items():
        for position, (a, b) in enumerate(zip_longest(sentences, got.get(name, sentences))):
            if a != b:
                raise DataError(
                    f"{where}: {name!r}: expected {_said(a)} at position {position}, got {_said(b)}: the positions "
                    "mean other sentences, so generate the data again or train anew"
                )


def _said(sentence: str | None) -> str:
    return "no sentence" if sentence is None else repr(sentence)


def checked_ends(ends: ArrayLike) -> NDArray[np.int64]:
    """Return `ends` as int64 [N], or raise `DataError` unless they are positive and strictly increasing."""
    array = np.asarray(ends)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu":
        raise DataError(f"expected episode ends as integers [N], got {array.dtype} {array.shape}")
    array = array.astype(np.int64)
    wrong = np.flatnonzero(np.diff(array, prepend=np.int64(0)) <= 0)
    if len(wrong):
        i = int(wrong[0])
        before = int(array[i - 1]) if i else 0
        raise DataError(f"episode {i}: expected an end after {before}, got {int(array[i])}: episode ends must increase")
    return array


def check_name(name: str) -> str:
    """Return `name`, or raise `DataError` unless it is letters, digits, `_`, `.`, `-` (it becomes a file name)."""
    if not _NAME.fullmatch(name):
        raise DataError(f"expected a feature name of letters, digits, '_', '.' and '-', got {name!r}: rename it")
    return name


def is_number(dtype: "np.dtype[Any]") -> bool:
    """Return whether `dtype` is a boolean, integer or float of at most 8 bytes."""
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def _checked(key: str, array: Array, total: int) -> Array:
    check_name(key)
    array = np.asanyarray(array)
    if not is_number(array.dtype):
        raise DataError(f"{key!r}: expected numbers of at most 8 bytes, got dtype {array.dtype}")
    if array.ndim < 1 or 0 in array.shape[1:]:
        raise DataError(f"{key!r}: expected shape (T, ...) with positive sizes, got {array.shape}")
    if len(array) != total:
        raise DataError(f"{key!r}: expected {total} time steps (the last episode end), got {len(array)}")
    return _frozen(array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")))


def _frozen(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _trajectory_length(index: int, part: Mapping[str, Array], keys: Sequence[str]) -> int:
    if set(part) != set(keys):
        raise DataError(f"episode {index}: expected arrays {sorted(keys)}, got {sorted(part)}")
    lengths = {key: len(array) if array.ndim else 0 for key, array in part.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise DataError(f"episode {index}: expected arrays of one positive length, got {lengths}")
    return next(iter(lengths.values()))


def _joined(key: str, arrays: Sequence[Array]) -> Array:
    for i, array in enumerate(arrays):
        if array.shape[1:] != arrays[0].shape[1:] or array.dtype != arrays[0].dtype:
            raise DataError(
                f"episode {i}: expected {key!r} as {arrays[0].dtype} {arrays[0].shape[1:]} a step, "
                f"got {array.dtype} {array.shape[1:]}"
            )
    return np.concatenate(arrays)
