import math

import pytest
import torch

from noise2action.errors import ConfigError
from noise2action.nets import MLPConfig
from noise2action.nets.embed import EMBEDDINGS, Fourier, Sinusoidal, Table

close = torch.testing.assert_close
T = torch.tensor([0.0, 0.001, 0.25, 0.7, 1.0])


def test_sinusoids_are_the_embedding_of_the_step():
    y = Sinusoidal(6, scale=100.0)(T)
    for row, t in zip(y, T.tolist(), strict=True):
        angles = [100 * t, 100 * t / 100, 100 * t / 10_000]
        close(row, torch.tensor([*map(math.sin, angles), *map(math.cos, angles)]), rtol=0, atol=1e-5)


def test_fourier_features_are_sines_and_cosines_of_normal_frequencies():
    torch.manual_seed(0)
    module = Fourier(2_000)
    z = module.frequencies
    angle = 2 * math.pi * T[:, None] * z
    close(module(T), torch.cat([angle.sin(), angle.cos()], 1))
    close(z.std(), torch.tensor(16.0), rtol=0.1, atol=0)
    assert "frequencies" in module.state_dict()  # they are random: a checkpoint has to hold them
    assert list(module.parameters()) == []  # and fixed
    # Their products approximate a Gaussian kernel of the difference, which is why they are random.
    kernel = module(T) @ module(T).T / 1000
    close(kernel, torch.exp(-0.5 * (2 * math.pi * 16 * (T[:, None] - T)) ** 2), rtol=0, atol=0.12)


def test_a_table_starts_as_the_sinusoids_and_is_linear_in_between():
    table = Table(8, steps=10)
    steps = torch.arange(11) / 10
    close(table(steps), Sinusoidal(8, scale=10.0)(steps), rtol=0, atol=1e-5)
    torch.nn.init.normal_(table.rows)
    close(table(steps), table.rows, rtol=0, atol=1e-5)
    close(table(torch.tensor([0.33])), (0.7 * table.rows[3] + 0.3 * table.rows[4])[None], rtol=0, atol=1e-5)
    assert torch.equal(table(torch.tensor([1.0])), table.rows[10:])


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_every_embedding_is_float32_and_tells_neighbouring_steps_apart(name):
    module = EMBEDDINGS[name](32, 1000.0)
    for p in module.parameters():
        p.data = p.data.bfloat16()
    near = module(torch.tensor([0.999, 0.9995]))
    assert near.dtype == torch.float32
    assert float((near[0] - near[1]).detach().norm()) > 1e-3


@pytest.mark.parametrize(
    "bad", [{"time_dim": 7}, {"time_dim": 2}, {"time_embedding": "table", "time_scale": 0.2}, {"time_dim": 10**6}]
)
def test_embeddings_that_cannot_be_built_are_refused(bad):
    with pytest.raises(ConfigError, match="expected"):
        MLPConfig(**bad)
