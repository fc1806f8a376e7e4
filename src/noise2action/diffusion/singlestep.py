"""Samplers with several network calls a step and no memory: Runge-Kutta, DPM-Solver, DPM-Solver++ 2S; all are tableaux.

Every stage is linear in the step's first state and in the x0_hat of the stages before it. A stage is kept as that list
of coefficients, a vector `[of the state, of x0_hat 0, of x0_hat 1, ...]`, and becomes one row of the table.

The step that lands on data is DDIM's, and so is one from where no signal is left: eps_hat is 0/0 at sigma = 0, and the
half-log-SNR is infinite at both.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import PathError
from .paths import Path
from .tableau import Tableau

Coefficients = Float[np.ndarray, "stages"]
Stages = list[tuple[float, Coefficients]]
"""The time of the state after each network call of a step, and the state."""
Frame = Literal["straight", "edm"]
"""Coordinates in which every path is a straight line: x / (alpha + sigma), of flow matching; x / alpha, of EDM."""


@dataclass(frozen=True)
class Butcher:
    """The coefficients of an explicit Runge-Kutta method. **Source:** Hairer, Norsett & Wanner 1993, section II.1."""

    a: tuple[tuple[float, ...], ...]
    """Row j: the weights of the slopes 0 .. j - 1 in stage j."""
    b: tuple[float, ...]
    """Weights of the slopes in the step."""

    @property
    def stages(self) -> int:
        """Network calls a step."""
        return len(self.b)

    @property
    def nodes(self) -> list[float]:
        """Where in the step, in [0, 1], each stage is."""
        return [float(sum(row)) for row in self.a]

    @property
    def inner(self) -> list[float]:
        """The nodes inside the step."""
        return [c for c in self.nodes if 0 < c < 1]


MIDPOINT = Butcher(((), (0.5,)), (0.0, 1.0))
HEUN = Butcher(((), (1.0,)), (0.5, 0.5))
CLASSIC = Butcher(((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))


@dataclass(frozen=True)
class Point:
    """A time and its scales, as numbers."""

    t: float
    alpha: float
    sigma: float

    @property
    def lam(self) -> float:
        """Half-log-SNR."""
        if not self.alpha:
            return -math.inf
        return math.log(self.alpha / self.sigma) if self.sigma else math.inf


def points(path: Path, grid: Float[Tensor, "times"]) -> list[Point]:
    """Return the times of `grid` with their scales."""
    alpha, sigma = path.scales(grid)
    return [Point(*place) for place in zip(grid.tolist(), alpha.tolist(), sigma.tolist(), strict=True)]


def points_at(path: Path, half_log_snr: Float[np.ndarray, "..."]) -> list[Point]:
    """Return the points with these half-log-SNRs, flattened; NaN gives any point."""
    wanted = torch.from_numpy(np.nan_to_num(half_log_snr.reshape(-1)))
    return points(path, path.time_at(wanted))


class Rows:
    """The rows of a table, written step by step."""

    def __init__(self, start: Point) -> None:
        self.times, self.base, self.seen = [start.t], list[int](), list[int]()
        self.states: list[Coefficients] = []
        self.fresh: list[float] = []

    def add(self, stages: Stages, *, fresh: float = 0.0) -> None:
        """Add a step: time and coefficients of the state after each of its calls; `fresh` noise after the last."""
        begin = len(self.base)
        for k, (time, state) in enumerate(stages):
            self.times.append(time)
            self.base.append(begin)
            self.seen.append(k + 1)
            self.states.append(state)
            self.fresh.append(0.0)
        self.fresh[-1] = fresh

    def tableau(self) -> Tableau:
        """Return the table; the newest evaluation comes first in a row."""
        gain = torch.zeros(len(self.base), max(self.seen), dtype=torch.float64)
        for row, (seen, state) in enumerate(zip(self.seen, self.states, strict=True)):
            gain[row, :seen] = torch.from_numpy(state[seen:0:-1].copy())
        times, fresh = (torch.tensor(v, dtype=torch.float64) for v in (self.times, self.fresh))
        keep = torch.tensor([float(state[0]) for state in self.states], dtype=torch.float64)
        return Tableau(times, keep, gain, fresh, tuple(self.base))


def _unit(k: int, size: int) -> Coefficients:
    return np.eye(size)[k]


def runge_kutta(path: Path, grid: Float[Tensor, "times"], method: Butcher, *, frame: Frame = "straight") -> Tableau:
    """Return an explicit Runge-Kutta method on the probability flow; `stages (N - 1) + 1` network calls.

    In either frame the flow is `dy/dtau = (y - x0_hat) / tau`: with y = x / (alpha + sigma) and tau = sigma / (alpha +
    sigma) every path is `Straight`, and the method is flow matching's; with y = x / alpha and tau = sigma / alpha every
    path is EDM's, and Heun is its algorithm. The second has no value where no signal is left.

    **Source:** Karras et al. 2022, algorithm 1; Lipman et al. 2024 (flow matching guide), section 3.
    """
    steps = list(pairwise(points(path, grid)))
    rows = Rows(steps[0][0])
    for stages in runge_kutta_steps(path, steps, method, frame):
        rows.add(stages)
    return rows.tableau()


def runge_kutta_steps(
    path: Path, steps: Sequence[tuple[Point, Point]], method: Butcher, frame: Frame
) -> Iterator[Stages]:
    """Yield the stages of each step from one point to another; DDIM's single one where it lands on data."""
    framed = [(_framed(a, frame)[1], _framed(b, frame)[1]) for a, b in steps]
    tau = np.array([[start + c * (end - start) for c in method.inner] for start, end in framed])
    # All inner times at once: the path is inverted by bisection.
    with np.errstate(divide="ignore"):
        inner = points_at(path, np.log(1 - tau) - np.log(tau) if frame == "straight" else -np.log(tau))
    for i, (a, b) in enumerate(steps):
        own = inner[i * len(method.inner) : (i + 1) * len(method.inner)]
        yield _noise_step_1(a, b) if b.sigma == 0 else _runge_kutta_step(a, b, own, method, frame)


