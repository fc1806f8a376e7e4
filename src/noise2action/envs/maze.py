"""Maze: a ball, driven by forces, finds its way around two walls to a goal (m, m/s, 10 Hz).

Straight ahead of the start, and again behind the waist in the middle, a wall with a dead end is in the way, which is
passed on the left or on the right: four routes of equal length, whose averages lead into the dead ends. Touching a wall
is allowed; it only stops the ball. Seen from above, y points from the start to the goal, x to the right.

The physics is that of gymnasium-robotics' PointMaze, whose ball and map convention these are.
**Source:** Fu et al. 2020 (D4RL), maze2d; de Lazcano et al. 2023 (Gymnasium-Robotics).
"""

from collections.abc import Callable
from copy import copy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Env
from numpy.typing import ArrayLike, NDArray

from ..errors import MissingExtraError
from ..schema import Feature, Schema
from .episode import (
    Act,
    Demonstration,
    Observation,
    box,
    check_asked,
    checked_action,
    observation_space,
    observed,
    record,
    split_seed,
)
from .layouts import Layouts, draw
from .pursuit import Pursuit, chosen
from .rendering import Renderer, mujoco

CONTROL_HZ = 10.0
FRAME_SKIP = 10
"""Steps of the physics, 0.01 s each, that an action lasts."""
MAX_STEPS = 150
TOP_SPEED = 5.0
"""PointMaze's limit (m/s) along each axis."""
FORCE = 100.0
"""Of an action of 1 (N)."""

MAP = (
    "#######",
    "#  g  #",
    "# ### #",
    "# # # #",
    "#     #",
    "#     #",
    "### ###",
    "#     #",
    "# ### #",
    "# # # #",
    "#     #",
    "#  r  #",
    "#######",
)
"""Cells of 1 m, the middle one at the origin: walls #, start r, goal g."""
HEIGHT = 0.4
"""Of the walls (m)."""
START, GOAL = np.array([0.0, -5.0]), np.array([0.0, 5.0])
SPREAD = 0.3
"""The layout draws start and goal from squares of twice this side (m), around their cells' centres."""
GOAL_RADIUS = 0.3
"""The goal is reached when the ball's centre is this near (m)."""
FIRST, SECOND = -2.0, 4.0
"""y (m) of the lines on which a route is told: to which side of the wall each is crossed."""
SIDES = {"left": -1.0, "right": 1.0}
SHARES = {"left-left": 0.35, "right-right": 0.3, "right-left": 0.2, "left-right": 0.15}
"""How often the demonstrator takes each route: the side of the first wall, then of the second."""

SCHEMA = Schema(
    observations=(
        Feature("position", (2,), unit="m"),
        Feature("velocity", (2,), unit="m/s"),
        Feature("goal", (2,), unit="m"),
    ),
    action=Feature("action", (2,), unit="100 N", low=-1.0, high=1.0),
)
CAMERA = "top"


def walls() -> NDArray[np.float64]:
    """Return the centres [N, 2] (m) of the cells that are walls."""
    rows, columns = len(MAP), len(MAP[0])
    held = [(i, j) for i in range(rows) for j in range(columns) if MAP[i][j] == "#"]
    return np.array([(j - (columns - 1) / 2, (rows - 1) / 2 - i) for i, j in held])


@cache
def _compiled() -> Any:  # noqa: ANN401 - mujoco is optional
    """Return PointMaze's `mujoco.MjModel` of `MAP`, seen by a camera above; `MissingExtraError` without the extra."""
    library, found = mujoco(), find_spec("gymnasium_robotics")
    if found is None or found.origin is None:
        raise MissingExtraError("gymnasium-robotics", "sim")
    spec = library.MjSpec.from_file(str(Path(found.origin).parent / "envs" / "assets" / "point" / "point.xml"))
    # The sky, 11 MB, is not seen from above.
    spec.texture("skybox").delete()
    for centre in walls():
        spec.worldbody.add_geom(
            type=library.mjtGeom.mjGEOM_BOX,
            pos=[*centre, HEIGHT / 2],
            size=[0.5, 0.5, HEIGHT / 2],
            rgba=[0.7, 0.5, 0.3, 1.0],
            contype=1,
            conaffinity=1,
        )
    disc = library.mjtGeom.mjGEOM_CYLINDER
    spec.worldbody.add_site(
        name="goal", type=disc, pos=[*GOAL, 0.0], size=[GOAL_RADIUS, 0.005, 0.0], rgba=[0.9, 0.2, 0.2, 1.0]
    )
    spec.worldbody.add_camera(name=CAMERA, pos=[0.0, 0.0, 20.0], fovy=37.5)
    return spec.compile()


@cache
def _renderer(size: int) -> Renderer:
    """Return what draws every maze of this process: where ball and goal are is in an environment's data."""
    return Renderer(_compiled(), camera=CAMERA, size=size)


