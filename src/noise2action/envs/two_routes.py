"""Two routes: a sliding puck must pass a post on the left or on the right (m, s, 10 Hz).

The demonstrators take either side at random, so the average of what they do goes straight into the post: the smallest
task on which regression fails and a policy that models the distribution of actions does not. Floor and walls are a
square of 1 m; y points from the start to the goal, x to the right.

Variants of the task tell each episode more: `Told` is what, and how it is observed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium import Env
from numpy.typing import ArrayLike, NDArray

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

CONTROL_HZ = 10.0
MAX_STEPS = 100
SUBSTEPS = 10

LAG = 0.2
"""Time constant (s) with which the puck's velocity follows the commanded one."""
TIMES = np.arange(1, SUBSTEPS + 1)[:, None] / SUBSTEPS / CONTROL_HZ
"""When within an action the puck is looked at (s), [10, 1]."""
DECAYS = np.exp(-TIMES / LAG)
TOP_SPEED = 0.6
"""Largest commanded velocity (m/s) along each axis."""
PUCK = 0.02
"""Radius (m)."""
POST = np.array([0.0, 0.42])
POST_RADIUS = 0.12
GOAL = np.array([0.0, 0.85])
GOAL_RADIUS = 0.05
"""The goal is reached when the puck's centre is this near (m)."""
START = np.array([0.0, 0.15])
START_SPREAD = np.array([0.04, 0.02])
"""Half the width (m) of the box in which the layout draws the start, around `START`."""
WALLS = np.array([[-0.5, 0.0], [0.5, 1.0]])
SIDES = {"left": -1.0, "right": 1.0}
"""Sign of x where the puck passes the post."""

SCHEMA = Schema(
    observations=(Feature("position", (2,), unit="m"), Feature("velocity", (2,), unit="m/s")),
    action=Feature("action", (2,), unit="m/s", low=-TOP_SPEED, high=TOP_SPEED),
)


@dataclass(frozen=True, eq=False)
class Told:
    """What an episode asks for, and how it is said."""

    goal: NDArray[np.float64] = field(default_factory=GOAL.copy)
    """Where to go, [2] (m)."""
    route: str | None = None
    """The only side that counts as success: "left" or "right"; None for either."""
    observations: Observation = field(default_factory=dict[str, NDArray[Any]])
    """What says so: observed unchanged at every step."""
    instruction: str | None = None
    """The sentence, where it is said in words."""


def nothing(rng: np.random.Generator, asked: Mapping[str, Any]) -> Told:
    """Return what the plain task tells: neither a goal nor a side is drawn or said."""
    del rng
    check_asked(asked, ())
    return Told()


