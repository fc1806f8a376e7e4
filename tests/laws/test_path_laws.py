"""Laws of every path, and of the paths' derived quantities against the textbook."""

import math

import pytest
import torch
from exact import PATHS, SMOOTH, TABLES, f64, inner_times, name

from noise2action.diffusion.paths import VE, Cosine, LinearVP, Path, Straight, SubVP, Table

VP = [p for p in SMOOTH if type(p) is LinearVP]
SUB_VP = [p for p in SMOOTH if isinstance(p, SubVP)]
EXPLODING = [p for p in SMOOTH if isinstance(p, VE)]
close = torch.testing.assert_close


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("path", PATHS, ids=name)
def test_data_end_is_exact(path: Path, dtype: torch.dtype) -> None:
    zero = torch.zeros((), dtype=dtype)
    assert path.alpha(zero).item() == 1.0
    assert path.sigma(zero).item() == 0.0
    assert path.alpha(zero).dtype == path.sigma(zero).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("path", [Straight(), Cosine()], ids=name)
def test_noise_end_is_exact_where_no_signal_is_left(path: Path, dtype: torch.dtype) -> None:
    one = torch.ones((), dtype=dtype)
    assert path.alpha(one).item() == 0.0
    assert path.sigma(one).item() == 1.0


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_half_log_snr_falls_strictly(path: Path) -> None:
    steps = path.steps if isinstance(path, Table) else 1000
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    half_log_snr = path.half_log_snr(t)
    assert half_log_snr[0] == math.inf
    assert bool((half_log_snr.diff() < 0).all())


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_snr_is_that_of_alpha_and_sigma(path: Path) -> None:
    t = inner_times(path)
    close((2 * path.half_log_snr(t)).exp(), (path.alpha(t) / path.sigma(t)) ** 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_scales_are_alpha_and_sigma(path: Path) -> None:
    """Looked up together, and as numbers: at the steps of a table, between them, at the ends and beyond."""
    steps = getattr(path, "steps", 7)
    t = torch.cat([torch.linspace(-0.1, 1.1, 997, dtype=torch.float64), f64(*range(steps + 1)) / steps])
    t = t if isinstance(path, Table) else t.clamp(0, 1)
    alpha, sigma = path.scales(t)
    assert torch.equal(alpha, path.alpha(t))
    assert torch.equal(sigma, path.sigma(t))
    for time in t[::5]:
        a, s = path.scales_at(float(time))
        assert a == float(path.alpha(time))
        assert s == pytest.approx(float(path.sigma(time)), rel=5e-16, abs=0)  # square roots differ by a last bit


@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_rates_are_derivatives(path: Path) -> None:
    t, h = inner_times(path), 1e-5
    for rate, scale in zip(path.rates(t), (path.alpha, path.sigma), strict=True):
        # Central differences: h^2/6 times the third derivative (below 1e3 scales here), rounding 1e-16/h.
        close(rate, (scale(t + h) - scale(t - h)) / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_rates_take_one_time_expanded_over_a_batch(path: Path) -> None:
    t = f64(0.3)
    for single, many in zip(path.rates(t), path.rates(t.expand(4, 2)), strict=True):
        assert torch.equal(many, single.expand(4, 2))


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_time_at_inverts_half_log_snr(path: Path) -> None:
    t = inner_times(path)
    # The bisection is exact; what remains is rounding of lambda over its slope (at least 1 in these times).
    close(path.time_at(path.half_log_snr(t)), t, rtol=0, atol=1e-13)
    single = path.time_at(path.half_log_snr(t[3]))
    assert single.shape == ()
    assert single.dtype == torch.float64


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_time_at_clamps_to_the_ends(path: Path) -> None:
    ends = path.time_at(f64(math.inf, 1e4, -1e4, -math.inf))
    assert (ends[0], ends[3]) == (0, 1)
    assert 0 <= ends[1] <= 1e-12
    assert 1 - 1e-12 <= ends[2] <= 1


@pytest.mark.parametrize("path", TABLES, ids=name)
def test_time_at_is_continuous_between_the_steps_of_a_table(path: Table) -> None:
    steps = torch.arange(1, path.steps + 1, dtype=torch.float64) / path.steps
    t = torch.cat([steps[:-1], steps[:-1] - 0.3 / path.steps])
    close(path.time_at(path.half_log_snr(t)), t, rtol=0, atol=1e-13)
    nearest = path.nearest(t)
    assert torch.equal(nearest, steps[:-1].repeat(2))


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_noised_takes_every_shape_of_time(path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 5, 3, generator=generator, dtype=torch.float64)
    t = path.snap(torch.rand(4, 5, generator=generator, dtype=torch.float64))
    whole = path.noised(x0, t, eps)
    for b in range(4):
        assert torch.equal(path.noised(x0, t[:, 2], eps)[b], path.noised(x0[b], t[b, 2], eps[b]))
        for h in range(5):
            expected = path.alpha(t[b, h]) * x0[b, h] + path.sigma(t[b, h]) * eps[b, h]
            close(whole[b, h], expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_sde_keeps_the_marginals(path: Path) -> None:
    """The moments of `dx = f x dt + g dw` obey d mean/dt = f mean and d var/dt = 2 f var + g^2."""
    t, h = inner_times(path), 1e-5
    alpha_rate = (path.alpha(t + h) - path.alpha(t - h)) / (2 * h)
    variance_rate = (path.sigma(t + h) ** 2 - path.sigma(t - h) ** 2) / (2 * h)
    f, g_squared = path.drift(t), path.diffusion_squared(t)
    close(f * path.alpha(t), alpha_rate, rtol=1e-6, atol=1e-8)
    close(2 * f * path.sigma(t) ** 2 + g_squared, variance_rate, rtol=1e-6, atol=1e-8)
    assert bool((g_squared > 0).all())


@pytest.mark.parametrize("path", VP, ids=name)
def test_vp_sde_is_song_eq_11(path: LinearVP) -> None:
    t = inner_times(path)
    beta = path.beta_min + t * (path.beta_max - path.beta_min)
    close(path.drift(t), -beta / 2, rtol=1e-12, atol=0)
    close(path.diffusion_squared(t), beta, rtol=1e-11, atol=0)
    integral = path.beta_min * t + t**2 / 2 * (path.beta_max - path.beta_min)
    close(path.alpha(t), (-integral / 2).exp(), rtol=1e-13, atol=0)
    close(path.sigma(t) ** 2, 1 - (-integral).exp(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("path", SUB_VP, ids=name)
def test_sub_vp_sde_is_song_eq_12(path: SubVP) -> None:
    t = inner_times(path)
    beta = path.beta_min + t * (path.beta_max - path.beta_min)
    integral = path.beta_min * t + t**2 / 2 * (path.beta_max - path.beta_min)
    close(path.drift(t), -beta / 2, rtol=1e-12, atol=0)
    close(path.diffusion_squared(t), beta * (1 - (-2 * integral).exp()), rtol=1e-11, atol=0)
    close(path.sigma(t), 1 - (-integral).exp(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("path", EXPLODING, ids=name)
def test_ve_sde_is_song_eq_9(path: VE) -> None:
    t = inner_times(path)
    assert bool((path.drift(t) == 0).all())
    ratio = path.sigma_max / path.sigma_min
    # d/dt of the geometric sigma^2 = sigma_min^2 ratio^(2t), scaled so that the shifted variance ends at sigma_max^2.
    scaled = path.sigma_min**2 / (1 - ratio**-2)
    close(path.diffusion_squared(t), scaled * ratio ** (2 * t) * 2 * math.log(ratio), rtol=1e-10, atol=0)
    assert path.sigma(f64(1.0)).item() == pytest.approx(path.sigma_max, rel=1e-14)
    # Far above sigma_min it is the geometric sequence of the paper.
    close(path.sigma(f64(0.9)), path.sigma_min * f64(ratio) ** 0.9, rtol=1e-4, atol=0)


@pytest.mark.parametrize("path", TABLES, ids=name)
def test_rates_of_a_table_are_the_slope_of_its_segment(path: Table) -> None:
    """At a step itself, that of the segment towards the data."""
    steps = torch.arange(path.steps + 1, dtype=torch.float64) / path.steps
    alpha = path.alpha_bar.sqrt()
    slope = alpha.diff() * path.steps
    for t in (steps[1:], steps[1:] - 0.01 / path.steps, steps[1:] - 0.5 / path.steps, steps[1:] - 0.99 / path.steps):
        alpha_rate, sigma_rate = path.rates(t)
        # The slope is a difference of two alphas: 1e-16 over a fall of down to 1e-4.
        close(alpha_rate, slope, rtol=1e-9, atol=1e-12)
        close(sigma_rate, -path.alpha(t) * slope / path.sigma(t), rtol=1e-9, atol=1e-12)
    alpha_rate, sigma_rate = path.rates(steps[0])
    assert (alpha_rate.item(), sigma_rate.item()) == (pytest.approx(slope[0].item(), rel=1e-9), math.inf)


@pytest.mark.parametrize("path", TABLES, ids=name)
def test_sde_of_a_table_keeps_its_marginals(path: Table) -> None:
    """sigma^2 = 1 - alpha^2 makes g^2 = -2 f: the variance-preserving SDE whose beta is the table's, in the limit."""
    t = (torch.arange(path.steps - 1, dtype=torch.float64) + 0.5) / path.steps
    f, g_squared = path.drift(t), path.diffusion_squared(t)
    close(g_squared, -2 * f, rtol=1e-9, atol=0)
    close(f * path.alpha(t), path.rates(t)[0], rtol=1e-12, atol=0)
    betas = f64(*path.betas[:-1])
    small = betas < 0.05
    # beta_k / dt: the continuous rate differs by the square of the step.
    close(g_squared[small] / path.steps, betas[small], rtol=0.05, atol=0)


@pytest.mark.parametrize("path", TABLES, ids=name)
def test_alpha_and_sigma_of_a_table_are_continuous(path: Table) -> None:
    k = torch.arange(2 * path.steps + 1, dtype=torch.float64) / (2 * path.steps)  # steps and middles of segments
    inner = k[1:-1]
    for scale in (path.alpha, path.variance):
        jump = scale(inner + 1e-9) - scale(inner - 1e-9)
        assert jump.abs().max() < 1e-6


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_nearest_is_the_noisy_time_that_networks_know(path: Path) -> None:
    t = torch.rand(500, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    nearest = path.nearest(t)
    assert torch.equal(path.snap(nearest), nearest)
    if not isinstance(path, Table):
        assert torch.equal(nearest, t)
        return
    k = nearest * path.steps
    assert k.min() >= 0.99
    inside = t * path.steps > 0.5
    assert bool(((k - t * path.steps).abs() <= 0.5 + 1e-9)[inside].all())
    assert path.nearest(f64(0.0, 1.0)).tolist() == [1 / path.steps, 1.0]


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_snap_gives_noisy_times_and_keeps_its_own(path: Path) -> None:
    t = torch.rand(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    snapped = path.snap(t)
    assert torch.equal(path.snap(snapped), snapped)
    assert bool((path.sigma(snapped) > 0).all())
    steps = path.steps if isinstance(path, Table) else math.inf
    assert bool(((snapped - t) >= 0).all())
    assert bool(((snapped - t) < 1 / steps + 1e-12).all())


@pytest.mark.parametrize("path", TABLES, ids=name)
def test_snap_is_uniform_over_the_noisy_steps(path: Table) -> None:
    """Uniform times hit steps 1 .. T equally often, never step 0: as in the DDPM training loop."""
    t = (torch.arange(10 * path.steps, dtype=torch.float64) + 0.5) / (10 * path.steps)
    count = torch.bincount((path.snap(t) * path.steps).round().long(), minlength=path.steps + 1)
    assert count.tolist() == [0] + [10] * path.steps
    assert path.snap(f64(0.0, 1.0)).tolist() == [1 / path.steps, 1.0]
