"""Insert a peg: take a peg and put its head into a hole in the side of a box, on Metaworld's scene."""

import numpy as np
from numpy.typing import NDArray

from ..schema import Schema
from .sawyer import ACTION, GAIN, GOAL, GRIPPER, HAND, OBJECT, ROTATION, Sawyer
from .sawyer_stage import Model

RADIUS = 0.07
STRETCH = np.array([1.0, 2.0, 2.0])
"""Beside and above the hole counts double."""
HOLE = np.array([0.03, 0.0, 0.13])
"""From the box to the hole (m)."""
APART = 0.1
"""Least distance (m) on the table from the peg to the box."""

CLEAR = 0.12
"""The peg's head is aligned this far out (m)."""
OUTWARD = np.array([1.0, 0.0, 0.0])
"""From the hole."""
STRAIGHT = 0.015
"""How far (m) the head may be off the hole's axis to go in."""


class InsertPeg(Sawyer):
    """The layout is the peg's position [3] and the box's [3]; the object is the peg where it is grasped."""

    scene = "sawyer_peg_insertion_side.xml"
    layout_low, layout_high = (0.0, 0.5, 0.02, -0.35, 0.4, -0.001), (0.2, 0.7, 0.02, -0.25, 0.7, 0.001)
    schema = Schema((HAND, GRIPPER, OBJECT, ROTATION, GOAL), ACTION)
    side_axis = 1
    body = "peg"

    def _legal(self, layout: NDArray[np.float64]) -> bool:
        return bool(np.linalg.norm(layout[:2] - layout[3:5]) >= APART)

    def _place(self, layout: NDArray[np.float64]) -> None:
        self._goal = layout[3:] + HOLE
        self._put(layout[:3])

    def _furnish(self, model: Model) -> None:
        model.body("box").pos = self._goal - HOLE
        model.site("goal").pos = self._goal

    def _object(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        site = self._data.site("pegGrasp")
        return site.xpos.copy(), site.xmat.reshape(3, 3).copy()

    def guide(self) -> NDArray[np.float64]:
        """Return what to do next: take the peg, carry its head before the hole, and in."""
        if (taking := self.take(self._object()[0], low=0.0)) is not None:
            return taking
        gap = self._goal - self._data.site("pegHead").xpos
        before = np.linalg.norm(gap[1:]) > STRAIGHT and gap[0] < -STRAIGHT
        return np.array([*GAIN * (gap + (CLEAR if before else -CLEAR) * OUTWARD), 1.0])

    def error(self) -> float:
        """Return the distance (m) of the peg's head from the hole, stretched as Metaworld does."""
        return float(np.linalg.norm((self._data.site("pegHead").xpos - self._goal) * STRETCH))

    def done(self) -> bool:
        """Return whether the peg's head is in the hole."""
        return self.error() <= RADIUS
