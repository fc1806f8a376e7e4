"""Information laws: I-MMSE, the chain of what noise destroys, and bounds that become the exact log-likelihood."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from noise2action.diffusion.exact import Mixture
from noise2action.diffusion.information import (
    bits_per_dim,
    code_length,
    continuous_code_length,
    entropy_gaussian,
    mmse_gaussian,
    mutual_information_gaussian,
    snr,
    staircase,
)
from noise2action.diffusion.paths import VE, Cosine, LinearVP, Path, Straight, SubVP
from noise2action.errors import PathError
from noise2action.seeds import generator

close = torch.testing.assert_close
PATHS = [Straight(), Cosine(), LinearVP(), SubVP(), VE()]
VARIANCES = torch.tensor([0.2, 1.0, 3.5], dtype=torch.float64)
LEVELS = torch.logspace(-3, 3, 25, dtype=torch.float64)


def f64(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def log_normal(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return -(((x - mean) / std) ** 2) / 2 - std.log() - math.log(2 * math.pi) / 2


def test_the_information_grows_with_half_the_mmse():
    levels = LEVELS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(mutual_information_gaussian(levels, VARIANCES).sum(), levels)
    close(slope, mmse_gaussian(LEVELS, VARIANCES) / 2)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_the_information_is_the_entropy_less_what_the_noise_leaves(path: Path):
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    alpha, variance = path.alpha(t).unsqueeze(-1), path.variance(t).unsqueeze(-1)
    noisy = entropy_gaussian(alpha**2 * VARIANCES + variance)
    noise = entropy_gaussian(variance.expand(-1, 3))
    close(noisy - noise, mutual_information_gaussian(snr(path, t), VARIANCES))


def test_i_mmse_holds_for_a_mixture_by_quadrature():
    path = Cosine()
    means = torch.tensor([[-1.0], [0.3], [1.2]], dtype=torch.float64)
    data = Mixture.around(path, means, std=0.2)
    x = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    step = float(x[1] - x[0])

    def information_and_mmse(level: float) -> tuple[float, float]:
        t = path.time_at(f64(math.log(level) / 2))
        density = data.log_density(x.unsqueeze(1), t).exp()
        entropy = -float(torch.special.xlogy(density, density).sum()) * step
        x0_hat = data.denoise(x.unsqueeze(1), t).squeeze(1)
        power = float((means**2).mean()) + 0.2**2
        noise = math.log(2 * math.pi * math.e * float(path.variance(t))) / 2
        return entropy - noise, power - float((density * x0_hat**2).sum()) * step

    for level in (0.1, 1.0, 20.0):
        h = level * 1e-3
        slope = (information_and_mmse(level + h)[0] - information_and_mmse(level - h)[0]) / (2 * h)
        assert slope == pytest.approx(information_and_mmse(level)[1] / 2, rel=1e-4)


def test_what_the_levels_destroy_adds_up_to_the_whole():
    known = mutual_information_gaussian(LEVELS, VARIANCES)
    # What x_s tells of x0 beyond x_t: the capacity formula with the variance that x_t has left.
    left = VARIANCES / (1 + LEVELS[:-1].unsqueeze(-1) * VARIANCES)
    destroyed = torch.log1p(LEVELS.diff().unsqueeze(-1) * left).sum(-1) / 2
    close(known[0] + destroyed.cumsum(0), known[1:])


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_a_step_costs_the_kl_of_the_two_posteriors(path: Path):
    x0 = torch.tensor([[0.7, -1.1]], dtype=torch.float64)
    x0_hat = torch.tensor([[0.2, 0.4]], dtype=torch.float64)
    times = torch.tensor([0.9, 0.6, 0.3], dtype=torch.float64)
    code = code_length(lambda x_t, t: x0_hat, path, x0, times=times, generator=generator(0))
    for k, (t, s) in enumerate([(0.9, 0.6), (0.6, 0.3)]):
        (a_t, a_s), (b_t, b_s) = ([float(f(f64(u))) for u in (t, s)] for f in (path.alpha, path.sigma))
        step = b_t**2 - (a_t / a_s * b_s) ** 2  # variance that the way from s to t adds
        # q(x_s | x_t, x0) has this factor on x0, and this variance.
        gain, variance = a_s * step / b_t**2, step * b_s**2 / b_t**2
        kl = (gain * (x0 - x0_hat)).square().sum() / (2 * variance)
        assert code.steps[0, k].item() == pytest.approx(kl.item(), rel=1e-5)
    alpha, sigma = path.alpha(times), path.sigma(times)
    prior = float(((alpha[0] / sigma[0] * x0) ** 2).sum()) / 2
    assert code.prior.item() == pytest.approx(prior, rel=1e-6)
    decoder = -log_normal(x0, x0_hat, (sigma[-1] / alpha[-1]).expand(2)).sum()
    assert code.reconstruction.item() == pytest.approx(decoder.item(), rel=1e-6)
    close(code.nats, code.prior + code.steps.sum(1) + code.reconstruction)


def expected_bound(x0: Tensor, steps: int, *, mean: float = 0.3, std: float = 0.6) -> Tensor:
    """Return the mean over the noise of the discrete bound with the exact denoiser of N(mean, std^2)."""
    levels = torch.linspace(-9, 9, steps, dtype=torch.float64).mul(2).exp()
    shrink = levels * std**2 / (1 + levels * std**2)
    # x0_hat - x0 = (1 - shrink) (mean - x0) + shrink sigma / alpha eps
    errors = (1 - shrink) ** 2 * (x0 - mean) ** 2 + shrink**2 / levels
    return staircase(levels, (x0**2).squeeze(1), errors, dims=1).nats


def test_the_bound_falls_to_the_exact_log_likelihood_of_every_point():
    x0 = torch.linspace(-1, 1.6, 11, dtype=torch.float64).unsqueeze(1)
    exact = -log_normal(x0.squeeze(1), torch.tensor(0.3), torch.tensor(0.6))
    gaps = [expected_bound(x0, n) - exact for n in (250, 1000, 4000)]
    for coarse, fine in itertools.pairwise(gaps):
        close(coarse / fine, torch.full((11,), 4.0, dtype=torch.float64), atol=0.2, rtol=0)  # first order
    close((4 * gaps[2] - gaps[1]) / 3, torch.zeros(11, dtype=torch.float64), atol=1e-3, rtol=0)


@pytest.mark.parametrize("path", [Straight(), Cosine(), LinearVP()], ids=repr)
def test_the_continuous_bound_is_the_exact_log_likelihood_on_average(path: Path):
    data = Mixture.ring(path, modes=3, radius=1.2, std=0.3)
    x0, _ = data.draw(8_000, generator(1))
    code = continuous_code_length(data.denoise, path, x0, low=-4.5, high=4.0, draws=12, generator=generator(2))
    gap = code.nats + data.log_density(x0, f64(0.0))
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(8_000)
    assert float(gap.std()) / math.sqrt(8_000) < 0.035


def test_a_discrete_bound_is_longer_and_depends_on_noise_levels_only():
    x0, _ = Mixture.ring(Cosine()).draw(2_000, generator(3))
    levels = torch.linspace(-4, 4, 12, dtype=torch.float64)
    codes: list[Tensor] = []
    for path in (Straight(), Cosine(), VE()):
        data = Mixture.ring(path)
        code = code_length(data.denoise, path, x0, times=path.time_at(levels), generator=generator(4))
        codes.append(code.nats)
    for other in codes[1:]:
        close(other, codes[0], atol=1e-5, rtol=1e-5)
    exact = -Mixture.ring(Cosine()).log_density(x0, f64(0.0))
    assert float(codes[0].mean() - exact.mean()) > 0.1


def test_the_continuous_bound_stays_within_a_path_that_ends_early():
    path = LinearVP(beta_min=0.1, beta_max=4.0)  # leaves a tenth of the signal power at t = 1
    data = Mixture.gaussian(path, [0.0], std=0.5)
    x0, _ = data.draw(20_000, generator(5))
    code = continuous_code_length(data.denoise, path, x0, low=-9.0, high=3.0, draws=8, generator=generator(6))
    end = float(snr(path, torch.ones((), dtype=torch.float64)))
    # What is left at t = 1 is sent by the prior; the gap is its KL beyond the information that x_1 carries.
    extra = end * 0.25 / 2 - math.log1p(end * 0.25) / 2
    gap = code.nats + data.log_density(x0, f64(0.0)) - extra
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(20_000)


def test_bits_count_bins():
    # A uniform density on [0, 1)^2 stored in 256 bins each way is 8 bits a dimension.
    close(bits_per_dim(torch.zeros(1), 2, precision=1 / 256), torch.tensor([8.0]))
    # The same data in a unit twice as large: the density halves a dimension, the bins double.
    close(bits_per_dim(torch.tensor([2 * math.log(2)]), 2, precision=2 / 256), torch.tensor([8.0]))


def test_times_that_do_not_get_cleaner_are_refused():
    x0 = torch.zeros(2, 2)
    for times in ([0.5, 0.5], [0.2, 0.8], [0.5, 0.0]):
        with pytest.raises(PathError, match="leave out t = 0"):
            code_length(lambda x, t: x, Straight(), x0, times=torch.tensor(times), generator=generator(0))
    with pytest.raises(PathError, match="expected low < high"):
        continuous_code_length(lambda x, t: x, Straight(), x0, low=1.0, high=1.0, draws=2, generator=generator(0))
