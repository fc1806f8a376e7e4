"""Small policies in tasks that take little time to simulate: what the studies of control share."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import torch

from ..data.episodes import ACTION, Episodes
from ..data.formats import write
from ..data.windows import Batch
from ..envs.tasks import Task, find
from ..evaluate.distances import energy_distance
from ..evaluate.modes import mode_statistics
from ..evaluate.rollouts import EpisodeResult, rollout
from ..evaluate.setting import AS_DRAWN, Setting
from ..evaluate.smoothness import jumps, rms_jerk
from ..evaluate.statistics import Estimate, paired_success, unpaired_success, wilson
from ..nets import MLPConfig
from ..policies import AnyPolicy, AnyPolicyConfig, DiffusionConfig, PolicySpec, RegressionConfig
from ..policies.checkpoint import build, load
from ..recipes.demonstrations import Demonstrated, demonstrate
from ..recipes.experiment import DataConfig, Experiment
from ..recipes.prepare import job
from ..seeds import derive, generator
from ..train.config import TrainConfig
from ..train.loop import Job, fit
from ..train.validate import action_error
from .study import Cell, difference, listing, mean, verdict

TASK = "two_routes"
SPEC = PolicySpec(obs_steps=2, horizon=16, stride=8, control_hz=10.0)
NET = MLPConfig(width=128, blocks=2, condition_width=64, time_dim=64)
"""Small enough that a training takes seconds."""
LARGER = MLPConfig(width=256, blocks=3, condition_width=128, time_dim=64)
"""For tasks that it is too small for: a training takes a minute."""
NAVIGATION: Mapping[str, int] = MappingProxyType({"two_routes": 4, "maze": 4, "obstacles": 4})
"""Tasks that are learnt in four times the steps that the others take."""
DIFFUSION, REGRESSION = "diffusion", "regression"
KINDS: Mapping[str, type[DiffusionConfig] | type[RegressionConfig]] = MappingProxyType(
    {DIFFUSION: DiffusionConfig, REGRESSION: RegressionConfig}
)
"""The policy, and its control on the same network."""
FRESH = 100_000
"""First seed of the episodes: the same layouts and noises for everything that is compared."""
SUCCESS, JERK, BOUNDARY, WITHIN = (
    "success (%)",
    "jerk (m/s^4)",
    "jump between chunks (m/s)",
    "jump within chunks (m/s)",
)
"""Measures of episodes: jerk of the commanded velocity, distance of consecutive commands."""
JERKS, JUMPS = "jerk / demonstrated", "jump between chunks / demonstrated step"
"""The same without units: over the mean jerk of the demonstrations, and their mean distance of consecutive actions."""
COVERED, ENTROPY, SPLIT = "routes taken (%)", "entropy of routes (bits)", "total variation to demonstrated routes"
"""Which of the ways are taken: share of the demonstrated ones, how evenly, and how far from the demonstrated shares."""
DIGITS: Mapping[str, int] = MappingProxyType({JERKS: 2, JUMPS: 2, ENTROPY: 2, SPLIT: 3})
"""Digits of a measure's differences, where one is not enough."""
OVERALL = "success (%), Wilson over all episodes"
COUNTED: Mapping[str, str] = MappingProxyType(
    {OVERALL: "episodes", SUCCESS: "seeds (no narrower than over their episodes)"}
)
"""What an interval counts that does not count trainings alone, each of one seed."""
EMPTY: Mapping[str, float] = MappingProxyType({})
BOUNDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {SUCCESS: (0.0, 100.0), COVERED: (0.0, 100.0), ENTROPY: (0.0, math.inf), SPLIT: (0.0, 1.0)}
)
"""What the values of a measure lie between, and so their means."""
HELD_OUT = 1 / 3
"""Share of the demonstrations that no policy is trained on."""
ONE = 1e-9
"""Such a share where nothing is compared with what is held out: one episode, the least."""
NO_WIDTH = 1e-9
"""Of an interval that is one number, but for rounding."""
WINDOWS = 500
"""Held-out windows from which chunks are planned and compared."""


