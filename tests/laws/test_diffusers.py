"""Agreement with an independent implementation: the same network, times and noise through diffusers' schedulers.

Diffusers counts table steps from 0, so that its timestep k is our step k + 1. Its Euler and Heun schedulers work on
x / alpha. Where the conventions differ, `docs/theory.md` names them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from noise2action.diffusion.grids import Grid, Leading, Trailing
from noise2action.diffusion.multistep import ddim, dpm_solver_pp, unipc
from noise2action.diffusion.paths import Path, Table, cosine_betas, linear_betas, scaled_linear_betas
from noise2action.diffusion.sde import ddpm, dpm_solver_pp_sde
from noise2action.diffusion.singlestep import HEUN, runge_kutta
from noise2action.diffusion.tableau import Tableau, run

diffusers = pytest.importorskip("diffusers", reason="agreement with diffusers is not tested: install noise2action[dev]")

T = 1000
# On the cosine table alpha ends at 5e-5: the noise estimate fixes x0_hat to 1e-3 only, in float32, for everyone.
TABLES = {"linear": Table(linear_betas(T)), "scaled_linear": Table(scaled_linear_betas(T))}
Make = Callable[[Path, torch.Tensor], Tableau]


def eps_hat(x: torch.Tensor, k: torch.Tensor | float) -> torch.Tensor:
    """Stand in for a trained network: any smooth function of the state and the timestep."""
    phase = torch.as_tensor(k, dtype=torch.float32) / T
    return 0.9 * x + 0.1 * (3 * x + 2 * phase).sin() - 0.05 * phase


def start(shape: tuple[int, ...] = (64, 8)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def ours(path: Table, grid: torch.Tensor, make: Make) -> torch.Tensor:
    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        exact = t.to(torch.float64)
        return (x_t - path.sigma(exact).float() * eps_hat(x_t, float(t) * T - 1)) / path.alpha(exact).float()

    return run(denoise, make(path, grid), start(), generator=torch.Generator().manual_seed(2))


def theirs(path: Table, scheduler: Any, steps: int, *, of_x_over_alpha: bool = False, **options: float) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    x, noise = start(), torch.Generator().manual_seed(2)
    if of_x_over_alpha:
        x = x / path.alpha((scheduler.timesteps[0] + 1) / T)
    for k in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, k) if of_x_over_alpha else x
        if "generator" in options or options.get("eta"):
            options["generator"] = noise
        x = scheduler.step(eps_hat(seen, k), k, x, **options).prev_sample
    return x


def config(path: Table, **options: Any) -> dict[str, Any]:
    return {"num_train_timesteps": T, "trained_betas": np.array(path.betas), **options}


def check_times(path: Table, grid: torch.Tensor, scheduler: Any) -> None:
    known = list(dict.fromkeys(int(k) for k in scheduler.timesteps))
    assert ((grid[:-1] * T).round().long() - 1).tolist() == known


def agree(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("steps", [10, 50, 200])  # their float32 tables lose 2e-5 over 1000
def test_ddpm(table: str, steps: int) -> None:
    path, grid = TABLES[table], Leading(T).times(TABLES[table], steps)
    for ours_name, theirs_name in (("posterior", "fixed_small"), ("beta", "fixed_large")):
        scheduler = diffusers.DDPMScheduler(**config(path, variance_type=theirs_name, clip_sample=False))
        b = theirs(path, scheduler, steps, generator=0)
        check_times(path, grid, scheduler)
        agree(ours(path, grid, lambda p, g, v=ours_name: ddpm(p, g, variance=v)), b)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("spacing", "grid"), [("leading", Leading(T)), ("trailing", Trailing())])
def test_ddim(table: str, eta: float, spacing: str, grid: Grid) -> None:
    path = TABLES[table]
    scheduler = diffusers.DDIMScheduler(**config(path, clip_sample=False, timestep_spacing=spacing))
    b = theirs(path, scheduler, 20, eta=eta)
    check_times(path, grid.times(path, 20), scheduler)
    agree(ours(path, grid.times(path, 20), lambda p, g: ddim(p, g, eta=eta)), b)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("steps", [4, 10, 14])
def test_dpm_solver_pp_multistep(table: str, order: int, steps: int) -> None:
    path, grid = TABLES[table], Trailing().times(TABLES[table], steps)
    options = config(path, algorithm_type="dpmsolver++", solver_order=order, timestep_spacing="trailing")
    scheduler = diffusers.DPMSolverMultistepScheduler(**options)
    b = theirs(path, scheduler, steps)
    check_times(path, grid, scheduler)
    agree(ours(path, grid, lambda p, g: dpm_solver_pp(p, g, order=order)), b)


@pytest.mark.parametrize("order", [1, 2])
def test_sde_dpm_solver_pp(order: int) -> None:
    path, grid = TABLES["linear"], Trailing().times(TABLES["linear"], 20)
    options = config(path, algorithm_type="sde-dpmsolver++", solver_order=order, timestep_spacing="trailing")
    b = theirs(path, diffusers.DPMSolverMultistepScheduler(**options), 20, generator=0)
    agree(ours(path, grid, lambda p, g: dpm_solver_pp_sde(p, g, order=order)), b)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("steps", [5, 10, 25])
def test_unipc(table: str, order: int, steps: int) -> None:
    path, grid = TABLES[table], Trailing().times(TABLES[table], steps)
    options = config(path, solver_order=order, solver_type="bh2", timestep_spacing="trailing")
    scheduler = diffusers.UniPCMultistepScheduler(**options)
    b = theirs(path, scheduler, steps)
    check_times(path, grid, scheduler)
    agree(ours(path, grid, lambda p, g: unipc(p, g, order=order)), b)


@pytest.mark.parametrize("table", TABLES)
def test_euler_and_heun(table: str) -> None:
    path, grid = TABLES[table], Trailing().times(TABLES[table], 20)
    schedulers = {
        diffusers.EulerDiscreteScheduler: ddim,
        diffusers.HeunDiscreteScheduler: lambda p, g: runge_kutta(p, g, HEUN, frame="edm"),
    }
    for scheduler, make in schedulers.items():
        made = scheduler(**config(path, timestep_spacing="trailing"))
        b = theirs(path, made, 20, of_x_over_alpha=True)
        check_times(path, grid, made)
        agree(ours(path, grid, make), b)


def test_tables_of_betas_agree() -> None:
    for name, betas in {"linear": linear_betas(T), "scaled_linear": scaled_linear_betas(T)}.items():
        ends = {"linear": (1e-4, 0.02), "scaled_linear": (8.5e-4, 0.012)}[name]
        known = diffusers.DDPMScheduler(T, beta_schedule=name, beta_start=ends[0], beta_end=ends[1]).betas
        torch.testing.assert_close(torch.tensor(betas), known, rtol=1e-6, atol=0)
    known = diffusers.DDPMScheduler(T, beta_schedule="squaredcos_cap_v2").betas
    torch.testing.assert_close(torch.tensor(cosine_betas(T)), known, rtol=1e-5, atol=1e-8)
