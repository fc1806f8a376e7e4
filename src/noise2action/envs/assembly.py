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
NEAR, HIGH, LOW = 0.015, 0.1, 0.035
"""The hand comes from this high, and goes down to this much above the handle once it is this near beside it (m)."""
CLOSING, HELD = 0.05, 0.52
"""The gripper closes this far (m) above the handle or lower, and holds it when it is open by less than this."""
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
        model.site("pegTop").pos = self._goal

    def _object(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._data.site("RoundNut-8").xpos.copy(), self._data.body("RoundNut").xmat.reshape(3, 3).copy()

    def _ring(self) -> NDArray[np.float64]:
        return self._data.site("RoundNut").xpos.copy()

    def guide(self) -> NDArray[np.float64]:
        """Return what to do next: over the handle, down, close, and lift when it is held; over the peg, and down.

        Metaworld's expert lifts while it still closes, at a height that it must meet within a few millimetres, and
        does not open again where it missed.
        """
        hand, grasp, gripper = self.hand, self._object()[0] + GRASP, self.gripper
        above = hand[2] - grasp[2]
        if gripper < HELD and above < CLOSING:
            gap = self._goal - self._ring()
            if np.linalg.norm(gap[:2]) < ALIGNED:
                return np.array([*GAIN * gap[:2], -1.0, 1.0])
            carry = gap + CLEAR * UP
            return np.array([*GAIN * (carry if carry[2] < CLEAR / 2 else carry * UP), 1.0])
        if np.linalg.norm(hand[:2] - grasp[:2]) > NEAR:
            return np.array([*GAIN * (grasp + HIGH * UP - hand), -1.0])
        return np.array([*GAIN * (grasp + LOW * UP - hand), 1.0 if above < CLOSING else -1.0])

    def error(self) -> float:
        """Return the distance (m) of the ring's centre from the peg's top."""
        return float(np.linalg.norm(self._ring() - self._goal))

    def done(self) -> bool:
        """Return whether the ring is around the peg and below its top."""
        gap = self._goal - self._ring()
        return bool(np.linalg.norm(gap[:2]) < ALIGNED and gap[2] > 0.0)
