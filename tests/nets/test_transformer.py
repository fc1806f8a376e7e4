import pytest
import torch
from torch.nn.functional import layer_norm, silu
from written_out import attention, dense, feed_forward, normed, sinusoids, time_layers

from noise2action.condition import Condition
from noise2action.nets import DiT, DiTConfig, FusionMLPConfig, TransformerConfig

close = torch.testing.assert_close
SIZES = {"horizon": 5, "action_dim": 2, "condition_dim": 4, "token_dim": 3}
MASK = torch.tensor([[True, True, False], [True, False, True]])


def draw(config):
    torch.manual_seed(0)
    net = config.build(**SIZES)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(0, 0.3)
    net = net.double().eval()
    g = torch.Generator().manual_seed(1)
    x, vector, tokens = (
        torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((2, 5, 2), (2, 4), (2, 3, 3))
    )
    return net, dict(net.named_parameters()), (x, torch.rand(2, generator=g), Condition(vector, tokens, MASK))


def actions(w, x):
    """Return the action tokens with their positions."""
    return dense(w, "enter", x) + sinusoids(torch.arange(5.0), 8)


def seen(*, after=0):
    """Return who sees time and observation tokens, and `after` actions behind them."""
    ones = torch.ones(2, 1)
    return torch.cat([ones, MASK.double(), *[ones] * after], 1)[:, None].double()


def block(w, name, h, *, allowed=None, memory=None, there=None):
    inner = normed(w, f"{name}.norms.0", h)
    h = h + attention(w, f"{name}.attention", inner, inner, heads=2, allowed=allowed)
    if memory is not None:
        h = h + attention(w, f"{name}.cross", normed(w, f"{name}.norms.1", h), memory, heads=2, allowed=there)
    return h + feed_forward(w, name, normed(w, f"{name}.norms.{1 if memory is None else 2}", h))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("deep", [0, 2])
def test_trajectory_tokens_ask_observation_tokens(causal, deep):
    config = TransformerConfig(width=8, layers=2, encoder_layers=deep, heads=2, time_dim=8, causal=causal)
    net, w, (x, t, condition) = draw(config)
    time = time_layers(w, t, dim=8, scale=1000)
    memory = torch.cat([time[:, None], dense(w, "observation.enter", condition.tokens)], 1)
    for n in range(deep):
        memory = block(w, f"encoder.{n}", memory, allowed=seen())
    h = actions(w, x)
    order = torch.ones(5, 5).tril().double() if causal else None
    for n in range(2):
        h = block(w, f"blocks.{n}", h, allowed=order, memory=memory, there=seen())
    close(net(x, t, condition), dense(w, "leave", normed(w, "norm", h)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_concat_puts_the_observation_before_the_trajectory(causal):
    config = TransformerConfig(width=8, layers=2, heads=2, time_dim=8, causal=causal, conditioning="concat")
    net, w, (x, t, condition) = draw(config)
    time = time_layers(w, t, dim=8, scale=1000)
    h = torch.cat([time[:, None], dense(w, "observation.enter", condition.tokens), actions(w, x)], 1)
    allowed = seen(after=5).expand(2, 9, 9).clone()
    if causal:
        for i in range(9):
            allowed[:, i, max(4, i + 1) :] = 0
    for n in range(2):
        h = block(w, f"blocks.{n}", h, allowed=allowed)
    close(net(x, t, condition), dense(w, "leave", normed(w, "norm", h[:, 4:])), rtol=0, atol=1e-6)


def test_adaln_makes_it_a_dit():
    config = TransformerConfig(width=8, layers=2, heads=2, time_dim=8, causal=True, conditioning="adaln")
    net, _, given = draw(config)
    same, _, _ = draw(DiTConfig(width=8, layers=2, heads=2, time_dim=8, causal=True))
    assert isinstance(net, DiT)
    assert torch.equal(net(*given), same(*given))


@pytest.mark.parametrize("conditioning", ["adaln", "cross_attention"])
def test_a_dit_is_its_formula_written_out(conditioning):
    config = DiTConfig(width=8, layers=2, heads=2, time_dim=8, conditioning=conditioning)
    net, w, (x, t, condition) = draw(config)
    told = time_layers(w, t, dim=8, scale=1000)
    told = told + dense(w, "condition.2", silu(dense(w, "condition.0", condition.vector)))
    parts = list(dense(w, "modulation", silu(told))[:, None].split(8, -1))

    def modulated(h):
        shift, scale = parts.pop(0), parts.pop(0)
        return layer_norm(h, (8,)) * (1 + scale) + shift

    h = actions(w, x)
    for n in range(2):
        inner = modulated(h)
        h = h + parts.pop(0) * attention(w, f"blocks.{n}.attention", inner, inner, heads=2)
        if conditioning == "cross_attention":
            tokens = dense(w, "observation.enter", condition.tokens)
            there = MASK[:, None].double()
            found = attention(w, f"blocks.{n}.cross", modulated(h), tokens, heads=2, allowed=there)
            h = h + parts.pop(0) * found
        inner = modulated(h)
        h = h + parts.pop(0) * feed_forward(w, f"blocks.{n}", inner)
    y = dense(w, "leave", modulated(h))
    assert not parts
    close(net(x, t, condition), y, rtol=0, atol=1e-6)


def test_the_fusion_mlp_is_its_formula_written_out():
    net, w, (x, t, condition) = draw(FusionMLPConfig(widths=(9, 7), time_dim=8))
    h = torch.cat([x.flatten(1), condition.vector, sinusoids(t * 1000, 8)], 1)
    for n in range(2):
        h = silu(dense(w, f"layers.{n}.0", h))
    close(net(x, t, condition), dense(w, "leave", h).reshape(2, 5, 2), rtol=0, atol=1e-6)


def test_the_fusion_mlp_has_the_classic_widths():
    net = FusionMLPConfig().build(horizon=16, action_dim=2, condition_dim=256 + 64)
    sizes = [layer.weight.shape for layer in net.modules() if isinstance(layer, torch.nn.Linear)]
    assert sizes == [(512, 32 + 320 + 128), (512, 512), (256, 512), (32, 256)]