@dataclass(frozen=True)
class Budget:
    """What one training and one evaluation may cost."""

    demonstrations: int
    """Episodes, those held out included."""
    steps: int
    """Optimiser steps of the small network; the larger one takes half as many, of 256 windows each."""
    episodes: int
    """Fresh episodes that a policy is rolled out in."""
    seeds: int
    """Trainings, each on its own demonstrations; the same ones for everything that is compared."""
    longer: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many times as many steps, by task, for those that are learnt more slowly than the others."""
    windows: int = 64
    """Of an optimiser step."""
    learning_rate: float = 1e-3


def configured(task: str, kind: str = DIFFUSION) -> DiffusionConfig | RegressionConfig:
    """Return the policy that studies train in `task`: windows and network are the same for every kind."""
    spec = replace(SPEC, control_hz=find(task).control_hz)
    return KINDS[kind](spec=spec, net=NET if task == TASK else LARGER)


@dataclass(frozen=True, eq=False)
class Trained:
    """A policy and what it was trained on."""

    policy: AnyPolicy
    job: Job
    seconds: float
    """Processor time of the training."""


def check_tasks(names: Sequence[str]) -> None:
    """Raise the error of a task that cannot be made here, such as `MissingExtraError`, before anything is trained."""
    for name in names:
        find(name).make().close()


def taught(budget: Budget, seed: int, *, task: str = TASK) -> Demonstrated:
    """Return the demonstrations of one training."""
    return demonstrate(find(task), budget.demonstrations, seed=seed)


def blanked(episodes: Episodes, given: Mapping[str, np.ndarray]) -> Episodes:
    """Return demonstrations in which the features that are `given` read zero at every step."""
    arrays = {name: np.zeros_like(x) if name in given else x for name, x in episodes.arrays.items()}
    return Episodes(arrays, episodes.ends, episodes.schema)


def learnt(task: str, kind: str, episodes: Episodes, *, budget: Budget, seed: int) -> AnyPolicy:
    """Return the policy that studies train in `task`, on all of `episodes` but one."""
    config = configured(task, kind)
    if config.net == LARGER:
        # From many windows a step they learn as much in half the steps, at the rate of the tasks' recipes.
        budget = replace(budget, steps=max(1, budget.steps // 2), windows=256, learning_rate=3e-3)
    budget = replace(budget, steps=budget.steps * budget.longer.get(task, 1))
    return trained(config, episodes, budget=budget, seed=seed, task=task, held_out=ONE).policy


def trained(
    config: AnyPolicyConfig,
    episodes: Episodes,
    *,
    budget: Budget,
    seed: int,
    task: str = TASK,
    held_out: float = HELD_OUT,
) -> Trained:
    """Return a policy trained on `episodes`, a share of which is held out; `KeyboardInterrupt` passes through."""
    train = TrainConfig(
        steps=budget.steps,
        batch_size=budget.windows,
        learning_rate=budget.learning_rate,
        warmup_steps=min(100, budget.steps // 4),
        # On every processor, so that a study is a function of its seed.
        precision="fp32",
        threads=torch.get_num_threads(),
        validate_minutes=1e3,
        save_minutes=1e3,
    )
    with TemporaryDirectory() as folder:
        path, run = Path(folder, "demonstrations.npz"), Path(folder, "run")
        write(path, episodes)
        run.mkdir()
        data = DataConfig(path=str(path), held_out=held_out)
        prepared, _ = job(Experiment(task, config, data, train, seed=derive(seed, "training")))
        began = time.process_time()
        if not fit(prepared, run):
            raise KeyboardInterrupt
        seconds = time.process_time() - began
        return Trained(build(load(run)), prepared, seconds)


def driven(
    policy: AnyPolicy, episodes: int, *, task: str | Task = TASK, setting: Setting = AS_DRAWN
) -> tuple[EpisodeResult, ...]:
    """Return what `policy` does in fresh episodes, the same ones for every policy."""
    seeds = range(FRESH, FRESH + episodes)
    return rollout(find(task) if isinstance(task, str) else task, policy, seeds, setting=setting)


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
    return action_error(found.policy, [held_out(found, windows=windows)], found.job.normalizer)


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
    """All episodes of all trainings, without their traces."""
    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """One number a training, by measure."""

    def add(self, run: Sequence[EpisodeResult], *, further: Mapping[str, float] = EMPTY) -> None:
        """Note the episodes of one more training, measured, and `further` measures of it."""
        self.episodes.extend(replace(result, trace=None) for result in run)
        for name, value in {**measured(run), **further}.items():
            self.values.setdefault(name, []).append(value)

    @property
    def success(self) -> Estimate:
        """Success (%) of all episodes, with Wilson's interval: of these policies, not of others trained like them."""
        succeeded = self._succeeded
        return _percent(wilson(sum(succeeded), len(succeeded)))

    @property
    def _succeeded(self) -> list[bool]:
        return [result.success for result in self.episodes]

    def mean(self, measure: str) -> Estimate:
        """Return the mean over trainings.

        That of success is no narrower than Wilson's interval over all episodes: few trainings that happen to end alike
        would claim certainty.
        """
        low, high = BOUNDS.get(measure, (-math.inf, math.inf))
        found = _within(mean(self.values[measure]), low, high)
        return _widened(found, self.success) if measure == SUCCESS else found

    def less(self, other: "Arm", measure: str) -> Estimate:
        """Return the mean over trainings of this arm less `other`, paired by training.

        That of success is no narrower than that over all episodes, for the same reason.
        """
        low, high = BOUNDS.get(measure, (-math.inf, math.inf))
        found = _within(difference(self.values[measure], other.values[measure]), low - high, high - low)
        return _widened(found, self.pooled(other)) if measure == SUCCESS else found

    def pooled(self, other: "Arm") -> Estimate:
        """Return the success (%) in all episodes less that of `other`, by Newcombe: of these policies, not of others.

        Paired where both have the same episodes; else, as of a part and its whole, as if they had none in common.
        """
        mine, theirs = self._succeeded, other._succeeded
        if [result.seed for result in self.episodes] != [result.seed for result in other.episodes]:
            return _percent(unpaired_success(mine, theirs))
        return _percent(paired_success(mine, theirs).difference)


