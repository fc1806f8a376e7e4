"""Doctor: what a data set is like, and what is wrong with it."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .episodes import Array, Episodes
from .normalize import NormalizerKind

Level = Literal["fault", "warning"]
"""fault: training on it is wrong. warning: unusual, look at it."""

_BLOCK = 1 << 24
_MOST_COLUMNS = 512
_JUMP = 10.0
_JUMP_SHARE = 0.25
_GAP = 0.1
_SATURATED = 0.1
_FEW = 8
_FAR = 4.0


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or unusual with the array `key` (None: with the episodes)."""

    level: Level
    key: str | None
    message: str


@dataclass(frozen=True, eq=False)
class FeatureReport:
    """One array: shape of a time step, dtype, and statistics of its finite values over all but its last axis [D]."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Report:
    """What a data set is like. `findings` are sorted: faults first."""

    episodes: int
    steps: int
    shortest: int
    median_length: float
    longest: int
    features: tuple[FeatureReport, ...]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether there is no fault (there may be warnings)."""
        return all(finding.level != "fault" for finding in self.findings)


def check_finite(episodes: Episodes) -> None:
    """Raise `DataError` naming array, episode and frame of the first NaN or infinity."""
    for key, array in episodes.arrays.items():
        for step in _not_finite(array):
            episode, frame = episodes.locate(step)
            raise DataError(
                f"{key!r}: expected finite numbers, got NaN or infinity in episode {episode}, frame {frame}: "
                "remove the episode or record it again"
            )


def report(episodes: Episodes) -> Report:
    """Return shapes, ranges, episode lengths and every finding.

    Found are NaN and infinities (faults); constant columns, columns equal to another, episodes of one step, jumps
    (more than 10 times the 99th percentile of a column's changes and a quarter of its range), and uneven
    `timestamp`s (warnings). Arrays of more than 512 columns (images) are searched for NaN and infinities, and for
    pictures of one value only.
    """
    lengths = episodes.lengths
    findings = [*_short(episodes), *_uneven(episodes)]
    for key, array in episodes.arrays.items():
        findings += _holes(episodes, key, array)
    findings += pictures(episodes.arrays, (k for k, a in episodes.arrays.items() if a.ndim == 4 and 3 in a.shape[1:]))
    columns = dict(_columns(episodes))
    findings += _constant(columns)
    findings += _duplicates(columns)
    for (key, index), column in columns.items():
        findings += _jumps(episodes, key, index, column)
    return Report(
        episodes=len(episodes),
        steps=episodes.total,
        shortest=int(lengths.min()),
        median_length=float(np.median(lengths)),
        longest=int(lengths.max()),
        features=tuple(_feature(key, array) for key, array in episodes.arrays.items()),
        findings=tuple(sorted(findings, key=lambda finding: finding.level)),
    )


def scaling(arrays: Mapping[str, Array], kinds: Mapping[str, NormalizerKind]) -> tuple[Finding, ...]:
    """Return a warning for every column, of the arrays [T, ..., D] in `kinds`, that a normaliser makes hard to learn.

    Found are constant columns; saturated ones, with a tenth of the values at their smallest or at their largest
    (columns of at most 8 values, such as an open or closed gripper, are meant to be so); and columns that reach 4
    times as far from the middle of their 1 %..99 % range as that range does.
    """
    findings: list[Finding] = []
    for key, kind in kinds.items():
        rows = arrays[key].reshape(-1, arrays[key].shape[-1])
        said = ((i, _scaled(rows[:, i].astype(np.float64), kind)) for i in range(min(rows.shape[1], _MOST_COLUMNS)))
        findings += [Finding("warning", key, f"column {i} {message}") for i, message in said if message]
    return tuple(findings)


def pictures(arrays: Mapping[str, Array], cameras: Iterable[str]) -> tuple[Finding, ...]:
    """Return a warning for every camera, an array [T, ...] of pictures, that saw nothing, or the same all the time."""
    findings: list[Finding] = []
    for key in cameras:
        array = arrays[key]
        blocks = [block.reshape(len(block), -1) for _, block in _blocks(array)]
        blank = sum(int((block == block[:, :1]).all(axis=1).sum()) for block in blocks)
        if blank:
            share = "every picture is" if blank == len(array) else f"{blank} of {len(array)} pictures are"
            findings.append(Finding("warning", key, f"{share} of one value, without anything to see: a dead camera?"))
        elif len(array) > 1 and all((block == blocks[0][0]).all() for block in blocks):
            findings.append(Finding("warning", key, "every picture is the same: a camera that stands still?"))
    return tuple(findings)


def _scaled(column: NDArray[np.float64], kind: NormalizerKind) -> str | None:
    """Return what is wrong with the scale of a column."""
    low, high = float(column.min()), float(column.max())
    if low == high:
        return f"is always {low:g}: it teaches nothing, and is only ever {low:g} where it is predicted"
    if len(np.unique(column)) > _FEW:
        for bound in (low, high):
            share = float((column == bound).mean())
            if share >= _SATURATED:
                return f"is saturated: {share:.0%} of its values are {bound:g}; was it cut off there?"
    q01, q99 = np.quantile(column, [0.01, 0.99])
    if q01 == q99:
        return f"is {q01:g} but for rare values in {low:g}..{high:g}: mend the data where these are faults"
    middle, half = (q01 + q99) / 2, (q99 - q01) / 2
    reach = max(high - middle, middle - low) / half
    if reach < _FAR:
        return None
    where = f"reaches {reach:.3g} times as far as its 1 %..99 % range, {q01:g}..{q99:g}: {low:g}..{high:g}"
    if kind == "limits":
        share = (q99 - q01) / (high - low)
        return f"{where}; most values share {share:.0%} of -1..1: use the quantile normaliser, or mend the data"
    return f"{where}; mend the data where these are faults"


