"""Laws of every network of action chunks, over every way of telling it about the observation."""

import json
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

import pytest
import torch

from noise2action.condition import Condition
from noise2action.config import decode, encode
from noise2action.errors import ConfigError, ShapeError
from noise2action.nets import (
    AnyNetConfig,
    DiTConfig,
    FusionMLPConfig,
    MLPConfig,
    TransformerConfig,
    UNet1dConfig,
)
from noise2action.nets.conditioning import Conditioning
from noise2action.nets.embed import TimeEmbedding

close = torch.testing.assert_close
SMALL = {
    "mlp": MLPConfig(width=8, blocks=2, condition_width=6, time_dim=8),
    "unet1d": UNet1dConfig(widths=(16, 24), kernel=3, groups=4, time_dim=8),
    "transformer": TransformerConfig(width=8, layers=2, heads=2, time_dim=8),
    "dit": DiTConfig(width=8, layers=2, heads=2, time_dim=8),
    "fusion_mlp": FusionMLPConfig(widths=(12, 10, 8), time_dim=8),
}
WAYS = {
    "mlp": ("adaln", "film", "concat"),
    "unet1d": ("film", "concat", "cross_attention"),
    "transformer": ("cross_attention", "concat", "adaln"),
    "dit": ("adaln", "cross_attention"),
}
NETS = {
    **{f"{name}-{way}": replace(SMALL[name], conditioning=way) for name, ways in WAYS.items() for way in ways},
    "fusion_mlp": SMALL["fusion_mlp"],
    "transformer-deep": TransformerConfig(width=8, layers=1, encoder_layers=2, heads=4, time_dim=8),
    "transformer-causal": replace(SMALL["transformer"], causal=True),
    "transformer-concat-causal": replace(SMALL["transformer"], causal=True, conditioning="concat"),
    "dit-causal": replace(SMALL["dit"], causal=True),
}
FIXED = [name for name in NETS if "mlp" in name]
VARIABLE = [name for name in NETS if name not in FIXED]
ATTENDING = ["unet1d-cross_attention", "transformer-cross_attention", "transformer-concat", "dit-cross_attention"]
ATTENDING += ["transformer-deep", "transformer-causal", "transformer-concat-causal"]


@dataclass(frozen=True)
class Holder:
    net: AnyNetConfig


CAUSAL = [name for name in NETS if "causal" in name]
SIZES = {"horizon": 6, "action_dim": 2, "condition_dim": 5, "token_dim": 3}


def build(config, **sizes):
    torch.manual_seed(0)
    built = config.build(**{**SIZES, **sizes}).double().eval()
    with torch.no_grad():
        for p in built.parameters():
            p.normal_(0, 0.3)
    return built


def inputs(length=6, *, batch=3, tokens=4, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, length, 2, generator=g, dtype=torch.float64)
    vector = torch.randn(batch, 5, generator=g, dtype=torch.float64)
    seen = torch.randn(batch, tokens, 3, generator=g, dtype=torch.float64)
    return x, torch.rand(batch, generator=g), Condition(vector, seen)


def test_every_network_is_tested_under_every_conditioning_that_it_does_not_refuse():
    assert {type(c) for c in SMALL.values()} == set(get_args(AnyNetConfig))
    for name, config in SMALL.items():
        for way in set(get_args(Conditioning)) - set(WAYS.get(name, get_args(Conditioning))):
            with pytest.raises(ConfigError, match=f"got '{way}': ."):  # and says why
                replace(config, conditioning=way)


@pytest.mark.parametrize("name", NETS)
def test_a_shared_time_equals_the_same_time_a_row(name):
    built, (x, _, condition) = build(NETS[name]), inputs()
    close(built(x, torch.tensor(0.3), condition), built(x, torch.full((3,), 0.3), condition), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_a_sample_does_not_depend_on_the_others_in_its_batch(name):
    built, (x, t, condition) = build(NETS[name]), inputs()
    alone = Condition(condition.vector[1:2], condition.tokens[1:2])
    close(built(x, t, condition)[1:2], built(x[1:2], t[1:2], alone), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NETS)
def test_chunk_time_and_observation_all_count(name):
    built, (x, t, condition) = build(NETS[name]), inputs()
    _, other_t, other = inputs(seed=2)
    y = built(x, t, condition).detach()
    for changed in ((x + 0.1, t, condition), (x, other_t, condition), (x, t, other)):
        assert float((built(*changed).detach() - y).abs().amax((1, 2)).min()) > 1e-6


@pytest.mark.parametrize("name", NETS)
def test_gradients_reach_every_parameter(name):
    built = build(NETS[name]).train()
    x, t, condition = inputs()
    built(x, t, condition).square().mean().backward()
    assert [n for n, p in built.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 1e-9)] == []


@pytest.mark.parametrize("name", [name for name in NETS if not name.startswith("unet")])
def test_it_starts_at_zero_so_that_training_starts_from_the_mean(name):
    x, t, condition = inputs()
    fresh = NETS[name].build(**SIZES).double()
    assert torch.equal(fresh(x, t, condition), torch.zeros_like(x))


