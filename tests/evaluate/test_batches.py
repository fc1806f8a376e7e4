"""Batched plans and whole episodes are, to the last bit, those of each robot alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import small_policies
from noise2action.data.normalize import Normalizer
from noise2action.envs.tasks import find
from noise2action.evaluate.batches import EqualBatches
from noise2action.evaluate.rollouts import rollout
from noise2action.nets import MLPConfig, TransformerConfig, UNet1dConfig
from noise2action.policies import DiffusionConfig, MixtureConfig, RegressionConfig
from noise2action.seeds import generator

pytestmark = pytest.mark.unchecked

COUNT = 50
TRANSFORMER = TransformerConfig(width=32, layers=1, heads=2)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in every process that rolls out
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "config",
    [
        DiffusionConfig(spec=small_policies.SPEC, net=MLPConfig(width=256, blocks=3, condition_width=128)),
        DiffusionConfig(spec=small_policies.SPEC, net=UNet1dConfig(widths=(32, 64))),
        DiffusionConfig(spec=small_policies.SPEC, net=TRANSFORMER),
        RegressionConfig(spec=small_policies.SPEC, net=small_policies.NET),
        MixtureConfig(spec=small_policies.SPEC, net=small_policies.NET),
    ],
    ids=["mlp", "unet1d", "transformer", "regression", "mixture"],
)
def test_a_plan_does_not_depend_on_who_else_is_planned_for(config):
    policy = EqualBatches(small_policies.build(config))
    seen = small_policies.history(COUNT)

    def plan(rows):
        history = {name: values[rows] for name, values in seen.items()}
        return policy.plan(history, generator=[generator(0, "row", int(k)) for k in rows])

    whole = plan(np.arange(COUNT))
    for rows in (np.random.default_rng(0).permutation(COUNT), np.array([0]), np.array([49]), np.arange(7, 30)):
        assert torch.equal(plan(rows), whole[rows])


def untrained(task, config):
    """Return a policy of the task with weights that make it move."""
    rng = np.random.default_rng(0)
    arrays = {f.name: rng.uniform(-1, 1, (50, *f.shape)).astype(np.float32) for f in task.schema.features.values()}
    torch.manual_seed(0)
    policy = config.build(task.schema, Normalizer.fit(arrays, dict.fromkeys(arrays, "limits"))).eval()
    with torch.no_grad():
        for p in policy.parameters():
            p.normal_(0, 0.05)
    return policy


def _same(task, policy, seeds):
    together = rollout(task, policy, seeds, sampler_seed=1)
    for result, (alone,) in zip(together, (rollout(task, policy, [k], sampler_seed=1) for k in seeds), strict=True):
        assert result == alone
        np.testing.assert_array_equal(result.trace.actions, alone.trace.actions)


def test_an_episode_of_a_network_is_the_same_alone_and_among_others():
    task = find("two_routes")
    config = DiffusionConfig(net=MLPConfig(width=256, blocks=3, condition_width=128))
    _same(task, untrained(task, config), range(20))


def test_simulated_robots_of_one_model_do_not_feel_each_other():
    """Shapes differ from episode to episode, and the compiled scene is one for all of a process."""
    pytest.importorskip("metaworld", reason="needs the extra `sim`")
    task = find("grasp_novel")
    spec = replace(small_policies.SPEC, control_hz=task.control_hz)
    _same(task, untrained(task, RegressionConfig(spec=spec, net=small_policies.NET)), range(300_000, 300_004))
