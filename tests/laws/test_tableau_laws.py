"""Laws of the samplers' tables: two identities in every row, and the textbook coefficients."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from exact import GRIDS, PATHS, SAMPLERS, SMOOTH, TABLES, Gaussian, log_snr_grid, name, nfe_of, often, times_of
from hypothesis import given
from hypothesis import strategies as st

from noise2action.diffusion.grids import Grid, Karras, LogSNR, Trailing
from noise2action.diffusion.multistep import adams, ddim, dpm_solver_pp, renoise, unipc
from noise2action.diffusion.paths import VE, Cosine, LinearVP, Path, Schedule, Straight, SubVP, Table, linear_betas
from noise2action.diffusion.samplers import (
    DDIM,
    DDPM,
    NAMED,
    Adams,
    DPMSolverPP,
    DPMSolverPPSDE,
    EDMStochastic,
    Heun,
    Hybrid,
    Midpoint,
)
from noise2action.diffusion.sampling import TableSampler, prior
from noise2action.diffusion.sde import Churn, ddpm, edm_stochastic, euler_maruyama, predictor_corrector
from noise2action.diffusion.singlestep import CLASSIC, HEUN, MIDPOINT, dpm_solver, dpm_solver_pp_2s, runge_kutta
from noise2action.diffusion.tableau import Tableau, run
from noise2action.errors import PathError, ShapeError, SolverError

close = torch.testing.assert_close
NODES = np.polynomial.legendre.leggauss(200)
OVER_DISPERSED = DDPM(variance="beta")


def scales(path: Path, tableau: Tableau) -> tuple[torch.Tensor, torch.Tensor]:
    return path.alpha(tableau.times), path.sigma(tableau.times)


def check_identities(path: Path, sampler: TableSampler, times: torch.Tensor) -> None:
    tableau = sampler.tableau(path, times)
    # A step from or to an infinite half-log-SNR may need one call only.
    assert len(times) - 1 <= tableau.nfe == len(tableau.rows) <= nfe_of(sampler, len(times) - 1)
    assert set(times.tolist()) <= {*tableau.times.tolist(), *(times.tolist() if has_churn(sampler) else [])}
    for numbers in (tableau.keep, tableau.gain, tableau.fresh):
        assert numbers.dtype == torch.float64
        assert bool(numbers.isfinite().all())
    alpha, sigma = scales(path, tableau)
    base = torch.tensor(tableau.base)
    kept = tableau.keep * alpha[base]
    # Relative to the largest term: gains of both signs cancel.
    size = kept.abs() + tableau.gain.abs().sum(1) + alpha[1:]
    assert (((kept + tableau.gain.sum(1) - alpha[1:]) / size).abs() <= 1e-11).all()
    if sampler == OVER_DISPERSED:
        return
    left = tableau.keep**2 * sigma[base] ** 2 + tableau.fresh**2
    # The time of a stage is found from its half-log-SNR, and DPM-Solver divides by the alpha that a step begins with.
    slack = 1e-12 if sampler.calls == 1 else 1e-11 * (sigma[base] / alpha[base].clamp(min=1e-9)).clamp(min=1) ** 2
    assert ((left - sigma[1:] ** 2).abs() <= slack * sigma[1:] ** 2 + 1e-13 * sigma[base] ** 2).all()


def has_churn(sampler: TableSampler) -> bool:
    """Return whether noise is added before a step, which so begins at a noisier time than the grid's."""
    return isinstance(sampler, EDMStochastic) or (isinstance(sampler, Hybrid) and has_churn(sampler.second))


@pytest.mark.unchecked
@pytest.mark.parametrize("grid", GRIDS, ids=name)
@pytest.mark.parametrize("path", often(PATHS), ids=name)
def test_identities_on_every_grid(path: Path, grid: Grid) -> None:
    for sampler in SAMPLERS:
        check_identities(path, sampler, times_of(sampler, path, grid, 7))


