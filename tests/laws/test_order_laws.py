"""Measured convergence orders against exact probability-flow solutions, on grids uniform in half-log-SNR."""

import math

import pytest
import torch
from exact import SMOOTH, TABLES, Gaussian, Mixture, log_snr_grid, name, often
from scipy.integrate import solve_ivp

from noise2action.diffusion.multistep import adams
from noise2action.diffusion.paths import VE, LinearVP, Path, Straight
from noise2action.diffusion.samplers import NAMED, UniPC
from noise2action.diffusion.sampling import TableSampler
from noise2action.diffusion.tableau import run

pytestmark = pytest.mark.unchecked
# Orders of a whole run. A multistep method begins with a first-order step, whose error of second order stays: 3M and
# Adams of any order converge like 2M. UniPC's corrector lifts its order by one, from the first step on.
ORDERS = {
    "ddim": 1,
    "euler": 1,
    "midpoint": 2,
    "heun": 2,
    "rk4": 4,
    "dpm-solver-1": 1,
    "dpm-solver-2": 2,
    "dpm-solver-3": 3,
    "dpm-solver++-2s": 2,
    "dpm-solver++-2m": 2,
    "dpm-solver++-3m": 2,
    "unipc": 3,
    "adams": 2,
}
METHODS: dict[str, tuple[int, TableSampler]] = {
    **{method: (order, NAMED[method]) for method, order in ORDERS.items()},
    "unipc-1": (2, UniPC(order=1)),
    "unipc-3": (4, UniPC(order=3)),
}


def solve(sampler: TableSampler, data: Gaussian | Mixture, grid: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return run(data.denoise, sampler.tableau(data.path, grid), x)


def test_every_deterministic_table_has_an_order() -> None:
    known = {n for n, s in NAMED.items() if isinstance(s, TableSampler)}
    stochastic = {
        "ddpm",
        "dpm-solver++-sde-2m",
        "euler-maruyama",
        "edm-stochastic",
        "predictor-corrector",
        "hybrid",
        "hybrid-reverse",
    }
    assert known - stochastic == set(ORDERS)


def measured_order(errors: dict[int, float]) -> float:
    """Return the slope between the two finest grids."""
    (n, coarse), (m, fine) = sorted(errors.items())[-2:]
    return math.log(coarse / fine) / math.log(m / n)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", [*often(SMOOTH), TABLES[-1]], ids=name)
def test_order_on_gaussian_data(path: Path, method: str) -> None:
    order, sampler = METHODS[method]
    if method == "midpoint":
        # y = x / (alpha + sigma) of Gaussian data has y" ~ y^-3: the leading error, y"'/24 + y' y"/(8 y), is zero.
        order = 3
    data = Gaussian(path)
    errors: dict[int, float] = {}
    for steps in (160, 320):
        grid = log_snr_grid(path, steps, low=-2.0)
        x = torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(1) * data.marginal_std(grid[0])
        exact = data.flow(x, grid[0], grid[-1])
        errors[steps] = (solve(sampler, data, grid, x) - exact).abs().max().item()
    # The next term of the error moves the slope by about 1/steps of its own coefficient: 15 % covers the worst path.
    assert measured_order(errors) == pytest.approx(order, abs=0.15)
    assert errors[320] < (0.02, 3e-4, 1e-5, 1e-7)[order - 1]


def mixture_flow(data: Mixture, x: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return the probability flow of the mixture from `start` to `end` by DOP853, with the path's own rates."""

    def velocity(t: float, state: "object") -> "object":
        now = torch.tensor(t, dtype=torch.float64)
        x_t = torch.as_tensor(state, dtype=torch.float64).reshape(x.shape)
        x0_hat = data.denoise(x_t, now)
        eps_hat = (x_t - data.path.alpha(now) * x0_hat) / data.path.sigma(now)
        alpha_rate, sigma_rate = data.path.rates(now)
        return (alpha_rate * x0_hat + sigma_rate * eps_hat).flatten().numpy()

    span = (start.item(), end.item())
    solution = solve_ivp(velocity, span, x.flatten().numpy(), method="DOP853", rtol=1e-8, atol=1e-9)
    assert solution.success
    return torch.as_tensor(solution.y[:, -1]).reshape(x.shape)


KINDS = list({type(p): p for p in SMOOTH}.values())
AT_LENGTH = [pytest.param(p, marks=() if type(p) in (Straight, LinearVP, VE) else pytest.mark.slow) for p in KINDS]


@pytest.mark.parametrize("path", AT_LENGTH, ids=name)
def test_order_on_a_gaussian_mixture(path: Path) -> None:
    data = Mixture.on(path)
    grids = {steps: log_snr_grid(path, steps, low=-2.5, high=2.5) for steps in (160, 320)}
    first, last = grids[160][0], grids[160][-1]
    # Inside one component's pull: where two balance, the flow is so steep that no such grid is asymptotic.
    angle = torch.tensor([0.4, 1.6, 2.5, 4.0, 5.7], dtype=torch.float64)
    spread = (path.alpha(first) ** 2 + path.sigma(first) ** 2).sqrt()
    x = 1.5 * spread * torch.stack([angle.cos(), angle.sin()], 1)
    exact = mixture_flow(data, x, first, last)
    for method, (order, sampler) in METHODS.items():
        errors = {n: (solve(sampler, data, grid, x) - exact).abs().max().item() for n, grid in grids.items()}
        # An error near the reference's own tolerance has no slope.
        assert measured_order(errors) == pytest.approx(order, abs=0.25) or errors[320] < 1e-7, method


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_higher_orders_from_exact_starting_values(path: Path, order: int) -> None:
    """A multistep method keeps its order if its first values have it; here they are exact."""
    data = Gaussian(path)
    errors: dict[int, float] = {}
    for steps in (160, 320):
        grid = log_snr_grid(path, steps)
        tableau = adams(path, grid, order=order)
        x = data.mean + 1.5 * data.marginal_std(grid)[0]
        known = [data.flow(x, grid[0], grid[i]) for i in range(order)]
        history = [data.denoise(known[i], grid[i]) for i in range(order - 1)]
        x = known[-1]
        for i in range(order - 1, steps):
            history.append(data.denoise(x, grid[i]))
            past = torch.stack(history[: -order - 1 : -1])
            x = tableau.keep[i] * x + (tableau.gain[i] * past).sum()
        exact = data.flow(known[0], grid[0], grid[-1])
        errors[steps] = (x - exact).abs().item()
    assert measured_order(errors) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("order", [3, 4])
@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_higher_orders_start_at_order_one_and_so_converge_like_two(path: Path, order: int) -> None:
    """`run` has no past to start from: its first step is DDIM's, whose error is of second order, and stays."""
    data = Gaussian(path)
    errors: dict[int, float] = {}
    for steps in (80, 160):
        # From half-log-SNR -1: further back the first step meets hardly any change, and hides.
        grid = log_snr_grid(path, steps, low=-1.0)
        x = data.mean + 1.5 * data.marginal_std(grid)[:1]
        exact = data.flow(x, grid[0], grid[-1])
        errors[steps] = (run(data.denoise, adams(path, grid, order=order), x) - exact).abs().item()
    assert measured_order(errors) == pytest.approx(2, abs=0.15)
