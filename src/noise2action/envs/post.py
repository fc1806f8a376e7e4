"""A post between the hand and the object: it must not be touched, and the average of the ways past it would.

The hand starts low and near; who passes on the left, on the right, or above does well, who mixes them fails.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..schema import Feature, Schema
from .episode import Observation
from .grasp import Grasp
from .push_block import PushBlock
from .rendering import mujoco as import_mujoco
from .sawyer import Sawyer
from .sawyer_stage import FRAME_SKIP, Model

RADIUS, HEIGHT = 0.015, 0.2
POST_Y = 0.58
"""Where it stands along y (m); the layout draws its x."""
BESIDE, BEHIND, OVER = 0.14, 0.1, 0.14
"""The ways pass it this far (m) aside or above, and keep to that until they are this far behind it."""
LOW, HIGH = (-0.03, -0.08, 0.68), (0.03, 0.08, 0.72)
"""Box of the post's x and the object's x and y (m)."""
POST = Feature("post", (2,), unit="m")
AHEAD = np.array([0.0, 1.0, 0.0])
COLOUR = (0.2, 0.25, 0.35, 1.0)


class BehindPost(Sawyer):
    """A task whose layout begins with the x of a post; to touch it ends the episode as a failure.

    Hand, fingers and what they hold can touch it, in any step of the physics.
    """

    home: ClassVar[NDArray[np.float64]] = np.array([0.0, 0.45, 0.12])

    @classmethod
    def edit(cls, spec: Model) -> None:
        """Add the post."""
        body = spec.worldbody.add_body(name="post", pos=[0.0, POST_Y, HEIGHT / 2])
        size = [RADIUS, HEIGHT / 2, 0.0]
        body.add_geom(name="post", type=import_mujoco().mjtGeom.mjGEOM_CYLINDER, size=size, rgba=COLOUR)

    def _place(self, layout: NDArray[np.float64]) -> None:
        self._post = np.array([layout[0], POST_Y])
        self._touched = False
        super()._place(layout[1:])

    def _furnish(self, model: Model) -> None:
        super()._furnish(model)
        model.body("post").pos[0] = self._post[0]

    def _legal(self, layout: NDArray[np.float64]) -> bool:
        return super()._legal(layout[1:])

    def _advance(self, model: Model) -> None:
        # A touch may be over before the action is.
        post, data, mujoco = model.geom("post").id, self._data, import_mujoco()
        for _ in range(FRAME_SKIP):
            mujoco.mj_step(model, data)
            self._touched |= bool((data.contact.geom == post).any())

    def _watch(self) -> None:
        hand = self.hand
        if self._route == "none" and hand[1] > POST_Y:
            self._route = "over" if hand[2] > HEIGHT else "left" if hand[0] < self._post[0] else "right"

    def _failed(self) -> bool:
        return self._touched

    def way(self, route: str) -> list[NDArray[np.float64]]:
        """Return the points [3] (m) on the way past the post by `route`."""
        aside = {"left": -BESIDE, "right": BESIDE, "over": 0.0}[route]
        height = HEIGHT + OVER if route == "over" else float(self.home[2])
        rise = np.array([*self.home[:2], height])
        beside = np.array([self._post[0] + aside, POST_Y, height])
        return [rise, beside, beside + BEHIND * AHEAD]

    @property
    def state(self) -> Observation:
        """The whole state by feature name, float32."""
        return {**super().state, "post": self._post.astype(np.float32)}


class GraspBehindPost(BehindPost, Grasp):
    """`Grasp` with a post in the way."""

    layout_low = (*LOW, *Grasp.layout_low[2:])
    layout_high = (*HIGH, *Grasp.layout_high[2:])
    schema = Schema((*Grasp.schema.observations, POST), Grasp.schema.action)


class PushBehindPost(BehindPost, PushBlock):
    """`PushBlock` with a post in the way."""

    layout_low = (*LOW, *PushBlock.layout_low[2:])
    layout_high = (*HIGH, *PushBlock.layout_high[2:])
    schema = Schema((*PushBlock.schema.observations, POST), PushBlock.schema.action)
