import pytest
import torch

from noise2action.config import decode, encode
from noise2action.diffusion.grids import Trailing
from noise2action.diffusion.samplers import DDIM
from noise2action.diffusion.sampling import sample
from noise2action.evaluate.distances import energy_distance
from noise2action.generative import LatentConfig
from noise2action.nets import PointMLPConfig, UNet2dConfig
from noise2action.nets.autoencoder import ConvAutoencoderConfig, MLPAutoencoderConfig
from noise2action.train.generative import GenerativeTrain, fit

POINTS = LatentConfig(
    shape=(4,),
    autoencoder=MLPAutoencoderConfig(latent=(6,), width=64),
    net=PointMLPConfig(width=64, blocks=2),
    classes=2,
)
IMAGES = LatentConfig(
    shape=(1, 6, 5),
    autoencoder=ConvAutoencoderConfig(widths=(8, 8), groups=4),
    net=UNet2dConfig(widths=(8, 8), heads=1, groups=4, time_dim=8),
    classes=2,
)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(config):
    torch.manual_seed(0)
    model = config.build().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.2)
    x, labels = 3 + 5 * torch.randn(6, *config.shape, generator=generator(1)), torch.arange(6) % 2
    model.fit_scale(x)
    return model, x, labels


@pytest.mark.parametrize("config", [POINTS, IMAGES])
def test_the_loss_is_reconstruction_plus_the_diffusion_of_codes(config):
    model, x, labels = build(config)
    losses, g = model.loss(x, labels, generator=generator(2)), generator(2)
    y = (x - model.scale.mean) / model.scale.std
    code, again = model.autoencoder(y, generator=g)
    diffusion = model.codes.loss(code, labels, generator=g)
    close(losses.value, diffusion.value + ((again - y) ** 2).flatten(1).mean(1))
    close(losses.t, diffusion.t)


def test_diffusion_does_not_shape_the_codes():
    model, x, labels = build(POINTS)
    model.loss(x, labels, generator=generator(2)).value.sum().backward()
    found = [p.grad.clone() for p in model.autoencoder.parameters()]
    model.zero_grad()
    y = model.scale.normalised(x)
    ((model.autoencoder(y, generator=generator(2))[1] - y) ** 2).mean(1).sum().backward()
    for one, other in zip(found, model.autoencoder.parameters(), strict=True):
        close(one, other.grad)


@pytest.mark.parametrize("w", [0.0, 2.0])
@pytest.mark.parametrize("config", [POINTS, IMAGES])
def test_a_sample_is_a_decoded_sample_of_codes(config, w):
    model, _, labels = build(config)
    found = model.sample(6, labels=labels, w=w, nfe=3, generator=generator(4))
    codes = sample(
        model.denoiser(labels, w=w),
        config.objective.path,
        torch.empty(6, *model.autoencoder.latent),
        sampler=DDIM(),
        grid=Trailing(),
        nfe=3,
        generator=generator(4),
    )
    close(found, model.scale.std * model.autoencoder.decode(codes) + model.scale.mean)


def test_the_configuration_survives_json():
    for config in (POINTS, IMAGES):
        assert decode(LatentConfig, encode(config, LatentConfig)) == config


@pytest.mark.unchecked
@pytest.mark.slow
def test_two_labelled_clusters_on_a_plane_are_learnt_through_codes():
    def draw(n, seed):
        labels = torch.arange(n) % 2
        plane = 0.3 * torch.randn(n, 2, generator=generator(seed)) + torch.tensor([4.0, 0.0]) * labels[:, None]
        return torch.cat([plane, plane @ torch.tensor([[0.5, -1.0], [1.0, 0.5]])], 1), labels

    x, labels = draw(2000, 5)
    train = GenerativeTrain(steps=700, batch_size=128, learning_rate=3e-3)
    model = fit(POINTS, x, labels, train=train, seed=0)
    held_out, asked = draw(1000, 6)
    again = model.raw(model.normalised(held_out))
    assert float((again - held_out).square().mean() / held_out.var(0).mean()) < 0.02
    made = model.sample(1000, labels=asked, generator=generator(7))
    # The plane is a subspace of half the dimensions, the clusters are far apart: both must come back.
    assert float(((made[:, 0] > 2).long() == asked).double().mean()) > 0.99
    floor = energy_distance(draw(1000, 8)[0], held_out)
    assert energy_distance(made, held_out) < 0.05 + 2 * floor