def _runge_kutta_step(a: Point, b: Point, inner: Sequence[Point], method: Butcher, frame: Frame) -> Stages:
    size = method.stages + 1
    (scale, tau), (_, tau_end) = _framed(a, frame), _framed(b, frame)
    start = _unit(0, size) / scale
    y, at, places = start, tau, iter(inner)
    slopes: list[Coefficients] = []
    stages: Stages = []
    for k in range(method.stages):
        slopes.append((y - _unit(k + 1, size)) / at)
        last = k + 1 == method.stages
        weights = method.b if last else method.a[k + 1]
        fraction = 1.0 if last else method.nodes[k + 1]
        at = tau + fraction * (tau_end - tau)
        y = start + (tau_end - tau) * np.tensordot(weights, slopes, 1)
        place = b if fraction == 1 else next(places)
        stages.append((place.t, y * _framed(place, frame)[0]))
    return stages


def _framed(place: Point, frame: Frame) -> tuple[float, float]:
    """Return the scale that x is divided by, and tau."""
    scale = place.alpha + place.sigma if frame == "straight" else place.alpha
    if not scale:
        raise PathError(
            f"expected signal at t={place.t:g} for frame=edm, got alpha=0: use frame=straight or grid=log_snr"
        )
    return scale, place.sigma / scale


def dpm_solver(path: Path, grid: Float[Tensor, "times"], *, order: int = 2) -> Tableau:
    """Return single-step DPM-Solver-1 (DDIM), -2 or -3 on the noise estimate; `order (N - 1) + 1` network calls.

    **Source:** Lu et al. 2022 (DPM-Solver), algorithms 1 and 2, with r1 = 1/2, and r1 = 1/3, r2 = 2/3.
    """
    if not 1 <= order <= 3:
        raise PathError(f"expected an order of 1 to 3, got {order}")
    step, inner = ((_first, ()), (_second, (1 / 2,)), (_third, (1 / 3, 2 / 3)))[order - 1]
    return _exponential(path, grid, step, inner)