@pytest.mark.parametrize("name", NETS)
def test_bf16_weights_give_nearly_the_same(name):
    built, (x, t, condition) = build(NETS[name]), inputs()
    y = built(x, t, condition).detach()
    for p in built.parameters():  # as in training: frequencies stay float32
        p.data = p.data.bfloat16()
    z = built(x.bfloat16(), t, condition.to(torch.bfloat16))
    assert z.dtype == torch.bfloat16
    assert float((z.detach().double() - y).norm() / y.norm()) < 0.05


@pytest.mark.parametrize(
    "name", ["mlp-adaln", "fusion_mlp", "unet1d-cross_attention", "transformer-cross_attention", "dit-cross_attention"]
)
def test_a_chunk_of_any_length_from_1_to_64_works(name):
    """One set of weights serves every length, but for MLPs, which are built for one."""
    of_any_length = build(NETS[name]) if name in VARIABLE else None
    for length in range(1, 65):
        built = of_any_length or build(NETS[name], horizon=length)
        x, _, condition = inputs(length, batch=1)
        # Three of one sample: as it is, with something else in a token that is masked, with another last action.
        mask = torch.tensor([[True, False, True, True]]).expand(3, -1)
        tokens, x = condition.tokens.repeat(3, 1, 1), x.repeat(3, 1, 1)
        tokens[1, 1] = float("nan")
        x[2, -1] += 1
        told = Condition(condition.vector.expand(3, -1), tokens, mask)
        y, masked, other = built(x, torch.tensor(0.3), told).detach()
        assert y.shape == (length, 2)
        assert bool(y.isfinite().all())
        close(masked, y, rtol=0, atol=1e-12)
        assert float((other - y)[-1].abs().max()) > 1e-6


@pytest.mark.parametrize("name", VARIABLE)
def test_one_set_of_weights_serves_every_chunk_length(name):
    short, long = build(NETS[name], horizon=1), build(NETS[name], horizon=64)
    for length in (1, 2, 7, 16, 64, 200):
        x, t, condition = inputs(length, batch=2)
        assert torch.equal(short(x, t, condition), long(x, t, condition))


@pytest.mark.parametrize("name", [name for name in NETS if name.startswith("unet")])
def test_a_u_net_takes_an_odd_length_for_one_that_ends_in_zeros(name):
    built = build(NETS[name])
    for length in range(1, 64, 2):
        x, t, condition = inputs(length, batch=2)
        longer = torch.nn.functional.pad(x, (0, 0, 0, 1))
        assert torch.equal(built(longer, t, condition)[:, :length], built(x, t, condition))


@pytest.mark.parametrize("name", FIXED)
def test_an_mlp_refuses_another_length_than_it_was_built_for(name):
    for length in (1, 5, 7):
        with pytest.raises(ShapeError, match=r"expected a chunk \(6, 2\), got .*horizon is fixed"):
            build(NETS[name])(*inputs(length))


@pytest.mark.parametrize("name", VARIABLE)
def test_actions_have_an_order(name):
    built, (x, t, condition) = build(NETS[name]), inputs()
    assert not torch.allclose(built(x.flip(1), t, condition), built(x, t, condition).flip(1), atol=1e-3)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_network_does_not_see_later_actions(name):
    built, (x, t, condition) = build(NETS[name]), inputs()
    y = built(x, t, condition)
    for known in range(1, 6):
        later = torch.cat([x[:, :known], x[:, known:] * 3 - 1], 1)
        assert torch.equal(built(later, t, condition)[:, :known], y[:, :known])
        close(built(x[:, :known], t, condition), y[:, :known], rtol=0, atol=1e-12)
    assert not torch.allclose(built(later, t, condition)[:, 5:], y[:, 5:])


@pytest.mark.parametrize("name", sorted(set(NETS) - set(CAUSAL) - {n for n in NETS if n.startswith("unet")}))
def test_otherwise_every_action_sees_every_other(name):
    built, (x, t, condition) = build(NETS[name]), inputs()
    changed = x.clone()
    changed[:, 5] += 1
    assert float((built(changed, t, condition) - built(x, t, condition)).detach().abs().amin((0, 2))[0]) > 1e-9


@pytest.mark.parametrize("name", ATTENDING)
def test_observation_tokens_have_no_order(name):
    built, (x, t, condition) = build(NETS[name]), inputs()
    y = built(x, t, condition)
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        close(built(x, t, Condition(condition.vector, condition.tokens[:, order])), y, rtol=0, atol=1e-12)
    mask = torch.tensor([[True, False, True, True], [True] * 4, [False, False, False, True]])
    masked = Condition(condition.vector, condition.tokens, mask)
    other = Condition(condition.vector, condition.tokens[:, [1, 3, 0, 2]], mask[:, [1, 3, 0, 2]])
    close(built(x, t, other), built(x, t, masked), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ATTENDING)
