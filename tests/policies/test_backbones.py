"""Every network inside a policy: trained, planned with, guided, and built from a checkpoint's configuration."""

from typing import get_args

import pytest
import torch

from noise2action.encoders.fuse import EncoderConfig
from noise2action.errors import ConfigError
from noise2action.nets import (
    AnyNetConfig,
    DiTConfig,
    FusionMLPConfig,
    MLPConfig,
    TransformerConfig,
    UNet1dConfig,
)
from noise2action.policies import DiffusionConfig, RegressionConfig, Sampling
from small_policies import SCHEMA, SPEC, build, episodes, history, job, normalizer

NETS = [
    MLPConfig(width=8, blocks=1, condition_width=8, time_dim=8, conditioning="film"),
    MLPConfig(width=8, blocks=1, time_dim=8, conditioning="concat"),
    UNet1dConfig(widths=(16, 24), groups=4, time_dim=8, conditioning="concat"),
    UNet1dConfig(widths=(16, 24), groups=4, time_dim=8, conditioning="cross_attention"),
    TransformerConfig(width=8, layers=1, heads=2, time_dim=8),
    TransformerConfig(width=8, layers=1, heads=2, time_dim=8, conditioning="concat", time_embedding="fourier"),
    DiTConfig(width=8, layers=1, heads=2, time_dim=8),
    DiTConfig(width=8, layers=1, heads=2, time_dim=8, conditioning="cross_attention", time_embedding="table"),
    FusionMLPConfig(widths=(16, 8), time_dim=8),
]
POLICIES = [kind(spec=SPEC, net=net) for net in NETS for kind in (DiffusionConfig, RegressionConfig)]
by_name = pytest.mark.parametrize("config", POLICIES, ids=lambda c: f"{type(c).__name__}-{type(c.net).__name__}")


def generators(count):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_every_network_is_tested():
    assert {type(net) for net in NETS} == set(get_args(AnyNetConfig))


@by_name
def test_a_plan_is_reproducible_and_follows_the_observation(config):
    policy = build(config)
    plan = policy.plan(history(2), generator=generators(2))
    assert torch.equal(plan, policy.plan(history(2), generator=generators(2)))
    other = policy.plan(history(2, seed=1), generator=generators(2))
    assert float((plan - other).abs().amax((1, 2)).min()) > 1e-6


@by_name
def test_a_training_step_moves_every_weight_of_the_network(config):
    policy = build(config).train()
    policy.loss(job(config).training.batch(0), generator=torch.Generator().manual_seed(0)).value.mean().backward()
    without = {n for n, p in policy.backbone.net.named_parameters() if p.grad is None or not bool((p.grad != 0).any())}
    # Regression calls the network on zeros: what multiplies the noisy chunk learns nothing, and a table only its end.
    regression = {"enter.weight", "down_modules.0.0.conv1.block.0.weight", "down_modules.0.0.residual_conv.weight"}
    assert without <= (regression if isinstance(config, RegressionConfig) else set())


@by_name
def test_a_checkpoint_is_checked_before_anything_is_allocated(config):
    scales = normalizer(episodes())
    with torch.device("meta"):
        empty = config.build(SCHEMA, scales)
    built = build(config)
    assert {n: (v.shape, v.dtype) for n, v in empty.state_dict().items()} == {
        n: (v.shape, v.dtype) for n, v in built.state_dict().items()
    }


@pytest.mark.parametrize("net", NETS, ids=lambda net: type(net).__name__)
def test_guidance_of_minus_one_ignores_the_observation(net):
    """The learned null replaces the vector, and hides the tokens: nothing of the observation is left."""
    policy = build(DiffusionConfig(spec=SPEC, net=net, p_uncond=0.1, sampling=Sampling(guidance=-1.0)))
    plan = policy.plan(history(2), generator=generators(2))
    torch.testing.assert_close(plan, policy.plan(history(2, seed=1), generator=generators(2)), rtol=0, atol=1e-5)
    told = policy.resampled(Sampling())
    assert not torch.allclose(told.plan(history(2), generator=generators(2)), plan, rtol=0, atol=1e-5)


@pytest.mark.parametrize("net", NETS, ids=lambda net: f"{type(net).__name__}-{getattr(net, 'conditioning', 'concat')}")
def test_a_width_of_tokens_is_for_networks_that_ask_them(net):
    config = DiffusionConfig(spec=SPEC, net=net, encoder=EncoderConfig(token_dim=6))
    told = getattr(net, "conditioning", "concat")
    if told == "cross_attention" or (isinstance(net, TransformerConfig) and told == "concat"):
        policy = build(config)
        assert policy.backbone.attends
        tokens = [p for n, p in policy.backbone.named_parameters() if n.endswith("observation.enter.weight")]
        assert [p.shape[1] for p in tokens] == [6]
    else:
        with pytest.raises(ConfigError, match=r"attends to tokens with encoder.token_dim=6, got \w+, told by \w+"):
            build(config)
