"""Small policies in a task that takes no time to simulate: what the studies of control share."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import torch

from ..data.episodes import Episodes
from ..data.formats import write
from ..data.windows import Batch
from ..envs.tasks import find
from ..evaluate.distances import energy_distance
from ..evaluate.rollouts import EpisodeResult, rollout
from ..evaluate.setting import Setting
from ..evaluate.statistics import Estimate, wilson
from ..nets import MLPConfig
from ..policies import AnyPolicy, AnyPolicyConfig, PolicySpec
from ..policies.checkpoint import build, load
from ..recipes.demonstrations import Demonstrated, demonstrate
from ..recipes.experiment import DataConfig, Experiment
from ..recipes.prepare import job
from ..seeds import derive, generator
from ..train.config import TrainConfig
from ..train.loop import Job, fit
from ..train.validate import action_error
from .study import difference, listing, mean, verdict

TASK = "two_routes"
SPEC = PolicySpec(obs_steps=2, horizon=16, stride=8, control_hz=10.0)
NET = MLPConfig(width=128, blocks=2, condition_width=64, time_dim=64)
"""Small enough that a training takes seconds."""
FRESH = 100_000
"""First seed of the episodes: the same layouts and noises for everything that is compared."""
SUCCESS, JERK, BOUNDARY, WITHIN = (
    "success (%)",
    "jerk (m/s^4)",
    "jump between chunks (m/s)",
    "jump within chunks (m/s)",
)
"""Measures of episodes: jerk of the commanded velocity, distance of consecutive commands."""
OVERALL = "success (%), Wilson over all episodes"
COUNTED: Mapping[str, str] = MappingProxyType({OVERALL: "episodes"})
"""What an interval counts that does not count trainings, each of one seed."""
EMPTY: Mapping[str, float] = MappingProxyType({})
HELD_OUT = 1 / 3
"""Share of the demonstrations that no policy is trained on."""
WINDOWS = 500
"""Held-out windows from which chunks are planned and compared."""


@dataclass(frozen=True)
class Budget:
    """What one training and one evaluation may cost."""

    demonstrations: int
    """Episodes, those held out included."""
    steps: int
    """Optimiser steps of 64 windows."""
    episodes: int
    """Fresh episodes that a policy is rolled out in."""
    seeds: int
    """Trainings, each on its own demonstrations; the same ones for everything that is compared."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A policy and what it was trained on."""

    policy: AnyPolicy
    job: Job
    seconds: float
    """Processor time of the training."""


def taught(budget: Budget, seed: int, *, task: str = TASK) -> Demonstrated:
    """Return the demonstrations of one training."""
    return demonstrate(find(task), budget.demonstrations, seed=seed)


