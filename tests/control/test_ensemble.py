import math
from functools import partial

import numpy as np
import pytest
import torch

from noise2action.control.ensemble import TemporalEnsemble, temporal_ensemble
from noise2action.control.executor import Executor
from noise2action.envs.tasks import find
from noise2action.errors import ConfigError
from noise2action.evaluate.rollouts import rollout
from noise2action.policies import PolicySpec
from noise2action.recipes.experiment import EvaluateConfig
from noise2action.seeds import generator
from small_policies import SCHEMA

close = torch.testing.assert_close


class Planner:
    """A policy that plans, from the newest position x, actions [x, tick of the action]; or always the same chunk."""

    schema = SCHEMA

    def __init__(self, *, fixed=None, **spec):
        self.spec = PolicySpec(**{"obs_steps": 2, "horizon": 4, "stride": 3, **spec})
        self.fixed = fixed
        self.plans = 0

    def loss(self, batch, *, generator):
        raise AssertionError("an executor never trains")

    def plan(self, history, committed=None, *, generator=None, watch=None, on_step=None):
        self.plans += 1
        newest = history["position"][:, -1, :1]
        if self.fixed is not None:
            return self.fixed.expand(len(newest), -1, -1)
        index = torch.arange(self.spec.horizon) + self.spec.first_action
        # Positions are ticks in these tests: the second number is the tick that the action is meant for.
        return torch.stack([newest.expand(-1, self.spec.horizon), newest + index], dim=2)


def observation(*x):
    return {
        "position": np.stack([np.array([v, 0], np.float32) for v in x]),
        "heading": np.zeros((len(x), 1), np.float32),
    }


def test_it_is_the_weighted_mean_written_out():
    actions, m = torch.randn(3, 2, 4, generator=generator(0), dtype=torch.float64), 0.3
    w = [math.exp(-m * i) for i in range(3)]
    expected = (w[0] * actions[0] + w[1] * actions[1] + w[2] * actions[2]) / (w[0] + w[1] + w[2])
    close(temporal_ensemble(actions, decay=m), expected)
    close(temporal_ensemble(actions, decay=0.0), actions.mean(0))
    close(temporal_ensemble(actions[:1].expand(3, -1, -1), decay=m), actions[0])


@pytest.mark.parametrize("spec", [{}, {"first_action": -1}, {"horizon": 1, "stride": 1}])
def test_every_tick_averages_all_chunks_that_reach_it_the_oldest_weighing_most(spec):
    m, policy = 0.5, Planner(**spec)
    executor = TemporalEnsemble(policy, [torch.Generator()] * 2, decay=m)
    reach = policy.spec.horizon + policy.spec.first_action
    for tick in range(7):
        made = executor.act(observation(tick, tick + 100))
        live = list(range(max(0, tick - reach + 1), tick + 1))
        w = np.exp(-m * np.arange(len(live)))
        mean = float((w * live).sum() / w.sum())
        # All chunks agree on the tick that they speak of; what they saw differs.
        np.testing.assert_allclose(made, [[mean, tick], [mean + 100, tick + 100]], rtol=1e-6)
        assert executor.planned
    assert policy.plans == 7


def test_where_all_plans_are_one_steady_chunk_it_is_that_chunk():
    steady = torch.tensor([0.3, -1.0]).expand(1, 4, 2)
    executors = [make(Planner(fixed=steady), [torch.Generator()]) for make in (Executor, TemporalEnsemble)]
    for tick in range(6):
        receding, ensembled = (e.act(observation(tick)) for e in executors)
        np.testing.assert_allclose(ensembled, receding, rtol=1e-6)


def test_rollouts_run_the_executor_that_they_are_given():
    task = find("two_routes")
    policy = Planner(fixed=torch.tensor([0.0, 0.5]).expand(1, 4, 2))
    policy.schema = task.schema
    runs = [rollout(task, policy, [1], executor=e)[0] for e in (Executor, partial(TemporalEnsemble, decay=0.01))]
    planned = [run.trace.planned for run in runs]
    assert planned[0].tolist() == [k % 3 == 0 for k in range(len(planned[0]))]
    assert bool(planned[1].all())
    np.testing.assert_allclose(runs[0].trace.actions, runs[1].trace.actions, rtol=1e-6)


@pytest.mark.parametrize("decay", [-0.1, math.inf, math.nan])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ConfigError, match="decay m >= 0"):
        TemporalEnsemble(Planner(), [torch.Generator()], decay=decay)
    with pytest.raises(ConfigError, match="decay m >= 0"):
        EvaluateConfig(ensemble=decay)
