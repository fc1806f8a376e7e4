"""Mistakes in circulation: each test runs the mistake and shows it failing, beside our way.

`docs/theory.md` lists these and the ones that other tests show.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from noise2action.diffusion.denoisers import cfg
from noise2action.diffusion.exact import Mixture
from noise2action.diffusion.grids import Trailing
from noise2action.diffusion.multistep import ddim
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.paths import VE, Cosine, LinearVP, Path, Straight, SubVP, Table, linear_betas
from noise2action.diffusion.samplers import DDIM
from noise2action.diffusion.sampling import sample
from noise2action.diffusion.tableau import run
from noise2action.diffusion.targets import Epsilon
from noise2action.diffusion.times import Uniform

close = torch.testing.assert_close


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def test_starting_from_noise_that_was_never_seen_moves_the_samples() -> None:
    """Betas of 1000 steps on 100: the exact flow then maps the sampler's start to another mean, with any denoiser."""
    mean, std, n = 2.0, 0.5, 20_000
    found: dict[str, Tensor] = {}
    expected: dict[str, float] = {}
    for label, betas in {"mistake": tuple(np.linspace(1e-4, 0.02, 100).tolist()), "ours": linear_betas(100)}.items():
        path = Table(betas)
        alpha, sigma = path.ends()
        expected[label] = mean * (1 - std * alpha / math.hypot(alpha * std, sigma))
        like = torch.empty(n, 1, dtype=torch.float64)
        data = Mixture.gaussian(path, [mean], std=std)
        found[label] = sample(data.denoise, path, like, sampler=DDIM(), grid=Trailing(), nfe=100, generator=seeded())
    assert expected["mistake"] < 0.7 * mean
    for label, x in found.items():
        # Five standard errors, and the error of a hundred first-order steps.
        assert x.mean().item() == pytest.approx(expected[label], abs=5 * std / math.sqrt(n) + 0.03)
    assert found["ours"].mean().item() == pytest.approx(mean, abs=0.05)


def test_a_loop_that_ends_at_the_first_step_of_the_table_keeps_its_noise() -> None:
    """A last target of abar[0] is the noise level sqrt(beta_1); ours is 0, and the sample is the data."""
    path, x0, eps = Table(linear_betas(50)), normal(4, 3), normal(4, 3, seed=1)
    grid = Trailing().times(path, 50)
    x_1 = path.noised(x0, grid[0], eps)

    def oracle(x_t: Tensor, t: Tensor) -> Tensor:
        return x0

    mistaken = run(oracle, ddim(path, grid[:-1]), x_1)
    beta = path.betas[0]
    close(mistaken, math.sqrt(1 - beta) * x0 + math.sqrt(beta) * eps, rtol=0, atol=1e-12)
    assert (mistaken - x0).abs().max() > 0.01
    assert torch.equal(run(oracle, ddim(path, grid), x_1), x0)


def test_subtracting_the_noise_estimate_is_no_reverse_step() -> None:
    """`x <- x - eps`, T times, with the true noise: it ends T - sigma(1) noises away; one DDIM step is exact."""
    path, x0, eps = Table(linear_betas(50)), normal(4, 3), normal(4, 3, seed=1)
    x_1 = path.noised(x0, torch.ones((), dtype=torch.float64), eps)
    x = x_1
    for _ in range(50):
        x = x - eps
    assert ((x - x0).norm() / eps.norm()).item() > 40
    again = run(lambda x_t, t: x0, ddim(path, Trailing().times(path, 1)), x_1)
    assert torch.equal(again, x0)


