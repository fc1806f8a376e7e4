"""Augmentation: noise on observations while training; whole episodes moved to the goal or reflected before it."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import ConfigError, DataError, did_you_mean
from ..seeds import randn_like
from .episodes import Array, Episodes
from .windows import Batch

_COLUMNS = re.compile(r"(?P<name>[\w.\-]+)(?:\[(?P<start>\d+)(?:(?P<range>:)(?P<stop>\d+))?\])?", re.ASCII)


@dataclass(frozen=True)
class ObservationNoise:
    """Adds independent normal noise to every observed step, in normalised units; an `Augment` for `Loader`."""

    std: float
    """Standard deviation; the features' limits are about -1..1."""
    features: tuple[str, ...] = ()
    """Names of the observations that become noisy; empty for all states (neither images nor texts)."""

    def __post_init__(self) -> None:
        """Reject negative and non-finite deviations."""
        if not (math.isfinite(self.std) and self.std >= 0):
            raise ConfigError(f"expected a finite noise std >= 0, got {self.std}")

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return `batch` with noisy observations; actions are unchanged."""
        states = {name for name, x in batch.observations.items() if x.is_floating_point()}
        names = set(self.features) or states
        for name in names - states:
            raise ConfigError(f"expected observations to add noise to, got {name!r}: {did_you_mean(name, states)}")
        # In the order of their names: the noise of a feature does not depend on how the batch was built.
        noise = {n: randn_like(batch.observations[n], generator) for n in sorted(names)}
        observations = {n: x + self.std * noise[n] if n in noise else x for n, x in batch.observations.items()}
        return Batch(observations, batch.actions, batch.valid)


@dataclass(frozen=True)
class Mirror:
    """A reflection of the plane under which a task is unchanged: `p -> matrix p + shift`, `a -> angle_offset - a`.

    Columns are named `"state"` (all of the last axis), `"state[4]"` or `"state[0:4]"`. Every column of a data set must
    be named exactly once, so that none is forgotten.
    """

    matrix: tuple[tuple[float, float], tuple[float, float]]
    """2 x 2 reflection: orthogonal with determinant -1."""
    shift: tuple[float, float]
    """Added after the reflection, in the points' unit."""
    angle_offset: float
    """Sum of an angle and its reflection, rad."""
    points: tuple[str, ...]
    """Columns that hold points (x, y), two a point."""
    angles: tuple[str, ...] = ()
    """Columns that hold angles in rad; reflected ones lie in 0..2 pi."""
    images: tuple[str, ...] = ()
    """Images [T, height, width, channels] of the plane, x to the right, y down; what they show is reflected into
    itself, so the reflection must be one of pixels: of x, of y, or an exchange of both."""
    unchanged: tuple[str, ...] = ()
    """Columns that the reflection leaves as they are."""

    def __post_init__(self) -> None:
        """Reject anything but a reflection that is its own inverse."""
        matrix, shift = np.array(self.matrix), np.array(self.shift)
        if not np.allclose(matrix @ matrix.T, np.eye(2)) or not np.isclose(np.linalg.det(matrix), -1):
            raise ConfigError(f"expected a 2 x 2 reflection (orthogonal, determinant -1), got {self.matrix}")
        if not np.allclose(matrix @ shift + shift, 0, atol=1e-6 * (1 + np.abs(shift).max())):
            raise ConfigError(
                f"expected a reflection that undoes itself, got a glide: matrix {self.matrix} maps the "
                f"shift {self.shift} to something else than its opposite"
            )


def mirrored(episodes: Episodes, mirror: Mirror) -> Episodes:
    """Return the episodes followed by their reflections, so twice as many.

    In the features' own units, so before the normaliser is fitted. Raises `DataError` where a column is named twice or
    not at all.
    """
    reflected = {key: np.array(array) for key, array in episodes.arrays.items()}
    named = {key: np.zeros(_width(array), np.int64) for key, array in episodes.arrays.items()}
    for key, columns in _columns(mirror.points, named):
        _reflect_points(key, reflected[key], columns, mirror)
    for key, columns in _columns(mirror.angles, named):
        angles = _floats(key, reflected[key])[..., columns].astype(np.float64)
        reflected[key][..., columns] = np.mod(mirror.angle_offset - angles, 2 * math.pi)
    for key, columns in _columns(mirror.images, named):
        reflected[key][..., columns] = _reflected_images(key, episodes.arrays[key][..., columns], mirror)
    for _ in _columns(mirror.unchanged, named):
        pass
    for key, count in named.items():
        if (count != 1).any():
            column = int(np.flatnonzero(count != 1)[0])
            raise DataError(
                f"mirror: expected every column once, got {key}[{column}] {int(count[column])} times: "
                "name it in points, angles, images or unchanged"
            )
    both = {key: np.concatenate([episodes.arrays[key], array]) for key, array in reflected.items()}
    return Episodes(both, np.concatenate([episodes.ends, episodes.ends + episodes.total]), episodes.schema)