class TwoRoutes(Env[Observation, NDArray[np.float32]]):
    """A puck with inertia that is told a velocity (m/s), which it follows with the lag `LAG`.

    Success is to reach the goal, by the route that is told if one is; touching the post or a wall ends the episode as a
    failure. `info["route"]` says on which side the puck passed the post: "left", "right", or "none" before that. The
    score is 1 on success, else 0. `tell` draws what an episode asks for; `reset(options=...)` is handed on to it. An
    image in `schema` that is not told is what `render()` draws.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}  # noqa: RUF012 - gymnasium's interface

    def __init__(
        self,
        schema: Schema = SCHEMA,
        *,
        tell: Callable[[np.random.Generator, Mapping[str, Any]], Told] = nothing,
        size: int = 256,
    ) -> None:
        self.render_mode = "rgb_array"
        self._schema = schema
        self.observation_space = observation_space(schema)
        self.action_space = box(schema.action)
        self.size = size
        self._tell = tell
        self._told = Told()
        self._trail = [START]
        self._velocity = np.zeros(2)
        self._steps = 0
        self._route = "none"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Return (observation, info) with the puck at rest at the start that `seed` determines."""
        super().reset(seed=seed, options=options)
        self._trail = [START + self.np_random.uniform(-1.0, 1.0, 2) * START_SPREAD]
        self._velocity = np.zeros(2)
        self._steps, self._route = 0, "none"
        self._told = self._tell(self.np_random, options or {})
        return self._observation(), self._info(success=False)

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Return (observation, reward, terminated, truncated, info) after 0.1 s at the commanded velocity [2]."""
        command = checked_action(action, SCHEMA.action)
        self._steps += 1
        slide = slid(self._trail[-1], self._velocity, command, goal=self._told.goal)
        for before, after in pairwise([self._trail[-1], *slide.positions]):
            if before[1] < POST[1] <= after[1]:
                self._route = "left" if after[0] < POST[0] else "right"
        self._trail.extend(slide.positions)
        self._velocity = slide.velocity
        success = slide.reached and self._told.route in (None, self._route)
        terminated, truncated = slide.touched or slide.reached, self._steps >= MAX_STEPS
        return self._observation(), float(success), terminated, truncated, self._info(success=success)

    def _observation(self) -> Observation:
        state = {"position": self._trail[-1], "velocity": self._velocity, **self._told.observations}
        return observed(self._schema, state, self._picture)

    def _info(self, *, success: bool) -> dict[str, Any]:
        info = {"success": success, "score": float(success), "route": self._route}
        return info if self._told.instruction is None else {**info, "instruction": self._told.instruction}

    def render(self) -> NDArray[np.uint8]:
        """Return the scene from above as uint8 [size, size, 3]: post, goal, puck and the way it came.

        Where words say which side, a dot marks each side that they allow.
        """
        return self._picture(self.size)

    def _picture(self, size: int) -> NDArray[np.uint8]:
        sides = () if self._told.instruction is None else SIDES if self._told.route is None else (self._told.route,)
        return picture(size, goal=self._told.goal, trail=self._trail, sides=sides)


@dataclass(frozen=True, eq=False)
class Slide:
    """What one action does: it ends early where the puck touches something or reaches the goal."""

    positions: NDArray[np.float64]
    """After each 0.01 s, [1 to 10, 2] (m)."""
    velocity: NDArray[np.float64]
    """At the end, [2] (m/s)."""
    touched: bool
    reached: bool


def slid(
    position: NDArray[np.float64],
    velocity: NDArray[np.float64],
    command: NDArray[np.float64],
    *,
    goal: NDArray[np.float64],
    posts: NDArray[np.float64] = POST,
    radius: float = POST_RADIUS,
) -> Slide:
    """Return how the puck slides for 0.1 s among `posts` [..., 2], by the exact solution of `v' = (command - v) / LAG`.

    Touching counts before reaching the goal.
    """
    excess = velocity - command
    positions = position + command * TIMES + excess * LAG * (1 - DECAYS)
    gaps = np.linalg.norm(positions[:, None] - posts.reshape(-1, 2), axis=-1) - radius
    touched = (gaps < PUCK).any(1) | (positions - WALLS[0] < PUCK).any(1) | (WALLS[1] - positions < PUCK).any(1)
    reached = np.linalg.norm(positions - goal, axis=1) <= GOAL_RADIUS
    ends = touched | reached
    last = int(ends.argmax()) if ends.any() else SUBSTEPS - 1
    hit = bool(touched[last])
    return Slide(positions[: last + 1], command + excess * DECAYS[last], hit, bool(reached[last]) and not hit)


def picture(
    size: int,
    *,
    goal: NDArray[np.float64],
    trail: Sequence[NDArray[np.float64]],
    sides: Iterable[str] = (),
    posts: Iterable[NDArray[np.float64]] = (POST,),
    radius: float = POST_RADIUS,
) -> NDArray[np.uint8]:
    """Return the floor as uint8 [size, size, 3]: the puck at the end of its `trail`, a dot on each of `sides`."""
    canvas = np.full((size, size, 3), FLOOR, dtype=np.float64)
    rim = max(1, size // 128)
    canvas[:rim] = canvas[-rim:] = canvas[:, :rim] = canvas[:, -rim:] = WALL
    for scale, colour in ((1.0, GOAL_COLOUR), (0.7, FLOOR), (0.4, GOAL_COLOUR)):
        _disc(canvas, goal, GOAL_RADIUS * scale, colour)
    for post in posts:
        _disc(canvas, post, radius, POST_COLOUR)
    for side in sides:
        _disc(canvas, POST + np.array([SIDES[side] * (POST_RADIUS + SIGN_GAP), 0.0]), PUCK * 0.6, GOAL_COLOUR)
    for position in trail[:: SUBSTEPS // 2]:
        _disc(canvas, position, PUCK * 0.25, TRAIL)
    _disc(canvas, trail[-1], PUCK, PUCK_COLOUR)
    return np.rint(canvas).astype(np.uint8)


def _disc(
    picture: NDArray[np.float64], centre: NDArray[np.float64], radius: float, colour: tuple[int, int, int]
) -> None:
    """Paint a disc (m) into `picture` [S, S, 3], its edge softened over one pixel."""
    size = len(picture)
    scale = size / (WALLS[1] - WALLS[0])
    column, row = (centre[0] - WALLS[0, 0]) * scale[0] - 0.5, (WALLS[1, 1] - centre[1]) * scale[1] - 0.5
    r = radius * scale[0]
    top, left = (int(np.clip(np.floor(at - r - 1), 0, size)) for at in (row, column))
    bottom, right = (int(np.clip(np.ceil(at + r + 2), 0, size)) for at in (row, column))
    rows, columns = np.mgrid[top:bottom, left:right]
    cover = np.clip(r + 0.5 - np.hypot(rows - row, columns - column), 0.0, 1.0)[..., None]
    patch = picture[top:bottom, left:right]
    patch += cover * (np.array(colour) - patch)


SIGN_GAP = 0.2
"""Distance (m) from the post to the dot on a side that is told."""
FLOOR, WALL, POST_COLOUR = (248, 248, 246), (190, 190, 186), (88, 92, 104)
GOAL_COLOUR, TRAIL, PUCK_COLOUR = (64, 160, 104), (150, 185, 225), (38, 98, 178)


class Driver:
    """A demonstrator, its side, clearance, speed and unsteady hand drawn from `rng`.

    It steers along the tangent to a circle around the post until the way to the goal is free on its side.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._side = float(rng.choice([-1.0, 1.0]))
        self._radius = POST_RADIUS + PUCK + rng.uniform(0.04, 0.09)
        self._speed = rng.uniform(0.26, 0.34)
        self._tremor = np.zeros(2)
        self._rng = rng

    def act(
        self, observation: Observation, *, goal: NDArray[np.float64] = GOAL, route: str | None = None
    ) -> NDArray[np.float32]:
        """Return the velocity [2] (m/s) on the way to `goal`, past the post by `route`, its own side where None."""
        self._tremor = 0.7 * self._tremor + 0.012 * self._rng.standard_normal(2)
        side = self._side if route is None else SIDES[route]
        position = observation["position"].astype(np.float64)
        post, goal = POST - position, goal - position
        angle = -side * np.arcsin(min(1.0, self._radius / float(np.linalg.norm(post))))
        c, s = np.cos(angle), np.sin(angle)
        way = np.array([c * post[0] - s * post[1], s * post[0] + c * post[1]])
        if side * (way[0] * goal[1] - way[1] * goal[0]) < 0:
            way = goal
        return (self._speed * way / np.linalg.norm(way) + self._tremor).astype(np.float32)


def demonstrator(env: Env[Observation, NDArray[np.float32]], rng: np.random.Generator) -> Act:
    """Return one demonstrator, its choices drawn from `rng`."""
    del env
    return Driver(rng).act


def demonstrate(seed: int, *, make: Callable[[], TwoRoutes] = TwoRoutes) -> Demonstration:
    """Return one demonstrated episode; `seed` fixes the layout and, independently, the side and the hand."""
    layout, rng = split_seed(seed)
    env = make()
    return record(env, layout, demonstrator(env, rng))