@pytest.mark.parametrize("left", [0.0, 1e3, float("inf"), float("nan")])
def test_a_masked_token_has_exactly_no_influence(name, left):
    built, (x, t, condition) = build(NETS[name]), inputs()
    mask = torch.tensor([[True, False, True, True], [True] * 4, [False, False, False, True]])
    y = built(x, t, Condition(condition.vector, condition.tokens, mask))
    changed = torch.where(mask[..., None], condition.tokens, left)
    assert torch.equal(built(x, t, Condition(condition.vector, changed, mask)), y)
    # It is as if it were not in the list at all, and a mask of ones as if there were none.
    only = Condition(condition.vector[2:], condition.tokens[2:, 3:])
    close(built(x[2:], t[2:], only), y[2:], rtol=0, atol=1e-12)
    close(built(x, t, Condition(condition.vector, condition.tokens))[1], y[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ATTENDING)
def test_without_any_token_the_rest_decides(name):
    built, (x, t, condition) = build(NETS[name]), inputs()
    nothing = torch.zeros(3, 4, dtype=torch.bool)
    y = built(x, t, Condition(condition.vector, condition.tokens, nothing))
    assert bool(y.isfinite().all())
    assert torch.equal(built(x, t, Condition(condition.vector, condition.tokens * float("nan"), nothing)), y)
    fewer = Condition(condition.vector, condition.tokens[:, :1], nothing[:, :1])
    close(built(x, t, fewer), y, rtol=0, atol=1e-12)
    built.train()(x, t, Condition(condition.vector, condition.tokens, nothing)).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in built.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ATTENDING)
def test_the_vector_is_one_token_where_an_encoder_makes_none(name):
    x, t, condition = inputs()
    built = build(NETS[name], token_dim=None)
    plain = Condition(condition.vector)
    same = build(NETS[name], token_dim=5)
    as_token = Condition(condition.vector, condition.vector[:, None])
    assert built.state_dict().keys() == same.state_dict().keys()
    assert torch.equal(built(x, t, plain), same(x, t, as_token))
    with pytest.raises(ShapeError, match=r"expected observation tokens \[B, N, 5\], got none"):
        same(x, t, plain)
    with pytest.raises(ShapeError, match=r"expected observation tokens \[B, N, 5\], got \(3, 4, 3\)"):
        same(x, t, condition)


@pytest.mark.parametrize("name", [name for name in NETS if name not in ATTENDING])
def test_the_others_look_at_the_vector_alone(name):
    built, (x, t, condition) = build(NETS[name]), inputs()
    assert torch.equal(built(x, t, condition), built(x, t, Condition(condition.vector)))


@pytest.mark.parametrize(("name", "embedding"), list(product(SMALL, get_args(TimeEmbedding))))
def test_every_time_embedding_serves_every_network(name, embedding):
    config = replace(SMALL[name], time_embedding=embedding)
    built, (x, t, condition) = build(config), inputs()
    assert not torch.allclose(built(x, t, condition), built(x, 1 - t, condition), rtol=0, atol=1e-6)
    again = config.build(**SIZES).double().eval()
    again.load_state_dict(built.state_dict())
    assert torch.equal(again(x, t, condition), built(x, t, condition))


@pytest.mark.parametrize("name", NETS)
def test_a_configuration_survives_json(name):
    assert decode(Holder, json.loads(json.dumps(encode(Holder(NETS[name]))))) == Holder(NETS[name])


@pytest.mark.parametrize("name", ["transformer", "dit"])
@pytest.mark.parametrize(
    "bad", [{"width": 10, "heads": 4}, {"width": 2, "heads": 1}, {"width": 9, "heads": 3}, {"layers": 0}, {"heads": 0}]
)
def test_sizes_that_build_nothing_are_refused(name, bad):
    with pytest.raises(ConfigError, match="expected"):
        replace(SMALL[name], **bad)


@pytest.mark.parametrize("bad", [{"widths": ()}, {"widths": (8, 0)}, {"dropout": 1.0}, {"time_dim": 7}])
def test_fusion_sizes_that_build_nothing_are_refused(bad):
    with pytest.raises(ConfigError, match="expected"):
        FusionMLPConfig(**bad)
    if "widths" not in bad:
        for config in (TransformerConfig, DiTConfig):
            with pytest.raises(ConfigError, match="expected"):
                config(**bad)


def test_a_conditioning_of_another_name_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"one of concat, film, cross_attention, got 'adaln': a norm"):
        UNet1dConfig(conditioning="adaln")
    with pytest.raises(ConfigError, match=r"did you mean 'adaln'"):
        decode(Holder, {"net": {"kind": "mlp", "conditioning": "adalm"}})
    with pytest.raises(ConfigError, match=r"one of concat, film, adaln, got 'cross_attention': an MLP has no tokens"):
        MLPConfig(conditioning="cross_attention")
    with pytest.raises(ConfigError, match="use the network transformer"):
        DiTConfig(conditioning="concat")