@dataclass(frozen=True)
class Retarget:
    """The pose in the plane that every demonstration was meant to bring an object to, and what moves with it.

    Demonstrators stop when they are near enough. Where the dynamics do not care for place and heading, each whole
    episode, moved rigidly so that its object ends at the goal itself, is as good a demonstration of a more exact goal.
    """

    position: str
    """Feature with the object's position (x, y)."""
    angle: str
    """Feature with the object's angle, rad."""
    goal: tuple[float, float, float]
    """Pose (x, y, angle) that the object should end at."""
    points: tuple[str, ...]
    """Features (x, y) that move rigidly with the episode; the object's position and the action among them."""
    ahead: float = 1.0
    """Steps from the last recorded pose to the end, extrapolated: the last action still moves the object."""

    def __post_init__(self) -> None:
        """Reject a horizon that reaches far beyond the data."""
        if not 0 <= self.ahead <= 5:
            raise ConfigError(f"expected 0 <= ahead <= 5 steps, got {self.ahead}")


def retargeted(episodes: Episodes, retarget: Retarget) -> Episodes:
    """Return the episodes, each moved rigidly so that its object ends at the goal; other features are unchanged.

    In the features' own units, so before the normaliser is fitted. Raises `DataError` for a feature that is missing or
    not of its kind.
    """
    for name, size in {**dict.fromkeys((*retarget.points, retarget.position), 2), retarget.angle: 1}.items():
        if name not in episodes.arrays or episodes.arrays[name].shape[1:] != (size,):
            have = {key: array.shape[1:] for key, array in episodes.arrays.items()}
            raise DataError(f"retarget: expected {name!r} with {size} elements a step, got {have}")
    moved = {name: np.array(episodes.arrays[name], np.float64) for name in {*retarget.points, retarget.angle}}
    *goal, heading = retarget.goal
    for i in range(len(episodes)):
        start, end = episodes.bounds(i)
        last, before = end - 1, max(end - 2, start)
        position, angle = (np.asarray(episodes.arrays[n], np.float64) for n in (retarget.position, retarget.angle))
        final = position[last] + retarget.ahead * (position[last] - position[before])
        final_angle = angle[last, 0] + retarget.ahead * _wrapped(angle[last, 0] - angle[before, 0])
        turn = _wrapped(heading - final_angle)
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        for name in retarget.points:
            moved[name][start:end] = (moved[name][start:end] - final) @ rotation.T + np.array(goal)
        moved[retarget.angle][start:end] = np.mod(moved[retarget.angle][start:end] + turn, 2 * math.pi)
    cast = {name: array.astype(episodes.arrays[name].dtype) for name, array in moved.items()}
    return Episodes({**episodes.arrays, **cast}, episodes.ends, episodes.schema)


def _wrapped(angle: float) -> float:
    """Return the angle in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def _width(array: Array) -> int:
    return array.shape[-1] if array.ndim > 1 else 1


def _reflect_points(key: str, array: Array, columns: slice, mirror: Mirror) -> None:
    points = _floats(key, array)[..., columns]
    if points.shape[-1] % 2:
        raise DataError(f"mirror: expected points (x, y) in {key!r}, got {points.shape[-1]} columns: name pairs")
    pairs = points.astype(np.float64).reshape(*points.shape[:-1], -1, 2)
    array[..., columns] = (pairs @ np.array(mirror.matrix).T + np.array(mirror.shift)).reshape(points.shape)


def _reflected_images(key: str, images: Array, mirror: Mirror) -> Array:
    """Return the reflections of images [T, H, W, C]."""
    if images.ndim != 4:
        raise DataError(f"mirror: expected images {key!r} [T, height, width, channels], got {images.shape}")
    (xx, xy), (yx, yy) = mirror.matrix
    if {abs(v) for v in (xx, xy, yx, yy)} != {0.0, 1.0}:
        raise DataError(f"mirror: expected a reflection of pixels for {key!r} (entries 0 and +-1), got {mirror.matrix}")
    if not xx:  # x and y change places
        if images.shape[1] != images.shape[2]:
            raise DataError(f"mirror: expected square images {key!r}, got {images.shape[1:3]}")
        images = images.swapaxes(1, 2)
    flipped = tuple(axis for axis, sign in ((1, yx + yy), (2, xx + xy)) if sign < 0)
    return np.flip(images, axis=flipped)


def _floats(key: str, array: Array) -> Array:
    if array.ndim < 2 or array.dtype.kind != "f":
        raise DataError(f"mirror: expected {key!r} as floats [T, ..., D], got {array.dtype} {array.shape}")
    return array


def _columns(
    specs: tuple[str, ...], named: dict[str, "np.ndarray[tuple[int], np.dtype[np.int64]]"]
) -> Iterator[tuple[str, slice]]:
    """Yield name and columns of every spec, counting them in `named`."""
    for spec in specs:
        match = _COLUMNS.fullmatch(spec)
        if match is None:
            raise ConfigError(f"expected columns such as 'state', 'state[4]' or 'state[0:4]', got {spec!r}")
        key = match["name"]
        if key not in named:
            raise DataError(f"mirror: expected a feature of the data set, got {key!r}: {did_you_mean(key, named)}")
        size = len(named[key])
        start = int(match["start"] or 0)
        stop = int(match["stop"]) if match["range"] else start + 1 if match["start"] else size
        if not 0 <= start < stop <= size:
            raise DataError(f"mirror: expected columns of {key!r} from 0 to {size}, got {spec!r}")
        named[key][start:stop] += 1
        yield key, slice(start, stop)
