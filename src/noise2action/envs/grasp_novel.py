"""Grasp a novel object: training and evaluation have objects of different shapes, as well as other layouts.

Each object is made of up to three boxes or cylinders; its size is drawn with the layout. A policy that sees no picture
is told half its width and height, and how much of its bounding box it fills.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TaskError, did_you_mean
from ..schema import Feature, Schema
from .episode import Observation
from .grasp import Grasp
from .rendering import mujoco as import_mujoco
from .sawyer_stage import Model

PARTS = 3
WIDTHS, HEIGHTS = (0.015, 0.026), (0.015, 0.03)
"""What half the width and half the height (m) are drawn from."""
TURN = 0.4
"""Objects are turned by up to this angle (rad), to either side."""
UNIT = 0.02
SHAPE = Feature("shape", (3,))
"""Half the width and half the height in units of 2 cm, and the share of the bounding box which is filled."""
GRID = 101


@dataclass(frozen=True)
class Part:
    """One part of an object of half-width 1 and half-height 1."""

    round: bool = False
    """A cylinder, else a box."""
    half: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Half extents before it is turned; a cylinder's radius is the first."""
    turn: float = 0.0
    """Angle (rad) about the vertical."""
    height: float = 0.0
    """Of its centre."""

    def contains(self, x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return whether points are inside."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        u, v = c * x + s * y, c * y - s * x
        flat = np.hypot(u, v) <= self.half[0] if self.round else (abs(u) <= self.half[0]) & (abs(v) <= self.half[1])
        return flat & (abs(z - self.height) <= self.half[2])


_INNER = float(np.tan(np.pi / 12))
TRAINED: dict[str, tuple[Part, ...]] = {
    "box": (Part(),),
    "cylinder": (Part(round=True),),
    "step": (Part(half=(1.0, 1.0, 0.5), height=-0.5), Part(half=(0.6, 0.6, 0.5), height=0.5)),
}
HELD_OUT: dict[str, tuple[Part, ...]] = {
    "cross": (Part(half=(1.0, 0.45, 1.0)), Part(half=(0.45, 1.0, 1.0))),
    "star": tuple(Part(half=(1.0, _INNER, 1.0), turn=k * np.pi / 3) for k in range(3)),
    "mushroom": (
        Part(round=True, half=(0.6, 0.6, 0.5), height=-0.5),
        Part(round=True, half=(1.0, 1.0, 0.5), height=0.5),
    ),
}
"""The shapes of demonstrations and those of evaluation."""
SHAPES = TRAINED | HELD_OUT


@cache
def filled(name: str) -> float:
    """Return the share of its bounding box that a shape fills."""
    at = np.linspace(-1.0, 1.0, GRID)
    x, y, z = np.meshgrid(at, at, at, indexing="ij")
    return float(np.mean(np.any([part.contains(x, y, z) for part in SHAPES[name]], axis=0)))


def _geom(k: int) -> str:
    return "objGeom" if k == 0 else f"part{k}"


class GraspNovel(Grasp):
    """The layout is half the width, half the height (m), the turn (rad), then `Grasp`'s; the shape is drawn besides."""

    layout_low = (WIDTHS[0], HEIGHTS[0], -TURN, *Grasp.layout_low)
    layout_high = (WIDTHS[1], HEIGHTS[1], TURN, *Grasp.layout_high)
    schema = Schema((*Grasp.schema.observations, SHAPE), Grasp.schema.action)

    def _legal(self, layout: NDArray[np.float64]) -> bool:
        return super()._legal(layout[3:])

    @classmethod
    def edit(cls, spec: Model) -> None:
        """Give the object room for more parts than one."""
        # Bounding trees of bodies are those of the compiled sizes.
        spec.option.disableflags |= import_mujoco().mjtDisableBit.mjDSBL_MIDPHASE
        body = spec.body("obj")
        for k in range(1, PARTS):
            first = spec.geom("objGeom")
            body.add_geom(
                name=_geom(k),
                type=first.type,
                size=first.size,
                rgba=first.rgba,
                material=first.material,
                friction=first.friction,
                condim=first.condim,
                solref=first.solref,
                solimp=first.solimp,
            )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Return (observation, info) as `Sawyer.reset` does; `options["shape"]` names the shape, else it is drawn."""
        asked = dict(options or {})
        self._asked: str | None = asked.pop("shape", None)
        if self._asked is not None and self._asked not in SHAPES:
            raise TaskError(f"expected a shape, got {self._asked!r}: {did_you_mean(str(self._asked), SHAPES)}")
        return super().reset(seed=seed, options=asked)

    def _place(self, layout: NDArray[np.float64]) -> None:
        shapes = TRAINED if self._layouts == "training" else HELD_OUT
        drawn = str(self.np_random.choice(list(shapes)))
        self.shape = drawn if self._asked is None else self._asked
        self._half = layout[[0, 0, 1]]
        super()._place(np.array([*layout[3:5], self._half[2], *layout[6:]]))
        self._data.qpos[12:16] = (np.cos(layout[2] / 2), 0.0, 0.0, np.sin(layout[2] / 2))

    def _furnish(self, model: Model) -> None:
        super()._furnish(model)
        mujoco = import_mujoco()
        parts = SHAPES[self.shape]
        for k in range(PARTS):
            g, part = model.geom(_geom(k)).id, parts[min(k, len(parts) - 1)]
            half = self._half * part.half
            model.geom_type[g] = mujoco.mjtGeom.mjGEOM_CYLINDER if part.round else mujoco.mjtGeom.mjGEOM_BOX
            model.geom_size[g] = (half[0], half[2], 0.0) if part.round else half
            model.geom_aabb[g] = (0.0, 0.0, 0.0, *half)
            model.geom_rbound[g] = np.linalg.norm(half)
            model.geom_pos[g] = (0.0, 0.0, part.height * self._half[2])
            model.geom_quat[g] = (np.cos(part.turn / 2), 0.0, 0.0, np.sin(part.turn / 2))
            model.geom_sameframe[g] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE
            model.geom_contype[g] = model.geom_conaffinity[g] = model.geom_rgba[g, 3] = float(k < len(parts))

    @property
    def state(self) -> Observation:
        """The whole state by feature name, float32."""
        descriptor = np.array([*self._half[1:] / UNIT, filled(self.shape)])
        return {**super().state, "shape": descriptor.astype(np.float32)}
