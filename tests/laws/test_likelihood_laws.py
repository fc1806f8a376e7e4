"""Likelihood by change of variables against exact log-densities, on every path."""

import math

import pytest
import torch
from exact import SMOOTH, Gaussian, f64, name, often
from exact import Mixture as ThreeModes
from hypothesis import given, settings
from hypothesis import strategies as st

from noise2action.diffusion.exact import Mixture
from noise2action.diffusion.likelihood import Exact, Hutchinson, bits_per_dimension, log_likelihood
from noise2action.diffusion.ode import AdaptiveSteps, FixedSteps, Solver, encode
from noise2action.diffusion.paths import Cosine, Path, Straight, Table, linear_betas
from noise2action.errors import ConfigError, SolverError
from noise2action.nets import UNet2dConfig

close = torch.testing.assert_close
SOLVERS: list[Solver] = [FixedSteps(60), AdaptiveSteps()]
TABLE = Table(linear_betas(100))
ZERO, ONE = f64(0.0, 1.0).unbind()


def mixture(path: Path, n: int = 12) -> tuple[Mixture, torch.Tensor]:
    """Return three tilted Gaussians in the plane and `n` samples of them."""
    modes = ThreeModes.on(path)
    data = Mixture(path, modes.weights, modes.means, modes.covariances)
    return data, data.draw(n, torch.Generator().manual_seed(0))[0]


def log_normal(z: torch.Tensor, std: float) -> torch.Tensor:
    return torch.distributions.Normal(0.0, std).log_prob(z).sum(1)


@pytest.mark.unchecked
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("path", [*often(SMOOTH), TABLE], ids=name)
def test_the_log_density_of_a_mixture(path: Path, solver: Solver) -> None:
    """Within 1e-3 nats a dimension of the exact one, which the noise that sampling starts from changes.

    Where the path leaves signal at its end, sampling starts from N(0, sigma^2) instead of the data's own marginal: the
    samples' density differs from the data's by exactly that ratio, at the point that x0 is encoded to.
    """
    data, x0 = mixture(path)
    found = log_likelihood(data.denoise, path, x0, solver=solver, trace=Exact())
    x1 = encode(data.denoise, path, x0, solver=solver)
    exact = data.log_density(x0, ZERO) + log_normal(x1, path.ends()[1]) - data.log_density(x1, ONE)
    assert (found - exact).abs().max() / 2 < 1e-3
    assert found.dtype == torch.float64
    assert not found.requires_grad
    if path.ends()[0] == 0:
        assert (found - data.log_density(x0, ZERO)).abs().max() / 2 < 1e-3


@pytest.mark.parametrize("path", [*often(SMOOTH), TABLE], ids=name)
def test_the_log_density_of_a_centred_gaussian(path: Path) -> None:
    """Nothing left to correct: a path's end that still holds signal hardly shows in data with mean 0, variance 1."""
    data = Gaussian(path, mean=0.0, std=1.0)
    x0 = torch.linspace(-1.8, 1.8, 8, dtype=torch.float64).unsqueeze(1)
    found = log_likelihood(data.denoise, path, x0, solver=FixedSteps(30), trace=Exact())
    assert (found - log_normal(x0, 1.0)).abs().max() < 1e-3


def test_the_density_integrates_to_one() -> None:
    path = Straight()
    data = Mixture(path, f64(0.3, 0.7), f64(-1.0, 0.8).unsqueeze(1), f64(0.05, 0.02).reshape(2, 1, 1))
    x = torch.linspace(-4, 4, 801, dtype=torch.float64).unsqueeze(1)
    found = log_likelihood(data.denoise, path, x, solver=FixedSteps(60), trace=Exact())
    assert float(found.exp().sum() * 0.01) == pytest.approx(1, abs=1e-4)


