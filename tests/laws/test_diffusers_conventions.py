"""Where diffusers and we differ on purpose: the differences of convention that `docs/theory.md` names, as runs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from noise2action.diffusion.grids import Leading, Linspace, Trailing
from noise2action.diffusion.multistep import ddim, dpm_solver_pp, unipc
from noise2action.diffusion.paths import Schedule, Straight, linear_betas
from noise2action.diffusion.sde import ddpm
from noise2action.diffusion.tableau import run

diffusers = pytest.importorskip(
    "diffusers", reason="differences to diffusers are not tested: install noise2action[dev]"
)

T = 1000
PATH = Schedule(steps=T)


def eps_hat(x: Tensor, k: float) -> Tensor:
    """Stand in for a trained network: any smooth function of the state and the timestep."""
    return 0.9 * x + 0.1 * (3 * x + 2 * k / T).sin() - 0.05 * k / T


def denoise(x_t: Tensor, t: Tensor) -> Tensor:
    exact = t.to(torch.float64)
    return (x_t - PATH.sigma(exact).float() * eps_hat(x_t, float(t) * T - 1)) / PATH.alpha(exact).float()


def start() -> Tensor:
    return torch.randn(64, 8, generator=torch.Generator().manual_seed(1))


def theirs(scheduler: Any, steps: int, predict: Any = eps_hat, **options: Any) -> Tensor:
    scheduler.set_timesteps(steps)
    x = start()
    for k in scheduler.timesteps:
        x = scheduler.step(predict(x, float(k)), k, x, **options).prev_sample
    return x


def steps_of(scheduler: Any, steps: int) -> list[int]:
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.tolist()


def ours(grid: Linspace | Leading, steps: int) -> list[int]:
    return [round(T * t) - 1 for t in grid.times(PATH, steps)[:-1].tolist()]


def test_multistep_schedulers_leave_out_the_cleanest_of_one_point_more() -> None:
    for scheduler in (diffusers.DPMSolverMultistepScheduler, diffusers.UniPCMultistepScheduler):
        assert steps_of(scheduler(timestep_spacing="linspace"), 10) == ours(Linspace(), 11)[:-1]
        assert steps_of(scheduler(timestep_spacing="leading"), 10) == [T // 11 * k for k in range(10, 0, -1)]
        assert steps_of(scheduler(timestep_spacing="linspace"), 10) != ours(Linspace(), 10)
    assert steps_of(diffusers.DDIMScheduler(timestep_spacing="leading"), 10) == ours(Leading(T), 10)


@pytest.mark.parametrize("steps", [14, 15, 20])
def test_the_step_before_the_last_falls_to_order_two_below_fifteen_steps_only(steps: int) -> None:
    options = {"algorithm_type": "dpmsolver++", "solver_order": 3, "timestep_spacing": "trailing"}
    a = run(denoise, dpm_solver_pp(PATH, Trailing().times(PATH, steps), order=3), start())
    b = theirs(diffusers.DPMSolverMultistepScheduler(**options), steps)
    assert torch.allclose(a, b, rtol=1e-5, atol=1e-5) == (steps < 15)


def test_the_last_noise_is_left_out_at_timestep_zero_only() -> None:
    """With trailing spacing the last timestep is above 0, and beta of the last step is added to the sample."""
    path, grid = PATH, Trailing().times(PATH, 10)
    options = {"variance_type": "fixed_large", "clip_sample": False, "timestep_spacing": "trailing"}
    scheduler = diffusers.DDPMScheduler(**options)
    noise = [
        theirs(scheduler, 10, lambda x, k: torch.zeros_like(x), generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    ]
    assert not torch.equal(*noise)
    scheduler.set_timesteps(10)
    last, x0 = scheduler.timesteps[-1], torch.zeros(4000, 1)
    added = scheduler.step(x0, last, x0, generator=torch.Generator().manual_seed(0)).prev_sample.std()
    known = float(path.sigma(grid[-2]))  # beta of the jump from there to data
    assert added.item() == pytest.approx(known, rel=0.06)  # five standard errors
    assert ddpm(path, grid, variance="beta").fresh[-1] == 0


def test_a_sample_that_ends_at_the_smallest_noise_is_another_one() -> None:
    steps, options = 10, {"timestep_spacing": "trailing", "solver_type": "bh2"}
    a = run(denoise, unipc(PATH, Trailing().times(PATH, steps), order=2), start())
    known = {
        kind: diffusers.UniPCMultistepScheduler(final_sigmas_type=kind, **options) for kind in ("zero", "sigma_min")
    }
    assert torch.allclose(a, theirs(known["zero"], steps), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(a, theirs(known["sigma_min"], steps), rtol=1e-5, atol=1e-3)


def test_their_estimates_are_clipped_unless_told_otherwise() -> None:
    """DDPM and DDIM clip x0_hat to [-1, 1] by default, and bound the threshold of dynamic thresholding by 1."""
    assert theirs(diffusers.DDIMScheduler(), 10).abs().max() <= 1
    assert theirs(diffusers.DDIMScheduler(clip_sample=False), 10).abs().max() > 1
    assert diffusers.DDIMScheduler().config.sample_max_value == 1.0


def test_betas_of_other_lengths_and_of_zero_terminal_snr() -> None:
    short = diffusers.DDPMScheduler(100).alphas_cumprod[-1].item()
    assert short == pytest.approx(0.364, abs=5e-4)
    assert Schedule(steps=100).ends()[0] ** 2 < 1e-4
    assert linear_betas(100)[-1] == pytest.approx(10 * diffusers.DDPMScheduler(100).betas[-1].item(), rel=1e-6)
    zero = diffusers.DPMSolverMultistepScheduler(rescale_betas_zero_snr=True).alphas_cumprod[-1].item()
    assert (zero, Schedule(zero_terminal=True).ends()[0]) == (2**-24, 0.0)


def test_single_step_schedulers_evaluate_on_their_own_grid() -> None:
    scheduler = diffusers.DPMSolverSinglestepScheduler(solver_order=2, final_sigmas_type="zero", lower_order_final=True)
    scheduler.set_timesteps(9)
    assert len(scheduler.timesteps) == 9
    assert scheduler.order_list == [1, 2, 1, 2, 1, 2, 1, 2, 1]


def test_their_flow_has_our_sign_and_clock() -> None:
    """FlowMatchEuler: the state and eps - x0 at sigma = t; one of its steps is one of ours."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(8)
    grid = scheduler.sigmas.to(torch.float64)

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        return eps_hat(x, float(sigma) * T)

    b = start()
    for k, sigma in zip(scheduler.timesteps, grid, strict=False):
        b = scheduler.step(velocity(b, sigma), k, b).prev_sample
    a = run(lambda x, t: x - t * velocity(x, t), ddim(Straight(), grid), start())
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
