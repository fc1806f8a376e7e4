"""What the manipulation tasks share: a Sawyer arm on Metaworld's scenes, driven straight through MuJoCo (m, 80 Hz).

An action moves the hand by up to 1 cm along each axis and opens or closes the gripper, as Metaworld defines it. The
physics is Metaworld's to the bit; layouts are drawn by `reset(seed=...)` itself, observations are named, and a step
costs what MuJoCo's does, because no dense reward is computed. **Source:** Yu et al. 2019 (Meta-World), McLean et al.
2025 (Meta-World+), whose scenes, action and success criteria these are.
"""

from abc import abstractmethod
from functools import cache
from typing import Any, ClassVar

import numpy as np
from gymnasium import Env
from numpy.typing import ArrayLike, NDArray

from ..errors import TaskError
from ..schema import Feature, Schema
from .episode import Observation, box, checked_action, observation_space
from .layouts import Layouts, draw
from .rendering import Renderer
from .rendering import mujoco as import_mujoco
from .sawyer_stage import CAMERAS, DOWN, FRAME_SKIP, TABLE, UNDISTURBED, UP, Disturbance, Model, Stage

CONTROL_HZ = 80.0
REACH = 0.01
"""How far (m) an action of 1 moves the hand along an axis."""
HAND_LOW, HAND_HIGH = np.array([-0.5, 0.4, 0.05]), np.array([0.5, 1.0, 0.5])
HOME = np.array([0.0, 0.6, 0.2])
"""Where the hand starts (m)."""
PUSHED = range(40, 48)
"""Steps in which an asked push acts."""
OPEN_WIDTH = 0.1
"""Distance (m) of the claws that counts as a gripper of 1."""

NEAR, NEAR_ABOVE = 0.04, 0.08
"""The hand has come to the object within this much aside and above it (m)."""
ASIDE = 0.05
"""Who strays by more than this (m) beside the way to the object came from that side."""

BESIDE, ABOVE, OVER = 0.10, 0.12, 0.25
"""Sides are passed this far (m) beside what lies between, this far above the object; "over" is this far above it."""

GAIN = 10.0
"""Action per metre that the hand is away from where a demonstrator wants it."""
HIGH, LOW, CLOSING, BY_IT = 0.1, 0.03, 0.05, 0.02
"""Demonstrators come over an object this high, go down to this low once they are by it within the last, and close the
gripper below the third (m)."""
CLOSED, AT_REST = 0.9, 0.05
"""The gripper holds something that is open by less than this, and whose fingers are slower than this (m/s)."""
FINGERS = slice(7, 9)
"""Their joints."""

HAND = Feature("hand", (3,), unit="m")
GRIPPER = Feature("gripper", (1,))
"""How far it is open, from 0 to 1."""
OBJECT = Feature("object", (3,), unit="m")
ROTATION = Feature("rotation", (6,))
"""Of the object: the first two columns of its rotation matrix."""
GOAL = Feature("goal", (3,), unit="m")
ACTION = Feature("action", (4,), low=-1.0, high=1.0)


def check_cameras(names: tuple[str, ...]) -> None:
    """Raise `TaskError` for a camera that there is none of."""
    if unknown := [name for name in names if name not in CAMERAS]:
        raise TaskError(f"expected cameras of {', '.join(CAMERAS)}, got {', '.join(map(repr, unknown))}")


def seen(schema: Schema, told: tuple[str, ...], cameras: tuple[str, ...], size: int) -> Schema:
    """Return the schema with pictures [size, size, 3] of `cameras` and what is `told` besides, if any are asked for."""
    if not cameras:
        return schema
    images = tuple(Feature(name, (size, size, 3), kind="image", dtype="uint8") for name in cameras)
    return Schema((*(f for f in schema.observations if f.name in told), *images), schema.action)


@cache
def stage(task: "type[Sawyer]") -> Stage:
    """Return the stage of a class of tasks."""
    return Stage(task.scene, home=task.home, body=task.body, edit=task.edit)