def _blocks(array: Array) -> Iterator[tuple[int, Array]]:
    """Yield (first step, steps) of at most 16 MB, so that a memory-mapped array is never read whole."""
    steps = max(1, _BLOCK // max(1, array[0].nbytes))
    for start in range(0, len(array), steps):
        yield start, array[start : start + steps]


def _not_finite(array: Array) -> Iterator[int]:
    """Yield every time step with a NaN or infinity."""
    if array.dtype.kind != "f":
        return
    for start, block in _blocks(array):
        bad = ~np.isfinite(block).reshape(len(block), -1).all(axis=1)
        yield from (start + np.flatnonzero(bad)).tolist()


def _feature(key: str, array: Array) -> FeatureReport:
    width = array.shape[-1] if array.ndim > 1 else 1
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    count, total, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    # Shifted by a typical value: squares of large numbers would lose the variance.
    origin = np.nan_to_num(array[0].reshape(-1, width)[0].astype(np.float64), posinf=0, neginf=0)
    for _, block in _blocks(array):
        rows = block.reshape(-1, width).astype(np.float64)
        finite = np.isfinite(rows)
        low = np.minimum(low, np.where(finite, rows, np.inf).min(axis=0))
        high = np.maximum(high, np.where(finite, rows, -np.inf).max(axis=0))
        centred = np.where(finite, rows - origin, 0)
        count += finite.sum(axis=0)
        total += centred.sum(axis=0)
        squares += (centred**2).sum(axis=0)
    shift = total / np.maximum(count, 1)
    variance = np.maximum(squares / np.maximum(count, 1) - shift**2, 0)
    return FeatureReport(key, array.shape[1:], array.dtype.name, low, high, origin + shift, np.sqrt(variance))


def _columns(episodes: Episodes) -> Iterator[tuple[tuple[str, int], NDArray[np.float64]]]:
    for key, array in episodes.arrays.items():
        if array.dtype.kind != "b" and math.prod(array.shape[1:]) <= _MOST_COLUMNS:
            rows = array.reshape(len(array), -1).astype(np.float64)
            yield from (((key, i), np.ascontiguousarray(rows[:, i])) for i in range(rows.shape[1]))


def _short(episodes: Episodes) -> list[Finding]:
    single = np.flatnonzero(episodes.lengths == 1)
    if not len(single):
        return []
    return [Finding("warning", None, f"{len(single)} episodes have one step only, the first is {single[0]}")]


def _holes(episodes: Episodes, key: str, array: Array) -> list[Finding]:
    steps = list(_not_finite(array))
    if not steps:
        return []
    episode, frame = episodes.locate(steps[0])
    where = f"{len(steps)} frames hold NaN or infinity, the first is episode {episode}, frame {frame}"
    return [Finding("fault", key, where)]


def _constant(columns: dict[tuple[str, int], NDArray[np.float64]]) -> list[Finding]:
    return [
        Finding("warning", key, f"column {i} is always {column[0]:g}")
        for (key, i), column in columns.items()
        if len(column) > 1 and (column == column[0]).all()
    ]


def _duplicates(columns: dict[tuple[str, int], NDArray[np.float64]]) -> list[Finding]:
    seen: dict[bytes, tuple[str, int]] = {}
    findings: list[Finding] = []
    for (key, i), column in columns.items():
        if (column == column[0]).all():
            continue
        first, at = seen.setdefault(column.tobytes(), (key, i))
        if (first, at) != (key, i):
            findings.append(Finding("warning", key, f"column {i} equals column {at} of {first!r}"))
    return findings


def _jumps(episodes: Episodes, key: str, index: int, column: NDArray[np.float64]) -> list[Finding]:
    change = np.abs(_changes(episodes, column))
    moving = change[np.isfinite(change) & (change > 0)]
    if len(moving) < 100:
        return []
    least = max(_JUMP * float(np.quantile(moving, 0.99)), _JUMP_SHARE * float(np.nanmax(column) - np.nanmin(column)))
    steps = np.flatnonzero(change > least)
    if not len(steps):
        return []
    episode, frame = episodes.locate(int(steps[0]))
    size = float(change[steps[0]])
    hint = "; an angle that wraps?" if abs(size - 2 * math.pi) < 0.5 else ""
    where = f"column {index} jumps {len(steps)} times, first by {size:g} at episode {episode}, frame {frame}{hint}"
    return [Finding("warning", key, where)]


def _uneven(episodes: Episodes) -> list[Finding]:
    times = episodes.arrays.get("timestamp")
    if times is None or times.size != len(times):
        return []
    change = _changes(episodes, times.reshape(-1).astype(np.float64))
    inside = change[np.isfinite(change)]
    period = float(np.median(inside)) if len(inside) else 0.0
    steps = np.flatnonzero(np.abs(change - period) > _GAP * abs(period))
    if not len(steps):
        return []
    episode, frame = episodes.locate(int(steps[0]))
    where = f"{len(steps)} time gaps (expected every {period:g} s), the first is episode {episode}, frame {frame}"
    return [Finding("warning", "timestamp", where)]


def _changes(episodes: Episodes, column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the change since the step before, [T]; NaN at the start of an episode."""
    with np.errstate(invalid="ignore"):
        change = np.diff(column, prepend=np.nan)
    change[episodes.starts] = np.nan
    return change
