"""Points in the plane: distributions to learn diffusion on, and any 2-D array of the user's.

Every distribution has a spread of about 1 a coordinate, and knows its support: the modes that the metrics of mode
coverage count.
"""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, did_you_mean
from ..seeds import derive

SMALLEST = 100
"""Rows that an array must have: part of them is held out."""


@dataclass(frozen=True, eq=False)
class PointSet:
    """Points, with a class each where the distribution is labelled."""

    x: Float[Tensor, "n D"]
    labels: Int[Tensor, "n"] | None = None
    names: tuple[str, ...] = ()
    """What a file called its classes, in order, where that is not 0, 1, ..."""

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.x)

    @property
    def classes(self) -> int:
        """Return the number of classes; 0 where there are no labels."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    def rows(self, index: Tensor | slice) -> "PointSet":
        """Return the points of these rows."""
        return PointSet(self.x[index], None if self.labels is None else self.labels[index], self.names)


@dataclass(frozen=True, eq=False)
class Modes:
    """The support of a distribution, as balls around centres: clusters, or beads along a curve."""

    centres: Float[Tensor, "K 2"]
    radius: float
    """Distance from a centre that still belongs to it."""
    norm: float = 2.0
    """Norm of that distance: 2 for discs, infinite for squares."""


Draw = Callable[[np.random.Generator, int], tuple[NDArray[np.float64], NDArray[np.int64]]]
"""(generator, n) -> points [n, 2] and their classes [n]."""


@dataclass(frozen=True, eq=False)
class Points:
    """A distribution of points in the plane."""

    summary: str
    source: Draw
    modes: Modes
    classes: int = 0
    """Number of classes; 0 where points have no labels."""

    def draw(self, n: int, seed: int) -> PointSet:
        """Return `n` points, reproducible by `seed`; other seeds are independent draws."""
        x, labels = self.source(np.random.default_rng(derive(seed, "points", self.summary)), n)
        kept = torch.from_numpy(labels) if self.classes else None
        return PointSet(torch.from_numpy(x.astype(np.float32)), kept)


SPIRAL_NOISE, MOON_NOISE, RING_STD = 0.04, 0.06, 0.1
RING = np.stack([np.cos(np.arange(8) * math.pi / 4), np.sin(np.arange(8) * math.pi / 4)], axis=1) * 1.5
DARK = np.array([(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0]) - 1.5
"""Centres of the dark squares, of side 1, of a 4 x 4 board around the origin."""
QUADRANTS = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)], dtype=np.float64)


def _spiral(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the points of the spiral r = angle / 9, of 1.5 to 4.5 pi, at u in [0, 1]."""
    angle = 1.5 * math.pi * (1 + 2 * u)
    return np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1) / 9


