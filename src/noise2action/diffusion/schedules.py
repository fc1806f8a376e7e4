"""Schedules: the variance that each step of a discrete process adds. Tables are 0-based, `betas[k - 1]` is step k's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import PathError


def linear_betas(steps: int, *, beta_min: float = 1e-4, beta_max: float = 0.02) -> tuple[float, ...]:
    """Return betas linear in the step, given for 1000 steps and rescaled by 1000 / steps.

    Without the rescaling 100 steps would leave a third of the signal power.

    **Source:** Ho et al. 2020, section 4.
    """
    scale = 1000 / step_count(steps)
    return _betas(torch.linspace(beta_min * scale, beta_max * scale, steps, dtype=torch.float64))


def scaled_linear_betas(steps: int, *, beta_min: float = 8.5e-4, beta_max: float = 0.012) -> tuple[float, ...]:
    """Return betas whose square root is linear in the step, given for 1000 steps and rescaled.

    **Source:** Rombach et al. 2022, appendix; keeps about 0.5 % of the signal power at t = 1.
    """
    roots = torch.linspace(beta_min**0.5, beta_max**0.5, step_count(steps), dtype=torch.float64)
    return _betas(roots**2 * (1000 / steps))


def cosine_betas(steps: int, *, offset: float = 0.008) -> tuple[float, ...]:
    """Return betas with `abar(k) ~ cos^2(((k/steps + s)/(1 + s)) pi/2)`, clipped at 0.999.

    **Source:** Nichol & Dhariwal 2021, Eq. 17.
    """
    k = torch.arange(step_count(steps) + 1, dtype=torch.float64) / steps
    abar = torch.cos((k + offset) / (1 + offset) * torch.pi / 2) ** 2
    return _betas(_of_powers(abar))


def sigmoid_betas(steps: int, *, beta_min: float = 1e-4, beta_max: float = 0.02) -> tuple[float, ...]:
    """Return `sigmoid(linspace(-6, 6))` scaled into [beta_min, beta_max], given for 1000 steps and rescaled."""
    scale = 1000 / step_count(steps)
    shape = torch.sigmoid(torch.linspace(-6, 6, steps, dtype=torch.float64))
    return _betas((beta_min + shape * (beta_max - beta_min)) * scale)


def sigmoid_raw_betas(steps: int) -> tuple[float, ...]:
    """Return `sigmoid(linspace(-6, 6))` as it is, up to 0.998: most steps are pure noise. For comparison only."""
    return _betas(torch.sigmoid(torch.linspace(-6, 6, step_count(steps), dtype=torch.float64)))


def betas_of(alpha_bars: Sequence[float]) -> tuple[float, ...]:
    """Return the betas whose cumulative signal power at steps 1 .. T is `alpha_bars`; the last one may be 0."""
    return tuple(_of_powers(f64([1.0, *alpha_bars])).tolist())


def zero_terminal_snr(betas: Sequence[float]) -> tuple[float, ...]:
    """Return `betas` changed so that no signal is left at the last step: sqrt(abar) shifted and scaled, its first kept.

    The last beta is exactly 1. Noise cannot be decoded from there: use target=v.

    **Source:** Lin et al. 2024, algorithm 1.
    """
    if len(betas) < 2:
        raise PathError(f"expected at least 2 steps to rescale, got {len(betas)}: use a table with more")
    root = (1 - f64(betas)).cumprod(0).sqrt()
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    return betas_of((root**2).tolist())


def _of_powers(abar: Tensor) -> Tensor:
    return 1 - abar[1:] / abar[:-1]


def f64(values: Sequence[float]) -> Tensor:
    """Return `values` as a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def step_count(steps: int) -> int:
    """Return `steps`; `PathError` where no table has so many."""
    if not 1 <= steps <= 100_000:
        raise PathError(f"expected 1 to 100000 steps, got {steps}")
    return steps


def _betas(betas: Tensor) -> tuple[float, ...]:
    return tuple(betas.clamp(max=0.999).tolist())
