"""Samplers with one network call a step: DDIM, Adams-Bashforth, DPM-Solver++ multistep, UniPC; all are tableaux.

The exact flow is `x_s = (sigma_s / sigma_t) x_t + sigma_s int e^l x0_hat(l) dl` over the half-log-SNR l: the methods
differ in how they extrapolate x0_hat from past evaluations. Steps from or to an infinite half-log-SNR have no such
integral: there every method is DDIM.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import PathError
from .paths import Path
from .tableau import Tableau, one_call


def ddim(path: Path, grid: Float[Tensor, "times"], *, eta: float = 0.0) -> Tableau:
    """Return DDIM on any path: deterministic at eta = 0, ancestral with the posterior variance at eta = 1.

    On `Straight` eta = 0 is the Euler step of flow matching; on `VE` eta = 1 is ancestral sampling.

    **Source:** Song et al. 2021 (DDIM), Eq. 12 and 16, with alpha and sigma of any path.
    """
    if not 0 <= eta <= 1:
        raise PathError(f"expected eta in [0, 1], got {eta}: 0 is deterministic, 1 is ancestral sampling")
    alpha, sigma = path.scales(grid)
    a, b = alpha[:-1], alpha[1:]
    # Between two times without any signal (0 / 0) nothing is learnt, and nothing renewed.
    overlap = (a * sigma[1:] / (b * sigma[:-1])).nan_to_num(1.0)
    fresh = eta * sigma[1:] * (1 - overlap**2).clamp(min=0).sqrt()
    keep = (sigma[1:] ** 2 - fresh**2).clamp(min=0).sqrt() / sigma[:-1]
    return one_call(grid, keep, (b - keep * a).unsqueeze(1), fresh)


def adams(path: Path, grid: Float[Tensor, "times"], *, order: int = 2) -> Tableau:
    """Return exponential Adams-Bashforth in half-log-SNR: order 1 is DDIM, order 2 converges like DPM-Solver++ 2M.

    x0_hat is extrapolated by the polynomial through the last `order` evaluations, and its integral is exact. The first
    step has no past and order 1: orders 3 and 4 hold from the steps where their past is complete, and a whole run
    converges with order 2.

    **Source:** Hochbruck & Ostermann 2010, section 2.4; Lu et al. 2022 (DPM-Solver++), Eq. 9.
    """
    if not 1 <= order <= 4:
        raise PathError(f"expected an order of 1 to 4, got {order}")
    alpha, sigma = path.scales(grid)
    lam = path.half_log_snr(grid).tolist()
    keep = sigma[1:] / sigma[:-1]
    gain = torch.zeros(len(keep), order, dtype=torch.float64)
    for i in range(len(keep)):
        total = float(alpha[i + 1] - keep[i] * alpha[i])
        nodes = [lam[i - j] - lam[i] for j in range(min(order, i + 1)) if math.isfinite(lam[i - j])]
        weights = _extrapolation(nodes, lam[i + 1] - lam[i], float(alpha[i + 1]))
        gain[i, 1 : len(weights)] = torch.tensor(weights[1:], dtype=torch.float64)
        gain[i, 0] = total - sum(weights[1:])  # the first identity to the last bit
    return one_call(grid, keep, gain, torch.zeros_like(keep))


def _extrapolation(nodes: list[float], h: float, alpha: float) -> list[float]:
    """Return alpha int_0^h e^(u - h) L_j(u) du for the Lagrange basis L_j over `nodes` (the newest first, at 0)."""
    if len(nodes) < 2 or not math.isfinite(h):
        return [0.0]
    points, weights = _legendre(48)
    u = (points + 1) * (h / 2)
    measure = weights * (h / 2) * np.exp(u - h) * alpha
    basis = [np.prod([(u - other) / (node - other) for other in nodes if other != node], axis=0) for node in nodes]
    return [float((measure * b).sum()) for b in basis]


@lru_cache
def _legendre(
    n: int,
) -> tuple["np.ndarray[tuple[int], np.dtype[np.float64]]", "np.ndarray[tuple[int], np.dtype[np.float64]]"]:
    return np.polynomial.legendre.leggauss(n)


def dpm_solver_pp(path: Path, grid: Float[Tensor, "times"], *, order: int = 2) -> Tableau:
    """Return DPM-Solver++ 2M (order 2) or 3M (order 3), with the published coefficients; order 1 is DDIM.

    The first steps have less past and a lower order, and so have the last ones where `grid` lands on data.

    **Source:** Lu et al. 2022 (DPM-Solver++), algorithm 2 and appendix B.
    """
    if not 1 <= order <= 3:
        raise PathError(f"expected an order of 1 to 3, got {order}")
    alpha, sigma = path.scales(grid)
    lam = path.half_log_snr(grid).tolist()
    keep = sigma[1:] / sigma[:-1]
    gain = torch.zeros(len(keep), order, dtype=torch.float64)
    for i, p in enumerate(orders(lam, order)):
        gain[i, 1:p] = float(alpha[i + 1]) * torch.tensor(_past_weights(lam, i, p), dtype=torch.float64)
        gain[i, 0] = alpha[i + 1] - keep[i] * alpha[i] - gain[i, 1:].sum()
    return one_call(grid, keep, gain, torch.zeros_like(keep))


def orders(lam: list[float], order: int) -> list[int]:
    """Return the order that each step between the half-log-SNRs `lam` can have, at most `order`.

    A step needs that many finite evaluations; the last steps before data fall to order 1, as published.
    """
    last = len(lam) - 1
    lands = not math.isfinite(lam[-1])
    found: list[int] = []
    for i in range(last):
        past = next((j for j in range(i + 1) if not math.isfinite(lam[i - j])), i + 1)
        found.append(max(1, min(order, past, last - i if lands else order)))
    return found


def _past_weights(lam: list[float], i: int, order: int) -> list[float]:
    """Return the weights of x0_hat[i - 1], ... in the step i, over alpha of its end."""
    if order == 1:
        return []
    h = lam[i + 1] - lam[i]
    first = math.expm1(-h)
    r0 = (lam[i] - lam[i - 1]) / h
    if order == 2:
        return [first / (2 * r0)]
    r1 = (lam[i - 1] - lam[i - 2]) / h
    # Divided differences d10 = (m0 - m1) / r0 and d11 = (m1 - m2) / r1, as weights of (m1, m2).
    d10, d11 = np.array([-1 / r0, 0.0]), np.array([1 / r1, -1 / r1])
    slope = d10 + r0 / (r0 + r1) * (d10 - d11)
    curvature = (d10 - d11) / (r0 + r1)
    weights = (first / h + 1) * slope - ((first + h) / h**2 - 0.5) * curvature
    return [float(w) for w in weights]


def unipc(path: Path, grid: Float[Tensor, "times"], *, order: int = 2) -> Tableau:
    """Return UniPC of order 1 to 3 (data prediction, B2(h) = e^h - 1): a predictor, corrected by the next evaluation.

    The corrector changes the state after the network has seen it. It is linear in the evaluations, so that predictor
    and corrector together are one row: `x_pred' = keep (x_pred + correction) + prediction`.

    **Source:** Zhao et al. 2023 (UniPC), algorithms 5-8.
    """
    if not 1 <= order <= 3:
        raise PathError(f"expected an order of 1 to 3, got {order}")
    alpha, sigma = path.scales(grid)
    lam = path.half_log_snr(grid).tolist()
    keep = sigma[1:] / sigma[:-1]
    gain = torch.zeros(len(keep), order + 1, dtype=torch.float64)
    predicted = np.zeros(order + 1)
    p_before = 0
    for i, p in enumerate(orders(lam, order)):
        a, k = float(alpha[i + 1]), float(keep[i])
        correction = np.zeros(order + 1)
        if p_before and math.isfinite(lam[i - 1]):
            # From x[i - 1] by way of x0_hat[i], against what predicted x[i] from x0_hat[i - 1], ...
            corrected = _unipc_weights(lam, i - 1, p_before, corrector=True) * float(alpha[i])
            correction[: len(corrected)] += corrected
            correction[1:] -= predicted[:-1]
        weights = _unipc_weights(lam, i, p, corrector=False) * a if math.isfinite(lam[i + 1] - lam[i]) else None
        predicted = np.zeros(order + 1)
        if weights is None:
            predicted[0] = a - k * float(alpha[i])
        else:
            predicted[: len(weights)] = weights
        gain[i] = torch.from_numpy(k * correction + predicted)
        p_before = p
    return one_call(grid, keep, gain, torch.zeros_like(keep))


def _unipc_weights(lam: list[float], i: int, order: int, *, corrector: bool) -> np.ndarray:
    """Return the weights of (x0_hat[i + 1],) x0_hat[i], x0_hat[i - 1], ... in the step i, over alpha of its end."""
    h = lam[i + 1] - lam[i]
    first = math.expm1(-h)  # -h phi_1(-h), and B(h)
    nodes = [(lam[i - j] - lam[i]) / h for j in range(1, order)]  # in steps, negative
    if corrector:
        nodes.append(1.0)
    count = len(nodes)
    moments, term, factorial = [], first / -h - 1, 1.0
    for k in range(1, count + 1):
        moments.append(term * factorial / first)
        factorial *= k + 1
        term = term / -h - 1 / factorial
    if count == 1:
        rho = np.array([0.5])  # as published: not the solution of the 1x1 system, which has the same order
    else:
        rho = np.linalg.solve(np.vander(np.array(nodes), increasing=True).T, np.array(moments))
    differences = -first * rho / np.array(nodes)
    newest = -first - differences.sum()
    if corrector:
        return np.array([differences[-1], newest, *differences[:-1]])
    return np.array([newest, *differences])


def renoise(path: Path, grid: Float[Tensor, "times"]) -> Tableau:
    """Return multistep consistency sampling: jump to x0, add fresh noise for the next time. For a `ConsistencyMap`.

    **Source:** Song et al. 2023 (consistency models), algorithm 1.
    """
    alpha, sigma = path.scales(grid)
    return one_call(grid, torch.zeros_like(sigma[1:]), alpha[1:].unsqueeze(1), sigma[1:])
