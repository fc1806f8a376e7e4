"""Any environment with noisy sensors and motors: an episode's noise follows from its seed, whatever the policy does."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..schema import Schema
from .episode import Env, Observation
from .task import Task


@dataclass(frozen=True, eq=False)
class Noise:
    """Standard deviations of independent normal errors, fresh at every step."""

    observation: Mapping[str, NDArray[np.float64]] = field(default_factory=dict[str, NDArray[np.float64]])
    """By feature, [D] in its units; what is not named is observed as it is."""
    action: float = 0.0
    """As a share of the legal range of each element; what leaves the range is limited to it."""


class Disturbed(gymnasium.Wrapper[Observation, NDArray[np.float32], Observation, NDArray[np.float32]]):
    """`env` seen and driven through `noise`; success and score are those of what really happens.

    As many numbers are drawn for no noise as for much, so that episodes of one seed differ in its strength alone.
    """

    def __init__(self, env: Env, schema: Schema, noise: Noise) -> None:
        super().__init__(env)
        self._schema, self._noise = schema, noise
        self._rng = np.random.default_rng()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Return (observation, info) of the episode that `seed` determines, its noise included."""
        if seed is not None:
            self._rng = np.random.default_rng((seed, 1))
        observation, info = self.env.reset(seed=seed, options=options)
        return self._seen(observation), info

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Return what `env` does under the disturbed `action` [A]."""
        low, high = self._schema.action.bounds
        assert np.isfinite(high - low).all(), "actions have a range"
        error = self._noise.action * (high - low) * self._rng.standard_normal(np.shape(action))
        carried = np.clip(action + error, low, high).astype(np.float32)
        observation, reward, terminated, truncated, info = self.env.step(carried)
        return self._seen(observation), float(reward), terminated, truncated, info

    def _seen(self, observation: Observation) -> Observation:
        seen = dict(observation)
        for feature in self._schema.observations:
            if feature.is_state:
                error = self._rng.standard_normal(feature.shape) * self._noise.observation.get(feature.name, 0.0)
                seen[feature.name] = (seen[feature.name] + error).astype(np.float32)
        return seen


def noisy(task: Task, noise: Noise) -> Task:
    """Return `task` with the same demonstrator and noisy episodes."""
    return replace(task, make=partial(_made, task, noise))


def _made(task: Task, noise: Noise) -> Env:
    return Disturbed(task.make(), task.schema, noise)
