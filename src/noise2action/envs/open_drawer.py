"""Open a drawer: pull it out by its handle, on Metaworld's scene."""

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from ..schema import Schema
from .sawyer import ACTION, GRIPPER, HAND, OBJECT, Sawyer
from .sawyer_stage import Model

RADIUS = 0.03
"""How near to the end (m) counts."""
HANDLE = np.array([0.0, -0.16, 0.0])
"""From the drawer to its handle (m)."""
OUT = np.array([0.0, -0.36, 0.09])
"""From where the cabinet stands to where the handle of the open drawer is (m)."""


@cache
def expert() -> Callable[[NDArray[np.float64]], NDArray[np.float32]]:
    """Return Metaworld's scripted expert, from its 39 numbers to an action."""
    return import_module("metaworld.policies.sawyer_drawer_open_v3_policy").SawyerDrawerOpenV3Policy().get_action


class OpenDrawer(Sawyer):
    """The layout is the cabinet's position [3]; the object is the handle."""

    scene = "sawyer_drawer.xml"
    body = "drawer_link"
    layout_low, layout_high = (-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)
    schema = Schema((HAND, GRIPPER, OBJECT), ACTION)

    def _place(self, layout: NDArray[np.float64]) -> None:
        self._goal = layout + OUT

    def _furnish(self, model: Model) -> None:
        model.body("drawer").pos = self._goal - OUT
        model.site("goal").pos = self._goal

    def _object(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        body = self._data.body("drawer_link")
        return body.xpos + HANDLE, body.xmat.reshape(3, 3).copy()

    def guide(self) -> NDArray[np.float64]:
        """Return what Metaworld's scripted expert does next."""
        numbers = np.zeros(39)  # What the expert reads; it ignores turns and the step before.
        numbers[:3], numbers[3], numbers[4:7], numbers[-3:] = self.hand, self.gripper, self._object()[0], self._goal
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The expert warns of every action beyond 1; it is clipped.
            return np.asarray(expert()(numbers), np.float64)

    def error(self) -> float:
        """Return how far (m) the handle is from where it is when the drawer is open."""
        return float(np.linalg.norm(self._object()[0] - self._goal))

    def done(self) -> bool:
        """Return whether the drawer is open."""
        return self.error() <= RADIUS
