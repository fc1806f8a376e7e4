"""Who acts in the episodes: a method's policy, random actions, or the demonstrator; and what is kept of a failure."""

from contextlib import closing
from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import UInt8

from ..envs.episode import record
from ..envs.tasks import Task, find
from ..evaluate.rollouts import EpisodeResult
from ..evaluate.smoothness import jumps, rms_jerk
from ..policies import PolicySpec, SampledPolicy
from ..policies.policy import Policy
from ..recipes.runs import open_policy
from ..seeds import derive
from .methods import Method, RandomPolicy
from .settings import Place

FAILURES = 4
"""Failed episodes that run together whose last frame is kept, and of all the most that are shown."""
Picture = UInt8[np.ndarray, "h w 3"]


def policy_of(place: Place, method: Method, seed: int) -> Policy:
    """Return the policy that a method runs."""
    if method.training is None:
        return _random(place)
    policy, checkpoint = open_policy(place.run(method.training, seed))
    sampling = method.sampling(checkpoint.deployed.policy)
    return policy.resampled(sampling) if sampling is not None and isinstance(policy, SampledPolicy) else policy


def _random(place: Place) -> RandomPolicy:
    """Return uniform actions within the range that the task allows."""
    task = find(place.task)
    spec = PolicySpec(obs_steps=1, horizon=1, stride=1, control_hz=task.control_hz)
    low, high = (torch.tensor(np.array(end, dtype=np.float32)) for end in task.schema.action.bounds)
    return RandomPolicy(task.schema, low, high, spec)


def demonstration(task: Task, seed: int, episode: int) -> EpisodeResult:
    """Return what the demonstrator does in an episode of the evaluation, the layout that every method has."""
    with closing(task.make()) as env:
        rng = np.random.default_rng(derive(seed, "demonstrator", episode))
        made = record(env, episode, task.demonstrator(env, rng))
    # Nobody can say where a demonstrator plans anew.
    found = jumps(made.actions, np.zeros(len(made.actions), dtype=np.bool_))
    jerk = rms_jerk(made.actions, task.control_hz)
    return EpisodeResult(episode, made.success, made.score, len(made.actions), made.route, jerk, None, found.within)


class LastFrame(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps the last frame of a failed episode by its seed, for the few lowest seeds: early ends are no better kept."""

    def __init__(self, env: gymnasium.Env[Any, Any], kept: dict[int, Any]) -> None:
        super().__init__(env)
        self._kept, self._seed = kept, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Return what the environment returns."""
        self._seed = seed or 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:  # noqa: ANN401 - gymnasium's interface
        """Return what the environment returns."""
        observation, reward, terminated, truncated, info = super().step(action)
        failed = (terminated or truncated) and not info.get("success", True)
        if failed and (len(self._kept) < FAILURES or self._seed < max(self._kept)):
            self._kept[self._seed] = self.env.render()
            for seed in sorted(self._kept)[FAILURES:]:
                del self._kept[seed]
        return observation, reward, terminated, truncated, info