def _swiss_roll(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return _spiral(rng.uniform(size=n)) + SPIRAL_NOISE * rng.normal(size=(n, 2)), np.zeros(n, np.int64)


def _moon(u: NDArray[np.float64], which: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the points of the upper (0) or lower (1) half circle at u in [0, 1]."""
    upper = np.stack([np.cos(math.pi * u) - 0.5, np.sin(math.pi * u) - 0.25], axis=1)
    return np.where(which[:, None] == 0, upper, -upper) * 1.2


def _moons(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    which = rng.integers(2, size=n)
    return _moon(rng.uniform(size=n), which) + MOON_NOISE * rng.normal(size=(n, 2)), np.zeros(n, np.int64)


def _checkerboard(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return DARK[rng.integers(len(DARK), size=n)] + rng.uniform(-0.5, 0.5, size=(n, 2)), np.zeros(n, np.int64)


def _ring(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return points of 8 Gaussians on a ring; opposite ones are of one class, so that a class has two modes."""
    mode = rng.integers(8, size=n)
    return RING[mode] + RING_STD * rng.normal(size=(n, 2)), mode % 4


def _quadrants(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    which = rng.integers(4, size=n)
    return QUADRANTS[which] + rng.uniform(-0.75, 0.75, size=(n, 2)), which


def _balls(centres: NDArray[np.float64], radius: float, norm: float = 2.0) -> Modes:
    return Modes(torch.from_numpy(centres.astype(np.float32)), radius, norm)


_ALONG = (np.arange(60) + 0.5) / 60
_MOON_BEADS = np.concatenate([_moon(_ALONG[::2], np.full(30, which)) for which in (0, 1)])

POINTS: dict[str, Points] = {
    "swiss_roll": Points("a spiral", _swiss_roll, _balls(_spiral(_ALONG), 5 * SPIRAL_NOISE)),
    "moons": Points("two interleaved half circles", _moons, _balls(_MOON_BEADS, 5 * MOON_NOISE)),
    "checkerboard": Points("the dark squares of a board", _checkerboard, _balls(DARK, 0.5, math.inf)),
    "mixture": Points("8 Gaussians on a ring", _ring, _balls(RING, 4 * RING_STD)),
    "conditional_mixture": Points(
        "8 Gaussians on a ring, opposite ones of one class", _ring, _balls(RING, 4 * RING_STD), classes=4
    ),
    "quadrants": Points(
        "one square a quadrant, a class each", _quadrants, _balls(QUADRANTS, 0.75, math.inf), classes=4
    ),
}
"""Every distribution that a command can name."""


def find(name: str) -> Points:
    """Return the distribution called `name`; `DataError` with the known names otherwise."""
    if name not in POINTS:
        raise DataError(
            f"expected a toy distribution or a .npz, .npy or .csv file, got {name!r}: {did_you_mean(name, POINTS)}"
        )
    return POINTS[name]


@dataclass(frozen=True, eq=False)
class Source:
    """What a model of points is trained on and compared with."""

    training: PointSet
    held_out: tuple[PointSet, ...]
    """Sets to compare samples with."""
    data: tuple[PointSet, ...]
    """As many further sets: how far apart two sets of the data are."""
    modes: Modes | None
    seeds: dict[str, list[int]]
    """Seed of every draw."""


def source(name: str, *, training: int, size: int, trials: int, seed: int) -> Source:
    """Return the training, held-out and further sets of a distribution, or of the user's file called `name`.

    A distribution gives `training` points and `trials` pairs of `size` ones, each from a seed of its own. A file is
    shuffled and gives three fifths of its rows for training and one pair, of at most `size` rows each.
    """
    if Path(name).suffix in READERS:
        return _parts(read_points(Path(name)), size, seed)
    points = find(name)
    seeds = {
        "training": [derive(seed, "training")],
        "held_out": [derive(seed, "held out", k) for k in range(trials)],
        "data": [derive(seed, "data", k) for k in range(trials)],
    }
    held_out, data = (tuple(points.draw(size, s) for s in seeds[part]) for part in ("held_out", "data"))
    return Source(points.draw(training, seeds["training"][0]), held_out, data, points.modes, seeds)


def spread_ratio(x: Float[Tensor, "n D"]) -> float:
    """Return how many times as much the coordinate that varies most varies, in standard deviations, as the least."""
    spread = x.std(0)
    return float(spread.max() / spread.min())


def _parts(points: PointSet, size: int, seed: int) -> Source:
    order = derive(seed, "split")
    shuffled = torch.randperm(len(points), generator=torch.Generator().manual_seed(order))
    fifth = len(points) // 5
    held_out, data = shuffled[:fifth][:size], shuffled[fifth : 2 * fifth][:size]
    return Source(
        points.rows(shuffled[2 * fifth :]), (points.rows(held_out),), (points.rows(data),), None, {"split": [order]}
    )


def read_points(path: Path) -> PointSet:
    """Return the 2-D array in a .npz, .npy or .csv file as points, one a row, of two columns or more.

    In .npz the points are the array `x`, or the only 2-D one, and the classes the array `labels`; in .csv a column
    called `label` is the class and a first line that holds no numbers is the header. Classes may be any values: they
    are numbered in sorted order. Raises `DataError` for anything else, values that are not finite, or fewer than
    `SMALLEST` rows.
    """
    if path.suffix not in READERS:
        raise DataError(f"{path}: expected a .npz, .npy or .csv file, got {path.suffix or 'no suffix'}")
    try:
        x, labels = READERS[path.suffix](path)
    except OSError as error:
        raise DataError(f"{path}: expected a readable file, got {error.strerror or error}") from error
    except DataError:
        raise
    except Exception as error:  # numpy raises its own kinds on damaged files: zip, pickle, struct, unicode
        raise DataError(f"{path}: expected an array, got a damaged file: {error}") from error
    points = _checked(path, x)
    return PointSet(points) if labels is None else PointSet(points, *_numbered(path, labels, len(points)))


def check_finite(path: Path, x: NDArray[Any]) -> None:
    """Raise `DataError` that names the first row of `x` with NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: expected finite numbers, got NaN or infinity in row {bad[0]}: remove such rows")


def _checked(path: Path, x: NDArray[Any]) -> Float[Tensor, "n D"]:
    if x.ndim != 2 or x.shape[1] < 2 or x.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected a 2-D array of numbers with at least 2 columns, got {x.dtype} {x.shape}")
    if len(x) < SMALLEST:
        raise DataError(f"{path}: expected at least {SMALLEST} rows, got {len(x)}: part of them is held out")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    check_finite(path, x)
    if not (x.std(axis=0) > 0).all():
        column = int(np.flatnonzero(x.std(axis=0) == 0)[0])
        raise DataError(f"{path}: expected columns that vary, got a constant one: remove column {column}")
    return torch.from_numpy(x)


def _numbered(path: Path, labels: NDArray[Any], n: int) -> tuple[Int[Tensor, "n"], tuple[str, ...]]:
    """Return the classes as numbers, and their names in the file where those are others."""
    if labels.shape != (n,):
        raise DataError(f"{path}: expected one label a row ({n}), got {labels.shape}")
    values, index = np.unique(labels, return_inverse=True)
    if len(values) > n // 10:
        raise DataError(f"{path}: expected classes of about 10 rows or more, got {len(values)} classes in {n} rows")
    names = tuple(str(value) for value in values)
    return torch.from_numpy(index.astype(np.int64)), () if names == tuple(map(str, range(len(names)))) else names


def _check_magic(path: Path, magic: bytes, writer: str) -> None:
    """Raise `DataError` where the file is of another kind than its suffix says: numpy would take it for a pickle."""
    with path.open("rb") as file:
        start = file.read(len(magic))
    if start != magic:
        got = "another kind of file" if start else "an empty file"
        raise DataError(f"{path}: expected a file that {writer} wrote, got {got}: save the array again with {writer}")


def _read_npy(path: Path) -> tuple[NDArray[Any], None]:
    _check_magic(path, b"\x93NUMPY", "numpy.save")
    return np.load(path, allow_pickle=False), None


def _read_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    _check_magic(path, b"PK", "numpy.savez")
    with np.load(path, allow_pickle=False) as archive:
        arrays: dict[str, NDArray[Any]] = dict(archive)
    labels = arrays.pop("labels", None)
    flat = [name for name, a in arrays.items() if a.ndim == 2]
    name = "x" if "x" in arrays else flat[0] if len(flat) == 1 else None
    if name is None:
        raise DataError(f"{path}: expected an array called x, or one 2-D array, got {sorted(arrays)}: rename it")
    return arrays[name], labels


def _read_csv(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    with path.open(newline="") as file:
        reader = csv.reader(file)
        found = [(reader.line_num, row) for row in reader if row]
    if not found:
        raise DataError(f"{path}: expected rows of numbers, got an empty file: check the path")
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if mark in "".join(found[0][1]):
            raise DataError(f"{path}: expected columns with commas between them, got {name}: save it with commas")
    header = None if any(map(_is_number, found[0][1])) else found[0][1]
    body = found if header is None else found[1:]
    if not body:
        raise DataError(f"{path}: expected rows of numbers below the header, got none: check the path")
    for line, row in body:
        if len(row) != len(found[0][1]):
            raise DataError(
                f"{path}: expected rows of one length, got {len(found[0][1])} columns in line {found[0][0]} and "
                f"{len(row)} in line {line}: mend that line"
            )
    return _table(path, header, body)


def _table(
    path: Path, header: list[str] | None, rows: list[tuple[int, list[str]]]
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the numbers in `rows`, each with its line in the file, and the column of classes."""
    names = [name.strip() for name in header or []]
    at = names.index("label") if "label" in names else None
    for line, row in rows:
        for k, cell in enumerate(row):
            if k != at and not _is_number(cell):
                got = f"{cell!r} in line {line}, column {k + 1}" + (f" ({names[k]})" if names else "")
                mend = "name a column of classes `label`" if cell.strip() else "fill it, or remove the line"
                raise DataError(f"{path}: expected numbers, got {got}: {mend}")
    table = np.array([row for _, row in rows])
    if at is None:
        return table.astype(np.float64), None
    return np.delete(table, at, axis=1).astype(np.float64), table[:, at]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


READERS: dict[str, Callable[[Path], tuple[NDArray[Any], NDArray[Any] | None]]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".csv": _read_csv,
}
"""How a file is read, by its suffix: its points, and its classes where it has any."""
