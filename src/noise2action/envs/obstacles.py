"""Obstacles: a sliding puck must find its way between three posts that stand elsewhere each time (m, s, 10 Hz).

One post stands before a row of two. The first is passed on the left or on the right, the row on the left, between its
posts or on the right: the average of two such ways goes through a post. Puck, walls and picture are those of
`two_routes`; what the layout draws is observed.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium import Env
from numpy.typing import ArrayLike, NDArray

from ..errors import TaskError
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
from .two_routes import (
    CONTROL_HZ,
    GOAL,
    MAX_STEPS,
    PUCK,
    TOP_SPEED,
    picture,
    slid,
)

START = np.array([0.0, 0.1])
POST_RADIUS = 0.06
PLACES = np.array([[0.0, 0.33], [-0.19, 0.6], [0.19, 0.6]])
"""Middle of where each post may stand (m)."""
START_SPREAD, POST_SPREAD = 0.04, 0.025
"""Half the side (m) of the squares in which the layout draws the start and each post; a row stays a row."""
ROUTES = tuple(f"{first}-{row}" for first in ("left", "right") for row in ("left", "between", "right"))
"""Every name of a route: on which side the first post was passed, and where the row."""
SHARES = {"left-left": 0.35, "right-right": 0.3, "right-between": 0.2, "left-between": 0.15}
"""How often the demonstrator takes each of the routes that are no detour."""

SCHEMA = Schema(
    observations=(
        Feature("position", (2,), unit="m"),
        Feature("velocity", (2,), unit="m/s"),
        Feature("posts", (6,), unit="m"),
    ),
    action=Feature("action", (2,), unit="m/s", low=-TOP_SPEED, high=TOP_SPEED),
)


class Obstacles(Env[Observation, NDArray[np.float32]]):
    """The puck among the posts; an action is the velocity (m/s) that it is told, as in `two_routes`.

    Success is to reach the goal; touching a post or a wall ends the episode as a failure. `info["route"]` is one of
    `ROUTES`, "none" before the row is passed. The score is 1 on success, else 0. An image in `schema` is what
    `render()` draws.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}  # noqa: RUF012 - gymnasium's interface

    def __init__(self, schema: Schema = SCHEMA, *, layouts: Layouts = "evaluation", size: int = 256) -> None:
        self.render_mode = "rgb_array"
        self._schema = schema
        self.observation_space = observation_space(schema)
        self.action_space = box(SCHEMA.action)
        self._layouts: Layouts = layouts
        self._size = size
        self._posts = PLACES
        self._trail = [START]
        self._velocity = np.zeros(2)
        self._steps = 0
        self._passed = ["none", "none"]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Return (observation, info) with the puck at rest; `seed` determines where it and the posts are."""
        super().reset(seed=seed)
        check_asked(options or {}, ())
        # The row has one y.
        middle = np.array([*START, *PLACES[0], PLACES[1, 0], PLACES[2, 0], PLACES[1, 1]])
        half = np.array([START_SPREAD] * 2 + [POST_SPREAD] * 5)
        x, y, first_x, first_y, left, right, row = draw(self.np_random, middle - half, middle + half, self._layouts)
        self._posts = np.array([[first_x, first_y], [left, row], [right, row]])
        self._trail, self._velocity = [np.array([x, y])], np.zeros(2)
        self._steps, self._passed = 0, ["none", "none"]
        return self._observation(), self._info(success=False)

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Return (observation, reward, terminated, truncated, info) after 0.1 s at the commanded velocity [2]."""
        command = checked_action(action, SCHEMA.action)
        self._steps += 1
        slide = slid(self._trail[-1], self._velocity, command, goal=GOAL, posts=self._posts, radius=POST_RADIUS)
        first, left, right = self._posts
        for (_, before), (x, y) in pairwise([self._trail[-1], *slide.positions]):
            if before < first[1] <= y:
                self._passed[0] = "left" if x < first[0] else "right"
            if before < left[1] <= y:
                self._passed[1] = "left" if x < left[0] else "between" if x < right[0] else "right"
        self._trail.extend(slide.positions)
        self._velocity = slide.velocity
        terminated, truncated = slide.touched or slide.reached, self._steps >= MAX_STEPS
        info = self._info(success=slide.reached)
        return self._observation(), float(slide.reached), terminated, truncated, info

    @property
    def state(self) -> Observation:
        """The whole state by feature name, float32, whether or not it is observed."""
        state = {"position": self._trail[-1], "velocity": self._velocity, "posts": self._posts.ravel()}
        return {name: value.astype(np.float32) for name, value in state.items()}

    def _observation(self) -> Observation:
        return observed(self._schema, self.state, self._picture)

    def _info(self, *, success: bool) -> dict[str, Any]:
        route = "none" if "none" in self._passed else "-".join(self._passed)
        return {"success": success, "score": float(success), "route": route}

    def render(self) -> NDArray[np.uint8]:
        """Return the scene from above as uint8 [size, size, 3]: posts, goal, puck and the way it came."""
        return self._picture(self._size)

    def _picture(self, size: int) -> NDArray[np.uint8]:
        return picture(size, goal=GOAL, trail=self._trail, posts=self._posts, radius=POST_RADIUS)


