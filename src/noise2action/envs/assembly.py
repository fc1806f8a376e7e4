"""Assembly: take a ring by its handle and put it over a peg, on Metaworld's scene."""

import numpy as np
from numpy.typing import NDArray

from ..schema import Schema
from .sawyer import ACTION, GAIN, GOAL, GRIPPER, HAND, OBJECT, ROTATION, Sawyer
from .sawyer_stage import UP, Model

ALIGNED = 0.02
"""How far (m) the ring's centre may be beside the peg's axis."""
PEG = np.array([0.0, 0.0, -0.05])
"""From the peg's top to its middle (m)."""

GRASP = np.array([-0.02, 0.0, 0.0])
"""From the handle to where it is grasped (m)."""
CLEAR = 0.06
"""The ring is carried this high above the peg (m)."""


class Assembly(Sawyer):
    """The layout is the ring's position [3] and the peg's top [3]; the object is the handle."""

    scene = "sawyer_assembly_peg.xml"
    body = "RoundNut"
    layout_low, layout_high = (0.0, 0.6, 0.02, -0.1, 0.75, 0.1), (0.0, 0.6, 0.02, 0.1, 0.85, 0.1)
    schema = Schema((HAND, GRIPPER, OBJECT, ROTATION, GOAL), ACTION)

    def _place(self, layout: NDArray[np.float64]) -> None:
        self._goal = layout[3:]
        self._put(layout[:3])

    def _furnish(self, model: Model) -> None:
        model.body("peg").pos = self._goal + PEG

    def _object(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._data.site("RoundNut-8").xpos.copy(), self._data.body("RoundNut").xmat.reshape(3, 3).copy()

    def _ring(self) -> NDArray[np.float64]:
        return self._data.site("RoundNut").xpos.copy()

    def guide(self) -> NDArray[np.float64]:
        """Return what to do next: take the handle, carry the ring over the peg, and let it down."""
        if (taking := self.take(self._object()[0] + GRASP)) is not None:
            return taking
        gap = self._goal - self._ring()
        if np.linalg.norm(gap[:2]) < ALIGNED:
            return np.array([*GAIN * gap[:2], -1.0, 1.0])
        carry = gap + CLEAR * UP
        return np.array([*GAIN * (carry if carry[2] < CLEAR / 2 else carry * UP), 1.0])

    def error(self) -> float:
        """Return the distance (m) of the ring's centre from the peg's top."""
        return float(np.linalg.norm(self._ring() - self._goal))

    def done(self) -> bool:
        """Return whether the ring is around the peg and below its top."""
        gap = self._goal - self._ring()
        return bool(np.linalg.norm(gap[:2]) < ALIGNED and gap[2] > 0.0)
