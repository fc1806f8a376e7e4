"""A demonstrator of the manipulation tasks, as people are: it takes a side, its time, a rest, and has an unsteady hand.

What to do once it is at the object, a task's guide knows; guides are exactly deterministic and take one way only. So
everything in which people differ is drawn here, and the guide, who looks at every step, corrects the hand's errors.
The recorded actions are those that were carried out, errors included.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import TaskError
from .episode import Act, Demonstration, Env, Observation, record, split_seed
from .sawyer import GAIN, NEAR, Sawyer

SHARES: Mapping[str, float] = {"left": 0.45, "right": 0.40, "over": 0.15}
"""How often each way to the object is taken."""
ARRIVED = 0.03
"""A point on the way counts as reached when the hand is this near (m)."""
SPEEDS = (0.6, 1.0)
"""Share of the fastest motion that a demonstrator uses on the way; the grasp itself is at the guide's own pace."""
RESTS, REST_STEPS = 0.004, (4, 16)
"""Chance a step of taking a rest, and how many steps one lasts."""
TREMOR, STEADINESS = 0.1, 0.8
"""Standard deviation of the hand's error, in units of the action, and its correlation from step to step."""
CARE = 0.3
"""Share of that error which is left at the object: people are steadier with what is delicate."""
LIFTED = 0.04
"""Height (m) above which the object is not at its place any more."""


class Driver:
    """One demonstrator of `env`, its choices drawn from `rng`; `route` is the way it takes."""

    def __init__(self, env: Sawyer, rng: np.random.Generator) -> None:
        self.route = str(rng.choice(list(SHARES), p=list(SHARES.values())))
        self._env, self._rng = env, rng
        self._speed = rng.uniform(*SPEEDS)
        self._tremor = np.zeros(3)
        self._resting = 0
        self._way: list[NDArray[np.float64]] | None = None

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the action [4] that follows; the observation may hide the object, the demonstrator sees it."""
        del observation
        hand = self._env.hand
        if self._way is None:
            self._way = self._env.way(self.route)
        while self._way and np.linalg.norm(hand - self._way[0]) < ARRIVED:
            self._way.pop(0)
        command = np.array([*GAIN * (self._way[0] - hand), -1.0]) if self._way else self._env.guide()
        careful = not self._way and self._at_object(hand)
        fresh = np.sqrt(1 - STEADINESS**2) * TREMOR * self._rng.standard_normal(3)
        self._tremor = STEADINESS * self._tremor + fresh
        if not self._resting and not careful and self._rng.uniform() < RESTS:
            self._resting = int(self._rng.integers(*REST_STEPS))
        pace, error = (1.0, CARE) if careful else (self._speed, 1.0)
        motion = pace * np.clip(command[:3], -1.0, 1.0) + error * self._tremor
        if self._resting:
            self._resting -= 1
            motion = np.zeros(3)
        return np.clip([*motion, command[3]], -1.0, 1.0).astype(np.float32)

    def _at_object(self, hand: NDArray[np.float64]) -> bool:
        """Return whether the hand is over an object that lies at its place."""
        at = self._env.object_position
        return bool(np.linalg.norm(hand[:2] - at[:2]) < NEAR and at[2] < LIFTED)


def demonstrator(env: Env, rng: np.random.Generator) -> Act:
    """Return one demonstrator of a `Sawyer`, its choices drawn from `rng`."""
    if not isinstance(env.unwrapped, Sawyer):
        raise TaskError(f"expected a manipulation task to demonstrate in, got {env.unwrapped}")
    return Driver(env.unwrapped, rng).act


def demonstrate(seed: int, *, make: Callable[..., Sawyer]) -> Demonstration:
    """Return one demonstrated episode; `seed` fixes the layout and, independently, what the demonstrator chooses."""
    layout, rng = split_seed(seed)
    env = make(layouts="training")
    return record(env, layout, demonstrator(env, rng))
