"""Grasp: take a puck and bring it to a point in the air, on Metaworld's pick-place scene."""

import numpy as np
from numpy.typing import NDArray

from ..schema import Schema
from .sawyer import ACTION, GAIN, GOAL, GRIPPER, HAND, OBJECT, ROTATION, Sawyer
from .sawyer_stage import Model

RADIUS = 0.07
"""How near to the point (m) counts."""
APART = 0.15
"""Least distance (m) on the table from the puck to the point."""


class Grasp(Sawyer):
    """The layout is the puck's position [3] and the point's [3]."""

    scene = "sawyer_pick_place_v3.xml"
    layout_low, layout_high = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3)
    schema = Schema((HAND, GRIPPER, OBJECT, ROTATION, GOAL), ACTION)
    told = ("hand", "gripper", "goal")

    def _legal(self, layout: NDArray[np.float64]) -> bool:
        return bool(np.linalg.norm(layout[:2] - layout[3:5]) >= APART)

    def _place(self, layout: NDArray[np.float64]) -> None:
        self._goal = layout[3:]
        self._put(layout[:3])

    def _furnish(self, model: Model) -> None:
        model.site("goal").pos = self._goal

    def _object(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        body = self._data.body("obj")
        return body.xpos.copy(), body.xmat.reshape(3, 3).copy()

    def guide(self) -> NDArray[np.float64]:
        """Return what to do next: take the puck, and carry it to the point."""
        at = self._object()[0]
        if (taking := self.take(at)) is not None:
            return taking
        return np.array([*GAIN * (self._goal - at), 1.0])

    def error(self) -> float:
        """Return the distance (m) of the puck from the point."""
        return float(np.linalg.norm(self._object()[0] - self._goal))

    def done(self) -> bool:
        """Return whether the puck is at the point."""
        return self.error() <= RADIUS
