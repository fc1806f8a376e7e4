"""Laws of the exact mixture: integration, differentiation, Tweedie, limits, sampling."""

import math

import pytest
import torch
from torch import Tensor

from noise2action.diffusion.exact import Mixture
from noise2action.diffusion.paths import VE, Cosine, LinearVP, Path, Straight, SubVP
from noise2action.errors import PathError

close = torch.testing.assert_close
PATHS: list[Path] = [Straight(), Cosine(), LinearVP(), SubVP(), VE()]
TIMES = (0.02, 0.3, 0.7, 0.95)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def time(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def tilted(path: Path) -> Mixture:
    """Three Gaussians with tilted covariances of different shape and unequal weights."""
    turn = torch.tensor([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]], dtype=torch.float64)
    shapes = [(0.16, 0.03), (0.04, 0.12), (0.07, 0.07)]
    covariances = torch.stack([turn @ torch.diag(torch.tensor(s, dtype=torch.float64)) @ turn.T for s in shapes])
    means = torch.tensor([[-1.5, -0.6], [1.4, -0.9], [0.3, 1.6]], dtype=torch.float64)
    return Mixture(path, torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64), means, covariances)


def points(data: Mixture, t: float, n: int = 6) -> Tensor:
    x0, _ = data.draw(n, seeded(1))
    return data.path.noised(x0, time(t), torch.randn(x0.shape, generator=seeded(2), dtype=torch.float64))


@pytest.mark.parametrize("t", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("path", [Straight(), Cosine(), VE(sigma_max=4.0)], ids=repr)
def test_posterior_mean_and_density_are_the_integrals_over_the_data(path: Path, t: float) -> None:
    data = tilted(path)
    axis = torch.linspace(-3.5, 3.5, 281, dtype=torch.float64)
    x0 = torch.cartesian_prod(axis, axis)
    area = float(axis[1] - axis[0]) ** 2
    density = sum(
        weight * torch.distributions.MultivariateNormal(mean, covariance).log_prob(x0).exp()
        for weight, mean, covariance in zip(data.weights, data.means, data.covariances, strict=True)
    )
    close(data.log_density(x0, time(0.0)).exp(), density)
    alpha, sigma = path.alpha(time(t)), path.sigma(time(t))
    for x_t in points(data, t, 3):
        noise = torch.distributions.Normal(0.0, sigma).log_prob(x_t - alpha * x0).sum(1).exp()
        joint = density * noise
        evidence = joint.sum() * area
        close(data.log_density(x_t[None], time(t)), evidence.log()[None], rtol=1e-6, atol=1e-6)
        close(
            data.denoise(x_t[None], time(t)),
            ((joint[:, None] * x0).sum(0) * area / evidence)[None],
            rtol=1e-6,
            atol=1e-6,
        )


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_score_is_the_gradient_and_tweedies(path: Path, t: float) -> None:
    data, when = tilted(path), time(t)
    x = points(data, t).requires_grad_()
    (gradient,) = torch.autograd.grad(data.log_density(x, when).sum(), x)
    close(data.score(x, when), gradient)
    alpha, sigma = path.alpha(when), path.sigma(when)
    close(data.score(x, when), (alpha * data.denoise(x, when) - x) / sigma**2, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_a_time_a_row_is_the_same_as_row_by_row(path: Path) -> None:
    data, x = tilted(path), points(tilted(path), 0.5, len(TIMES))
    times = torch.tensor(TIMES, dtype=torch.float64)
    for function in (data.denoise, data.score, data.log_density):
        close(function(x, times), torch.cat([function(row[None], t) for row, t in zip(x, times, strict=True)]))


@pytest.mark.parametrize("path", [Straight(), Cosine()], ids=repr)
def test_limits_at_noise_and_at_data(path: Path) -> None:
    data, x = tilted(path), points(tilted(path), 0.5)
    close(data.denoise(x, time(1.0)), (data.weights @ data.means).expand_as(x))
    close(data.score(x, time(1.0)), -x)
    clean, _ = data.draw(6, seeded())
    close(data.denoise(clean, time(0.0)), clean)
    (gradient,) = torch.autograd.grad(data.log_density(clean.requires_grad_(), time(0.0)).sum(), clean)
    close(data.score(clean, time(0.0)), gradient)


@pytest.mark.parametrize("t", TIMES)
def test_one_gaussian_is_linear_shrinkage(t: float) -> None:
    data, when = Mixture.gaussian(Cosine(), (0.4, -1.0, 2.0), std=0.7), time(t)
    x = torch.randn(5, 3, generator=seeded(), dtype=torch.float64)
    alpha, sigma = data.path.alpha(when), data.path.sigma(when)
    shrink = alpha * 0.49 / (alpha**2 * 0.49 + sigma**2)
    close(data.denoise(x, when), data.means + shrink * (x - alpha * data.means))


def test_draws_have_the_weights_means_and_covariances() -> None:
    n, data = 40_000, tilted(Straight())
    x, component = data.draw(n, seeded())
    for k, weight in enumerate(data.weights.tolist()):
        own = x[component == k]
        # Five standard errors.
        assert abs(len(own) / n - weight) < 5 * math.sqrt(weight * (1 - weight) / n)
        variance = data.covariances[k].diagonal()
        assert ((own.mean(0) - data.means[k]).abs() < 5 * (variance / len(own)).sqrt()).all()
        size = (variance[:, None] * variance).sqrt()
        assert ((own.T.cov() - data.covariances[k]).abs() < 5 * math.sqrt(2 / len(own)) * size).all()
    close(data.draw(5, seeded(3))[0], data.draw(5, seeded(3))[0], rtol=0, atol=0)


def test_a_selection_is_the_data_under_a_label() -> None:
    data, when = tilted(Cosine()), time(0.4)
    x = points(data, 0.4)
    parts = [data.select([0]), data.select([1, 2])]
    joint = torch.stack([parts[0].log_density(x, when) + math.log(0.5), parts[1].log_density(x, when) + math.log(0.5)])
    close(joint.logsumexp(0), data.log_density(x, when))
    share = joint.softmax(0).unsqueeze(-1)
    close(sum(s * part.denoise(x, when) for s, part in zip(share, parts, strict=True)), data.denoise(x, when))
    assert set(data.select([2]).draw(20, seeded())[1].tolist()) == {0}


def test_ring_has_its_modes_at_equal_angles() -> None:
    data = Mixture.ring(Straight(), modes=5, radius=2.0, std=0.3)
    close(data.means.norm(dim=1), torch.full((5,), 2.0, dtype=torch.float64))
    close(
        (data.means - data.means.roll(1, 0)).norm(dim=1),
        torch.full((5,), 4 * math.sin(math.pi / 5), dtype=torch.float64),
    )
    close(data.covariances, 0.09 * torch.eye(2, dtype=torch.float64).expand(5, 2, 2))


@pytest.mark.parametrize("t", TIMES)
def test_works_in_the_dtype_of_x(t: float) -> None:
    data, x = tilted(LinearVP()), points(tilted(LinearVP()), t)
    for function in (data.denoise, data.score, data.log_density):
        found = function(x.float(), time(t).float())
        assert found.dtype == torch.float32
        close(found.double(), function(x, time(t)), rtol=2e-4, atol=2e-4)


def test_what_is_no_distribution_is_refused() -> None:
    ring = Mixture.ring(Straight(), modes=2)
    with pytest.raises(PathError, match="add up to 1"):
        Mixture(ring.path, ring.weights * 2, ring.means, ring.covariances)
    with pytest.raises(PathError, match="positive definite"):
        Mixture.around(ring.path, ring.means, std=0.0)
