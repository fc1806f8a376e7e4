"""What an environment takes and returns: spaces, observations, actions, `info`, pictures, the end of an episode."""

import numbers
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import check_reset_options
from gymnasium.utils.passive_env_checker import env_reset_passive_checker, env_step_passive_checker

from ..errors import SchemaError
from ..schema import UNKNOWN, Feature
from .env_subject import Subject
from .findings import Broken, told, world
from .played import Played, advance, begin, difference, play, unlike

VECTORS = "policies command vectors: flatten it, and turn choices into numbers"


def constructed(subject: Subject) -> str:
    """Return what was made."""
    return type(subject.env).__name__


def interface(subject: Subject) -> str:
    """Return how far an episode of random actions got; Gymnasium's own checks are asked what methods may return."""
    env = subject.env
    with _noted() as words:
        check_reset_options(env)
        env_reset_passive_checker(env, seed=subject.seeds[0])
        env_step_passive_checker(env, subject.actions(0, 1)[0])
    # What observations are is the next checks' to say.
    said = [word for word in words if "The obs returned" not in word]
    if said:
        raise Broken(said[0], "see gymnasium.Env: reset(seed, options) -> 2 values, step(action) -> 5 values")
    return f"{subject.beginning(subject.seeds[0]).steps} steps of random actions"


@contextmanager
def _noted() -> Generator[list[str]]:
    """Yield a list that holds, after the block, what it warned of, in plain words."""
    words: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield words
    words += [re.sub(r"\x1b\[\d+m|WARN: ", "", str(each.message)) for each in caught]


def observation_space(subject: Subject) -> str:
    """Return the features that a schema would have."""
    space = subject.env.observation_space
    if not isinstance(space, spaces.Dict) or not len(space.spaces):
        raise Broken(
            f"expected a Dict space of observations by name, got {space}", 'wrap it: spaces.Dict({"state": Box(...)})'
        )
    kinds = {name: _kind(name, part) for name, part in space.spaces.items()}
    return ", ".join(f"{name}: {kind}" for name, kind in kinds.items())


def _kind(name: str, space: spaces.Space[Any]) -> str:
    """Return which kind of feature says what `space` holds; `Broken` where none does."""
    remedy = "states are Box float32 [D], images Box uint8 [height, width, 3] in 0..255, texts Box int64 [1] from 0"
    if isinstance(space, spaces.Box):
        if space.dtype == np.float32 and len(space.shape) == 1:
            return "vector"
        if space.dtype == np.uint8 and space.low.min() == 0 and space.high.max() == 255:
            try:
                return Feature(name, space.shape, kind="image").kind
            except SchemaError as error:
                raise Broken(str(error), remedy) from error
        if space.dtype == np.int64 and space.shape == (1,) and space.low.min() in (UNKNOWN, 0):
            return "text"
    raise Broken(f"observation {name!r}: expected a state, an image or a text, got {space}", remedy)


def action_space(subject: Subject) -> str:
    """Return type and shape of an action, which is made of numbers."""
    space = subject.env.action_space
    if not isinstance(space, spaces.Box):
        raise Broken(f"expected a Box float32 [A] of actions, got {space}", VECTORS)
    return f"{space.dtype} {space.shape}"


def action_limits(subject: Subject) -> str:
    """Return the size of an action."""
    space = _box(subject)
    if len(space.shape) != 1 or space.dtype != np.float32:
        raise Broken(f"expected a Box float32 [A] of actions, got {space}", VECTORS)
    if not space.is_bounded():
        raise Broken(
            f"expected actions with a smallest and a largest value, got {space.low.min():g}..{space.high.max():g}",
            "state the limits of the motors: normalisers and safety rest on them",
        )
    return f"{space.shape[0]} elements"


def observations(subject: Subject) -> str:
    """Return how many observations were looked at."""
    episodes, space = subject.whole, subject.env.observation_space
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
    for episode in episodes:
        for step, seen in enumerate(episode.observations):
            if seen.keys() != parts.keys():
                raise Broken(
                    f"expected the observations {sorted(parts)}, got {sorted(seen)} after step {step}",
                    "return every feature of observation_space, at the reset too",
                )
            for name, value in seen.items():
                _check_value(name, value, parts[name], step)
    return f"{sum(len(episode.observations) for episode in episodes)} observations"