def trained(config: AnyPolicyConfig, episodes: Episodes, *, budget: Budget, seed: int, task: str = TASK) -> Trained:
    """Return a policy trained on two thirds of `episodes`, its weights averaged; `KeyboardInterrupt` passes through."""
    # float32 on every processor, so that a study is a function of its seed.
    train = TrainConfig(
        steps=budget.steps,
        batch_size=64,
        warmup_steps=min(100, budget.steps // 4),
        precision="fp32",
        threads=torch.get_num_threads(),
        validate_minutes=1e3,
        save_minutes=1e3,
    )
    with TemporaryDirectory() as folder:
        path, run = Path(folder, "demonstrations.npz"), Path(folder, "run")
        write(path, episodes)
        run.mkdir()
        data = DataConfig(path=str(path), held_out=HELD_OUT)
        prepared, _ = job(Experiment(task, config, data, train, seed=derive(seed, "training")))
        began = time.process_time()
        if not fit(prepared, run):
            raise KeyboardInterrupt
        seconds = time.process_time() - began
        return Trained(build(load(run)), prepared, seconds)


def driven(
    policy: AnyPolicy, episodes: int, *, task: str = TASK, setting: Setting | None = None
) -> tuple[EpisodeResult, ...]:
    """Return what `policy` does in fresh episodes, the same ones for every policy."""
    seeds = range(FRESH, FRESH + episodes)
    return rollout(find(task), policy, seeds, setting=setting or Setting())


def beginning(results: Sequence[EpisodeResult]) -> Mapping[str, np.ndarray]:
    """Return the first observation of the first episode."""
    trace = results[0].trace
    assert trace is not None, "a rollout keeps its trace"
    return {name: x[0] for name, x in trace.observations.items()}


def held_out(found: Trained, *, windows: int = WINDOWS) -> Batch:
    """Return held-out windows without padding, spread evenly."""
    loader = found.job.held_out
    assert loader is not None, "a share of the demonstrations is held out"
    whole = np.flatnonzero(np.all(loader.windows.valid, axis=1))
    return loader.gather(torch.from_numpy(whole[:: max(1, len(whole) // windows)][:windows]))


def deviation(found: Trained, *, windows: int = WINDOWS) -> float:
    """Return the mean distance of planned actions from those that were demonstrated, over executed actions (m/s)."""
    return action_error(found.policy, held_out(found, windows=windows), found.job.normalizer)


def strangeness(found: Trained, *, windows: int = WINDOWS) -> float:
    """Return the energy distance between planned and demonstrated chunks, each with the observation that it follows.

    Both follow the same held-out observations, and all is normalised as the network sees it.
    """
    normalizer, batch = found.job.normalizer, held_out(found, windows=windows)
    history = {name: normalizer.decode(name, x) for name, x in batch.observations.items()}
    planned = found.policy.plan(history, generator=generator(0, "strangeness"))
    chunk = normalizer.encode(found.policy.schema.action.name, planned)
    seen = [x.flatten(1) for x in batch.observations.values()]
    return energy_distance(*(torch.cat([*seen, actions.flatten(1)], dim=1) for actions in (chunk, batch.actions)))


@dataclass(frozen=True, eq=False)
class Arm:
    """One of the things that are compared: what its policies did, training by training."""

    episodes: list[EpisodeResult] = field(default_factory=list[EpisodeResult])
    """All episodes of all trainings."""
    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """One number a training, by measure."""

    def add(self, run: Sequence[EpisodeResult], *, further: Mapping[str, float] = EMPTY) -> None:
        """Note the episodes of one more training, measured, and `further` measures of it."""
        self.episodes.extend(run)
        for name, value in {**measured(run), **further}.items():
            self.values.setdefault(name, []).append(value)

    @property
    def success(self) -> Estimate:
        """Success (%) of all episodes, with Wilson's interval: of these policies, not of others trained like them."""
        rate = wilson(sum(result.success for result in self.episodes), len(self.episodes))
        return Estimate(100 * rate.value, 100 * rate.low, 100 * rate.high, rate.n)

    def mean(self, measure: str) -> Estimate:
        """Return the mean over trainings."""
        return mean(self.values[measure])

    def less(self, other: "Arm", measure: str) -> Estimate:
        """Return the mean over trainings of this arm less `other`, paired by training."""
        return difference(self.values[measure], other.values[measure])


def measured(run: Sequence[EpisodeResult]) -> dict[str, float]:
    """Return success and smoothness of the episodes of one policy."""
    return {
        SUCCESS: 100 * sum(result.success for result in run) / len(run),
        JERK: _mean([result.jerk for result in run]),
        BOUNDARY: _mean([result.boundary_jump for result in run]),
        WITHIN: _mean([result.within_jump for result in run]),
    }


def _mean(values: Sequence[float | None]) -> float:
    """Return the mean of what is known; 0 where no episode is long enough to tell."""
    known = [value for value in values if value is not None]
    return sum(known) / max(1, len(known))


def against(arms: Mapping[str, Arm], base: str, *, measure: str, digits: int = 1) -> str:
    """Return for which arms a measure is above that of `base`, below it, or not told apart from it.

    Verdicts are by intervals over trainings, paired; the numbers are differences.
    """
    found: dict[str, list[str]] = {}
    for name, arm in arms.items():
        if name == base:
            continue
        gap = arm.less(arms[base], measure)
        word = verdict(gap, below="lower for", above="higher for", tie="not told apart for")
        numbers = [f"{value:+.{digits}f}" for value in (gap.value, gap.low, gap.high)]
        found.setdefault(word, []).append(f"{name} ({numbers[0]} [{numbers[1]}, {numbers[2]}])")
    return f"{measure} is {', '.join(f'{word} {listing(names)}' for word, names in found.items())}"
