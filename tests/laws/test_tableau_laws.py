"""Laws of the samplers' tables: two identities in every row, and the textbook coefficients."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from exact import GRIDS, PATHS, SAMPLERS, SMOOTH, TABLES, Gaussian, log_snr_grid, name
from hypothesis import given
from hypothesis import strategies as st

from noise2action.diffusion.grids import Grid, Karras, LogSNR, Trailing
from noise2action.diffusion.paths import VE, LinearVP, Path, Straight, Table, linear_betas
from noise2action.diffusion.samplers import (
    DDPM,
    Tableau,
    TableSampler,
    adams,
    ddim,
    ddpm,
    heun,
    prior,
    renoise,
    run,
)
from noise2action.errors import PathError, ShapeError

close = torch.testing.assert_close
NODES = np.polynomial.legendre.leggauss(200)
TABLE_SAMPLERS = [s for s in SAMPLERS if isinstance(s, TableSampler)]
OVER_DISPERSED = [s for s in TABLE_SAMPLERS if s == DDPM(variance="beta")]


def scales(path: Path, tableau: Tableau) -> tuple[torch.Tensor, torch.Tensor]:
    return path.alpha(tableau.times), path.sigma(tableau.times)


def check_identities(path: Path, sampler: TableSampler, times: torch.Tensor) -> None:
    tableau = sampler.tableau(path, times)
    assert tableau.nfe == len(times) - 1 == len(tableau.rows)
    assert torch.equal(tableau.times, times)
    for numbers in (tableau.keep, tableau.gain, tableau.fresh):
        assert numbers.dtype == torch.float64
        assert bool(numbers.isfinite().all())
    alpha, sigma = scales(path, tableau)
    kept = tableau.keep * alpha[:-1]
    # Relative to the largest term: multistep gains of both signs cancel.
    size = kept.abs() + tableau.gain.abs().sum(1) + alpha[1:]
    assert (((kept + tableau.gain.sum(1) - alpha[1:]) / size).abs() <= 1e-12).all()
    if sampler in OVER_DISPERSED:
        return
    left = tableau.keep**2 * sigma[:-1] ** 2 + tableau.fresh**2
    assert ((left - sigma[1:] ** 2).abs() <= 1e-12 * sigma[1:] ** 2).all()


@pytest.mark.parametrize("grid", GRIDS, ids=name)
@pytest.mark.parametrize("path", PATHS, ids=name)
def test_identities_on_every_grid(path: Path, grid: Grid) -> None:
    for sampler in TABLE_SAMPLERS:
        check_identities(path, sampler, grid.times(path, 7))


@given(st.data())
@pytest.mark.parametrize("path", PATHS, ids=name)
def test_identities_on_any_grid(path: Path, data: st.DataObject) -> None:
    if isinstance(path, Table):
        inner = st.integers(1, path.steps).map(lambda k: k / path.steps)
    else:
        inner = st.floats(1e-9, 1.0)
    times = sorted(data.draw(st.lists(inner, min_size=1, max_size=12, unique=True)), reverse=True)
    for sampler in TABLE_SAMPLERS:
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


def test_heun_on_ve_is_edm_algorithm_1() -> None:
    """Karras et al. 2022, algorithm 1 (S_churn = 0), with times equal to noise levels."""
    path, n, mean, std = VE(), 18, 0.3, 0.5

    def denoise_at(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return mean + std**2 / (std**2 + sigma**2) * (x - mean) + 0.1 * (x / (1 + sigma)).sin()

    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 80
    grid = Karras().times(path, n)
    ours = heun(lambda x_t, t: denoise_at(x_t, float(path.sigma(t))), path, grid, x)

    levels = [(80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(n)] + [0.0]
    for i in range(n):
        slope = (x - denoise_at(x, levels[i])) / levels[i]
        after = x + (levels[i + 1] - levels[i]) * slope
        if levels[i + 1] != 0:
            slope_after = (after - denoise_at(after, levels[i + 1])) / levels[i + 1]
            after = x + (levels[i + 1] - levels[i]) * (slope / 2 + slope_after / 2)
        x = after
    # The grid's times are found from lambda to 1e-13, which the first level of 80 amplifies.
    close(ours, x, rtol=1e-9, atol=1e-9)


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
    """2M puts 1 + 1/(2r) and -1/(2r) on the two estimates (Lu et al. 2022, algorithm 2): the same to O(h^3)."""
    path = LinearVP()
    gaps = []
    for steps in (40, 80):
        grid = log_snr_grid(path, steps)
        tableau, alpha, lam = adams(path, grid), path.alpha(grid), path.half_log_snr(grid)
        h = lam.diff()
        r = h[:-1] / h[1:]
        published = alpha[2:] * -torch.expm1(-h[1:]) * (-1 / (2 * r))
        gaps.append((tableau.gain[1:, 1] - published).abs().amax().item())
    # Halving h divides an O(h^2) gap of the weights by 4.
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.1)
    assert gaps[1] < 1e-3


@pytest.mark.parametrize("order", [2, 3, 4])
def test_adams_falls_back_where_half_log_snr_is_infinite(order: int) -> None:
    path = Straight()
    grid = Trailing().times(path, 6)  # from t = 1, where no signal is left
    tableau, plain = adams(path, grid, order=order), ddim(path, grid)
    used = [len(row[3]) for row in tableau.rows]
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
@pytest.mark.parametrize("sampler", TABLE_SAMPLERS, ids=name)
def test_a_known_sample_is_reached_from_its_own_noise(path: Path, sampler: TableSampler) -> None:
    """With the true x0 as estimate and no fresh noise, the state is x_t of the same eps at every level."""
    x0, eps = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tableau = sampler.tableau(path, Trailing().times(path, 8))
    x = path.noised(x0, tableau.times[0], eps)
    levels: list[torch.Tensor] = []
    out = run(lambda x_t, t: x0, tableau, x, generator=torch.Generator(), on_step=lambda s: levels.append(s.x))
    assert torch.equal(out, x0)
    if not tableau.fresh.any():
        for s, level in zip(tableau.times[1:], levels, strict=True):
            close(level, path.noised(x0, s, eps), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [-0.01, 1.01, float("nan")])
def test_eta_outside_its_range_raises(eta: float) -> None:
    with pytest.raises(PathError, match=r"expected eta in \[0, 1\]"):
        ddim(Straight(), Trailing().times(Straight(), 4), eta=eta)


@pytest.mark.parametrize("order", [0, 5, -1])
def test_orders_outside_their_range_raise(order: int) -> None:
    with pytest.raises(PathError, match="expected an order of 1 to 4"):
        adams(Straight(), Trailing().times(Straight(), 4), order=order)


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