@pytest.mark.parametrize("steps", [10, 100, 1000])
def test_a_network_sees_times_from_0_to_1_whatever_the_number_of_steps(steps: int) -> None:
    """k / 1000 would show a network of 100 steps a tenth of its range; t = k / T shows the same range for every T."""
    path, seen = Table(linear_betas(steps)), []

    def net(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return torch.zeros_like(x_t)

    objective = Diffusion(path=path, target=Epsilon(), times=Uniform())
    objective.loss(net, torch.zeros(20_000, 1), generator=seeded())
    trained = seen.pop().unique()
    close(trained, torch.arange(1, steps + 1) / steps, rtol=0, atol=1e-6)
    grid = Trailing().times(path, 10)
    run(objective.denoiser(net), ddim(path, grid), torch.zeros(1, 1))
    sampled = torch.stack(seen)
    assert sampled[0] == 1.0
    assert torch.isin(sampled, trained).all()
    mistaken = sampled * steps / 1000
    assert (mistaken.max() == 1.0) == (steps == 1000)


@pytest.mark.parametrize("w", [-1.0, 0.0, 0.5, 3.0])
def test_the_other_scale_of_guidance_is_one_more(w: float) -> None:
    """`u + s (c - u)` is `(1 + w) c - w u` at s = 1 + w: s = 0 is unconditional, s = 1 conditional, not w."""
    c, u, t = normal(5, 2), normal(5, 2, seed=1), torch.tensor(0.5)
    guided = cfg(lambda x_t, t: torch.cat([c, u]), w)(normal(5, 2, seed=2), t)
    s = 1 + w
    close(guided, u + s * (c - u), rtol=1e-12, atol=1e-12)
    known = {-1.0: u, 0.0: c}
    assert torch.equal(guided, known.get(w, guided))
    # Read as the scale s, the weight 0 would be unconditional.
    assert not torch.allclose(guided, u + w * (c - u))


@pytest.mark.parametrize("path", [LinearVP(), Cosine(), SubVP(), VE(), Straight()], ids=lambda p: type(p).__name__)
def test_the_flow_is_f_minus_half_g_squared_score_and_half_beta_form_is_for_vp_only(path: Path) -> None:
    """With beta = g^2: `-1/2 beta (x + score)` has the VP drift -beta/2 built in, which other paths do not have."""
    data = Mixture.gaussian(path, [0.3], std=0.6)
    times = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    x, t = normal(3, 1), times.unsqueeze(1)
    x0_hat = data.denoise(x, times)
    eps_hat = (x - path.alpha(t) * x0_hat) / path.sigma(t)
    score = -eps_hat / path.sigma(t)
    alpha_rate, sigma_rate = path.rates(t)
    truth = alpha_rate * x0_hat + sigma_rate * eps_hat  # dx_t/dt along a straight pair (x0_hat, eps_hat)
    close(path.drift(t) * x - path.diffusion_squared(t) / 2 * score, truth, rtol=1e-9, atol=1e-9)
    half_beta = -path.diffusion_squared(t) / 2 * (x + score)
    preserving = isinstance(path, (LinearVP, Cosine)) and not isinstance(path, SubVP)
    assert torch.allclose(half_beta, truth, rtol=1e-3) == preserving


def test_stepping_back_in_time_subtracts_the_rate() -> None:
    """`x_(t - dt) = x_t - dt dx/dt`; with a plus the state runs away from the data's spread."""
    path, n = LinearVP(), 200
    data = Mixture.gaussian(path, [0.3], std=0.6)
    times = torch.arange(n, 1, -1, dtype=torch.float64) / n
    drift, half = path.drift(times), path.diffusion_squared(times) / 2
    ends: dict[int, float] = {}
    for sign in (-1, 1):
        x = normal(1000, 1)
        for t, f, g in zip(times, drift, half, strict=True):
            x = x + sign / n * (f * x - g * data.score(x, t))
        ends[sign] = x.std().item()
    assert ends[-1] == pytest.approx(0.6, rel=0.1)
    assert abs(ends[1] - 0.6) > 0.3


def test_in_cross_attention_the_trajectory_asks_and_the_observation_answers() -> None:
    """One row an action, whatever the order of the observation's tokens; the other way round it is one row a token."""
    actions, observation = normal(1, 16, 8), normal(1, 3, 8, seed=1)
    attend = torch.nn.functional.scaled_dot_product_attention
    seen = attend(actions, observation, observation)
    assert seen.shape == actions.shape
    close(seen, attend(actions, observation.flip(1), observation.flip(1)), rtol=1e-12, atol=1e-12)
    assert attend(observation, actions, actions).shape != actions.shape
