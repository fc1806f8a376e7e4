"""Normalisers as foreign files hold them, minimum and maximum or mean and deviation, to our affine maps and back."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...data.normalize import Affine, NormalizerKind
from ...errors import CheckpointError

MODES: dict[str, tuple[NormalizerKind, tuple[str, ...]]] = {
    "MIN_MAX": ("limits", ("min", "max")),
    "MEAN_STD": ("gaussian", ("mean", "std")),
    "QUANTILES": ("quantile", ("q01", "q99")),
    "IDENTITY": ("identity", ()),
}
"""Our kind, and the statistics that are needed, of every mode."""

EPS = 1e-8
"""What LeRobot adds to deviations, and puts for a range of zero."""

Numbers = Mapping[str, Tensor]
"""Statistics by name."""


def affine(mode: str, numbers: Numbers, *, size: int, where: str, eps: float = EPS, widened: bool = False) -> Affine:
    """Return the map of `size` columns under `mode`, in float64 from the stored numbers.

    MIN_MAX is `2 (x - min) / (max - min) - 1`, MEAN_STD is `(x - mean) / (std + eps)`. `widened` adds eps to every
    range, as old versions did for what they observe, not only to a range of zero.
    """
    if mode not in MODES:
        raise CheckpointError(f"{where}: expected one of {', '.join(MODES)}, got {mode!r}: it is not supported here")
    kind, names = MODES[mode]
    if not names:
        return Affine(kind, torch.ones(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))
    first, second = (_column(numbers, name, size=size, where=where) for name in names)
    if kind == "gaussian":
        scale = 1 / (second + eps)
        return Affine(kind, scale, -first * scale)
    spread = second - first
    if bool((spread < 0).any()):
        raise CheckpointError(f"{where}: expected {names[0]} <= {names[1]}, got the reverse")
    half = torch.where(spread == 0, _smallest(first, eps), (spread + eps if widened else spread) / 2)
    return Affine(kind, 1 / half, -(first + half) / half)


def _smallest(low: Tensor, eps: float) -> Tensor:
    """Return half a range that stands for none: the constant maps to exactly -1, in float32 too.

    eps / 2 itself vanishes beside the constant in float32, and the constant would map to 0: a power of two does not.
    """
    spacing = torch.from_numpy(np.spacing(low.abs().numpy().astype(np.float32))).to(torch.float64)
    return torch.clamp(4 * spacing, min=2.0 ** math.ceil(math.log2(eps / 2)))


def _column(numbers: Numbers, name: str, *, size: int, where: str) -> Tensor:
    if name not in numbers:
        raise CheckpointError(f"{where}: expected the statistic {name!r}, got {sorted(numbers)}")
    value = numbers[name]
    if value.numel() != size or not value.is_floating_point() or not bool(value.isfinite().all()):
        raise CheckpointError(
            f"{where}: expected {size} finite numbers in {name!r}, got {value.dtype} {tuple(value.shape)}"
        )
    return value.flatten().to(torch.float64)


def numbers_of(affines: list[Affine], *, where: str) -> tuple[str, dict[str, Tensor]]:
    """Return the mode and the float32 statistics whose `affine` is these maps, one after the other.

    Maps of different kinds are written as MIN_MAX, which any map is.
    """
    kinds = {a.kind for a in affines}
    center = torch.cat([-a.offset / a.scale for a in affines])
    width = torch.cat([1 / a.scale for a in affines])
    if kinds == {"identity"}:
        return "IDENTITY", {}
    if kinds == {"gaussian"}:
        return "MEAN_STD", {"mean": center.float(), "std": (width - EPS).float()}
    mode, names = ("QUANTILES", ("q01", "q99")) if kinds == {"quantile"} else ("MIN_MAX", ("min", "max"))
    low, high = (center - width).float(), (center + width).float()
    if not bool((low < high).all()):
        raise CheckpointError(f"{where}: expected ranges that float32 can tell from nothing, got one that it cannot")
    return mode, dict(zip(names, (low, high), strict=True))


def part(whole: Affine, start: int, stop: int) -> Affine:
    """Return the map of some of the columns."""
    return Affine(whole.kind, whole.scale[start:stop], whole.offset[start:stop])