AHEAD = 0.08
"""How far (m) along its way the demonstrator looks."""
SPEEDS = (0.24, 0.34)
"""What its speed (m/s) is drawn from."""
CLEARANCES = (0.05, 0.09)
"""What its distance (m) from a post is drawn from; between two posts it keeps to the middle."""
TREMOR = 0.02
"""Standard deviation (m/s) of its hand's error."""


class Driver:
    """A demonstrator, its route, clearance, speed and unsteady hand drawn from `rng`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.route = chosen(rng, SHARES)
        self._pursuit: Pursuit | None = None

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the velocity [2] (m/s) that follows."""
        position = observation["position"].astype(np.float64)
        if self._pursuit is None:
            way = self._way(position, observation["posts"].astype(np.float64).reshape(3, 2))
            speed = self._rng.uniform(*SPEEDS)
            self._pursuit = Pursuit(way, ahead=AHEAD, speed=speed, tremor=TREMOR, rng=self._rng)
        return self._pursuit.velocity(position).clip(-TOP_SPEED, TOP_SPEED).astype(np.float32)

    def _way(self, start: NDArray[np.float64], posts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the corners [6, 2] of the route: straight past the first post, and straight past the row."""
        aside = POST_RADIUS + PUCK + self._rng.uniform(*CLEARANCES)
        first, left, right = posts
        side, place = self.route.split("-")
        x = first[0] + (-aside if side == "left" else aside)
        row = {"left": left[0] - aside, "between": (left[0] + right[0]) / 2, "right": right[0] + aside}[place]
        # Straight for half a radius before and behind.
        past = [(at, y + d) for at, y in ((x, first[1]), (row, left[1])) for d in (-POST_RADIUS / 2, POST_RADIUS / 2)]
        return np.array([start, *past, GOAL])


def demonstrator(env: Env[Observation, NDArray[np.float32]], rng: np.random.Generator) -> Act:
    """Return one demonstrator of `Obstacles`, its choices drawn from `rng`; it knows the posts, observed or not."""
    among = env.unwrapped
    if not isinstance(among, Obstacles):
        raise TaskError(f"expected an environment of obstacles to demonstrate in, got {among}: make one of the task")
    driver = Driver(rng)
    return lambda seen: driver.act({**among.state, **seen})


def demonstrate(seed: int, *, make: Callable[..., Obstacles] = Obstacles) -> Demonstration:
    """Return one demonstrated episode; `seed` fixes the layout and, independently, the route and the hand."""
    layout, rng = split_seed(seed)
    env = make(layouts="training")
    return record(env, layout, demonstrator(env, rng))
