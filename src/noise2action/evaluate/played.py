"""An episode of somebody else's environment as it was seen, copied at once so that nothing later changes it."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from .findings import world

AnyEnv = gymnasium.Env[Any, Any]
AnyAction = NDArray[Any]
TOLD = ("success", "score", "route", "instruction")
"""What of `info` this project reads."""


@dataclass(eq=False)
class Played:
    """One episode, or its beginning."""

    observations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """One more than there are steps; copies."""
    returned: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """The same as the environment returned them."""
    rewards: list[float] = field(default_factory=list[float])
    terminated: list[bool] = field(default_factory=list[bool])
    truncated: list[bool] = field(default_factory=list[bool])
    infos: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """One a step; that of the reset is not among them."""
    pictures: list[Any] = field(default_factory=list[Any])
    """As rendered at the start and at the end; None where rendering failed."""

    @property
    def steps(self) -> int:
        """How many steps were played."""
        return len(self.rewards)

    @property
    def ended(self) -> bool:
        """Whether the environment said that the episode is over."""
        return bool(self.steps) and (self.terminated[-1] or self.truncated[-1])

    def see(self, observation: object, *, spoil: bool) -> None:
        """Keep an observation, and overwrite what was returned with `spoil`."""
        parts = named(observation)
        self.observations.append(copy.deepcopy(parts))
        self.returned.append(parts)
        for value in parts.values() if spoil else ():
            if isinstance(value, np.ndarray) and value.flags.writeable:
                value[...] = 0


def play(
    env: AnyEnv,
    seed: int,
    actions: Sequence[AnyAction],
    *,
    world_seed: int = 0,
    pictures: bool = False,
    spoil: bool = False,
) -> Played:
    """Return the episode of `seed` until it ends or the actions do; the global generators start from `world_seed`.

    With `pictures` its start and its end are rendered. With `spoil` the observations that the environment returns are
    overwritten as soon as they were copied.
    """
    with world(world_seed):
        played = begin(env, seed, spoil=spoil)
        if pictures:
            played.pictures.append(picture(env))
        for action in actions:
            if played.ended:
                break
            advance(env, played, action, spoil=spoil)
        if pictures and played.steps:
            played.pictures.append(picture(env))
    return played


def begin(env: AnyEnv, seed: int, *, spoil: bool = False) -> Played:
    """Return an episode of which nothing but the reset has been played."""
    played = Played()
    observation, _ = env.reset(seed=seed)
    played.see(observation, spoil=spoil)
    return played


def advance(env: AnyEnv, played: Played, action: AnyAction, *, spoil: bool = False) -> None:
    """Play one more step."""
    observation, reward, terminated, truncated, info = env.step(action.copy())
    played.rewards.append(float(reward))
    played.terminated.append(bool(terminated))
    played.truncated.append(bool(truncated))
    played.infos.append({name: info[name] for name in TOLD if name in info})
    played.see(observation, spoil=spoil)


def named(observation: object) -> dict[str, Any]:
    """Return an observation by feature; one that is no dictionary has one feature, called "observation"."""
    return dict(observation) if isinstance(observation, Mapping) else {"observation": observation}


def picture(env: AnyEnv) -> Any:  # noqa: ANN401 - whatever it renders
    """Return a copy of what `env` renders; None where it fails, which is a check of its own."""
    try:
        return copy.deepcopy(env.render())
    except (Exception, SystemExit):
        return None


def difference(a: Played, b: Played) -> str | None:
    """Return where two episodes first differ, bit for bit; None where they do not."""
    for step, (x, y) in enumerate(zip(a.observations, b.observations, strict=False)):
        if (name := unlike(x, y)) is not None:
            return f"observation {name!r} after step {step}" if step else f"observation {name!r} after the reset"
        if step and (name := unlike(_outcome(a, step - 1), _outcome(b, step - 1))) is not None:
            return f"{name} of step {step}"
    if a.steps != b.steps:
        return f"the length: {a.steps} and {b.steps} steps"
    for when, x, y in zip(("after the reset", "at the end"), a.pictures, b.pictures, strict=False):
        if unlike({"": x}, {"": y}) is not None:
            return f"the picture {when}"
    return None


def _outcome(played: Played, step: int) -> dict[str, Any]:
    info = {f"info[{name!r}]": value for name, value in played.infos[step].items()}
    ended = {"terminated": played.terminated[step], "truncated": played.truncated[step]}
    return {"the reward": played.rewards[step], **ended, **info}


def unlike(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """Return the first name whose values are not the same bits; None where all are. A NaN equals itself."""
    for name in {**a, **b}:
        if name not in a or name not in b:
            return name
        x, y = np.asarray(a[name]), np.asarray(b[name])
        if x.dtype != y.dtype or x.shape != y.shape or x.tobytes() != y.tobytes():
            return name
    return None
