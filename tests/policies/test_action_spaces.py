"""Policies that learn changes or relative actions still take and give robot units."""

from dataclasses import replace

import pytest
import torch

from noise2action.config import decode, encode
from noise2action.data.actions import Absolute, Delta, Relative, learnt_actions
from noise2action.data.loader import Loader
from noise2action.data.normalize import Normalizer
from noise2action.data.windows import Windows
from noise2action.errors import ConfigError, SchemaError
from noise2action.policies import (
    DiffusionConfig,
    LatentDiffusionConfig,
    MixtureConfig,
    PolicySpec,
    RegressionConfig,
    checkpoint,
)
from noise2action.recipes import find
from noise2action.recipes.experiment import DataConfig
from noise2action.recipes.prepare import job
from noise2action.seeds import generator
from noise2action.train.config import TrainConfig
from noise2action.train.loop import fit
from small_policies import NET, SPEC, build, episodes, history

close = torch.testing.assert_close
SPACES = [Delta("position"), Relative("position")]
MEMBERS = [DiffusionConfig, RegressionConfig, LatentDiffusionConfig, MixtureConfig]


def generators(n):
    return [generator(k) for k in range(n)]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("member", MEMBERS)
def test_a_plan_is_the_same_policys_plan_from_where_the_chunk_starts(member, space):
    spec = replace(SPEC, first_action=-1, action_space=space)
    seen = history(3, spec)
    plain = build(member(spec=replace(spec, action_space=Absolute()), net=NET)).plan(seen, generator=generators(3))
    plan = build(member(spec=spec, net=NET)).plan(seen, generator=generators(3))
    start = seen["position"][:, 0]  # first_action = -1 of 2 observations: the older one
    expected = plain + start.unsqueeze(1) if isinstance(space, Relative) else plain.cumsum(1) + start.unsqueeze(1)
    close(plan, expected)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("member", MEMBERS)
def test_committed_actions_are_in_robot_units(member, space):
    committed = torch.randn(3, 3, 2, generator=generator(0))
    policy = build(member(spec=replace(SPEC, action_space=space), net=NET))
    plan = policy.plan(history(3), committed, generator=generators(3))
    close(plan[:, :3], committed, rtol=0, atol=1e-4)


@pytest.mark.parametrize("first_action", [0, -1])
@pytest.mark.parametrize("space", SPACES)
def test_training_windows_are_the_demonstrations_again_in_robot_units(space, first_action):
    data, spec = episodes(), replace(SPEC, first_action=first_action, action_space=space)
    windows = Windows(data.ends, spec.obs_steps, spec.horizon, spec.first_action)
    kinds = {"position": "limits", "heading": "identity", "action": "limits"}
    scales = Normalizer.fit({**data.arrays, "action": learnt_actions(data, windows, space)}, kinds)
    loader = Loader(data, windows, scales, batch_size=8, seed=0, space=space)
    rows = torch.arange(len(windows))
    batch = loader.gather(rows)
    real = batch.actions[batch.valid]
    close(real.amin(0), -torch.ones(2))
    close(real.amax(0), torch.ones(2))
    seen = {name: scales.decode(name, x) for name, x in batch.observations.items()}
    again = spec.commanded(scales.decode("action", batch.actions), seen)
    demonstrated = torch.from_numpy(data.arrays["action"][windows.actions])
    close(again, demonstrated, rtol=0, atol=1e-4)


def test_a_trained_and_saved_relative_policy_plans_from_where_the_robot_is(tmp_path):
    recipe = find("two_routes")
    moved = []
    for space in (Relative("position"), Absolute()):
        spec = PolicySpec(obs_steps=2, horizon=8, stride=4, action_space=space)
        config = RegressionConfig(spec=spec, net=NET)
        experiment = replace(
            recipe, policy=config, data=DataConfig(demonstrations=8), train=TrainConfig(steps=2, precision="fp32")
        )
        prepared, _ = job(experiment)
        run = tmp_path / type(space).__name__
        fit(prepared, run)
        policy = checkpoint.build(checkpoint.load(run))
        assert policy.spec.action_space == space
        still = torch.zeros(1, 2, 2)
        here, there = (policy.plan({"position": still + by, "velocity": still}) for by in (0.0, 50.0))
        moved.append(float((there - here).mean()))
    assert abs(moved[0] - 50) < 5
    assert abs(moved[1]) < 5


def test_a_space_is_read_back_and_a_reference_that_does_not_fit_is_told_before_any_demonstration():
    spec = replace(SPEC, action_space=Relative("position", absolute=(1,)))
    assert encode(spec)["action_space"]["kind"] == "relative"
    assert decode(PolicySpec, encode(spec)) == spec
    assert decode(PolicySpec, {"horizon": 8}).action_space == Absolute()
    with pytest.raises(ConfigError, match="'reference'"):
        decode(PolicySpec, {"action_space": "delta"})
    recipe = find("two_routes")
    wrong = replace(recipe.policy, spec=replace(recipe.policy.spec, action_space=Delta("positions")))
    with pytest.raises(SchemaError, match="did you mean 'position'"):
        job(replace(recipe, policy=wrong), on_progress=lambda n: pytest.fail("it demonstrated"))


def test_a_cost_in_robot_units_needs_absolute_actions():
    policy = build(DiffusionConfig(spec=replace(SPEC, action_space=Delta("position")), net=NET))
    with pytest.raises(ConfigError, match="absolute actions"):
        policy.descending(lambda chunk: chunk.sum((1, 2)))
