"""Samplers of the reverse SDE `dx = (f x - g^2 score) dt + g dw`, and of its mixtures with the probability flow.

All are tableaux: rows with fresh noise. DDIM at eta = 1 (`multistep.ddim`) and DDPM are the first-order members.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import PathError
from .multistep import ddim, orders
from .paths import Path
from .singlestep import HEUN, Frame, Point, Rows, points, points_at, runge_kutta_steps
from .tableau import Tableau, join, one_call


def ddpm(path: Path, grid: Float[Tensor, "times"], *, variance: Literal["posterior", "beta"] = "posterior") -> Tableau:
    """Return DDPM ancestral sampling with the posterior variance beta~ or the step's own variance beta.

    `posterior` equals `ddim(eta=1)`. `beta`, the upper bound, adds more noise than the path has: the second tableau
    identity holds for `posterior` only. Neither adds noise in the last step.

    **Source:** Ho et al. 2020, Eq. 6-7 and section 3.2.
    """
    tableau = ddim(path, grid, eta=1.0)
    if variance == "posterior":
        return tableau
    alpha, sigma = path.scales(grid)
    beta = sigma[:-1] ** 2 - (alpha[:-1] / alpha[1:] * sigma[1:]) ** 2
    fresh = torch.where(sigma[1:] > 0, beta.clamp(min=0).sqrt(), 0.0)
    return one_call(grid, tableau.keep, tableau.gain, fresh)


def euler_maruyama(path: Path, grid: Float[Tensor, "times"]) -> Tableau:
    """Return Euler-Maruyama on the reverse SDE in the path's own clock; the last step returns x0_hat.

    Its rows keep the identities to first order in the step only. Raises `PathError` where the drift is infinite
    (alpha = 0), and where a step is so long that it would turn the state round.

    **Source:** Song et al. 2021 (score SDE), Eq. 6 and appendix E.
    """
    alpha, sigma = (v[:-1] for v in path.scales(grid))
    t, dt = grid[:-1], -grid.diff()
    drift, squared = path.drift(t), path.diffusion_squared(t)
    keep = 1 - dt * (drift + squared / sigma**2)
    gain = dt * squared * alpha / sigma**2
    fresh = (squared * dt).clamp(min=0).sqrt()
    lands = path.sigma(grid[1:]) == 0
    unstable = ~lands & ~(keep >= 0)
    if bool(unstable.any()):
        raise PathError(
            f"expected steps that Euler-Maruyama can take, got an unstable one at t={float(t[unstable][0]):.3g} on "
            f"{type(path).__name__}: ask for more network evaluations, use grid=log_snr, or use ddim with eta=1"
        )
    return one_call(
        grid,
        torch.where(lands, 0.0, keep),
        torch.where(lands, 1.0, gain).unsqueeze(1),
        torch.where(lands, 0.0, fresh),
    )


def dpm_solver_pp_sde(path: Path, grid: Float[Tensor, "times"], *, order: int = 2) -> Tableau:
    """Return SDE-DPM-Solver++ of order 1 (DDIM at eta = 1) or 2 (2M).

    **Source:** Lu et al. 2022 (DPM-Solver++), section 5.
    """
    if not 1 <= order <= 2:
        raise PathError(f"expected an order of 1 or 2, got {order}")
    ancestral = ddim(path, grid, eta=1.0)
    alpha, lam = path.alpha(grid), path.half_log_snr(grid).tolist()
    gain = torch.nn.functional.pad(ancestral.gain, (0, order - 1))
    for i, p in enumerate(orders(lam, order)):
        if p == 2:
            h, before = lam[i + 1] - lam[i], lam[i] - lam[i - 1]
            past = float(alpha[i + 1]) * math.expm1(-2 * h) * h / (2 * before)
            gain[i] += torch.tensor([-past, past], dtype=torch.float64)
    return one_call(grid, ancestral.keep, gain, ancestral.fresh)


@dataclass(frozen=True)
class Churn:
    """How much fresh noise EDM's stochastic sampler adds before a step, and between which noise levels."""

    amount: float = 40.0
    """S_churn: shared by all steps; a step's noise level grows by at most sqrt(2)."""
    low: float = 0.05
    """S_min: sigma / alpha below which none is added."""
    high: float = 50.0
    """S_max: sigma / alpha above which none is added."""
    noise: float = 1.0
    """S_noise: standard deviation of the noise, above 1 to make up for lost detail."""

    def __post_init__(self) -> None:
        """Reject levels that do not grow."""
        if not (self.amount >= 0 and 0 <= self.low <= self.high and self.noise > 0):
            raise PathError(
                "expected amount >= 0, 0 <= low <= high and noise > 0, got "
                f"{self.amount:g}, {self.low:g}, {self.high:g} and {self.noise:g}"
            )

    def noisier(self, path: Path, places: Sequence[Point]) -> list[Point]:
        """Return the point that each of `places`, one a step, is moved to before its step."""
        levels = np.array([p.sigma / p.alpha if p.alpha else math.inf for p in places])
        grown = levels * (1 + min(self.amount / len(places), math.sqrt(2) - 1))
        moved = points_at(path, -np.log(grown))
        return [m if self.low <= level <= self.high else p for p, m, level in zip(places, moved, levels, strict=True)]