def _check_value(name: str, value: Any, space: spaces.Space[Any], step: int) -> None:  # noqa: ANN401
    where = f"observation {name!r} after step {step}"
    if not isinstance(value, np.ndarray) or value.dtype != space.dtype or value.shape != space.shape:
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise Broken(
            f"{where}: expected an array {space.dtype} {space.shape}, got {got}",
            "convert it where the observation is made, .astype(...)",
        )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise Broken(f"{where}: expected finite numbers, got {value.ravel()[:6]}", "end the episode before it diverges")
    if not space.contains(value):
        raise Broken(
            f"{where}: expected values inside {space}, got {value.min()}..{value.max()}",
            "state the true range, or none (-inf, inf) where there is none",
        )


def actions_outside(subject: Subject) -> str:
    """Return whether actions beyond the space, on both sides, are limited or refused."""
    space, seed = _box(subject), subject.seeds[0]
    reach = space.high - space.low
    refused: list[str] = []
    for side, end, beyond in (
        ("above", space.high, space.high + reach),
        ("below", space.low, space.low - reach),
    ):
        try:
            obeyed = play(subject.env, seed, [beyond.astype(space.dtype)] * 3)
        except Exception as error:
            refused.append(_refused(error))
            continue
        if (where := difference(obeyed, play(subject.env, seed, [end.copy()] * 3))) is not None:
            raise Broken(
                f"expected an action {side} the space to act like the nearest legal one, or an error, got another "
                f"{where}",
                "np.clip(action, low, high) first thing in step, as a motor driver does",
            )
    return refused[0] if refused else "limited to the space"


def actions_nan(subject: Subject) -> str:
    """Return what becomes of an action that is not a number."""
    nan = np.full_like(_box(subject).low, np.nan)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            played = play(subject.env, subject.seeds[0], [nan, *subject.actions(0, 3)])
    except Exception as error:
        return _refused(error)
    if not (np.isfinite(played.rewards).all() and all(_finite(seen) for seen in played.observations)):
        raise Broken(
            "expected an error for an action that is not a number, got an episode that goes on with NaN",
            "raise ValueError in step unless np.isfinite(action).all()",
        )
    return "taken as some number"


def actions_shape(subject: Subject) -> str:
    """Return how an action of another size is refused."""
    size = _box(subject).shape[0]
    refusal = ""
    for shape in ((size + 1,), (), (1, size)):
        try:
            play(subject.env, subject.seeds[0], [np.zeros(shape, np.float32)])
        except Exception as error:
            refusal = _refused(error)
        else:
            raise Broken(
                f"expected an error for an action of shape {shape} instead of ({size},), got none",
                "compare action.shape in step: numpy would spread one number over all motors",
            )
    return refusal


def actions_kept(subject: Subject) -> str:
    """Return that the arrays which were passed are as they were."""
    space = _box(subject)
    for action in (subject.middle, (2 * space.high - space.low).astype(space.dtype)):
        before = action.copy()
        try:
            subject.env.reset(seed=subject.seeds[0])
            subject.env.step(action)
        except Exception:  # noqa: S112 - `actions outside` looks at what is refused
            continue
        if unlike({"": action}, {"": before}) is not None:
            raise Broken(
                f"expected step to leave the action as it is, got {before} turned into {action}",
                "np.clip without out=, no action *= ...: the caller records what it sent",
            )
    return ""


def _box(subject: Subject) -> spaces.Box:
    space = subject.env.action_space
    assert isinstance(space, spaces.Box), "the check of the action space comes first"
    return space


def _finite(seen: dict[str, Any]) -> bool:
    return all(bool(np.isfinite(value).all()) for value in seen.values())


def _refused(error: Exception) -> str:
    if not str(error).strip():
        raise Broken(
            f"expected an error that says what is wrong, got {told(error)}", "name what was expected and what came"
        )
    return f"refused: {told(error)}"


