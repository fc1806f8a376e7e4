import math

import pytest
import torch

from noise2action.diffusion.exact import Mixture
from noise2action.diffusion.likelihood import Exact, Hutchinson
from noise2action.diffusion.ode import FixedSteps
from noise2action.errors import ConfigError
from noise2action.generative import LatentConfig, ModelConfig
from noise2action.generative.likelihood import log_likelihood
from noise2action.nets import PointMLPConfig
from noise2action.nets.autoencoder import MLPAutoencoderConfig

NET = PointMLPConfig(width=8, blocks=1, condition_width=8, time_dim=8)


@pytest.mark.parametrize("trace", [Exact(), Hutchinson(probes=2)])
def test_it_is_the_density_in_the_units_of_the_data(trace, monkeypatch):
    """A model whose network is exact for a standard normal knows N(mean, std^2)."""
    model = ModelConfig((2,), NET).build()
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * 7 + 3
    model.fit_scale(x)
    exact = Mixture.gaussian(model.config.objective.path, [0.0, 0.0])
    monkeypatch.setattr(model, "denoiser", lambda _: exact.denoise)
    generator = torch.Generator().manual_seed(1)
    found = log_likelihood(model, x, solver=FixedSteps(50), trace=trace, generator=generator)
    z = ((x - model.scale.mean) / model.scale.std).double()
    expected = -0.5 * z.square().sum(1) - math.log(2 * math.pi) - 2 * math.log(float(model.scale.std))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_labels_condition_it():
    torch.manual_seed(0)
    model = ModelConfig((2,), NET, classes=2).build().eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))

    def of(points, labels=None):
        return log_likelihood(model, points, labels, solver=FixedSteps(10), trace=Exact())

    labels = torch.tensor([0, 1, 1, 0])
    apart = [of(x[k : k + 1], labels[k : k + 1]) for k in range(4)]
    torch.testing.assert_close(of(x, labels), torch.cat(apart), rtol=0, atol=1e-5)
    assert ((of(x, labels) - of(x)).abs() > 1e-4).all()


def test_a_latent_model_gives_no_density():
    model = LatentConfig((4,), MLPAutoencoderConfig(latent=(3,), width=8), NET).build()
    with pytest.raises(ConfigError, match="decoder gives samples no density"):
        log_likelihood(model, torch.zeros(1, 4), solver=FixedSteps(5), trace=Exact())
