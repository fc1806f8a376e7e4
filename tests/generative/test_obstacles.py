import pytest
import torch

from noise2action.diffusion.exact import Mixture
from noise2action.diffusion.grids import LogSNR
from noise2action.diffusion.samplers import DPMSolverPP
from noise2action.errors import ConfigError
from noise2action.evaluate.distances import energy_distance
from noise2action.generative import ModelConfig
from noise2action.generative.obstacles import Disc, avoid
from noise2action.nets import PointMLPConfig
from noise2action.seeds import generator

CONFIG = ModelConfig((2,), PointMLPConfig(width=8, blocks=1, condition_width=8, time_dim=8))
ON_A_MODE = Disc(1.5, 0.0, 0.6)


def ring(guide=lambda denoise: denoise):
    """Samples of a model whose network is exact: 8 Gaussians on a ring."""
    model = CONFIG.build()
    exact = Mixture.ring(CONFIG.objective.path, modes=8, radius=1.5, std=0.1)
    return model.sample(
        1000,
        sampler=DPMSolverPP(),
        grid=LogSNR(),
        nfe=40,
        guide=lambda _: guide(exact.denoise),
        generator=generator(0, "sampling"),
    )


def test_samples_keep_out_of_a_disc_and_stay_on_the_other_modes():
    free, kept_out = ring(), ring(avoid(CONFIG.build(), ON_A_MODE))
    assert 0.1 < float(ON_A_MODE.holds(free).double().mean()) < 0.15
    assert not ON_A_MODE.holds(kept_out).any()
    modes = Mixture.ring(CONFIG.objective.path, modes=8, radius=1.5, std=0.1).means.float()
    found = torch.cdist(kept_out, modes).min(1)
    assert float((found.values < 0.4).double().mean()) > 0.99
    assert set(found.indices.tolist()) == set(range(1, 8))


def test_a_scale_of_nothing_changes_nothing():
    torch.testing.assert_close(ring(avoid(CONFIG.build(), ON_A_MODE, scale=0.0)), ring())


def test_the_disc_is_in_the_units_of_the_data():
    model = CONFIG.build()
    model.fit_scale(torch.randn(100, 2, generator=torch.Generator().manual_seed(0)) * 7 + 3)
    exact = Mixture.gaussian(CONFIG.objective.path, [0.0, 0.0])
    disc = Disc(3.0, 3.0, 4.0)

    def draw(guide):
        return model.sample(500, nfe=20, guide=lambda _: guide(exact.denoise), generator=generator(0, "sampling"))

    assert float(disc.holds(draw(lambda d: d)).double().mean()) > 0.1
    assert float(disc.holds(draw(avoid(model, disc))).double().mean()) < 0.02


def test_the_cost_begins_outside_the_disc():
    disc = Disc(1.0, -1.0, 2.0)
    points = torch.tensor([[1.0, -1.0], [3.0, -1.0], [1.0, 1.4], [5.0, 5.0]])
    torch.testing.assert_close(disc.cost(points), torch.tensor([1.44, 0.04, 0.0, 0.0]))
    assert disc.holds(points * 0.99).tolist() == [True, True, False, False]


def test_what_is_no_disc_in_the_plane_is_refused():
    for disc in ((0.0, 0.0, 0.0), (float("nan"), 0.0, 1.0), (0.0, 0.0, float("inf"))):
        with pytest.raises(ConfigError, match="radius above 0"):
            Disc(*disc)
    with pytest.raises(ConfigError, match="in the plane"):
        avoid(ModelConfig((3,), CONFIG.net).build(), ON_A_MODE)


@pytest.mark.parametrize("scale", [3.0, 10.0, 1000.0])
def test_no_scale_throws_samples_away(scale):
    """The disc is off the data, near its mean: where noise is high every estimate lies inside."""
    disc = Disc(0.0, 0.3, 0.5)
    kept_out = ring(avoid(CONFIG.build(), disc, scale=scale))
    assert not disc.holds(kept_out).any()
    assert energy_distance(kept_out, ring()) < 0.01
    modes = Mixture.ring(CONFIG.objective.path, modes=8, radius=1.5, std=0.1).means.float()
    assert float((torch.cdist(kept_out, modes).min(1).values < 0.4).double().mean()) > 0.98


def test_an_estimate_moves_no_farther_than_out_of_the_cost():
    disc = Disc(0.0, 0.0, 1.0)
    model = CONFIG.build()
    exact = Mixture.gaussian(CONFIG.objective.path, [0.0, 0.0])
    x_t = torch.tensor([[0.5, 0.0], [3.0, 0.0]])
    time = torch.tensor(0.5)
    free = exact.denoise(x_t, time)
    found = avoid(model, disc, scale=1000.0)(exact.denoise)(x_t, time)
    torch.testing.assert_close(found[0], torch.tensor([1.2, 0.0]))
    torch.testing.assert_close(found[1], free[1])
