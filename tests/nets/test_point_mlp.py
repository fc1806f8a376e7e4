import math

import pytest
import torch
from torch.nn.functional import layer_norm, linear, silu

from noise2action.errors import ConfigError, ShapeError
from noise2action.nets import PointMLPConfig

close = torch.testing.assert_close


def net(classes=3, **options):
    torch.manual_seed(0)
    settings = {"width": 8, "blocks": 2, "condition_width": 6, "time_dim": 8, "frequencies": 2, **options}
    built = PointMLPConfig(**settings).build(shape=(3,), classes=classes)
    with torch.no_grad():
        for p in built.parameters():
            p.normal_(0, 0.3)
    return built.eval().double()


def inputs(batch=4):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, generator=g, dtype=torch.float64)
    return x, torch.rand(batch, generator=g), torch.arange(batch) % 4


def test_the_network_is_its_formula_written_out():
    built, (x, t, labels) = net(), inputs()
    w = dict(built.named_parameters())
    phase = (t[:, None] * 1000) * torch.exp(-math.log(1e4) * torch.arange(4) / 3)
    told = linear(torch.cat([phase.sin(), phase.cos()], 1).double(), w["time_layers.0.weight"], w["time_layers.0.bias"])
    told = linear(silu(told), w["time_layers.2.weight"], w["time_layers.2.bias"]) + w["label.weight"][labels]
    m = linear(silu(told), w["modulation.weight"], w["modulation.bias"])
    turns = torch.stack([x * math.pi / 2, x * math.pi], dim=2).flatten(1)
    h = linear(torch.cat([x, turns.sin(), turns.cos()], 1), w["enter.weight"], w["enter.bias"])
    for i in range(2):
        shift, scale, gate = m[:, 24 * i : 24 * (i + 1)].split(8, 1)
        inner = layer_norm(h, (8,)) * (1 + scale) + shift
        inner = silu(linear(inner, w[f"blocks.{i}.layers.0.weight"], w[f"blocks.{i}.layers.0.bias"]))
        h = h + gate * linear(inner, w[f"blocks.{i}.layers.2.weight"], w[f"blocks.{i}.layers.2.bias"])
    shift, scale = m[:, 48:].split(8, 1)
    y = linear(layer_norm(h, (8,)) * (1 + scale) + shift, w["leave.weight"], w["leave.bias"])
    close(built(x, t, labels), y, rtol=0, atol=1e-6)


def test_a_shared_time_equals_the_same_time_a_row():
    built, (x, _, labels) = net(), inputs()
    for classes in (3, 0):
        built = net(classes=classes)
        close(built(x, torch.tensor(0.3), labels), built(x, torch.full((4,), 0.3), labels))


def test_labels_change_the_output_only_where_there_are_classes():
    x, t, labels = inputs()
    assert not torch.equal(net()(x, t, labels), net()(x, t, labels.flip(0)))
    assert torch.equal(net(classes=0)(x, t, labels), net(classes=0)(x, t, labels.flip(0)))


def test_a_fresh_network_returns_zeros():
    built = PointMLPConfig(width=8, blocks=1).build(shape=(2,))
    assert not built(torch.randn(3, 2), torch.rand(3), torch.zeros(3, dtype=torch.int64)).any()


@pytest.mark.parametrize("options", [{"width": 0}, {"blocks": 0}, {"time_dim": 5}, {"frequencies": 17}])
def test_sizes_that_build_no_network_are_refused(options):
    with pytest.raises(ConfigError):
        PointMLPConfig(**options)


def test_other_shapes_are_refused():
    with pytest.raises(ConfigError, match="unet2d"):
        PointMLPConfig().build(shape=(1, 8, 8))
    with pytest.raises(ShapeError, match="3 numbers"):
        net()(torch.zeros(2, 4, dtype=torch.float64), torch.zeros(2), torch.zeros(2, dtype=torch.int64))
