"""What every task shares: spaces from a schema, checked actions, and recording one demonstration."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from ..errors import TaskError, did_you_mean
from ..schema import UNKNOWN, Feature, Schema

Observation = dict[str, NDArray[Any]]
"""States float32, images uint8, texts int64 (which sentence, or `UNKNOWN`), by feature name."""
Env = gymnasium.Env[Observation, NDArray[np.float32]]


Act = Callable[[Observation], NDArray[np.float32]]
"""What acts in an episode: observation -> action [A]."""


@dataclass(frozen=True)
class Demonstration:
    """One demonstrated episode: `observations[name][i]` is what was seen before `actions[i]`."""

    observations: Observation
    """By feature name, [T, ...]."""
    actions: NDArray[np.float32]
    """[T, A], robot units."""
    success: bool
    score: float
    """In [0, 1], as the environment reports it at the end."""
    route: str | None = None
    """Which of several ways the demonstrator took, where the task has such ways."""


def box(feature: Feature) -> spaces.Space[NDArray[Any]]:
    """Return the space of one feature; a state is unbounded where the schema states no range."""
    if feature.kind == "image":
        space = spaces.Box(0, 255, feature.shape, np.uint8)
    elif feature.kind == "text":
        space = spaces.Box(UNKNOWN, len(feature.sentences) - 1, feature.shape, np.int64)
    else:
        low, high = (end.astype(np.float32) for end in feature.bounds)
        space = spaces.Box(low, high, feature.shape, np.float32)
    return cast(spaces.Space[NDArray[Any]], space)


def observation_space(schema: Schema) -> spaces.Space[Observation]:
    """Return the Dict space of the schema's observations."""
    space = spaces.Dict({feature.name: box(feature) for feature in schema.observations})
    return cast(spaces.Space[Observation], space)


def observed(
    schema: Schema, state: Mapping[str, NDArray[Any]], picture: Callable[[int], NDArray[np.uint8]]
) -> Observation:
    """Return the schema's observations: copies of what `state` has of them, and `picture(size)` for what it has not."""
    return {
        f.name: state[f.name].astype(f.dtype) if f.name in state else picture(f.shape[0]) for f in schema.observations
    }


def checked_action(action: ArrayLike, feature: Feature) -> NDArray[np.float64]:
    """Return `action` in float64, each element limited to the legal range as a motor driver limits it.

    `TaskError` if it has another shape than the feature or is not finite.
    """
    values = np.asarray(action, dtype=np.float64)
    if values.shape != feature.shape:
        raise TaskError(f"expected an action of shape {feature.shape}, got {values.shape}: pass one action a step")
    if not np.isfinite(values).all():
        raise TaskError(f"expected a finite action, got {values.tolist()}: check the policy that computed it")
    return np.clip(values, *feature.bounds)


def spoken(feature: Feature, rng: np.random.Generator, asked: Mapping[str, Any]) -> tuple[str, Observation]:
    """Return the sentence that an episode is told, and the observation of the text `feature` that says so.

    `asked["instruction"]` sets it, in whatever case and spacing. One that is not among the feature's is observed as
    `UNKNOWN`: who says such a sentence gives its embedding to the policy instead. `TaskError` for anything else asked.
    """
    check_asked(asked, ("instruction",))
    position = int(rng.integers(len(feature.sentences)))
    sentence = asked.get("instruction", feature.sentences[position])
    if not isinstance(sentence, str):
        raise TaskError(f"expected options['instruction'] as a text, got {sentence!r}: say a sentence")
    if "instruction" in asked:
        known = feature.position(sentence)
        position, sentence = (UNKNOWN, sentence) if known is None else (known, feature.sentences[known])
    return sentence, {feature.name: np.array([position], np.int64)}


def check_asked(asked: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise `TaskError` unless `reset(options=...)` asks for nothing but `known`."""
    for name in asked:
        if name not in known:
            what = did_you_mean(name, known) if known else "this task takes none"
            raise TaskError(f"expected options of reset that the task knows, got {name!r}: {what}")


def split_seed(seed: int) -> tuple[int, np.random.Generator]:
    """Return (seed of the layout, generator of the demonstrator's choices), independent of each other."""
    if seed < 0:
        raise TaskError(f"expected a seed >= 0, got {seed}")
    layout, choices = np.random.SeedSequence(seed).spawn(2)
    return int(layout.generate_state(1, np.uint64)[0] >> 1), np.random.default_rng(choices)


def record(env: Env, layout: int, act: Act) -> Demonstration:
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
