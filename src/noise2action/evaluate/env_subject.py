"""The environment that is checked: two instances of it, the actions that it is given, and episodes to their end."""

import contextlib
import copy
from collections.abc import Callable
from functools import cached_property

import gymnasium
import numpy as np
from gymnasium import spaces

from .findings import Broken
from .played import AnyAction, AnyEnv, Played, play

FEW = 25
"""Steps of an episode that is compared with itself."""


class Subject:
    """An environment under examination."""

    def __init__(self, make: Callable[[], AnyEnv], seeds: tuple[int, ...], steps: int) -> None:
        self._make, self.seeds, self.steps = make, seeds, steps
        self._made: list[AnyEnv] = []

    def _another(self) -> AnyEnv:
        env = self._make()
        if not isinstance(env, gymnasium.Env):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise Broken(
                f"expected a gymnasium.Env, got {type(env).__name__}",
                "derive the class from gymnasium.Env, with observation_space, action_space, reset and step",
            )
        self._made.append(env)
        return env

    @cached_property
    def env(self) -> AnyEnv:
        """The instance that is looked at."""
        return self._another()

    @cached_property
    def other(self) -> AnyEnv:
        """A second one."""
        return self._another()

    def close(self) -> None:
        """Close what was made, whether or not it can be closed."""
        for env in self._made:
            with contextlib.suppress(Exception, SystemExit):
                env.close()

    def actions(self, seed: int, count: int = FEW) -> list[AnyAction]:
        """Return legal actions, drawn anew for every seed, no more than an episode has steps."""
        space = copy.deepcopy(self.env.action_space)
        space.seed(seed)
        return [np.asarray(space.sample()) for _ in range(min(count, self.steps))]

    @property
    def middle(self) -> AnyAction:
        """The middle of the action space where it has one, else any legal action."""
        space = self.env.action_space
        if isinstance(space, spaces.Box) and space.is_bounded():
            return ((space.low.astype(np.float64) + space.high) / 2).astype(space.dtype)
        return self.actions(0, 1)[0]

    def beginning(self, seed: int, *, world_seed: int = 0, pictures: bool = False) -> Played:
        """Return the first steps of an episode of random actions."""
        return play(self.env, seed, self.actions(seed), world_seed=world_seed, pictures=pictures)

    @cached_property
    def whole(self) -> tuple[Played, Played]:
        """Two episodes to their end: one that always commands the middle, one of random actions."""
        first, second = self.seeds[:2]
        return (
            play(self.env, first, [self.middle] * self.steps),
            play(self.env, second, self.actions(second, self.steps)),
        )
