import pytest
import torch
from torch.nn.functional import conv2d, group_norm, linear, silu

from noise2action.errors import ConfigError, ShapeError
from noise2action.nets.autoencoder import ConvAutoencoderConfig, MLPAutoencoderConfig, normalised

MLP = MLPAutoencoderConfig(latent=(3, 2), width=16)
CONV = ConvAutoencoderConfig(widths=(8, 16), channels=2, groups=4)
CASES = [(MLP, (5, 2)), (MLP, (7,)), (CONV, (1, 8, 8)), (CONV, (3, 5, 7))]


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def build(config, shape):
    torch.manual_seed(0)
    built = config.build(shape=shape).double().eval()
    with torch.no_grad():
        for p in built.parameters():
            p.normal_(0, 0.3)
    g = torch.Generator().manual_seed(1)
    return built, torch.randn(4, *shape, generator=g, dtype=torch.float64)


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_codes_have_the_scale_that_diffusion_expects(config, shape):
    built, x = build(config, shape)
    code = built.encode(x).flatten(1)
    close(code.mean(1), torch.zeros(4, dtype=torch.float64))
    close(code.square().mean(1), torch.ones(4, dtype=torch.float64), atol=1e-3)


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_the_scale_of_a_code_says_nothing(config, shape):
    built, x = build(config, shape)
    code = built.encode(x)
    again = built.decode(code)
    assert again.shape == x.shape
    close(built.decode(3 * code + 0.7), again, atol=1e-3)
    close(normalised(code), code, atol=1e-3)


def test_the_mlp_is_the_formula_written_out():
    built, x = build(MLP, (5, 2))
    w = dict(built.named_parameters())

    def layers(name, h):
        for k in (1, 3, 5):
            h = linear(h, w[f"{name}.{k}.weight"], w[f"{name}.{k}.bias"])
            h = silu(h) if k < 5 else h
        return h

    z = layers("encoder", x.flatten(1))
    z = (z - z.mean(1, keepdim=True)) / (z.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    close(built.encode(x).flatten(1), z)
    again = (z - z.mean(1, keepdim=True)) / (z.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    close(built.decode(z.unflatten(1, (3, 2))).flatten(1), layers("decoder", again))


def test_the_convolutions_are_the_formula_written_out():
    built, x = build(CONV, (3, 5, 7))
    w = dict(built.named_parameters())

    def conv(name, h, **settings):
        return conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **settings)

    def block(part, k, h):
        h = conv(f"{part}.{k}", h, padding=1)
        return silu(group_norm(h, 4, w[f"{part}.{k + 1}.weight"], w[f"{part}.{k + 1}.bias"]))

    full = torch.zeros(4, 3, 6, 8, dtype=torch.float64)
    full[..., :5, :7] = x
    h = conv("encoder.4", block("encoder", 1, full), stride=2, padding=1)
    z = conv("encoder.11", block("encoder", 8, block("encoder", 5, h)))
    assert z.shape == (4, 2, 3, 4)
    code = built.encode(x)
    close(code, normalised(z))
    h = block("decoder", 0, normalised(code)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    h = conv("decoder.10", block("decoder", 7, block("decoder", 4, h)), padding=1)
    close(built.decode(code), h[..., :5, :7])


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_training_sees_the_code_as_it_is_and_decodes_a_noisy_one(config, shape):
    built, x = build(config, shape)
    code, again = built(x, generator=torch.Generator().manual_seed(2))
    eps = torch.randn(code.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    close(code, built.encode(x))
    close(again, built.decode(code + config.noise * eps))


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_every_parameter_learns_from_the_reconstruction(config, shape):
    built, x = build(config, shape)
    ((built(x, generator=torch.Generator())[1] - x) ** 2).sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in built.parameters())


def test_a_code_large_enough_holds_the_data():
    torch.manual_seed(0)
    built = MLPAutoencoderConfig(latent=(8,), width=32, noise=0.0).build(shape=(3,))
    x = torch.randn(64, 3)
    optimizer = torch.optim.Adam(built.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        ((built(x, generator=torch.Generator())[1] - x) ** 2).mean().backward()
        optimizer.step()
    assert float((built.decode(built.encode(x)) - x).square().mean()) < 0.02


def test_what_does_not_fit_is_refused():
    for bad in ({"latent": ()}, {"latent": (0,)}, {"noise": 2.0}, {"depth": 0}):
        with pytest.raises(ConfigError, match="expected"):
            MLPAutoencoderConfig(**bad)
    for bad in ({"widths": ()}, {"widths": (9,)}, {"channels": 0}, {"noise": float("nan")}):
        with pytest.raises(ConfigError, match="expected"):
            ConvAutoencoderConfig(**bad)
    with pytest.raises(ConfigError, match="at least 3 numbers"):
        MLPAutoencoderConfig(latent=(2,)).build(shape=(5,))
    with pytest.raises(ConfigError, match="expected images"):
        CONV.build(shape=(5,))
    with pytest.raises(ShapeError, match="expected"):
        build(MLP, (5, 2))[0].encode(torch.zeros(1, 2, 5))
