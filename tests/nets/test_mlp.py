import pytest
import torch
from torch.nn.functional import layer_norm, linear, silu
from written_out import dense, feed_forward, sinusoids, time_layers

from noise2action.condition import Condition
from noise2action.errors import ConfigError, ShapeError
from noise2action.nets import MLPConfig


def net(**options):
    torch.manual_seed(0)
    built = MLPConfig(**{"width": 8, "blocks": 2, "condition_width": 6, "time_dim": 8, **options}).build(
        horizon=3, action_dim=2, condition_dim=5
    )
    with torch.no_grad():
        for p in built.parameters():
            p.normal_(0, 0.3)
    return built.eval().double()


def test_film_is_its_formula_written_out():
    built, (x, t, condition) = net(conditioning="film"), inputs()
    w, c = dict(built.named_parameters()), condition.vector
    told = time_layers(w, t, dim=8, scale=1000) + dense(w, "condition.2", silu(dense(w, "condition.0", c)))
    m = dense(w, "modulation", silu(told))
    h = dense(w, "enter", torch.cat([x.flatten(1), c], 1))
    for i in range(2):
        shift, scale = m[:, 32 * i : 32 * (i + 1)].split(16, 1)
        inner = dense(w, f"blocks.{i}.enter", layer_norm(h, (8,))) * (1 + scale) + shift
        h = h + dense(w, f"blocks.{i}.layers.2", silu(inner))
    shift, scale = m[:, 64:].split(8, 1)
    y = dense(w, "leave", layer_norm(h, (8,)) * (1 + scale) + shift)
    torch.testing.assert_close(built(x, t, condition), y.reshape(4, 3, 2), rtol=0, atol=1e-6)


def test_concat_is_its_formula_written_out():
    built, (x, t, condition) = net(conditioning="concat"), inputs()
    w = dict(built.named_parameters())
    h = dense(w, "enter", torch.cat([x.flatten(1), condition.vector, sinusoids(t * 1000, 8)], 1))
    for i in range(2):
        h = h + feed_forward(w, f"blocks.{i}", layer_norm(h, (8,)))
    y = dense(w, "leave", layer_norm(h, (8,)))
    torch.testing.assert_close(built(x, t, condition), y.reshape(4, 3, 2), rtol=0, atol=1e-6)


def inputs(batch=4):
    g = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 3, 2, generator=g, dtype=torch.float64),
        torch.rand(batch, generator=g),
        Condition(torch.randn(batch, 5, generator=g, dtype=torch.float64)),
    )


def test_the_network_is_the_published_formula_written_out():
    built, (x, t, condition) = net(), inputs()
    w = dict(built.named_parameters())

    phase = (t[:, None] * 1000) * torch.exp(-torch.log(torch.tensor(1e4)) * torch.arange(4) / 3)
    sinusoids = torch.cat([phase.sin(), phase.cos()], 1).double()
    time = linear(
        silu(linear(sinusoids, w["time_layers.0.weight"], w["time_layers.0.bias"])),
        w["time_layers.2.weight"],
        w["time_layers.2.bias"],
    )
    c = condition.vector
    told = time + linear(
        silu(linear(c, w["condition.0.weight"], w["condition.0.bias"])),
        w["condition.2.weight"],
        w["condition.2.bias"],
    )
    m = linear(silu(told), w["modulation.weight"], w["modulation.bias"])
    h = linear(torch.cat([x.flatten(1), c], 1), w["enter.weight"], w["enter.bias"])
    for i in range(2):
        shift, scale, gate = m[:, 24 * i : 24 * (i + 1)].split(8, 1)
        inner = layer_norm(h, (8,)) * (1 + scale) + shift
        inner = silu(linear(inner, w[f"blocks.{i}.layers.0.weight"], w[f"blocks.{i}.layers.0.bias"]))
        h = h + gate * linear(inner, w[f"blocks.{i}.layers.3.weight"], w[f"blocks.{i}.layers.3.bias"])
    shift, scale = m[:, 48:].split(8, 1)
    y = linear(layer_norm(h, (8,)) * (1 + scale) + shift, w["leave.weight"], w["leave.bias"])

    torch.testing.assert_close(built(x, t, condition), y.reshape(4, 3, 2), rtol=0, atol=1e-6)


def test_a_shared_time_equals_the_same_time_a_row():
    built, (x, _, condition) = net(), inputs()
    shared = built(x, torch.tensor(0.3), condition)
    torch.testing.assert_close(shared, built(x, torch.full((4,), 0.3), condition), rtol=0, atol=1e-12)


def test_it_starts_at_zero_so_that_training_starts_from_the_mean():
    built = MLPConfig(width=8, blocks=1, condition_width=4).build(horizon=3, action_dim=2, condition_dim=5)
    x, t, condition = inputs()
    assert torch.equal(built(x.float(), t, Condition(condition.vector.float())), torch.zeros(4, 3, 2))


def test_neighbouring_times_stay_apart_in_bf16():
    built, (x, _, condition) = net(), inputs(1)
    half = built.to(torch.bfloat16)
    half.time.frequencies.data = built.time.frequencies.float()
    vector = Condition(condition.vector.bfloat16())
    near = [half(x.bfloat16(), torch.tensor(t), vector) for t in (0.999, 0.9995)]
    assert not torch.equal(*near)


@pytest.mark.parametrize("bad", [{"width": 0}, {"time_dim": 7}, {"dropout": 1.0}, {"blocks": -1}])
def test_sizes_that_build_nothing_are_refused(bad):
    with pytest.raises(ConfigError, match="expected"):
        MLPConfig(**bad)


def test_another_horizon_is_refused():
    built, (x, t, condition) = net(), inputs()
    with pytest.raises(ShapeError, match="horizon is fixed"):
        built(x[:, :2], t, condition)
