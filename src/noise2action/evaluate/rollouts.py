"""Episodes of a policy in a task: paired by seed, many robots in lockstep, one batched plan for all of them.

An episode is fixed by its seed: the layout through `reset(seed=...)`, the sampler's noise through its own generator.
It does not matter, to the last bit, which other episodes run beside it, nor in which process.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from ..control.executor import Executor
from ..envs.tasks import Task
from ..errors import TaskError
from ..policies.policy import Policy
from ..seeds import generator
from .batches import EqualBatches
from .setting import AS_DRAWN, Setting
from .smoothness import jumps, rms_jerk

Progress = Callable[[int], None]
"""Called with the number of episodes that have ended so far."""

MakeExecutor = Callable[[Policy, Sequence[torch.Generator]], Executor]
"""Returns what turns a policy's chunks into actions, for as many robots as there are generators."""


@dataclass(frozen=True)
class Trace:
    """What happened in an episode, for figures and videos."""

    actions: Float[np.ndarray, "T A"]
    """Executed actions, robot units."""
    planned: Bool[np.ndarray, " T"]
    """True where the action is the first of a new chunk."""
    observations: Mapping[str, Float[np.ndarray, "_ D"]]
    """Vector features of every observation, the last one included (T + 1)."""
    frames: UInt8[np.ndarray, "_ h w 3"] | None
    """Rendered frames of a recorded episode, one an observation."""


@dataclass(frozen=True)
class EpisodeResult:
    """One episode: its summary, which is written to the evaluation, and what happened in it."""

    seed: int
    success: bool
    score: float
    steps: int
    route: str | None
    """Which of several ways it took; None in a task without such ways."""
    jerk: float | None
    """Root mean square, action units / s^3; None for fewer than four steps."""
    boundary_jump: float | None
    """Mean distance of consecutive actions where a new chunk begins, action units."""
    within_jump: float | None
    """The same within chunks."""
    instruction: str | None = None
    """The sentence that was told; None in a task without words."""
    trace: Trace | None = field(default=None, compare=False, repr=False)
    """The arrays; not written to JSON."""


def rollout(
    task: Task,
    policy: Policy,
    seeds: Sequence[int],
    *,
    executor: MakeExecutor = Executor,
    sampler_seed: int = 0,
    record: int = 0,
    setting: Setting = AS_DRAWN,
    on_progress: Progress | None = None,
) -> tuple[EpisodeResult, ...]:
    """Return one result a seed, in the order of `seeds`; the first `record` episodes keep their frames.

    All episodes advance together and those that still run share each plan. Environments are closed in every case;
    an interrupt (Ctrl-C) passes through. Raises `TaskError` where an environment breaks its contract.
    """
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"expected distinct seeds, got {list(seeds)}: a repeated episode is no evidence")
    with ExitStack() as stack:
        episodes: list[_Episode] = []
        for k, seed in enumerate(seeds):
            env = task.make()
            stack.callback(env.close)
            episodes.append(_Episode(env, seed, setting=setting, recorded=k < record))
        generators = [generator(sampler_seed, "episode", seed) for seed in seeds]
        _advance(episodes, task, executor(EqualBatches(policy), generators), on_progress)
        return tuple(episode.result(task) for episode in episodes)


def _advance(episodes: Sequence["_Episode"], task: Task, executor: Executor, on_progress: Progress | None) -> None:
    running = np.ones(len(episodes), dtype=np.bool_)
    for _ in range(task.max_steps):
        if not running.any():
            return
        ended = int((~running).sum())
        newest = [episode.seen for episode in episodes]
        actions = executor.act({name: np.stack([o[name] for o in newest]) for name in newest[0]}, active=running)
        for k in np.flatnonzero(running).tolist():
            running[k] = episodes[k].step(actions[k], planned=executor.planned)
        if on_progress is not None and (now := int((~running).sum())) > ended:
            on_progress(now)
    if running.any():
        seed = episodes[int(np.argmax(running))].seed
        raise TaskError(
            f"expected episodes of {task.name} to end within {task.max_steps} steps, got seed {seed} still running: "
            "let the environment truncate at the task's max_steps"
        )


class _Episode:
    """An environment and what has happened in it so far."""

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int, *, setting: Setting, recorded: bool) -> None:
        self.seed = seed
        self.seen: Mapping[str, np.ndarray] = {}
        """What the policy is given of the newest observation."""
        self._setting = setting
        self._vectors: list[dict[str, np.ndarray]] = []
        self._env = env
        self._actions: list[np.ndarray] = []
        self._planned: list[bool] = []
        self._frames: list[np.ndarray] | None = [] if recorded else None
        self._info: Mapping[str, Any] = {}
        observation, _ = env.reset(seed=seed, options=dict(setting.options) or None)
        self._see(observation)

    def _see(self, observation: Mapping[str, np.ndarray]) -> None:
        self.seen = self._setting.seen(observation)
        self._vectors.append({name: value for name, value in observation.items() if value.ndim == 1})
        if self._frames is not None:
            frame: Any = self._env.render()
            self._frames.append(frame)

    def step(self, action: np.ndarray, *, planned: bool) -> bool:
        """Execute `action` and return whether the episode goes on."""
        observation, _, terminated, truncated, self._info = self._env.step(action)
        self._actions.append(np.array(action))
        self._planned.append(planned)
        self._see(observation)
        return not (terminated or truncated)

    def result(self, task: Task) -> EpisodeResult:
        """Return the summary of the ended episode."""
        missing = {"success", "score"} - set(self._info)
        if missing:
            raise TaskError(f"expected {task.name} to report success and score in info, got no {sorted(missing)}")
        actions = np.stack(self._actions)
        planned = np.array(self._planned)
        jump = jumps(actions, planned)
        return EpisodeResult(
            seed=self.seed,
            success=bool(self._info["success"]),
            score=float(self._info["score"]),
            steps=len(actions),
            route=self._info.get("route"),
            jerk=rms_jerk(actions, task.control_hz),
            boundary_jump=jump.boundary,
            within_jump=jump.within,
            instruction=self._info.get("instruction"),
            trace=Trace(
                actions=actions,
                planned=planned,
                observations={name: np.stack([o[name] for o in self._vectors]) for name in self._vectors[0]},
                frames=None if self._frames is None else np.stack(self._frames),
            ),
        )
