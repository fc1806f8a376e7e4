"""Push a block: move a puck over the table to a mark, on Metaworld's push scene."""

import numpy as np
from numpy.typing import NDArray

from .grasp import Grasp

RADIUS = 0.05
"""How near to the mark (m) counts."""


class PushBlock(Grasp):
    """The layout is the puck's position [3] and the mark's [3], whose height is the puck's own."""

    scene = "sawyer_push_v3.xml"
    layout_low, layout_high = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.01), (0.1, 0.7, 0.02, 0.1, 0.9, 0.02)

    def _place(self, layout: NDArray[np.float64]) -> None:
        height = self._stage.at_home[self._stage.model.body("obj").id, 2:]
        super()._place(np.concatenate([layout[:2], height, layout[3:5], height]))

    def done(self) -> bool:
        """Return whether the puck is at the mark."""
        return self.error() <= RADIUS