class Sawyer(Env[Observation, NDArray[np.float32]]):
    """The arm in one scene; a task says what lies where, and when it is done.

    An episode ends with success as soon as the task is done; `info["score"]` is then 1, before it the largest share of
    the way that the object has come. `info["route"]` says from where the hand came to the object: "left" or "right"
    (along the axis `side_axis`), "over", and "none" before that.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}  # noqa: RUF012 - gymnasium's interface

    scene: ClassVar[str]
    """File name of Metaworld's scene."""
    layout_low: ClassVar[tuple[float, ...]]
    """Lower corner of the box that layouts are drawn from (m)."""
    layout_high: ClassVar[tuple[float, ...]]
    """Its upper corner (m)."""
    schema: ClassVar[Schema]
    """Features of the state alone."""
    body: ClassVar[str] = "obj"
    """Name of the body that the hand works on."""
    max_steps: ClassVar[int] = 300
    home: ClassVar[NDArray[np.float64]] = HOME
    """Where the hand starts (m)."""
    side_axis: ClassVar[int] = 0
    """0 where the sides lie along x, 1 along y."""
    told: ClassVar[tuple[str, ...]] = ("hand", "gripper")
    """What a policy that sees pictures is told besides."""

    def __init__(
        self,
        *,
        layouts: Layouts = "evaluation",
        cameras: tuple[str, ...] = (),
        size: int = 96,
        camera: str = TABLE,
        picture: int = 256,
    ) -> None:
        """Make the arm; pictures [size, size, 3] of `cameras` are observed in place of the object's state.

        `render()` shows `camera` at `picture` pixels.
        """
        check_cameras((*cameras, camera))
        self.render_mode = "rgb_array"
        self.observed = seen(self.schema, self.told, cameras, size)
        self.observation_space = observation_space(self.observed)
        self.action_space = box(ACTION)
        self._layouts: Layouts = layouts
        self._camera, self._picture = camera, picture
        self._stage = stage(type(self))
        self._data: Any = import_mujoco().MjData(self._stage.model)
        self._began = False
        self._disturbance, self._force = UNDISTURBED, np.zeros(3)
        self.layout = np.zeros(len(self.layout_low))
        """What `reset` drew, [D] (m)."""
        self._goal = np.zeros(3)
        self._steps, self._route, self._score, self._way = 0, "none", 0.0, 1.0
        self._between, self._strayed = np.zeros(2), np.zeros(2)

    @abstractmethod
    def _place(self, layout: NDArray[np.float64]) -> None:
        """Set the goal, and put what can move where `layout` has it."""

    @abstractmethod
    def _furnish(self, model: Model) -> None:
        """Put what stands fast where the layout has it."""

    @abstractmethod
    def _object(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return position [3] and rotation matrix [3, 3] of what the hand works on."""

    @abstractmethod
    def error(self) -> float:
        """Return how far (m) the object is from where it should be."""

    @abstractmethod
    def done(self) -> bool:
        """Return whether the task is done, by Metaworld's criterion."""

    def _legal(self, layout: NDArray[np.float64]) -> bool:
        """Return whether the layout can be done."""
        del layout
        return True

    @classmethod
    def edit(cls, spec: Model) -> None:
        """Change the scene before it is compiled; the base changes nothing."""

    def _furnished(self) -> Model:
        """Return the scene, furnished for this environment's layout."""
        if not self._began:
            raise TaskError("expected reset() before anything else, got an environment without a layout")
        if self._stage.owner is not self:
            self._stage.owner = self
            self._stage.disturb(self._disturbance)
            self._furnish(self._stage.model)
        return self._stage.model

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Return (observation, info) of the layout that `seed` determines, the hand at home and open.

        `options` are those of `Disturbance`.
        """
        self._disturbance = Disturbance.asked(options or {})
        super().reset(seed=seed, options=options)
        self.layout = draw(self.np_random, self.layout_low, self.layout_high, self._layouts, legal=self._legal)
        mujoco = import_mujoco()
        mujoco.mj_resetData(self._stage.model, self._data)
        mujoco.mj_setState(self._stage.model, self._data, self._stage.home, mujoco.mjtState.mjSTATE_INTEGRATION)
        self._stage.owner, self._began = None, True
        self._place(self.layout)
        self._forward()
        self._steps, self._route, self._score = 0, "none", 0.0
        self._way = self.error()
        self._between = np.sort([self.hand[self.side_axis], self._object()[0][self.side_axis]])
        self._strayed = np.zeros(2)
        turn = self.np_random.uniform(-np.pi, np.pi)
        self._force = self._disturbance.push * np.array([np.cos(turn), np.sin(turn), 0.0])
        return self._observation(), self._info()

    def _forward(self) -> None:
        import_mujoco().mj_forward(self._furnished(), self._data)

    def _put(self, position: ArrayLike) -> None:
        """Put the free object at `position` [3], at rest, as it is turned."""
        self._data.qpos[9:12] = position
        self._data.qvel[9:15] = 0.0

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Return (observation, reward, terminated, truncated, info) after 12.5 ms of the action [4]."""
        command = checked_action(action, ACTION)
        data = self._data
        data.mocap_pos[0] = np.clip(data.mocap_pos[0] + REACH * command[:3], HAND_LOW, HAND_HIGH)
        data.mocap_quat[0] = DOWN
        data.ctrl[:] = (command[3], -command[3])
        data.body("hand").xfrc_applied[:3] = self._force if self._steps in PUSHED else 0.0
        self._advance(self._furnished())
        self._forward()
        self._steps += 1
        self._watch()
        info = self._info()
        ended = info["success"] or self._failed()
        return self._observation(), float(info["success"]), ended, self._steps >= self.max_steps, info

    def _advance(self, model: Model) -> None:
        """Let 12.5 ms pass."""
        import_mujoco().mj_step(model, self._data, FRAME_SKIP)

    def _watch(self) -> None:
        """Find out the route: how far the hand strayed beside the way to the object before it came to it."""
        if self._route != "none":
            return
        hand, at = self.hand, self._object()[0]
        lateral = hand[self.side_axis]
        self._strayed = np.maximum(self._strayed, (self._between[0] - lateral, lateral - self._between[1]))
        if np.linalg.norm(hand[:2] - at[:2]) < NEAR and hand[2] - at[2] < NEAR_ABOVE:
            self._route = "over" if self._strayed.max() < ASIDE else ("left", "right")[int(self._strayed.argmax())]

    def way(self, route: str) -> list[NDArray[np.float64]]:
        """Return the points [3] (m) on the way from home to the object by `route`."""
        point = self._object()[0]
        if route == "over":
            return [point + OVER * UP]
        point[2] += ABOVE
        point[self.side_axis] = self._between[0] - BESIDE if route == "left" else self._between[1] + BESIDE
        return [np.clip(point, HAND_LOW, HAND_HIGH)]

    @abstractmethod
    def guide(self) -> NDArray[np.float64]:
        """Return what a demonstrator at the object does next, an action [4] that may be out of range."""

    def take(self, at: NDArray[np.float64], *, low: float = LOW) -> NDArray[np.float64] | None:
        """Return what to do next to take what is `at` [3]: over it, down to `low` (m) above it, close; None once held.

        Metaworld's experts move on while the gripper still closes, at a height that is met within millimetres, and do
        not open it again where it missed.
        """
        away, gripper = self.hand - at, self.gripper
        if away[2] < CLOSING and gripper < CLOSED and np.abs(self._data.qvel[FINGERS]).max() < AT_REST:
            return None
        if np.linalg.norm(away[:2]) > BY_IT:
            return np.array([*GAIN * (HIGH * UP - away), -1.0])
        return np.array([*GAIN * (low * UP - away), 1.0 if away[2] < CLOSING else -1.0])

    def _failed(self) -> bool:
        """Return whether the episode ends as a failure; the base never does."""
        return False

    @property
    def hand(self) -> NDArray[np.float64]:
        """Position of the hand [3] (m)."""
        return self._data.body("hand").xpos.copy()

    @property
    def object_position(self) -> NDArray[np.float64]:
        """Position [3] (m) of what the hand works on."""
        return self._object()[0]

    @property
    def gripper(self) -> float:
        """How far the gripper is open, from 0 to 1."""
        claws = self._data.body("rightclaw").xpos - self._data.body("leftclaw").xpos
        return float(np.clip(np.linalg.norm(claws) / OPEN_WIDTH, 0.0, 1.0))

    @property
    def state(self) -> Observation:
        """The whole state by feature name, float32, whether or not it is observed."""
        position, rotation = self._object()
        return {
            "hand": self.hand.astype(np.float32),
            "gripper": np.array([self.gripper], np.float32),
            "object": position.astype(np.float32),
            "rotation": rotation.T[:2].ravel().astype(np.float32),
            "goal": self._goal.astype(np.float32),
        }

    def _observation(self) -> Observation:
        state = self.state
        return {
            feature.name: self._picture_of(feature.name, feature.shape[0])
            if feature.kind == "image"
            else state[feature.name]
            for feature in self.observed.observations
        }

    def _info(self) -> dict[str, Any]:
        done = self.done() and not self._failed()
        self._score = 1.0 if done else max(self._score, 1.0 - self.error() / self._way)
        return {"success": done, "score": self._score, "route": self._route}

    def _picture_of(self, camera: str, size: int) -> NDArray[np.uint8]:
        model, renderers = self._furnished(), self._stage.renderers
        if (camera, size) not in renderers:
            renderers[camera, size] = Renderer(model, camera=camera, size=size)
        return renderers[camera, size].picture(self._data)

    def render(self) -> NDArray[np.uint8]:
        """Return the scene as uint8 [picture, picture, 3]."""
        return self._picture_of(self._camera, self._picture)
