"""Two routes to a goal that is somewhere else in every episode, told as a position and as a picture (m, s, 10 Hz)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TaskError
from ..schema import Feature, Schema
from .episode import Act, Demonstration, Env, check_asked, record, split_seed
from .two_routes import SCHEMA as PLAIN
from .two_routes import WALLS, Driver, Told, TwoRoutes, picture

GOALS = np.array([[-0.3, 0.72], [0.3, 0.88]])
"""Corners of the box (m) that goals are drawn from."""
PIXELS = 48
"""Side of the picture."""
SCHEMA = Schema(
    observations=(
        *PLAIN.observations,
        Feature("goal", (2,), unit="m", low=tuple(WALLS[0].tolist()), high=tuple(WALLS[1].tolist()), goal=True),
        Feature("goal_image", (PIXELS, PIXELS, 3), kind="image", dtype="uint8", goal=True),
    ),
    action=PLAIN.action,
)


def tell(rng: np.random.Generator, asked: Mapping[str, Any]) -> Told:
    """Return a goal, and the picture of the puck that lies there; `asked["goal"]` [2] (m) sets it.

    `TaskError` for a goal that is not a place within the walls, and for anything else asked.
    """
    check_asked(asked, ("goal",))
    goal = _place(asked.get("goal", rng.uniform(*GOALS)))
    seen = picture(PIXELS, goal=goal, trail=[goal])
    return Told(goal, observations={"goal": goal.astype(np.float32), "goal_image": seen})


def _place(goal: object) -> NDArray[np.float64]:
    """Return `goal` as [2] within the walls."""
    try:
        place = np.asarray(goal, dtype=np.float64)
    except (TypeError, ValueError):
        place = np.full(1, np.nan)
    # Written so that NaN fails as well.
    if place.shape != (2,) or not np.all((place >= WALLS[0]) & (place <= WALLS[1])):
        (left, near), (right, far) = WALLS.tolist()
        raise TaskError(
            f"expected options['goal'] as x in {left:g}..{right:g} and y in {near:g}..{far:g} (m), got {goal!r}: "
            "give a place within the walls"
        )
    return place


def make() -> TwoRoutes:
    """Return the environment."""
    return TwoRoutes(SCHEMA, tell=tell)


def demonstrator(env: Env, rng: np.random.Generator) -> Act:
    """Return one demonstrator, its choices drawn from `rng`."""
    del env
    driver = Driver(rng)
    return lambda seen: driver.act(seen, goal=seen["goal"].astype(np.float64))


def demonstrate(seed: int) -> Demonstration:
    """Return one demonstrated episode; `seed` fixes start and goal and, independently, the side and the hand."""
    layout, rng = split_seed(seed)
    env = make()
    return record(env, layout, demonstrator(env, rng))
