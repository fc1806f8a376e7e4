from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv1d, conv_transpose1d, group_norm, linear, mish
from written_out import attention, dense, normed

from noise2action.condition import Condition
from noise2action.errors import ConfigError
from noise2action.nets import UNet1dConfig

CONFIG = UNet1dConfig(widths=(8, 16, 24), kernel=3, groups=4, time_dim=8)


def build(config=CONFIG, action_dim=2, condition_dim=5, token_dim=None):
    torch.manual_seed(0)
    built = config.build(horizon=8, action_dim=action_dim, condition_dim=condition_dim, token_dim=token_dim)
    built = built.double().eval()
    with torch.no_grad():
        for p in built.parameters():
            p.normal_(0, 0.2)
    return built


def inputs(length=8, batch=3):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(batch, length, 2, generator=g, dtype=torch.float64)
    return x, torch.rand(batch, generator=g), Condition(torch.randn(batch, 5, generator=g, dtype=torch.float64))


def written_out(w, config, x, t, condition):
    """The public network as formulas over its weights by name."""

    def conv_block(name, h, groups):
        h = conv1d(h, w[f"{name}.block.0.weight"], w[f"{name}.block.0.bias"], padding=config.kernel // 2)
        return mish(group_norm(h, groups, w[f"{name}.block.1.weight"], w[f"{name}.block.1.bias"]))

    def residual(name, h, told):
        film = linear(mish(told), w[f"{name}.cond_encoder.1.weight"], w[f"{name}.cond_encoder.1.bias"])[..., None]
        out = conv_block(f"{name}.conv1", h, config.groups)
        c = out.shape[1]
        out = film[:, :c] * out + film[:, c:] if config.film_scale else out + film
        out = conv_block(f"{name}.conv2", out, config.groups)
        if f"{name}.residual_conv.weight" in w:
            h = conv1d(h, w[f"{name}.residual_conv.weight"], w[f"{name}.residual_conv.bias"])
        return out + h

    half = config.time_dim // 2
    phase = (t[:, None] * config.time_scale) * torch.exp(
        -torch.log(torch.tensor(1e4)) * torch.arange(half) / (half - 1)
    )
    step = torch.cat([phase.sin(), phase.cos()], 1).double()
    step = mish(linear(step, w["diffusion_step_encoder.1.weight"], w["diffusion_step_encoder.1.bias"]))
    step = linear(step, w["diffusion_step_encoder.3.weight"], w["diffusion_step_encoder.3.bias"])
    h, skips = x.transpose(1, 2), []
    told = step
    if config.conditioning == "film":
        told = torch.cat([step, condition.vector], 1)
    elif config.conditioning == "concat":
        channels = linear(condition.vector, w["beside.weight"], w["beside.bias"])
        h = torch.cat([h, torch.stack([channels] * h.shape[2], 2)], 1)
    levels = len(config.widths)
    for i in range(levels):
        h = residual(f"down_modules.{i}.1", residual(f"down_modules.{i}.0", h, told), told)
        skips.append(h)
        if i < levels - 1:
            h = conv1d(h, w[f"down_modules.{i}.2.weight"], w[f"down_modules.{i}.2.bias"], stride=2, padding=1)
    h = residual("mid_modules.0", h, told)
    if config.conditioning == "cross_attention":
        tokens = dense(w, "mid_attention.observation.enter", condition.tokens)
        asked = normed(w, "mid_attention.norm", h.transpose(1, 2))
        found = attention(w, "mid_attention.attention", asked, tokens, heads=config.groups)
        h = h + found.transpose(1, 2)
    h = residual("mid_modules.1", h, told)
    for i in range(levels - 1):
        h = torch.cat([h, skips.pop()], 1)
        h = residual(f"up_modules.{i}.1", residual(f"up_modules.{i}.0", h, told), told)
        h = conv_transpose1d(h, w[f"up_modules.{i}.2.weight"], w[f"up_modules.{i}.2.bias"], stride=2, padding=1)
    h = conv_block("final_conv.0", h, 8)
    return conv1d(h, w["final_conv.1.weight"], w["final_conv.1.bias"]).transpose(1, 2)


@pytest.mark.parametrize("film_scale", [True, False])
def test_the_network_is_the_public_one_written_out(film_scale):
    config = UNet1dConfig(widths=(8, 16, 24), kernel=3, groups=4, time_dim=8, film_scale=film_scale)
    built, given = build(config), inputs()
    expected = written_out(dict(built.named_parameters()), config, *given)
    torch.testing.assert_close(built(*given), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("conditioning", ["concat", "cross_attention"])
def test_another_conditioning_is_the_same_network_told_at_another_place(conditioning):
    config = replace(CONFIG, conditioning=conditioning)
    x, t, condition = inputs()
    tokens = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    condition = Condition(condition.vector, tokens)
    built = build(config, token_dim=6)
    expected = written_out(dict(built.named_parameters()), config, x, t, condition)
    torch.testing.assert_close(built(x, t, condition), expected, rtol=0, atol=1e-6)


def test_the_parameters_have_the_public_names_and_shapes():
    names = {name: tuple(p.shape) for name, p in build().named_parameters()}
    assert names["diffusion_step_encoder.1.weight"] == (32, 8)
    assert names["down_modules.0.0.cond_encoder.1.weight"] == (16, 8 + 5)
    assert names["down_modules.1.2.weight"] == (16, 16, 3)
    assert not any(name.startswith("down_modules.2.2") for name in names)
    assert names["up_modules.0.0.conv1.block.0.weight"] == (16, 48, 3)
    assert names["up_modules.0.2.weight"] == (16, 16, 4)
    assert "down_modules.0.1.residual_conv.weight" not in names
    assert names["final_conv.1.weight"] == (2, 8, 1)


@pytest.mark.parametrize("length", [*range(1, 18), 31, 64])
def test_any_chunk_length_works_and_keeps_its_length(length):
    built, (x, t, condition) = build(), inputs(length)
    y = built(x, t, condition)
    assert y.shape == x.shape
    assert bool(y.isfinite().all())
    assert float(y.std()) > 0


@pytest.mark.parametrize("bad", [{"widths": ()}, {"widths": (12, 20)}, {"kernel": 4}, {"time_dim": 3}])
def test_sizes_that_build_nothing_are_refused(bad):
    with pytest.raises(ConfigError, match="expected"):
        UNet1dConfig(**bad)
