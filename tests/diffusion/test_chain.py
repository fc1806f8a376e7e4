"""The Markov chain of every path: its steps compose to the marginal, and its posterior is Bayes' rule."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from noise2action.diffusion.chain import forward_chain, posterior, step, transition
from noise2action.diffusion.multistep import ddim
from noise2action.diffusion.paths import VE, Cosine, LinearVP, Path, Schedule, Straight, SubVP, Table
from noise2action.diffusion.schedules import cosine_betas, linear_betas
from noise2action.diffusion.sde import ddpm
from noise2action.errors import PathError

close = torch.testing.assert_close
PATHS: list[Path] = [
    Straight(),
    Cosine(),
    LinearVP(),
    SubVP(),
    VE(),
    Table(),
    Table(cosine_betas(100)),
    Schedule(steps=100, zero_terminal=True),
]
IDS = [type(path).__name__ for path in PATHS]


def at(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_transitions_compose_to_the_marginal(path: Path) -> None:
    """Mean and variance carried step by step from data are alpha and sigma^2, in one step or a hundred."""
    for steps in (1, 7, 100):
        mean, variance = at(1.0), at(0.0)
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        for s, t in pairwise(times):
            scale, added = transition(path, s, t=t)
            mean, variance = scale * mean, scale**2 * variance + added
            close(mean, path.alpha(t), rtol=1e-10, atol=1e-12)
            close(variance, path.variance(t), rtol=1e-10, atol=0)


@pytest.mark.parametrize("betas", [linear_betas(1000), linear_betas(50), cosine_betas(100)])
def test_a_step_of_a_table_is_its_beta(betas: tuple[float, ...]) -> None:
    """Ho et al. 2020, Eq. 2: q(x_k | x_(k-1)) = N(sqrt(1 - beta_k) x, beta_k)."""
    k = torch.arange(len(betas) + 1, dtype=torch.float64) / len(betas)
    scale, variance = transition(Table(betas), k[:-1], t=k[1:])
    beta = torch.tensor(betas, dtype=torch.float64)
    close(scale, (1 - beta).sqrt(), rtol=1e-12, atol=0)
    # The difference of two powers near 1: 1e-16 against a beta of down to 1e-4.
    close(variance, beta, rtol=1e-10, atol=0)


def test_the_posterior_is_the_textbook_from_betas() -> None:
    """Ho et al. 2020, Eq. 7, in the notation of the paper."""
    betas = np.array(linear_betas(100))
    abar = np.cumprod(1 - betas)
    x_t, x0 = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in (2, 3, 50, 99, 100):  # 1-based, as in the formulas
        beta, now, before = betas[k - 1], abar[k - 1], abar[k - 2]
        found = posterior(Table(tuple(betas.tolist())), x_t, x0=x0, t=at(k / 100), s=at((k - 1) / 100))
        mean = math.sqrt(before) * beta / (1 - now) * x0 + math.sqrt(1 - beta) * (1 - before) / (1 - now) * x_t
        close(found.mean, mean, rtol=1e-9, atol=1e-12)
        close(found.variance, at((1 - before) / (1 - now) * beta), rtol=1e-9, atol=0)
        close(found.beta, at(beta), rtol=1e-9, atol=0)
    last = posterior(Table(), x_t, x0=x0, t=at(0.01), s=at(0.0))
    close(last.mean, x0, rtol=1e-12, atol=1e-12)
    assert last.variance.item() == 0.0


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_the_posterior_is_bayes_rule(path: Path) -> None:
    """log q(x_s | x_t, x0) = log q(x_t | x_s) + log q(x_s | x0) - log q(x_t | x0), at any x_s."""
    generator = torch.Generator().manual_seed(1)
    x_s, z, x0 = torch.randn(3, 5, generator=generator, dtype=torch.float64)

    def log_normal(x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        return -0.5 * ((x - mean) ** 2 / variance + (2 * math.pi * variance).log())

    for earlier, later in ((0.1, 0.2), (0.3, 0.9), (0.55, 0.56), (0.4, 1.0)):
        s, t = at(earlier), at(later)
        x_t = path.noised(x0, t, z)
        found = posterior(path, x_t, x0=x0, t=t, s=s)
        scale, variance = transition(path, s, t=t)
        marginal = [log_normal(x, path.alpha(u) * x0, path.variance(u)) for x, u in ((x_s, s), (x_t, t))]
        bayes = log_normal(x_t, scale * x_s, variance) + marginal[0] - marginal[1]
        # Near the data the densities are sharp: hundreds of nats, so relative.
        close(log_normal(x_s, found.mean, found.variance), bayes, rtol=1e-8, atol=1e-8)
        assert bool((found.variance < found.beta).all())


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_ancestral_sampling_is_the_posterior_with_x0_hat_for_x0(path: Path) -> None:
    """DDIM with eta = 1 adds beta~, never beta: "sigma = sqrt(beta) makes DDIM equal DDPM" is a mistake."""
    grid = torch.tensor([0.9, 0.6, 0.3, 0.1, 0.0], dtype=torch.float64)
    x_t, x0 = torch.randn(2, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    tilde, upper = ddim(path, grid, eta=1.0), ddpm(path, grid, variance="beta")
    for i in range(4):
        found = posterior(path, x_t, x0=x0, t=grid[i], s=grid[i + 1])
        close(tilde.keep[i] * x_t + tilde.gain[i, 0] * x0, found.mean, rtol=1e-9, atol=1e-12)
        close(tilde.fresh[i] ** 2, found.variance, rtol=1e-9, atol=1e-15)
        if i < 3:
            close(upper.fresh[i] ** 2, found.beta, rtol=1e-9, atol=0)
            assert found.variance < 0.999 * found.beta


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_the_chain_has_the_moments_of_the_jump(path: Path) -> None:
    n = 20_000
    x0 = torch.full((n, 1), 1.5, dtype=torch.float64)
    times = [0.1, 0.2, 0.5, 0.9, 1.0]
    chain = list(forward_chain(path, x0, times=times, generator=torch.Generator().manual_seed(3)))
    for time, x in zip(times, chain, strict=True):
        mean, variance = path.alpha(at(time)) * 1.5, path.variance(at(time))
        # Five standard errors of a mean and of a variance.
        assert abs(x.mean() - mean) < 5 * (variance / n).sqrt()
        assert abs(x.var() - variance) < 5 * variance * (2 / n) ** 0.5
    # And it is a chain: neighbours are correlated as the scale says.
    scale, _ = transition(path, at(0.2), t=at(0.5))
    fitted = ((chain[2] - chain[2].mean()) * (chain[1] - chain[1].mean())).mean() / chain[1].var()
    noise = transition(path, at(0.2), t=at(0.5))[1] / path.variance(at(0.2))
    assert abs(fitted - scale) < 5 * (noise / n).sqrt()


def test_times_a_sample_and_the_type_of_the_data() -> None:
    x = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(4))
    s, t = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.9]], dtype=torch.float64)
    found = posterior(LinearVP(), x, x0=x * 0.5, t=t, s=s)
    assert found.mean.dtype == found.variance.dtype == torch.float32
    for b in range(3):
        alone = posterior(LinearVP(), x[b : b + 1], x0=x[b : b + 1] * 0.5, t=t[b], s=s[b])
        close(found.mean[b : b + 1], alone.mean, rtol=1e-6, atol=1e-6)
    rows = [torch.Generator().manual_seed(i) for i in range(3)]
    moved = step(LinearVP(), x, s=s, t=t, generator=rows)
    alone = step(LinearVP(), x[1:2], s=s[1], t=t[1], generator=[torch.Generator().manual_seed(1)])
    assert moved.dtype == torch.float32
    close(moved[1:2], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("s", "t"), [(0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0.5, 1.1), (0.1, math.nan)])
def test_times_that_do_not_rise_are_refused(s: float, t: float) -> None:
    with pytest.raises(PathError, match="expected times 0 <= s < t <= 1"):
        transition(LinearVP(), at(s), t=at(t))
