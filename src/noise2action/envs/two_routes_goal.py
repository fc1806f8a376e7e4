"""Two routes to a goal that is somewhere else in every episode, told as a position and as a picture (m, s, 10 Hz)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..schema import Feature, Schema
from .episode import Demonstration, record, split_seed
from .two_routes import SCHEMA as PLAIN
from .two_routes import WALLS, Driver, Told, TwoRoutes, picture

GOALS = np.array([[-0.3, 0.72], [0.3, 0.88]])
"""Corners of the box (m) that goals are drawn from."""
PIXELS = 48
"""Side of the picture."""
SCHEMA = Schema(
    observations=(
        *PLAIN.observations,
        Feature("goal", (2,), unit="m", low=float(WALLS.min()), high=float(WALLS.max()), goal=True),
        Feature("goal_image", (PIXELS, PIXELS, 3), kind="image", dtype="uint8", goal=True),
    ),
    action=PLAIN.action,
)


def tell(rng: np.random.Generator, asked: Mapping[str, Any]) -> Told:
    """Return a goal, and the picture of the puck that lies there; `asked["goal"]` [2] (m) sets it."""
    drawn = rng.uniform(*GOALS)
    goal = np.asarray(asked.get("goal", drawn), dtype=np.float64)
    seen = picture(PIXELS, goal=goal, trail=[goal])
    return Told(goal, observations={"goal": goal.astype(np.float32), "goal_image": seen})


def make() -> TwoRoutes:
    """Return the environment."""
    return TwoRoutes(SCHEMA, tell=tell)


def demonstrate(seed: int) -> Demonstration:
    """Return one demonstrated episode; `seed` fixes start and goal and, independently, the side and the hand."""
    layout, rng = split_seed(seed)
    driver = Driver(rng)
    return record(make(), layout, lambda seen: driver.act(seen, goal=seen["goal"].astype(np.float64)))