def test_hutchinson_is_unbiased() -> None:
    path = Cosine()
    data, x0 = mixture(path, n=4)
    exact = log_likelihood(data.denoise, path, x0, solver=FixedSteps(20), trace=Exact())
    for noise in ("rademacher", "gaussian"):
        many = [
            log_likelihood(
                data.denoise,
                path,
                x0.repeat(100, 1),
                solver=FixedSteps(20),
                trace=Hutchinson(noise, probes),
                generator=torch.Generator().manual_seed(probes),
            ).reshape(100, 4)
            for probes in (1, 4)
        ]
        error = [x.std(0) / math.sqrt(100) for x in many]
        for found, worth in zip(many, error, strict=True):
            assert ((found.mean(0) - exact).abs() < 4 * worth + 1e-3).all()
        # Four probes have a quarter of the variance.
        assert (error[1] / error[0]).mean() == pytest.approx(0.5, abs=0.12)


def test_signs_are_exact_for_diagonal_jacobians() -> None:
    path = Straight()
    data = Mixture(path, f64(1.0), torch.zeros(1, 3, dtype=torch.float64), torch.diag(f64(0.5, 1.0, 2.0)).unsqueeze(0))
    x0, _ = data.draw(5, torch.Generator().manual_seed(0))
    traces = (Exact(), Hutchinson("rademacher", 1), Hutchinson("gaussian", 1))
    exact, signs, normal = (
        log_likelihood(data.denoise, path, x0, solver=FixedSteps(30), trace=t, generator=torch.Generator())
        for t in traces
    )
    close(signs, exact, atol=1e-9, rtol=0)
    assert (normal - exact).abs().max() > 0.01


@settings(max_examples=8)
@given(scale=st.floats(0.3, 3.0), dims=st.integers(1, 4))
def test_dimensions_and_units(scale: float, dims: int) -> None:
    """Independent dimensions add up; units change the density by the Jacobian."""
    path = Straight()

    def of(std: float, x: torch.Tensor) -> torch.Tensor:
        denoise = Gaussian(path, mean=0.0, std=std).denoise
        return log_likelihood(denoise, path, x, solver=FixedSteps(12), trace=Exact())

    x = torch.linspace(-1, 1, 3, dtype=torch.float64).unsqueeze(1)
    one = of(1.0, x)
    close(of(1.0, x.expand(3, dims).contiguous()), dims * one, atol=1e-9, rtol=1e-9)
    close(of(scale, scale * x), one - math.log(scale), atol=1e-3, rtol=0)
    close(bits_per_dimension(dims * one, dims), -one / math.log(2))


def test_gradients_are_found_where_they_are_switched_off() -> None:
    path = Straight()
    data, x0 = mixture(path, n=3)
    expected = log_likelihood(data.denoise, path, x0, solver=FixedSteps(8), trace=Exact())
    for off in (torch.no_grad(), torch.inference_mode()):
        with off:
            close(log_likelihood(data.denoise, path, x0 + 0, solver=FixedSteps(8), trace=Exact()), expected)
    with pytest.raises(SolverError, match="no_grad"):
        log_likelihood(torch.no_grad()(data.denoise), path, x0, solver=FixedSteps(8), trace=Exact())


def test_a_network_of_images_in_float32() -> None:
    """Every shape and layer: convolutions, norms, attention; the exact trace is the mean of the estimates."""
    torch.manual_seed(0)
    net = UNet2dConfig(widths=(8, 16)).build(shape=(1, 4, 4), classes=0).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(0, 0.1)
    label = torch.zeros(2, dtype=torch.int64)

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.3 * torch.tanh(net(x_t, t, label)) + 0.5 * x_t

    x0 = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    exact = log_likelihood(denoise, Straight(), x0, solver=FixedSteps(2), trace=Exact())
    signs = log_likelihood(
        denoise,
        Straight(),
        x0,
        solver=FixedSteps(2),
        trace=Hutchinson(probes=128),
        generator=torch.Generator().manual_seed(0),
    )
    close(signs, exact, atol=0.5, rtol=0.02)


def test_what_is_too_large_or_wrong_is_told() -> None:
    path = Straight()
    with pytest.raises(ConfigError, match="Hutchinson"):
        log_likelihood(lambda x, t: x / 2, path, torch.ones(1, 9), solver=FixedSteps(4), trace=Exact(limit=8))
    with pytest.raises(ConfigError, match="probes"):
        Hutchinson(probes=0)
    data, x0 = mixture(path)
    with pytest.raises(SolverError, match="max_nfe"):
        log_likelihood(data.denoise, path, x0, solver=AdaptiveSteps(max_nfe=9), trace=Exact())