def edm_stochastic(path: Path, grid: Float[Tensor, "times"], *, churn: Churn, frame: Frame = "straight") -> Tableau:
    """Return EDM's stochastic sampler: noise is added before a Heun step; on `VE` with frame=edm as published.

    No noise is added before the first step: sampling starts at the path's noisiest time already.

    **Source:** Karras et al. 2022, algorithm 2.
    """
    places = points(path, grid)
    begins = [places[0], *churn.noisier(path, places[:-1])[1:]]
    rows = Rows(places[0])
    steps = runge_kutta_steps(path, list(zip(begins, places[1:], strict=True)), HEUN, frame)
    for stages, here, noisier in zip(steps, places[1:], [*begins[1:], places[-1]], strict=True):
        if noisier == here:
            rows.add(stages)
            continue
        # The noise before the next step is the last thing that this step's last row does.
        factor = noisier.alpha / here.alpha
        fresh = churn.noise * math.sqrt(max(noisier.sigma**2 - (factor * here.sigma) ** 2, 0.0))
        rows.add([*stages[:-1], (noisier.t, factor * stages[-1][1])], fresh=fresh)
    return rows.tableau()


def predictor_corrector(
    path: Path, grid: Float[Tensor, "times"], *, corrections: int = 1, snr: float = 0.16
) -> Tableau:
    """Return ancestral steps (predictor), each followed by Langevin steps at the new noise level (corrector).

    A Langevin step moves by `e score + sqrt(2 e) z`. Song's e = 2 (snr |z| / |score|)^2 is 2 snr^2 sigma^2 with the
    expected norms. The step keeps the share 1 - 2 snr^2 of the noise, as Song's, and renews just as much as it loses,
    so that the noise level stays that of the path (Song's grows by the share 4 snr^4).

    **Source:** Song et al. 2021 (score SDE), algorithms 1 and 4.
    """
    if corrections < 1 or not 0 < snr < math.sqrt(0.5):
        raise PathError(f"expected corrections >= 1 and 0 < snr < 0.707, got {corrections} and {snr}")
    predictor = ddim(path, grid, eta=1.0)
    alpha, sigma = path.scales(grid)
    kept = 1 - 2 * snr**2
    parts: list[Tableau] = []
    for i in range(predictor.nfe):
        one = slice(i, i + 1)
        parts.append(one_call(grid[i : i + 2], predictor.keep[one], predictor.gain[one], predictor.fresh[one]))
        if sigma[i + 1] > 0:
            here = grid[i + 1].expand(corrections + 1)
            keep = torch.full((corrections,), kept, dtype=torch.float64)
            gain = ((1 - kept) * alpha[i + 1]).expand(corrections, 1)
            parts.append(one_call(here, keep, gain, (math.sqrt(1 - kept**2) * sigma[i + 1]).expand(corrections)))
    return join(parts)
