"""Laws of every grid on every path, and the published placements of steps."""

import math

import numpy as np
import pytest
import torch
from exact import GRIDS, PATHS, SMOOTH, TABLES, name
from torch import Tensor

from noise2action.diffusion.exact import Mixture
from noise2action.diffusion.grids import Grid, Karras, Leading, Linspace, LogSNR, Quadratic, Trailing
from noise2action.diffusion.paths import VE, Cosine, LinearVP, Path, Straight, Table
from noise2action.diffusion.samplers import RK4, DPMSolverPP
from noise2action.diffusion.sampling import Sampler, sample
from noise2action.diffusion.schedules import linear_betas
from noise2action.errors import PathError

close = torch.testing.assert_close
DDPM_TABLE = Table(linear_betas(1000))


def steps_of(times: torch.Tensor, table: int = 1000) -> list[int]:
    """Return the 1-based steps of a table."""
    k = times * table
    close(k, k.round(), rtol=0, atol=1e-9)
    return k.round().long().tolist()


@pytest.mark.parametrize(
    ("path", "steps"),
    # Tables have few steps where half-log-SNR changes fast: more than these coincide there, which raises.
    [pytest.param(p, n, id=f"{name(p)}-{n}") for p in PATHS for n in ((1, 2, 7) if p in TABLES else (1, 2, 10, 60))],
)
@pytest.mark.parametrize("grid", GRIDS, ids=name)
def test_a_grid_falls_strictly_to_exactly_zero(path: Path, grid: Grid, steps: int) -> None:
    times = grid.times(path, steps)
    assert times.shape == (steps + 1,)
    assert times.dtype == torch.float64
    assert bool((times.diff() < 0).all())
    assert times[-1].item() == 0.0
    assert 0 < times[0] <= 1
    assert torch.equal(path.nearest(times[:-1]), times[:-1])
    assert bool((path.sigma(times[:-1]) > 0).all())


@pytest.mark.parametrize("grid", GRIDS, ids=name)
@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_a_grid_starts_no_later_than_asked(path: Path, grid: Grid) -> None:
    times = grid.times(path, 5, start=0.7)
    assert times[0] <= 0.7 + 1e-12
    assert bool((times.diff() < 0).all())


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 8, 10, 12, 16, 20, 30, 50, 80, 100, 250, 300, 999, 1000])
def test_trailing_is_the_public_one(steps: int) -> None:
    """`round(arange(T, 0, -T / N)) - 1`, 0-based (Lin et al. 2024, table 2); halves fall to the even step."""
    published = np.round(np.arange(1000, 0, -1000 / steps))[:steps] - 1
    assert steps_of(Trailing().times(DDPM_TABLE, steps)[:-1]) == (published + 1).astype(int).tolist()


