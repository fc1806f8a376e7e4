"""Metaworld's scenes, compiled: the arm at home, one more camera, and what may disturb an episode."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingExtraError, TaskError
from .episode import check_asked
from .rendering import Renderer
from .rendering import mujoco as import_mujoco

FRAME_SKIP = 5
"""Steps of the physics that an action lasts."""
HOMING_STEPS = 50
DOWN = np.array([1.0, 0.0, 1.0, 0.0])
"""Orientation of the hand, a quaternion: pointing down."""
UP = np.array([0.0, 0.0, 1.0])
Model = Any
"""`mujoco.MjModel` or `MjSpec`: the package is optional."""

TABLE = "table"
EYE, LOOKED_AT, VIEW = np.array([0.4, 0.22, 0.48]), np.array([-0.03, 0.69, 0.06]), 50.0
"""Where the camera over the table is, what it looks at (m), and its field of view (degrees)."""
CAMERAS = (TABLE, "topview", "corner", "corner2", "corner3", "corner4", "behindGripper", "gripperPOV")
"""Ours, near enough to show what an object is, and Metaworld's, most of which show the arm."""


def scene(name: str) -> Path:
    """Return the path of one of Metaworld's scenes; `MissingExtraError` without Metaworld."""
    found = find_spec("metaworld") if find_spec("mujoco") else None
    if found is None or found.origin is None:
        raise MissingExtraError("metaworld", "sim")
    return Path(found.origin).parent / "assets" / "sawyer_xyz" / name


def _add_camera(spec: Model) -> None:
    ahead = (LOOKED_AT - EYE) / np.linalg.norm(LOOKED_AT - EYE)
    right = np.cross(ahead, UP) / np.linalg.norm(np.cross(ahead, UP))
    camera = spec.worldbody.add_camera(name=TABLE, pos=EYE, fovy=VIEW)
    camera.alt.type = import_mujoco().mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = [*right, *np.cross(right, ahead)]


@dataclass(frozen=True)
class Disturbance:
    """What an episode's physics has that no demonstration had; `reset(options=...)` asks for it by these names."""

    friction: float = 1.0
    """Factor of all sliding, rolling and torsional friction."""
    mass: float = 1.0
    """Factor of the object's mass and inertia."""
    push: float = 0.0
    """Horizontal force (N) on the arm's wrist for a tenth of a second, half a second in; its direction is drawn."""

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> "Disturbance":
        """Return what `options` ask for; `TaskError` for other names, and numbers that physics has no use for."""
        names = [f.name for f in fields(cls)]
        check_asked(options, names)
        for name, value in options.items():
            low = 0.01 if name == "mass" else 0.0
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= 1000.0:
                raise TaskError(f"expected {name} in [{low}, 1000], got {value!r}")
        return cls(**{name: float(value) for name, value in options.items()})


UNDISTURBED = Disturbance()
INERTIAL = ("body_mass", "body_inertia")


class Stage:
    """A compiled scene, which all environments of a class in a process share: it takes a second and 20 MB to make.

    What differs from layout to layout is put into it again whenever another environment was the last to use it, which
    is why one thread a process may use it.
    """

    def __init__(self, name: str, *, home: NDArray[np.float64], body: str, edit: Callable[[Model], None]) -> None:
        """Compile Metaworld's scene `name`, changed by `edit`; `body` is what the hand, at `home` first, works on."""
        path = scene(name)
        mujoco = import_mujoco()
        spec = mujoco.MjSpec.from_file(str(path))
        _add_camera(spec)
        edit(spec)
        self.model: Any = spec.compile()
        # The hand hangs on its target by a weld, which Metaworld gives this anchor, pose and torque scale.
        welds = self.model.eq_type == mujoco.mjtEq.mjEQ_WELD
        self.model.eq_data[welds] = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0])
        self.owner: object = None
        """The environment whose layout the scene shows."""
        self._plain = {name: getattr(self.model, name).copy() for name in ("geom_friction", *INERTIAL)}
        self._disturbance = UNDISTURBED
        self._object = self.model.body(body).id
        self.renderers: dict[tuple[str, int], Renderer] = {}
        data = mujoco.MjData(self.model)
        for _ in range(HOMING_STEPS):
            data.mocap_pos[0], data.mocap_quat[0] = home, DOWN
            data.ctrl[:] = (-1.0, 1.0)
            mujoco.mj_step(self.model, data, FRAME_SKIP)
        self.home = np.empty(mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION))
        """The physics state once the hand is at home with open fingers; no layout has a part in it."""
        mujoco.mj_getState(self.model, data, self.home, mujoco.mjtState.mjSTATE_INTEGRATION)
        self.at_home: NDArray[np.float64] = data.xpos.copy()
        """Where the bodies then are, [bodies, 3] (m)."""

    def disturb(self, asked: Disturbance) -> None:
        """Give everything its friction and the object its mass."""
        if asked == self._disturbance:
            return
        self._disturbance = asked
        self.model.geom_friction[:] = asked.friction * self._plain["geom_friction"]
        for name in INERTIAL:
            getattr(self.model, name)[self._object] = asked.mass * self._plain[name][self._object]
        # What the solver scales its constraints with follows from the masses.
        mujoco = import_mujoco()
        mujoco.mj_setConst(self.model, mujoco.MjData(self.model))