def info(subject: Subject) -> str:
    """Return which of what is told by `info` was there."""
    remedy = 'info = {"success": bool, "score": float in [0, 1]}, and "route": str where there are several ways'
    for episode in subject.whole:
        for step, said in enumerate(episode.infos, 1):
            if missing := {"success", "score"} - said.keys():
                raise Broken(f"expected success and score in info, got no {sorted(missing)} at step {step}", remedy)
            if not isinstance(said["success"], bool | np.bool_):
                raise Broken(f"expected info['success'] to be a bool, got {said['success']!r} at step {step}", remedy)
            score = said["score"]
            if not isinstance(score, numbers.Real | np.floating) or not 0 <= float(score) <= 1:
                raise Broken(f"expected info['score'] in [0, 1], got {score!r} at step {step}", remedy)
            for name in ("route", "instruction"):
                if not isinstance(said.get(name, ""), str):
                    raise Broken(f"expected info[{name!r}] to be a str, got {said[name]!r} at step {step}", remedy)
    return ", ".join(subject.whole[0].infos[-1])


def success(subject: Subject) -> str:
    """Return whether a success was seen, and ended its episode."""
    seen = 0
    for episode in subject.whole:
        for step, said in enumerate(episode.infos):
            if not said["success"]:
                continue
            seen += 1
            if not episode.terminated[step]:
                raise Broken(
                    f"expected success to end the episode, got success at step {step + 1} and terminated=False",
                    "return terminated=True with success: of an episode, its last info counts",
                )
    steps = sum(episode.steps for episode in subject.whole)
    return f"{seen} successes" if seen else f"no success in {steps} steps of still and random actions: not seen"


def truncation(subject: Subject) -> str:
    """Return how long the episodes were."""
    still, random = subject.whole
    for seed, episode in zip(subject.seeds, (still, random), strict=False):
        if not episode.ended:
            raise Broken(
                f"expected episodes to end within {subject.steps} steps, got seed {seed} still running",
                "return truncated=True after a largest number of steps; if it is more, say so by --steps",
            )
    return f"{still.steps} steps standing still, {random.steps} steps of random actions"


def again(subject: Subject) -> str:
    """Return what a step after the end does; a reset must be possible then, and in the middle, without a seed too."""
    env = subject.env
    subject.beginning(subject.seeds[0])
    env.reset()
    ended = subject.whole[1].ended
    try:
        env.step(subject.middle)
        after = "is executed"
    except Exception as error:
        after = f"is {_refused(error)}" if str(error) else "is refused"
    env.reset(seed=subject.seeds[0])
    return f"a step after the end {after}" if ended else "no episode ended: a step after the end was not seen"


def pictures(subject: Subject) -> str:
    """Return the size of a picture."""
    env, seed = subject.env, subject.seeds[0]
    env.reset(seed=seed)
    remedy = 'render_mode = "rgb_array" without being asked; pictures are uint8 [height, width, 3]'
    seen: Any = env.render()
    if not isinstance(seen, np.ndarray) or seen.dtype != np.uint8 or seen.ndim != 3 or seen.shape[2] != 3:
        got = f"{seen.dtype} {seen.shape}" if isinstance(seen, np.ndarray) else type(seen).__name__
        raise Broken(f"expected render() to return uint8 [height, width, 3], got {got}", remedy)
    watched, unwatched = (_beginning(subject, draw=draw) for draw in (True, False))
    if (where := difference(watched, unwatched)) is not None:
        raise Broken(f"expected rendering to change nothing, got another {where}", "let render only look")
    return f"{seen.shape[1]} x {seen.shape[0]} pixels"


def _beginning(subject: Subject, *, draw: bool) -> Played:
    """Return the first steps of an episode of which every one is drawn, or none."""
    with world(0):
        played = begin(subject.env, subject.seeds[0])
        for action in subject.actions(subject.seeds[0], 5):
            if played.ended:
                break
            if draw:
                subject.env.render()
            advance(subject.env, played, action)
    return played


def closed(subject: Subject) -> str:
    """Return nothing: closing works, and closing again does."""
    subject.env.close()
    subject.env.close()
    return ""