@given(st.data())
@pytest.mark.parametrize("path", PATHS, ids=name)
def test_identities_on_any_grid(path: Path, data: st.DataObject) -> None:
    if isinstance(path, Table):
        inner = st.integers(1, path.steps).map(lambda k: k / path.steps)
    else:
        inner = st.integers(1, 10_000).map(lambda k: k / 10_000)
    times = sorted(data.draw(st.lists(inner, min_size=1, max_size=12, unique=True)), reverse=True)
    sampler = data.draw(st.sampled_from([s for s in SAMPLERS if s.calls == 1]))
    check_identities(path, sampler, torch.tensor([*times, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_the_step_variance_exceeds_the_path_by_the_known_amount(path: Path) -> None:
    """Beta instead of beta~ breaks the second identity by beta - beta~ = beta (1 - sigma_s^2 / sigma_t^2)."""
    tableau = ddpm(path, Trailing().times(path, 10), variance="beta")
    alpha, sigma = scales(path, tableau)
    excess = tableau.keep**2 * sigma[:-1] ** 2 + tableau.fresh**2 - sigma[1:] ** 2
    beta = sigma[:-1] ** 2 - (alpha[:-1] / alpha[1:]) ** 2 * sigma[1:] ** 2
    known = beta * (1 - sigma[1:] ** 2 / sigma[:-1] ** 2)
    known[-1] = 0  # no noise in the last step
    # Differences of numbers of the size of sigma_t^2.
    close(excess, known, rtol=0, atol=float(1e-13 * sigma[0] ** 2))
    assert bool((excess[:-1] > 0).all())
    assert tableau.fresh[-1].item() == 0.0


@pytest.mark.parametrize("steps", [1000, 100])
def test_eta_one_is_the_ddpm_posterior(steps: int) -> None:
    """Ho et al. 2020, Eq. 6-7, from the betas."""
    path = Table(linear_betas(steps))
    betas = np.array(path.betas)
    abar = np.concatenate([[1.0], np.cumprod(1 - betas)])
    k = np.arange(steps, 0, -1)  # formulas count from 1
    beta, now, before = betas[k - 1], abar[k], abar[k - 1]
    from_x0 = np.sqrt(before) * beta / (1 - now)
    from_x = np.sqrt(1 - beta) * (1 - before) / (1 - now)
    variance = (1 - before) / (1 - now) * beta
    grid = Trailing().times(path, steps)
    for tableau in (ddim(path, grid, eta=1.0), ddpm(path, grid)):
        # 1 - abar loses 1e-16 / 1e-4 near the data.
        np.testing.assert_allclose(tableau.gain[:, 0].numpy(), from_x0, rtol=1e-9)
        np.testing.assert_allclose(tableau.keep.numpy(), from_x, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(tableau.fresh.numpy() ** 2, variance, rtol=1e-9, atol=1e-15)
        assert (tableau.keep[-1].item(), tableau.gain[-1, 0].item(), tableau.fresh[-1].item()) == (0.0, 1.0, 0.0)
    upper = ddpm(path, grid, variance="beta")
    np.testing.assert_allclose(upper.fresh[:-1].numpy() ** 2, beta[:-1], rtol=1e-9)
    assert torch.equal(upper.keep, ddpm(path, grid).keep)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_eq_12_and_16(eta: float) -> None:
    """Song et al. 2021, in alpha-bars and with the noise estimate, over a sub-sequence of a table."""
    path = Table(linear_betas(1000))
    grid = Trailing().times(path, 20)
    abar = path.alpha_bar[(grid * 1000).round().long()]
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = run(
        lambda x_t, t: (x_t * 1.3).tanh() + t, ddim(path, grid, eta=eta), x, generator=torch.Generator().manual_seed(1)
    )
    noise = torch.Generator().manual_seed(1)
    for i, (now, after) in enumerate(pairwise(abar)):
        x0_hat = (x * 1.3).tanh() + grid[i]
        eps_hat = (x - now.sqrt() * x0_hat) / (1 - now).sqrt()
        spread = eta * ((1 - after) / (1 - now)).sqrt() * (1 - now / after).sqrt()
        x = after.sqrt() * (x - (1 - now).sqrt() * eps_hat) / now.sqrt() + (1 - after - spread**2).sqrt() * eps_hat
        if eta and after < 1:
            x = x + spread * torch.randn(x.shape, generator=noise, dtype=torch.float64)
    close(ours, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_passes_through_times_without_signal(eta: float) -> None:
    """The raw sigmoid schedule underflows: alpha is exactly 0 at several of its steps."""
    path = Schedule(steps=1000, name="sigmoid_raw")
    grid = Trailing().times(path, 250)
    assert path.alpha(grid[1]) == 0
    data = Gaussian(path)
    x = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = run(data.denoise, ddim(path, grid, eta=eta), x, generator=torch.Generator().manual_seed(1))
    assert abs(out.mean().item() - data.mean) < 0.05
    assert out.std().item() == pytest.approx(data.std, rel=0.1)


def test_ddim_on_straight_is_flow_euler() -> None:
    path = Straight()
    grid = torch.tensor([1.0, 0.83, 0.5, 0.21, 0.02, 0.0], dtype=torch.float64)
    denoise = Gaussian(path).denoise
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = run(denoise, ddim(path, grid), x)
    for t, s in pairwise(grid):
        velocity = (x - denoise(x, t)) / t  # eps_hat - x0_hat
        x = x + (s - t) * velocity
    close(ours, x, rtol=1e-12, atol=1e-12)


def test_eta_one_on_ve_is_ancestral_sampling() -> None:
    """Song et al. 2021 (SDE), appendix F: drift (sigma_t^2 - sigma_s^2) score, variance with the ratio of sigmas."""
    path = VE()
    grid = Karras().times(path, 12)
    tableau, sigma = ddim(path, grid, eta=1.0), path.sigma(grid)
    now, after = sigma[:-1] ** 2, sigma[1:] ** 2
    # score = (x0_hat - x) / sigma_t^2
    close(tableau.gain[:, 0], (now - after) / now, rtol=1e-10, atol=1e-14)
    close(tableau.keep, after / now, rtol=1e-10, atol=1e-14)
    close(tableau.fresh**2, after * (now - after) / now, rtol=1e-10, atol=1e-14)


def karras_levels(n: int) -> list[float]:
    return [(80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(n)] + [0.0]


def denoise_at(x: torch.Tensor, sigma: float) -> torch.Tensor:
    mean, std = 0.3, 0.5
    return mean + std**2 / (std**2 + sigma**2) * (x - mean) + 0.1 * (x / (1 + sigma)).sin()


def test_heun_on_ve_is_edm_algorithm_1() -> None:
    """Karras et al. 2022, algorithm 1 (S_churn = 0), with times equal to noise levels."""
    path, n = VE(), 18
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 80
    tableau = Heun(frame="edm").tableau(path, Karras().times(path, n))
    ours = run(lambda x_t, t: denoise_at(x_t, float(path.sigma(t))), tableau, x)
    levels = karras_levels(n)
    for i in range(n):
        x = edm_step(x, levels[i], levels[i + 1])
    # The grid's times are found from lambda to 1e-13, which the first level of 80 amplifies.
    close(ours, x, rtol=1e-9, atol=1e-9)


def edm_step(x: torch.Tensor, now: float, after: float) -> torch.Tensor:
    slope = (x - denoise_at(x, now)) / now
    end = x + (after - now) * slope
    if after == 0:
        return end
    slope_after = (end - denoise_at(end, after)) / after
    return x + (after - now) * (slope / 2 + slope_after / 2)


@pytest.mark.parametrize("noise", [1.0, 1.007])
def test_churn_on_ve_is_edm_algorithm_2(noise: float) -> None:
    """Karras et al. 2022, algorithm 2; S_max is below the first level, where we add no noise."""
    path, n, churn = VE(), 18, Churn(amount=10.0, low=0.05, high=50.0, noise=noise)
    start = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 80
    tableau = edm_stochastic(path, Karras().times(path, n), churn=churn, frame="edm")
    ours = run(
        lambda x_t, t: denoise_at(x_t, float(path.sigma(t))), tableau, start, generator=torch.Generator().manual_seed(3)
    )
    x, z, levels = start, torch.Generator().manual_seed(3), karras_levels(n)
    for i in range(n):
        gamma = min(churn.amount / n, 2**0.5 - 1) if churn.low <= levels[i] <= churn.high else 0.0
        noisier = levels[i] * (1 + gamma)
        if gamma:
            fresh = torch.randn(x.shape, generator=z, dtype=x.dtype)
            x = x + (noisier**2 - levels[i] ** 2) ** 0.5 * noise * fresh
        x = edm_step(x, noisier, levels[i + 1])
    close(ours, x, rtol=1e-8, atol=1e-8)


def straight_velocity(x: torch.Tensor, t: float) -> torch.Tensor:
    return (x - ((1.3 * x).tanh() + t)) / t


def classic_rk4(v, x: torch.Tensor, t: float, h: float) -> torch.Tensor:
    k1 = v(x, t)
    k2 = v(x + h / 2 * k1, t + h / 2)
    k3 = v(x + h / 2 * k2, t + h / 2)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + v(x + h * k3, t + h))


RULES = {
    "midpoint": (MIDPOINT, lambda v, x, t, h: x + h * v(x + h / 2 * v(x, t), t + h / 2)),
    "heun": (HEUN, lambda v, x, t, h: x + h / 2 * (v(x, t) + v(x + h * v(x, t), t + h))),
    "rk4": (CLASSIC, classic_rk4),
}


@pytest.mark.parametrize("rule", RULES)
def test_runge_kutta_on_straight_is_the_textbooks(rule: str) -> None:
    """On the straight path the flow is dx/dt = velocity, and the step to data is Euler's."""
    method, step = RULES[rule]
    grid = torch.tensor([1.0, 0.83, 0.5, 0.21, 0.02, 0.0], dtype=torch.float64)
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = run(lambda x_t, t: (1.3 * x_t).tanh() + t, runge_kutta(Straight(), grid, method), x)
    for t, s in pairwise(grid.tolist()):
        x = step(straight_velocity, x, t, s - t) if s else x - t * straight_velocity(x, t)
    close(ours, x, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_every_path_is_straight_up_to_scale_and_clock(path: Path) -> None:
    """y = x / (alpha + sigma) at u = sigma / (alpha + sigma) follows the straight path's own flow."""
    data = Gaussian(path)
    grid = times_of(Midpoint(), path, LogSNR(low=-3.0, high=3.0), 6)
    alpha, sigma = path.alpha(grid), path.sigma(grid)
    u = sigma / (alpha + sigma)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64).unsqueeze(1)
    for method in (MIDPOINT, HEUN, CLASSIC):
        ours = run(data.denoise, runge_kutta(path, grid, method), x * (alpha + sigma)[0])
        straight = run(Gaussian(Straight()).denoise, runge_kutta(Straight(), u, method), x)
        close(ours, straight, rtol=1e-9, atol=1e-9)


def test_edm_frame_without_signal_raises() -> None:
    with pytest.raises(PathError, match=r"expected signal at t=1 for frame=edm.*use frame=straight"):
        runge_kutta(Straight(), Trailing().times(Straight(), 4), HEUN, frame="edm")


def noise_estimate(x: torch.Tensor, lam: float) -> torch.Tensor:
    return 0.8 * x + 0.2 * (2 * x + 0.1 * lam).sin()


def from_noise(path: Path):
    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        eps = noise_estimate(x_t, float(path.half_log_snr(t)))
        return (x_t - path.sigma(t) * eps) / path.alpha(t)

    return denoise


def point(path: Path, lam: float) -> tuple[float, float]:
    t = path.time_at(torch.tensor(lam, dtype=torch.float64))
    return float(path.alpha(t)), float(path.sigma(t))


@pytest.mark.parametrize("path", [LinearVP(), Cosine(), VE(), Straight()], ids=name)
@pytest.mark.parametrize("order", [2, 3])
def test_dpm_solver_is_its_algorithm(path: Path, order: int) -> None:
    """Lu et al. 2022 (DPM-Solver), algorithms 1 and 2, in their own terms."""
    grid = log_snr_grid(path, 5)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = run(from_noise(path), dpm_solver(path, grid, order=order), x)
    lam = path.half_log_snr(grid).tolist()
    for now, after in pairwise(lam):
        h = after - now
        (a, _), (b, sb) = point(path, now), point(path, after)
        e = noise_estimate(x, now)
        if order == 2:
            am, sm = point(path, now + h / 2)
            u = am / a * x - sm * np.expm1(h / 2) * e
            x = b / a * x - sb * np.expm1(h) * noise_estimate(u, now + h / 2)
            continue
        r1, r2 = 1 / 3, 2 / 3
        (a1, s1), (a2, s2) = point(path, now + r1 * h), point(path, now + r2 * h)
        u1 = a1 / a * x - s1 * np.expm1(r1 * h) * e
        d1 = noise_estimate(u1, now + r1 * h) - e
        rest = np.expm1(r2 * h) / (r2 * h) - 1
        u2 = a2 / a * x - s2 * np.expm1(r2 * h) * e - s2 * r2 / r1 * rest * d1
        d2 = noise_estimate(u2, now + r2 * h) - e
        x = b / a * x - sb * np.expm1(h) * e - sb / r2 * (np.expm1(h) / h - 1) * d2
    close(ours, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", [LinearVP(), Cosine(), VE(), Straight()], ids=name)
def test_dpm_solver_pp_2s_is_its_algorithm(path: Path) -> None:
    """Lu et al. 2022 (DPM-Solver++), algorithm 1 with r = 1/2."""
    grid = log_snr_grid(path, 5)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = run(lambda x_t, t: (1.3 * x_t).tanh() + path.half_log_snr(t), dpm_solver_pp_2s(path, grid), x)
    for now, after in pairwise(path.half_log_snr(grid).tolist()):
        h = after - now
        (_, s), (am, sm), (b, sb) = (point(path, v) for v in (now, now + h / 2, after))
        u = sm / s * x - am * np.expm1(-h / 2) * ((1.3 * x).tanh() + now)
        x = sb / s * x - b * np.expm1(-h) * ((1.3 * u).tanh() + now + h / 2)
    close(ours, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", [LinearVP(), SubVP(), VE(), Straight(), Cosine()], ids=name)
def test_euler_maruyama_is_its_formula(path: Path) -> None:
    """x + (f x - g^2 score) ds + g sqrt(|ds|) z, Song et al. 2021, with the path's own f and g."""
    grid = LogSNR().times(path, 80)
    data = Gaussian(path)
    x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = run(data.denoise, euler_maruyama(path, grid), x, generator=torch.Generator().manual_seed(1))
    noise = torch.Generator().manual_seed(1)
    for t, s in pairwise(grid):
        x0_hat = data.denoise(x, t)
        score = (path.alpha(t) * x0_hat - x) / path.sigma(t) ** 2
        if s == 0:
            x = x0_hat
            break
        z = torch.randn(x.shape, generator=noise, dtype=x.dtype)
        squared = path.diffusion_squared(t)
        x = x + (path.drift(t) * x - squared * score) * (s - t) + (squared * (t - s)).sqrt() * z
    close(ours, x, rtol=1e-9, atol=1e-9)


def test_euler_maruyama_names_what_to_do_where_it_is_unstable() -> None:
    path = LinearVP()
    with pytest.raises(PathError, match=r"unstable one at t=1 on LinearVP: ask for more network evaluations"):
        euler_maruyama(path, Trailing().times(path, 3))
    with pytest.raises(PathError, match="use grid=log_snr"):
        euler_maruyama(Straight(), Trailing().times(Straight(), 20))  # alpha = 0: the drift is infinite


def test_a_langevin_step_is_songs_for_a_small_signal_to_noise_ratio() -> None:
    """x + e score + sqrt(2 e) z with e = 2 snr^2 sigma^2, to the next order in snr^2."""
    path, snr = LinearVP(), 0.02
    grid = Trailing().times(path, 3)
    tableau = predictor_corrector(path, grid, corrections=1, snr=snr)
    sigma, alpha = (float(v(grid[1])) for v in (path.sigma, path.alpha))
    e = 2 * (snr * sigma) ** 2
    assert tableau.keep[1].item() == pytest.approx(1 - e / sigma**2, rel=1e-12)
    assert tableau.gain[1, 0].item() == pytest.approx(e * alpha / sigma**2, rel=1e-10)
    assert tableau.fresh[1].item() == pytest.approx((2 * e) ** 0.5, rel=snr**2)
    assert tableau.times[1] == tableau.times[2]


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_a_hybrid_switched_at_an_end_is_the_pure_sampler(path: Path) -> None:
    first, second = DPMSolverPP(), DPMSolverPPSDE()
    grid = times_of(first, path, Trailing(), 8)
    for switch, pure in ((0.0, first), (1e9, second)):
        ours, known = Hybrid(first, second, switch=switch).tableau(path, grid), pure.tableau(path, grid)
        assert ours.base == known.base
        for a, b in (
            (ours.times, known.times),
            (ours.keep, known.keep),
            (ours.gain, known.gain),
            (ours.fresh, known.fresh),
        ):
            assert torch.equal(a, b)


def test_a_hybrid_changes_at_the_named_noise_level() -> None:
    path = VE()
    grid = Karras().times(path, 20)
    level = path.sigma(grid)
    tableau = Hybrid(Adams(), DDIM(eta=1.0), switch=1.0).tableau(path, grid)
    # Every step from a level above 1 is deterministic, every other one is not, but for the last to data.
    assert ((tableau.fresh > 0) == ((level[:-1] <= 1) & (level[1:] > 0))).all()


def test_a_hybrid_of_unlike_costs_raises() -> None:
    with pytest.raises(
        PathError, match="expected two samplers with the same number of network calls a step, got 2 and 1"
    ):
        Hybrid(Heun(), DDIM())


@pytest.mark.parametrize("sampler", NAMED)
def test_names_are_those_of_their_samplers(sampler: str) -> None:
    plain = "".join(c for c in sampler.lower() if c.isalnum() or c == "+").replace("+", "p")
    cls = type(NAMED[sampler]).__name__.lower()
    assert plain.startswith(cls[:6]) or plain.replace("sde2m", "").replace("2m", "").replace("3m", "") in cls


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_adams_of_order_one_is_ddim(path: Path) -> None:
    grid = Trailing().times(path, 10)
    first, plain = adams(path, grid, order=1), ddim(path, grid)
    close(first.keep, plain.keep, rtol=1e-14, atol=0)
    close(first.gain, plain.gain, rtol=0, atol=1e-14)
    assert not first.fresh.any()


def exact_gains(order: int, h: float) -> list[float]:
    """Return int_0^h e^(u - h) L_j(u) du in closed form for nodes 0, -h, -2h."""
    i0 = -np.expm1(-h)
    i1 = h - i0  # by parts: int u e^(u - h) du = h - i0
    i2 = h**2 - 2 * i1
    if order == 2:
        return [i0 + i1 / h, -i1 / h]
    return [i0 + 1.5 * i1 / h + 0.5 * i2 / h**2, -2 * i1 / h - i2 / h**2, 0.5 * i1 / h + 0.5 * i2 / h**2]


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_adams_on_a_uniform_grid_is_the_exact_integral(path: Path, order: int) -> None:
    grid = log_snr_grid(path, 12, low=-2.5, high=3.5)
    tableau, alpha = adams(path, grid, order=order), path.alpha(grid)
    weights = torch.tensor(exact_gains(order, 0.5), dtype=torch.float64)
    for i in range(order - 1, 12):
        # The grid inverts lambda to some 1e-13 on the flattest path.
        close(tableau.gain[i], alpha[i + 1] * weights, rtol=0, atol=1e-10)


@given(st.lists(st.floats(-3, 3), min_size=8, max_size=8, unique_by=lambda v: round(v, 2)), st.integers(1, 4))
def test_adams_integrates_polynomials_in_half_log_snr_exactly(points: list[float], order: int) -> None:
    """Where x0_hat is a polynomial of degree below the order, a row is the exact integral: by 200 nodes here."""
    path = LinearVP()
    grid = path.time_at(torch.tensor(sorted(points), dtype=torch.float64))
    lam, alpha = path.half_log_snr(grid), path.alpha(grid)
    tableau = adams(path, grid, order=order)
    u, w = NODES
    for i in range(order - 1, 7):
        low, high = lam[i].item(), lam[i + 1].item()
        at = low + (u + 1) * (high - low) / 2
        size = tableau.gain[i].abs().sum().item()
        for degree in range(order):
            exact = alpha[i + 1].item() * (np.exp(at - high) * at**degree * w).sum() * (high - low) / 2
            ours = sum(tableau.gain[i, j].item() * lam[i - j].item() ** degree for j in range(order))
            assert abs(ours - exact) <= 1e-11 * max(1.0, size) * 3**degree


def test_adams_of_order_two_is_close_to_dpm_solver_pp_2m() -> None:
    """Published 2M approximates the integral that Adams has exactly: the weights agree to O(h^2)."""
    path = LinearVP()
    gaps = []
    for steps in (40, 80):
        grid = log_snr_grid(path, steps)
        gaps.append((adams(path, grid).gain[1:, 1] - dpm_solver_pp(path, grid).gain[1:, 1]).abs().amax().item())
    # Halving h divides an O(h^2) gap of the weights by 4.
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.1)
    assert gaps[1] < 1e-3


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_dpm_solver_pp_and_unipc_fall_back_where_half_log_snr_is_infinite(path: Path) -> None:
    grid = Trailing().times(path, 6)
    plain = ddim(path, grid)
    for make in (dpm_solver_pp, unipc):
        for order in (2, 3):
            tableau = make(path, grid, order=order)
            assert not tableau.gain[0, 1:].any()
            close(tableau.gain[0, 0], plain.gain[0, 0], rtol=1e-12, atol=0)
            assert tableau.gain[-1].tolist() == [1.0, *[0.0] * (tableau.gain.shape[1] - 1)]


@pytest.mark.parametrize("order", [2, 3, 4])
def test_adams_falls_back_where_half_log_snr_is_infinite(order: int) -> None:
    path = Straight()
    grid = Trailing().times(path, 6)  # from t = 1, where no signal is left
    tableau, plain = adams(path, grid, order=order), ddim(path, grid)
    used = [len(row.gain) for row in tableau.rows]
    assert used == [1, 1, *(min(order, i) for i in range(2, 5)), 1]
    close(tableau.gain[[0, 1, 5], 0], plain.gain[[0, 1, 5], 0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_renoise_is_the_jump_of_consistency_sampling(path: Path) -> None:
    """Song et al. 2023, algorithm 1: x = x0 + fresh noise of the next level, whatever x was."""
    grid = Trailing().times(path, 5)
    tableau = renoise(path, grid)
    assert not tableau.keep.any()
    assert torch.equal(tableau.gain[:, 0], path.alpha(grid[1:]))
    assert torch.equal(tableau.fresh, path.sigma(grid[1:]))
    x0 = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = torch.full_like(x0, torch.nan)
    assert torch.equal(run(lambda x_t, t: x0, tableau, start, generator=torch.Generator()), x0)


@pytest.mark.parametrize("path", PATHS, ids=name)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
def test_a_known_sample_is_reached_from_its_own_noise(path: Path, sampler: TableSampler) -> None:
    """With the true x0 as estimate and no fresh noise, the state is x_t of the same eps at every level."""
    x0, eps = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tableau = sampler.tableau(path, times_of(sampler, path, Trailing(), 8))
    x = path.noised(x0, tableau.times[0], eps)
    levels: list[tuple[float, torch.Tensor]] = []
    out = run(lambda x_t, t: x0, tableau, x, generator=torch.Generator(), on_step=lambda s: levels.append((s.s, s.x)))
    assert torch.equal(out, x0)
    if not tableau.fresh.any():
        for s, level in levels:
            close(level, path.noised(x0, torch.tensor(s, dtype=torch.float64), eps), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [-0.01, 1.01, float("nan")])
def test_eta_outside_its_range_raises(eta: float) -> None:
    with pytest.raises(PathError, match=r"expected eta in \[0, 1\]"):
        ddim(Straight(), Trailing().times(Straight(), 4), eta=eta)
    with pytest.raises(PathError, match=r"expected eta in \[0, 1\]"):
        DDIM(eta=eta)


@pytest.mark.parametrize("order", [0, 5, -1])
def test_orders_outside_their_range_raise(order: int) -> None:
    with pytest.raises(PathError, match="expected an order of 1 to 4"):
        adams(Straight(), Trailing().times(Straight(), 4), order=order)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_returns_no_number_raises(value: float) -> None:
    tableau = ddim(Straight(), Trailing().times(Straight(), 2))
    with pytest.raises(SolverError, match=r"expected finite samples.*check that the network"):
        run(lambda x_t, t: torch.full_like(x_t, value), tableau, torch.zeros(3, 2))


def test_a_denoiser_of_another_shape_raises() -> None:
    tableau = ddim(Straight(), Trailing().times(Straight(), 2))
    with pytest.raises(ShapeError, match=r"expected a denoiser that returns \(3, 2\), got \(3, 1\)"):
        run(lambda x_t, t: x_t[:, :1], tableau, torch.zeros(3, 2))


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_the_prior_is_noise_of_the_paths_own_scale(path: Path) -> None:
    like = torch.zeros(4, 3, dtype=torch.float64)
    for start in (1.0, 0.5):
        noise = prior(path, like, start=start, generator=torch.Generator().manual_seed(0))
        plain = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert torch.equal(noise, plain * float(path.sigma(torch.tensor(start, dtype=torch.float64))))
    assert not like.any()


@pytest.mark.parametrize("path", TABLES, ids=name)
def test_log_snr_grids_serve_tables(path: Table) -> None:
    """The grid of DPM-Solver stops at the cleanest step that a table has."""
    times = LogSNR().times(path, 6)
    assert times[-2].item() == pytest.approx(1 / path.steps)
