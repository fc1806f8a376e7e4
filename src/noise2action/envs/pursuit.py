"""How demonstrators of navigation keep to a way: they look a little ahead, at a pace of their own, with unsteady hands.

The error of the hand is correlated in time, so that it leads off the way; looking ahead from where it led corrects it.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

DETAIL = 0.01
"""Distance of the points of a way, as a share of how far one looks ahead."""
STEADINESS = 0.8
"""Correlation of the hand's error, and of the changes of pace, from step to step."""
PACE = 0.12
"""Standard deviation of the changes of pace, as a share of the speed."""


def chosen(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    """Return one of the names, drawn with its share (sum 1)."""
    return str(rng.choice(list(shares), p=list(shares.values())))


class Pursuit:
    """Follows `way`, the corners [K, 2] (m) of a line, at about `speed` (m/s).

    Its eyes are `ahead` (m) of it along the line, and its hand errs by `tremor` (m/s, standard deviation).
    """

    def __init__(
        self, way: NDArray[np.float64], *, ahead: float, speed: float, tremor: float, rng: np.random.Generator
    ) -> None:
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1))])
        at = np.arange(0.0, along[-1] + ahead * DETAIL, ahead * DETAIL)
        self._line = np.stack([np.interp(at, along, way[:, axis]) for axis in (0, 1)], axis=1)
        self._reached = 0
        self._ahead = round(1 / DETAIL)
        self._speed, self._tremor, self._rng = speed, tremor, rng
        self._error = np.zeros(3)

    def velocity(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the velocity [2] (m/s) wanted at `position` [2], one control step after the last call."""
        seen = self._line[self._reached : self._reached + 2 * self._ahead]
        self._reached += int(np.argmin(np.linalg.norm(seen - position, axis=1)))
        way = self._line[min(self._reached + self._ahead, len(self._line) - 1)] - position
        fresh = np.sqrt(1 - STEADINESS**2) * self._rng.standard_normal(3)
        self._error = STEADINESS * self._error + fresh
        pace = self._speed * (1 + PACE * self._error[2])
        return pace * way / max(float(np.linalg.norm(way)), 1e-9) + self._tremor * self._error[:2]