@pytest.mark.parametrize("steps", [2, 3, 4, 7, 10, 19, 38, 50, 100, 999, 1000])
def test_linspace_is_the_public_one(steps: int) -> None:
    """`linspace(0, T - 1, N).round()` backwards, 0-based."""
    published = np.linspace(0, 999, steps).round()[::-1]
    assert steps_of(Linspace().times(DDPM_TABLE, steps)[:-1]) == (published + 1).astype(int).tolist()


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 50, 100, 999, 1000])
def test_leading_is_the_public_one(steps: int) -> None:
    """`arange(N) * (T // N)` backwards, 0-based, with an offset of zero."""
    published = (np.arange(steps) * (1000 // steps)).round()[::-1]
    assert steps_of(Leading().times(DDPM_TABLE, steps)[:-1]) == (published + 1).astype(int).tolist()


@pytest.mark.parametrize("grid", [Leading(table=100), Linspace(table=100)], ids=name)
def test_a_table_of_another_length(grid: Grid) -> None:
    times = grid.times(Table(), 100)
    assert steps_of(times, 100) == list(range(100, -1, -1))


def test_uniform_and_quadratic_written_out() -> None:
    i = torch.arange(11, dtype=torch.float64)
    close(Trailing().times(Straight(), 10), 1 - i / 10, rtol=0, atol=1e-15)
    close(Quadratic().times(Straight(), 10), (1 - i / 10) ** 2, rtol=0, atol=1e-15)
    close(Trailing().times(Straight(), 10, start=0.6), 0.6 * (1 - i / 10), rtol=0, atol=1e-15)


@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_log_snr_is_uniform_in_half_log_snr(path: Path) -> None:
    times = LogSNR(low=-3.5, high=4.5).times(path, 17)
    close(path.half_log_snr(times[:-1]), torch.linspace(-3.5, 4.5, 17, dtype=torch.float64), rtol=0, atol=1e-11)


@pytest.mark.parametrize("power", [0.5, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_log_snr_by_a_power_written_out(path: Path, power: float) -> None:
    times = LogSNR(low=-3.5, high=4.5, power=power).times(path, 17)
    i = torch.arange(17, dtype=torch.float64)
    close(path.half_log_snr(times[:-1]), -3.5 + 8 * (i / 16) ** power, rtol=0, atol=1e-11)


def test_few_steps_err_less_where_the_noisiest_are_the_longest() -> None:
    """What the power of `LogSNR` is for, measured on the flow of a mixture that is known exactly."""
    data, like = Mixture.ring(LinearVP()), torch.empty(500, 2, dtype=torch.float64)

    def made(sampler: Sampler, grid: Grid, nfe: int) -> Tensor:
        noise = torch.Generator().manual_seed(5)
        return sample(data.denoise, data.path, like, sampler=sampler, grid=grid, nfe=nfe, generator=noise)

    uniform, powered = LogSNR(low=-4.0, high=3.0), LogSNR(low=-4.0, high=3.0, power=0.6)
    flow = made(RK4(), uniform, 401)
    error, less = ((made(DPMSolverPP(), grid, 10) - flow).square().mean().sqrt() for grid in (uniform, powered))
    assert less < 0.7 * error


def test_log_snr_clips_what_diverges_and_keeps_what_does_not() -> None:
    assert LogSNR().times(Cosine(), 8)[0] < 1
    assert LogSNR().times(VE(), 8)[0] == 1.0  # lambda(1) = -log 80 = -4.4 is above the clip
    first = LogSNR().times(LinearVP(), 8, start=0.5)[0].item()
    assert first == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("grid", "rho", "low", "high"),
    [(Karras(), 7.0, 0.002, 80.0), (Karras(rho=3.0, sigma_min=0.01, sigma_max=10.0), 3.0, 0.01, 10.0)],
    ids=["default", "other"],
)
def test_karras_is_eq_5(grid: Karras, rho: float, low: float, high: float) -> None:
    n, path = 18, VE()
    i = torch.arange(n, dtype=torch.float64)
    published = (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    times = grid.times(path, n)
    close(path.sigma(times[:-1]), published, rtol=1e-10, atol=0)
    assert path.sigma(times)[-1].item() == 0.0


@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_karras_on_any_path_places_noise_over_signal(path: Path) -> None:
    ratio = path.sigma(times := Karras(sigma_max=10.0).times(path, 9)[:-1]) / path.alpha(times)
    roots = ratio ** (1 / 7)
    close(roots.diff(), roots.diff()[0].expand(8), rtol=1e-8, atol=0)
    assert ratio[0].item() == pytest.approx(10.0, rel=1e-10)
    assert ratio[-1].item() == pytest.approx(0.002, rel=1e-8)


@pytest.mark.parametrize("grid", GRIDS, ids=name)
def test_more_steps_than_a_table_has_raise(grid: Grid) -> None:
    with pytest.raises(PathError, match=r"fewer steps|at most 1000? steps"):
        grid.times(Table(), 101)


@pytest.mark.parametrize("steps", [0, -3])
@pytest.mark.parametrize("grid", GRIDS, ids=name)
def test_no_steps_raise(grid: Grid, steps: int) -> None:
    with pytest.raises(PathError, match="at least 1 sampler step"):
        grid.times(Straight(), steps)


@pytest.mark.parametrize(
    "build",
    [
        lambda: LogSNR(low=1.0, high=1.0),
        lambda: LogSNR(low=math.nan),
        lambda: LogSNR(power=0.0),
        lambda: Karras(sigma_min=0.0),
        lambda: Karras(sigma_min=90.0),
        lambda: Karras(rho=0.0),
    ],
)
def test_empty_intervals_are_rejected(build) -> None:
    with pytest.raises(PathError, match="expected"):
        build()
