"""What every task shares: spaces from a schema, checked actions, and recording one demonstration."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from ..errors import TaskError
from ..schema import Feature, Schema

Observation = dict[str, NDArray[np.float32]]
Env = gymnasium.Env[Observation, NDArray[np.float32]]


@dataclass(frozen=True)
class Demonstration:
    """One demonstrated episode: `observations[name][i]` is what was seen before `actions[i]`."""

    observations: dict[str, NDArray[np.float32]]
    """By feature name, [T, ...]."""
    actions: NDArray[np.float32]
    """[T, A], robot units."""
    success: bool
    score: float
    """In [0, 1], as the environment reports it at the end."""
    route: str | None = None
    """Which of several ways the demonstrator took, where the task has such ways."""


def box(feature: Feature) -> spaces.Space[NDArray[np.float32]]:
    """Return the space of one feature, unbounded where the schema states no range."""
    low = -np.inf if feature.low is None else feature.low
    high = np.inf if feature.high is None else feature.high
    space = spaces.Box(np.float32(low), np.float32(high), feature.shape, np.float32)
    return cast(spaces.Space[NDArray[np.float32]], space)


def observation_space(schema: Schema) -> spaces.Space[Observation]:
    """Return the Dict space of the schema's observations."""
    space = spaces.Dict({feature.name: box(feature) for feature in schema.observations})
    return cast(spaces.Space[Observation], space)


def checked_action(action: ArrayLike, feature: Feature) -> NDArray[np.float64]:
    """Return `action` in float64, each element limited to the legal range as a motor driver limits it.

    `TaskError` if it has another shape than the feature or is not finite.
    """
    values = np.asarray(action, dtype=np.float64)
    if values.shape != feature.shape:
        raise TaskError(f"expected an action of shape {feature.shape}, got {values.shape}: pass one action a step")
    if not np.isfinite(values).all():
        raise TaskError(f"expected a finite action, got {values.tolist()}: check the policy that computed it")
    return np.clip(values, feature.low, feature.high)


def split_seed(seed: int) -> tuple[int, np.random.Generator]:
    """Return (seed of the layout, generator of the demonstrator's choices), independent of each other."""
    if seed < 0:
        raise TaskError(f"expected a seed >= 0, got {seed}")
    layout, choices = np.random.SeedSequence(seed).spawn(2)
    return int(layout.generate_state(1, np.uint64)[0] >> 1), np.random.default_rng(choices)


def record(env: Env, layout: int, act: Callable[[Observation], NDArray[np.float32]]) -> Demonstration:
    """Return the episode that `act` (observation -> action) makes of the layout `reset(seed=layout)`."""
    observation, info = env.reset(seed=layout)
    seen: list[Mapping[str, NDArray[np.float32]]] = []
    actions: list[NDArray[np.float32]] = []
    ended = False
    while not ended:
        seen.append(observation)
        actions.append(act(observation))
        observation, _, terminated, truncated, info = env.step(actions[-1])
        ended = terminated or truncated
    return Demonstration(
        observations={name: np.stack([o[name] for o in seen]) for name in seen[0]},
        actions=np.stack(actions),
        success=bool(info["success"]),
        score=float(info["score"]),
        route=info.get("route"),
    )