def _percent(share: Estimate) -> Estimate:
    return Estimate(100 * share.value, 100 * share.low, 100 * share.high, share.n)


def _within(estimate: Estimate, low: float, high: float) -> Estimate:
    """Return the estimate with its interval cut to what is possible."""
    return replace(estimate, low=max(estimate.low, low), high=min(estimate.high, high))


def _widened(estimate: Estimate, least: Estimate) -> Estimate:
    """Return the estimate with an interval that holds that of `least` too."""
    return replace(estimate, low=min(estimate.low, least.low), high=max(estimate.high, least.high))


def measured(run: Sequence[EpisodeResult]) -> dict[str, float]:
    """Return success and smoothness of the episodes of one policy."""
    return {
        SUCCESS: 100 * sum(result.success for result in run) / len(run),
        JERK: _mean([result.jerk for result in run]),
        BOUNDARY: _mean([result.boundary_jump for result in run]),
        WITHIN: _mean([result.within_jump for result in run]),
    }


def smooth(run: Sequence[EpisodeResult], demonstrations: Episodes, control_hz: float) -> dict[str, float]:
    """Return `JERKS` and `JUMPS` of the episodes of one policy."""
    parts = [demonstrations.arrays[ACTION][slice(*demonstrations.bounds(k))] for k in range(len(demonstrations))]
    jerk = _mean([rms_jerk(actions, control_hz) for actions in parts])
    step = _mean([jumps(actions, np.zeros(len(actions), np.bool_)).within for actions in parts])
    found = measured(run)
    return {JERKS: found[JERK] / jerk, JUMPS: found[BOUNDARY] / step}


def routed(run: Sequence[EpisodeResult], shares: Mapping[str, float]) -> dict[str, float]:
    """Return `COVERED`, `ENTROPY` and `SPLIT` of the episodes of one policy against the `shares` of demonstrations."""
    modes = mode_statistics([result.route or "none" for result in run], shares)
    return {COVERED: 100 * modes.coverage, ENTROPY: modes.entropy, SPLIT: modes.total_variation}


def heads(measures: Sequence[str], than: str) -> tuple[str, ...]:
    """Return the columns of `cells`; differences are to `than`."""
    return (OVERALL, *measures, *(f"{name}, less that of {than}" for name in measures))


def cells(arm: Arm, base: Arm, measures: Sequence[str]) -> tuple[Cell, ...]:
    """Return the success of all episodes, the measures, and what they are less those of `base`, if it is another."""
    return (
        arm.success,
        *(arm.mean(measure) for measure in measures),
        *(None if arm is base else arm.less(base, measure) for measure in measures),
    )


def rate(arm: Arm) -> str:
    """Return the success in all its episodes, as words."""
    level = arm.success
    return f"{level.value:.1f} % [{level.low:.1f}, {level.high:.1f}]"


def reached(arm: Arm) -> str:
    """Return in how many of all its episodes an arm succeeds, as words."""
    return f"in {rate(arm)} of the episodes"


def _mean(values: Sequence[float | None]) -> float:
    """Return the mean of what is known; 0 where no episode is long enough to tell."""
    known = [value for value in values if value is not None]
    return sum(known) / max(1, len(known))


def against(arms: Mapping[str, Arm], base: str, *, measure: str, digits: int = 1) -> str:
    """Return for which arms a measure is above that of `base`, below it, or not told apart from it.

    Verdicts are by intervals over trainings, paired; the numbers are differences.
    """
    pairs = {name: (arm, arms[base]) for name, arm in arms.items() if name != base}
    return apart(pairs, measure=measure, digits=digits)


def apart(pairs: Mapping[str, tuple[Arm, Arm]], *, measure: str, digits: int = 1) -> str:
    """Return for which pairs a measure of the first is above that of the second, as `against` does."""
    found: dict[str, list[str]] = {}
    for name, (arm, other) in pairs.items():
        gap, tie = arm.less(other, measure), "not told apart for"
        # Few trainings that differ by equally much have an interval without width: that claims more than it knows.
        word = tie if gap.high - gap.low < NO_WIDTH else verdict(gap, below="lower for", above="higher for", tie=tie)
        numbers = [f"{value:+.{digits}f}" for value in (gap.value, gap.low, gap.high)]
        found.setdefault(word, []).append(f"{name} ({numbers[0]} [{numbers[1]}, {numbers[2]}])")
    return f"{measure} is {', '.join(f'{word} {listing(names)}' for word, names in found.items())}"
