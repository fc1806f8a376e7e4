"""How close generated points are to a distribution, beside how close its own independent draws are to each other."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ..data.points import Modes
from ..diffusion.likelihood import bits_per_dimension
from .distances import energy_distance, mmd, mode_coverage, off_mode_fraction, precision_recall, sliced_wasserstein
from .statistics import CONFIDENCE, Estimate

FRACTIONS = ("precision", "recall", "mode_coverage", "off_mode_fraction")
"""Metrics that lie in [0, 1]; the others are distances."""
FEWEST = 10
"""Points of each set below which a comparison says nothing."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Three independent sets of points of one size, in raw units.

    Distances are biased by the numbers of points: only sets of one size can be held against each other.
    """

    generated: Tensor
    held_out: Tensor
    data: Tensor
    """Another draw of the data."""

    @classmethod
    def of(cls, generated: Tensor, held_out: Tensor, data: Tensor) -> "Trial | None":
        """Return the first points of each set, as many as the smallest has; None for fewer than `FEWEST`."""
        n = min(len(generated), len(held_out), len(data))
        return None if n < FEWEST else cls(generated[:n], held_out[:n], data[:n])


def quality(trials: Iterable[Trial], *, modes: Modes | None = None) -> dict[str, Any]:
    """Return every metric's mean over `trials` by name, and the same between data and data as `NAME_data`.

    Each has its 95 % interval of the mean (Student's t) as `NAME_ci95` where there are two trials or more.
    """
    rows: dict[str, list[float]] = {}
    for k, trial in enumerate(trials):
        for suffix, points in (("", trial.generated), ("_data", trial.data)):
            for name, value in _metrics(points, trial.held_out, modes, seed=k).items():
                rows.setdefault(f"{name}{suffix}", []).append(value)
    return {key: value for name, values in rows.items() for key, value in _summary(name, values).items()}


def _metrics(x: Tensor, held_out: Tensor, modes: Modes | None, *, seed: int) -> Mapping[str, float]:
    precision, recall = precision_recall(held_out, x)
    found = {
        "energy_distance": energy_distance(x, held_out),
        "sliced_wasserstein": sliced_wasserstein(x, held_out, seed=seed),
        "mmd": mmd(x, held_out),
        "precision": precision,
        "recall": recall,
    }
    if modes is not None:
        found["mode_coverage"] = mode_coverage(x, modes.centres, modes.radius, norm=modes.norm)
        found["off_mode_fraction"] = off_mode_fraction(x, modes.centres, modes.radius, norm=modes.norm)
    return found


def _summary(name: str, values: list[float]) -> dict[str, Any]:
    mean = float(np.mean(values))
    if len(values) < 2:
        return {name: mean}
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    highest = 1.0 if name.removesuffix("_data") in FRACTIONS else math.inf
    return {name: mean, f"{name}_ci95": [max(0.0, mean - half), min(highest, mean + half)]}


def in_bits(nats: Estimate, dims: int) -> Estimate:
    """Return an estimate of log-likelihood, in nats, as bits per dimension: the sign, and so the ends, turn round."""
    value, high, low = bits_per_dimension(
        torch.tensor([nats.value, nats.low, nats.high], dtype=torch.float64), dims
    ).tolist()
    return Estimate(value, low, high, nats.n)