def dpm_solver_pp_2s(path: Path, grid: Float[Tensor, "times"]) -> Tableau:
    """Return single-step DPM-Solver++ 2S on the data estimate; `2 (N - 1) + 1` network calls.

    **Source:** Lu et al. 2022 (DPM-Solver++), algorithm 1, with r = 1/2.
    """
    return _exponential(path, grid, _second_on_data, (1 / 2,))


def _exponential(
    path: Path,
    grid: Float[Tensor, "times"],
    step: Callable[[Point, Point, Sequence[Point]], Stages],
    inner: tuple[float, ...],
) -> Tableau:
    """Return the tableau of `step`, given the points at the fractions `inner` of each step in half-log-SNR."""
    places = points(path, grid)
    lam = np.array([place.lam for place in places])
    with np.errstate(invalid="ignore"):
        found = points_at(path, lam[:-1, None] + np.array(inner) * np.diff(lam)[:, None])
    rows = Rows(places[0])
    for i, (a, b) in enumerate(pairwise(places)):
        finite = math.isfinite(a.lam) and math.isfinite(b.lam)
        rows.add(step(a, b, found[i * len(inner) : (i + 1) * len(inner)]) if finite else _noise_step_1(a, b))
    return rows.tableau()


def _noise(place: Point, state: Coefficients, call: int) -> Coefficients:
    """Return eps_hat = (x - alpha x0_hat) / sigma of network call number `call`, made at `state`."""
    return (state - place.alpha * _unit(call + 1, len(state))) / place.sigma


def _noise_step_1(a: Point, b: Point) -> Stages:
    keep = b.sigma / a.sigma
    return [(b.t, np.array([keep, b.alpha - keep * a.alpha]))]


def _first(a: Point, b: Point, inner: Sequence[Point]) -> Stages:
    del inner
    return _noise_step_1(a, b)


def _second(a: Point, b: Point, inner: Sequence[Point]) -> Stages:
    (middle,), h, x = inner, b.lam - a.lam, _unit(0, 3)
    state = middle.alpha / a.alpha * x - middle.sigma * math.expm1(h / 2) * _noise(a, x, 0)
    end = b.alpha / a.alpha * x - b.sigma * math.expm1(h) * _noise(middle, state, 1)
    return [(middle.t, state), (b.t, end)]


def _third(a: Point, b: Point, inner: Sequence[Point]) -> Stages:
    (one, two), h, x = inner, b.lam - a.lam, _unit(0, 4)
    noise, h2 = _noise(a, x, 0), 2 * h / 3
    first = one.alpha / a.alpha * x - one.sigma * math.expm1(h / 3) * noise
    change = _noise(one, first, 1) - noise
    moved = math.expm1(h2) * noise + 2 * (math.expm1(h2) / h2 - 1) * change
    second = two.alpha / a.alpha * x - two.sigma * moved
    change = _noise(two, second, 2) - noise
    moved = math.expm1(h) * noise + 1.5 * (math.expm1(h) / h - 1) * change
    return [(one.t, first), (two.t, second), (b.t, b.alpha / a.alpha * x - b.sigma * moved)]


def _second_on_data(a: Point, b: Point, inner: Sequence[Point]) -> Stages:
    (middle,), h, x = inner, b.lam - a.lam, _unit(0, 3)
    state = middle.sigma / a.sigma * x - middle.alpha * math.expm1(-h / 2) * _unit(1, 3)
    end = b.sigma / a.sigma * x - b.alpha * math.expm1(-h) * _unit(2, 3)
    return [(middle.t, state), (b.t, end)]