class Maze(Env[Observation, NDArray[np.float32]]):
    """The ball in the maze; an action [2] is the force on it, in units of 100 N, held for 0.1 s.

    Success is to come within 0.3 m of the goal, which ends the episode; the score is 1 then, else 0. `info["route"]`
    names the sides on which the walls were passed, the later passage counts: "left-right" for the left of the first and
    the right of the second wall, "none" before both. An image in `schema` is the maze from above.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}  # noqa: RUF012 - gymnasium's interface

    def __init__(self, schema: Schema = SCHEMA, *, layouts: Layouts = "evaluation", size: int = 256) -> None:
        self.render_mode = "rgb_array"
        self._schema = schema
        self.observation_space = observation_space(schema)
        self.action_space = box(SCHEMA.action)
        self._layouts: Layouts = layouts
        self._size = size
        self._library = mujoco()
        # Each has its own, in which its goal is.
        self.model = copy(_compiled())
        self.data = self._library.MjData(self.model)
        self._goal = GOAL
        self._steps = 0
        self._sides = ["none", "none"]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Return (observation, info) with the ball at rest; `seed` determines where it and the goal are."""
        super().reset(seed=seed)
        check_asked(options or {}, ())
        centre = np.concatenate([START, GOAL])
        layout = draw(self.np_random, centre - SPREAD, centre + SPREAD, self._layouts)
        self._library.mj_resetData(self.model, self.data)
        self.data.qpos[:], self._goal = layout[:2], layout[2:]
        self.model.site("goal").pos[:2] = self._goal
        self._library.mj_forward(self.model, self.data)
        self._steps, self._sides = 0, ["none", "none"]
        return self._observation(), self._info(success=False)

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Return (observation, reward, terminated, truncated, info) after 0.1 s under the force `action` [2]."""
        self.data.ctrl[:] = checked_action(action, SCHEMA.action)
        self._steps += 1
        success = False
        x, y = self.data.qpos.tolist()
        for _ in range(FRAME_SKIP):
            if max(map(abs, self.data.qvel.tolist())) > TOP_SPEED:
                self.data.qvel[:] = np.clip(self.data.qvel, -TOP_SPEED, TOP_SPEED)
            self._library.mj_step(self.model, self.data)
            before, (x, y) = y, self.data.qpos.tolist()
            for k, line in enumerate((FIRST, SECOND)):
                if before < line <= y:
                    self._sides[k] = "left" if x < 0 else "right"
            success = bool(np.hypot(x - self._goal[0], y - self._goal[1]) <= GOAL_RADIUS)
            if success:
                break
        return self._observation(), float(success), success, self._steps >= MAX_STEPS, self._info(success=success)

    def _observation(self) -> Observation:
        state = {"position": self.data.qpos, "velocity": self.data.qvel, "goal": self._goal}
        return observed(self._schema, state, self._picture)

    def _info(self, *, success: bool) -> dict[str, Any]:
        route = "none" if "none" in self._sides else "-".join(self._sides)
        return {"success": success, "score": float(success), "route": route}

    def render(self) -> NDArray[np.uint8]:
        """Return the maze from above as uint8 [size, size, 3]: walls, ball and goal."""
        return self._picture(self._size)

    def _picture(self, size: int) -> NDArray[np.uint8]:
        return _renderer(size).picture(self.data)


AHEAD = 0.5
"""How far (m) along its way the demonstrator looks."""
SPEEDS = (1.6, 2.2)
"""What its speed (m/s) is drawn from."""
ASIDE = 0.12
"""Largest distance (m) of its way's corners from the middle of the corridors, along each axis."""
TREMOR = 0.12
"""Standard deviation (m/s) of its hand's error."""
EAGERNESS = 0.25
"""Action for each m/s that is missing."""


class Driver:
    """A demonstrator, its route, its way along it, its speed and unsteady hand drawn from `rng`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.route = chosen(rng, SHARES)
        self._pursuit: Pursuit | None = None

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the action [2] that follows."""
        seen = {name: observation[name].astype(np.float64) for name in ("position", "velocity", "goal")}
        if self._pursuit is None:
            way = self._way(seen["position"], seen["goal"])
            speed = self._rng.uniform(*SPEEDS)
            self._pursuit = Pursuit(way, ahead=AHEAD, speed=speed, tremor=TREMOR, rng=self._rng)
        missing = self._pursuit.velocity(seen["position"]) - seen["velocity"]
        return np.clip(EAGERNESS * missing, -1.0, 1.0).astype(np.float32)

    def _way(self, start: NDArray[np.float64], goal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the corners [9, 2] of the route, each moved a little: straight to a side, and always forwards."""
        first, second = (SIDES[side] for side in self.route.split("-"))
        x = np.array([2 * first, 2 * first, 0.4 * first, 0.0, 2 * second, 2 * second, 2 * second])
        corners = np.stack([x, np.array([-3.6, -1.2, -1.0, 0.4, 2.4, 4.0, 5.0])], axis=1)
        return np.stack([start, *(corners + self._rng.uniform(-ASIDE, ASIDE, corners.shape)), goal])


def demonstrator(env: Env[Observation, NDArray[np.float32]], rng: np.random.Generator) -> Act:
    """Return one demonstrator, its choices drawn from `rng`."""
    del env
    return Driver(rng).act


def demonstrate(seed: int, *, make: Callable[..., Maze] = Maze) -> Demonstration:
    """Return one demonstrated episode; `seed` fixes the layout and, independently, the route and the hand."""
    layout, rng = split_seed(seed)
    env = make(layouts="training")
    return record(env, layout, demonstrator(env, rng))
