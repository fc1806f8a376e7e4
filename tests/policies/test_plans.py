from typing import get_args

import pytest
import torch

from noise2action.data.windows import Batch
from noise2action.diffusion.grids import LogSNR
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.paths import Straight
from noise2action.diffusion.samplers import DDIM, NAMED, EulerMaruyama, Heun, Renoise
from noise2action.diffusion.targets import Velocity
from noise2action.errors import ConfigError, PathError, SchemaError, ShapeError
from noise2action.nets import UNet1dConfig
from noise2action.policies import (
    AnyPolicyConfig,
    DiffusionConfig,
    LatentDiffusionConfig,
    MixtureConfig,
    NearestConfig,
    PolicySpec,
    RegressionConfig,
    Sampling,
)
from noise2action.timing import Stopwatch
from small_policies import NET, SCHEMA, SPEC, build, history, job

CONFIGS = [
    DiffusionConfig(spec=SPEC, net=NET),
    DiffusionConfig(spec=SPEC, net=UNet1dConfig(widths=(8, 16), groups=4, time_dim=8)),
    DiffusionConfig(spec=SPEC, net=NET, objective=Diffusion(path=Straight(), target=Velocity())),
    RegressionConfig(spec=SPEC, net=NET),
    LatentDiffusionConfig(spec=SPEC, net=NET),
    MixtureConfig(spec=SPEC, net=NET),
    MixtureConfig(spec=SPEC, net=NET, take="sample"),
    NearestConfig(spec=SPEC, windows=5),
]


def test_every_policy_is_tested():
    assert {type(config) for config in CONFIGS} == set(get_args(AnyPolicyConfig))


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_plan_is_reproducible_by_seed_and_leaves_its_inputs_alone(config):
    policy, seen = build(config), history(3)
    before = {name: x.clone() for name, x in seen.items()}
    first = policy.plan(seen, generator=generators(1, 2, 3))
    assert first.shape == (3, 8, 2)
    assert torch.equal(first, policy.plan(seen, generator=generators(1, 2, 3)))
    assert all(torch.equal(before[name], x) for name, x in seen.items())


@pytest.mark.parametrize("config", CONFIGS)
def test_a_plan_does_not_depend_on_what_else_is_in_the_batch(config):
    policy, seen = build(config), history(3)
    together = policy.plan(seen, generator=generators(1, 2, 3))
    alone = policy.plan({name: x[1:2] for name, x in seen.items()}, generator=generators(2))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_committed_actions_are_part_of_the_plan_to_the_value(config):
    committed = torch.randn(3, 3, 2)
    plan = build(config).plan(history(3), committed, generator=generators(1, 2, 3))
    torch.testing.assert_close(plan[:, :3], committed, rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS[:3])
def test_committed_actions_change_the_rest_of_a_sampled_plan(config):
    policy = build(config)
    free = policy.plan(history(3), generator=generators(1, 2, 3))
    bound = policy.plan(history(3), free[:, :3] + 5, generator=generators(1, 2, 3))
    assert not torch.allclose(free[:, 3:], bound[:, 3:])


@pytest.mark.parametrize("fill", [1e3, float("nan")])
@pytest.mark.parametrize("config", CONFIGS)
def test_what_padded_actions_hold_does_not_train(config, fill):
    batch = job(config).training.batch(0)
    valid = batch.valid.clone()
    valid[:, 5:] = False

    def learnt(padding):
        policy = build(config).train()
        actions = batch.actions.clone()
        actions[~valid] = padding
        g = torch.Generator().manual_seed(3)
        losses = policy.loss(Batch(batch.observations, actions, valid), generator=g)
        if losses.value.requires_grad:  # what keeps windows has no weights
            losses.value.mean().backward()
        return [losses.value.detach(), *(p.grad for p in policy.parameters() if p.grad is not None)]

    for one, other in zip(learnt(0.0), learnt(fill), strict=True):
        assert torch.equal(one, other)


def test_the_clip_bounds_a_plan_in_normalised_units():
    policy = build(CONFIGS[0])
    low, high = (policy.backbone.robot_actions(torch.full((1, 8, 2), v)) for v in (-1.0, 1.0))
    plan = policy.plan(history(64), generator=generators(*range(64)))
    assert bool((plan >= low - 1e-5).all() & (plan <= high + 1e-5).all())


def test_a_resampled_policy_shares_weights_and_counts_its_calls():
    policy = build(CONFIGS[0])
    other = policy.resampled(Sampling(DDIM(eta=1.0), nfe=3))
    calls = []
    other.backbone.net.register_forward_hook(lambda *_: calls.append(1))
    other.plan(history(2), generator=generators(1, 2))
    assert len(calls) == 3
    assert next(other.parameters()) is next(policy.parameters())
    assert policy.config.sampling.nfe == 8


@pytest.mark.parametrize("name", NAMED)
def test_every_sampler_samples_a_trained_network(name):
    sampler = NAMED[name]
    # Euler-Maruyama wants short steps; 13 is 1 + a multiple of 2, 3 and 4.
    nfe = 100 if name == "euler-maruyama" else 13
    policy = build(CONFIGS[0]).resampled(Sampling(sampler, LogSNR(), nfe=nfe))
    calls = []
    policy.backbone.net.register_forward_hook(lambda *_: calls.append(1))
    assert bool(policy.plan(history(2), generator=generators(1, 2)).isfinite().all())
    assert len(calls) == nfe or (name == "adaptive" and 13 < len(calls) < sampler.max_nfe)


def test_a_sampler_that_cannot_follow_its_grid_is_refused_before_training():
    with pytest.raises(PathError, match="unstable"):
        DiffusionConfig(sampling=Sampling(EulerMaruyama(), nfe=8))


def test_regression_is_the_network_called_once_at_t_1_on_zeros():
    policy, seen = build(CONFIGS[3]), history(2)
    condition = policy.backbone.condition(seen)
    expected = policy.backbone(torch.zeros(2, 8, 2), torch.tensor(1.0), condition)
    torch.testing.assert_close(policy.plan(seen), policy.backbone.robot_actions(expected))


def test_the_stages_are_timed():
    watch = Stopwatch()
    build(CONFIGS[0]).plan(history(1), generator=generators(0), watch=watch)
    assert {stage: len(v) for stage, v in watch.milliseconds.items()} == {"encode": 1, "denoise": 1, "decode": 1}


def test_observations_that_do_not_fit_are_refused():
    policy, seen = build(CONFIGS[0]), history(1)
    with pytest.raises(SchemaError, match="expected an observation 'heading'"):
        policy.plan({"position": seen["position"]})
    with pytest.raises(ShapeError, match=r"\(2 steps\)"):
        policy.plan({**seen, "position": seen["position"][:, :1]})
    with pytest.raises(ShapeError, match="committed: expected"):
        policy.plan(seen, torch.zeros(1, 9, 2))


def test_conventions_and_samplings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="stride"):
        PolicySpec(horizon=8, stride=9)
    with pytest.raises(ConfigError, match="first_action"):
        PolicySpec(obs_steps=2, first_action=-2)
    with pytest.raises(ConfigError, match="consistency map"):
        Sampling(Renoise())
    with pytest.raises(PathError, match="ask for 7 or 9"):
        Sampling(Heun(), nfe=8)
    assert SCHEMA.action_dim == 2
