"""Two routes, one of which is told in words: "go left", "go right", or "either way" (m, s, 10 Hz)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..schema import Feature, Schema
from .episode import Act, Demonstration, Env, record, split_seed, spoken
from .two_routes import SCHEMA as PLAIN
from .two_routes import Driver, Told, TwoRoutes

ROUTES: Mapping[str, str | None] = {"go left": "left", "go right": "right", "either way": None}
"""What may be told, and the route that it asks for."""
INSTRUCTION = Feature("instruction", (1,), kind="text", dtype="int64", sentences=tuple(ROUTES))
SCHEMA = Schema(observations=(*PLAIN.observations, INSTRUCTION), action=PLAIN.action)


def tell(rng: np.random.Generator, asked: Mapping[str, Any]) -> Told:
    """Return one of the sentences and what it asks for; of `asked["instruction"]`, if unknown, any route will do."""
    sentence, observed = spoken(INSTRUCTION, rng, asked)
    return Told(route=ROUTES.get(sentence), observations=observed, instruction=sentence)


def make() -> TwoRoutes:
    """Return the environment."""
    return TwoRoutes(SCHEMA, tell=tell)


def demonstrator(env: Env, rng: np.random.Generator) -> Act:
    """Return one demonstrator, its choices drawn from `rng`."""
    del env
    driver, routes = Driver(rng), tuple(ROUTES.values())
    return lambda seen: driver.act(seen, route=routes[int(seen["instruction"][0])])


def demonstrate(seed: int) -> Demonstration:
    """Return one demonstrated episode; `seed` fixes start and words and, independently, what they leave open."""
    layout, rng = split_seed(seed)
    env = make()
    return record(env, layout, demonstrator(env, rng))
