"""The probability flow of any path as one ODE: transport between noise levels, encoding, decoding, interpolation.

In the coordinates `u = sigma / (alpha + sigma)` and `y = x_t / (alpha + sigma)` every path is the straight one, only
clocked differently, and the flow is regular from data (u = 0) to noise, also where no signal is left (u = 1):

    dy/du = eps_hat - x0_hat = (y - x0_hat) / u

A network is not asked about noise below the cleanest that it was trained on. There the score stays what it is at the
cleanest call, so that eps_hat falls linearly with sigma / alpha, to 0 at the data. For a density with structure of
scale h that misplaces a sample by O(r^4 / h^4) of h, r being sigma / alpha of the cleanest call; joining data and
cleanest call by eps_hat = 0 would cost O(r^2 / h^2). It is an ODE as well: encoding and decoding stay inverse.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from scipy.integrate import DOP853, RK45
from torch import Tensor

from ..errors import ConfigError, PathError, ShapeError, SolverError, did_you_mean, first_wrong
from ..shapes import Noisy
from .denoisers import Denoiser
from .paths import Path
from .tableau import OnStep, Step

CLEANEST = 0.002
"""sigma / alpha of the cleanest network call, where the path has a step as clean as that (EDM's sigma_min)."""

Field = Callable[[float, Tensor], Tensor]
"""(u, state [B, ...]) -> d state / du."""
OnPiece = Callable[[float, float, Tensor, Tensor], None]
"""Told after each step: u before, u now, the state and its derivative."""


class Solver(ABC):
    """A way to integrate an ODE over u; the state is float64."""

    @abstractmethod
    def integrate(self, f: Field, y: Tensor, knots: Sequence[float]) -> Tensor:
        """Return the state at the last of `knots`, given `y` at the first; between knots the field is smooth."""


@dataclass(frozen=True)
class FixedSteps(Solver):
    """Classical Runge-Kutta of order 4 on nodes uniform in sqrt(u): 4 network evaluations a step.

    At equal calls more accurate on smooth mixtures than nodes uniform in half-log-SNR (10 to 100 times), and robust on
    narrow ones where nodes uniform in u are too coarse near the data.
    """

    steps: int = 100
    """Steps; one of them lies below the cleanest network call."""

    def __post_init__(self) -> None:
        """Reject fewer than 2 steps."""
        if not 2 <= self.steps <= 100_000:
            raise ConfigError(f"expected 2 to 100000 steps, got {self.steps}")

    def integrate(self, f: Field, y: Tensor, knots: Sequence[float]) -> Tensor:
        """Return the state at the last knot."""
        pieces = list(pairwise(knots))
        longest = max(pieces, key=lambda piece: abs(piece[1] - piece[0]))
        for piece in pieces:
            for u, after in pairwise(_nodes(*piece, self.steps - len(pieces) + 1 if piece is longest else 1)):
                y = _runge_kutta(f, u, after, y)
        return y


def _nodes(start: float, end: float, steps: int) -> list[float]:
    first, last = math.sqrt(start), math.sqrt(end)
    inner = [(first + (last - first) * i / steps) ** 2 for i in range(1, steps)]
    return [start, *inner, end]


def _runge_kutta(f: Field, u: float, after: float, y: Tensor) -> Tensor:
    h = after - u
    first = f(u, y)
    second = f(u + h / 2, y + (h / 2) * first)
    third = f(u + h / 2, y + (h / 2) * second)
    fourth = f(after, y + h * third)
    return y + (h / 6) * (first + 2 * (second + third) + fourth)


SCHEMES: dict[str, Any] = {"rk45": RK45, "dop853": DOP853}


@dataclass(frozen=True)
class AdaptiveSteps(Solver):
    """Dormand-Prince with error control (scipy's), the whole batch as one system.

    The tolerance holds for every sample, whatever else is in the batch. Trained networks are rough in time: tolerances
    below 1e-5 cost thousands of calls there, and a float32 network cannot give much below 1e-6.
    """

    rtol: float = 1e-5
    """Local error allowed, relative to the state."""
    atol: float = 1e-5
    """Local error allowed, in units of the normalised data."""
    max_nfe: int = 2000
    """Network evaluations after which it gives up."""
    scheme: Literal["rk45", "dop853"] = "rk45"
    """Order 5; or order 8, which is cheaper below 1e-6 for exact denoisers, but takes 2 to 4 times the calls of order 5
    on trained networks."""

    def __post_init__(self) -> None:
        """Reject tolerances that are not positive, or below what float64 resolves."""
        if wrong := first_wrong(self, rtol=1e-13 <= self.rtol < 1, atol=0 < self.atol < 1, max_nfe=self.max_nfe >= 1):
            raise ConfigError(f"expected 1e-13 <= rtol < 1, 0 < atol < 1 and max_nfe >= 1, got {wrong}")
        if self.scheme not in SCHEMES:
            raise ConfigError(f"expected a known scheme, got {self.scheme!r}: {did_you_mean(self.scheme, SCHEMES)}")

    def integrate(self, f: Field, y: Tensor, knots: Sequence[float], *, on_step: OnPiece | None = None) -> Tensor:
        """Return the state at the last knot; `SolverError` where the tolerance is not reached within `max_nfe`."""
        calls = 0

        def flat(u: float, state: Any) -> Any:  # noqa: ANN401 (numpy on both sides)
            nonlocal calls
            calls += 1
            if calls > self.max_nfe:
                raise self._failed(u, f"{self.max_nfe} network evaluations")
            return f(float(u), self._like(state, y)).detach().cpu().numpy().ravel()

        # scipy bounds the root mean square over the batch, in which one sample's error is diluted by sqrt(B) at most.
        share = math.sqrt(max(len(y), 1))
        rtol, atol = max(self.rtol / share, 1e-13), self.atol / share
        for start, end in pairwise(knots):
            scheme: Any = SCHEMES[self.scheme](flat, start, y.detach().cpu().numpy().ravel(), end, rtol=rtol, atol=atol)
            while scheme.status == "running":
                before = float(scheme.t)
                if scheme.step() is not None:
                    raise self._failed(before, "a step size below the spacing of float64")
                if on_step is not None:
                    on_step(before, float(scheme.t), self._like(scheme.y, y), self._like(scheme.f, y))
            y = self._like(scheme.y, y)
        return y

    @staticmethod
    def _like(state: Any, y: Tensor) -> Tensor:  # noqa: ANN401
        return torch.as_tensor(state, dtype=y.dtype).reshape(y.shape).to(y.device)

    def _failed(self, u: float, spent: str) -> SolverError:
        return SolverError(
            f"expected the flow within rtol={self.rtol:g} and atol={self.atol:g}, got {spent} at u={u:.4g} (0 data, "
            "1 noise): allow larger tolerances or a larger max_nfe, or use fixed steps"
        )


AnySolver = FixedSteps | AdaptiveSteps


def cleanest_time(path: Path, *, low: float = 0.0) -> float:
    """Return the time of the cleanest network call: sigma / alpha = 0.002, the first noisy step of a table, or `low`.

    The noisiest of the three; `low` is the smallest time that a network was trained at.
    """
    zero = torch.zeros((), dtype=torch.float64)
    return max(float(path.time_at(zero - math.log(CLEANEST))), float(path.nearest(zero)), low)


@dataclass(frozen=True, eq=False)
class Flow:
    """The probability flow of a denoiser in the coordinates (u, y) of this module; states are float64."""

    denoise: Denoiser
    path: Path
    dtype: torch.dtype = torch.float64
    """What the denoiser is called in."""
    cleanest: float | None = None
    """Time of the cleanest network call; None for `cleanest_time(path)`."""

    @cached_property
    def floor(self) -> float:
        """The u of the cleanest network call."""
        t = cleanest_time(self.path) if self.cleanest is None else self.cleanest
        u = self.at(t)
        if not 0 < u < 1:
            raise PathError(f"expected a cleanest time with both signal and noise, got t={t:g}: use one inside (0, 1)")
        return u

    def at(self, t: float) -> float:
        """Return u = sigma / (alpha + sigma) at time `t`."""
        alpha, sigma = self.path.scales_at(t)
        return sigma / (alpha + sigma)

    def scale(self, t: float) -> float:
        """Return alpha + sigma at time `t`, which turns y into x_t."""
        return sum(self.path.scales_at(t))

    def knots(self, start: float, end: float) -> list[float]:
        """Return u at the times `start` and `end`, and between them where the field has a corner."""
        first, last = self.at(start), self.at(end)
        return [first, self.floor, last] if min(first, last) < self.floor < max(first, last) else [first, last]

    def x0_hat(self, u: float, y: Noisy) -> Noisy:
        """Return the denoiser's x0_hat at `u`; `SolverError` where it is not finite."""
        t, scale = clock(self.path, u)
        x_t = (y * scale).to(self.dtype)
        x0_hat = self.denoise(x_t, t.to(device=y.device, dtype=self.dtype))
        if x0_hat.shape != y.shape:
            raise ShapeError(f"expected a denoiser that returns {tuple(y.shape)}, got {tuple(x0_hat.shape)}")
        if y.requires_grad and not x0_hat.requires_grad:
            raise SolverError(
                "expected a denoiser that can be differentiated, got a result without gradient: "
                "call the network outside torch.no_grad"
            )
        if not bool(x0_hat.isfinite().all()):
            raise SolverError(
                f"expected a denoiser that returns finite numbers, got NaN or infinity at t={float(t):.4g}: "
                "check weights and observations, or start and end where the network was trained"
            )
        return x0_hat.to(y.dtype)

    def velocity(self, u: float, y: Noisy) -> Noisy:
        """Return dy/du."""
        if u >= self.floor:
            return (y - self.x0_hat(u, y)) / u
        ratio, cleanest = u / (1 - u), self.floor / (1 - self.floor)
        clean = y / (1 - u)
        eps_hat = (ratio / cleanest**2) * (clean - self.x0_hat(self.floor, (1 - self.floor) * clean))
        return (1 + ratio) * eps_hat - clean


@lru_cache(maxsize=4096)
def clock(path: Path, u: float) -> tuple[Tensor, float]:
    """Return the time at which `path` is at `u`, float64, and alpha + sigma there; exactly 1 at the noisy end."""
    lam = math.log((1 - u) / u) if u < 1 else -math.inf
    time = path.time_at(torch.tensor(lam, dtype=torch.float64))
    # u of t = 1 was computed from its scales: rounding must not bring the clock back to just before it.
    time = torch.where(time > 1 - 1e-14, 1.0, time)
    return time, sum(path.scales_at(float(time)))


@torch.no_grad()
def transport(
    denoise: Denoiser,
    path: Path,
    x: Noisy,
    *,
    start: float,
    end: float,
    solver: Solver,
    cleanest: float | None = None,
) -> Noisy:
    """Return where the probability flow that passes `x` [B, ...] at time `start` is at time `end`; either direction.

    `x` and the result are in the units of the path (x_t). `cleanest` is the smallest time that the network is asked
    about, see `cleanest_time`.
    """
    for name, t in (("start", start), ("end", end)):
        if not 0 <= t <= 1:
            raise PathError(f"expected {name} in [0, 1], got {t:g}")
    if start == end:
        return x
    flow = Flow(denoise, path, x.dtype, cleanest)
    y = x.to(torch.float64) / flow.scale(start)
    return (solver.integrate(flow.velocity, y, flow.knots(start, end)) * flow.scale(end)).to(x.dtype)


def encode(
    denoise: Denoiser, path: Path, x0: Noisy, *, solver: Solver, start: float = 1.0, cleanest: float | None = None
) -> Noisy:
    """Return the noise that decodes to `x0`: the flow's state at `start`, the time that sampling starts from.

    **Source:** Song et al. 2021 (DDIM), section 4.3; Song et al. 2021 (SDE), section 4.3.
    """
    return transport(denoise, path, x0, start=0.0, end=start, solver=solver, cleanest=cleanest)


def decode(
    denoise: Denoiser, path: Path, x1: Noisy, *, solver: Solver, start: float = 1.0, cleanest: float | None = None
) -> Noisy:
    """Return the data that the flow makes of the noise `x1` at time `start`, the inverse of `encode`."""
    return transport(denoise, path, x1, start=start, end=0.0, solver=solver, cleanest=cleanest)


@torch.no_grad()
def adaptive(
    denoise: Denoiser,
    path: Path,
    x: Noisy,
    *,
    start: float = 1.0,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    max_nfe: int = 2000,
    cleanest: float | None = None,
    on_step: OnStep | None = None,
) -> Noisy:
    """Return the sample that the flow makes of the noise `x` at time `start`, with error control.

    Ends as fixed-grid samplers do, with the jump to x0_hat at the cleanest network call, which costs no call of its
    own. `on_step` is told of every accepted step.
    """
    flow = Flow(denoise, path, x.dtype, cleanest)
    steps: list[Step] = []

    def told(u: float, after: float, y: Tensor, slope: Tensor) -> None:
        (t, _), (s, scale) = clock(path, u), clock(path, after)
        x0_hat = (y - after * slope).to(x.dtype)
        done = Step(steps[-1].index + 1 if steps else 0, float(t), float(s), (y * scale).to(x.dtype), x0_hat)
        steps[:] = [done]
        if on_step is not None:
            on_step(done)

    y = x.to(torch.float64) / flow.scale(start)
    AdaptiveSteps(rtol, atol, max_nfe).integrate(flow.velocity, y, [flow.at(start), flow.floor], on_step=told)
    return steps[0].x0_hat


def lerp(a: Noisy, b: Noisy, weights: Float[Tensor, "W"]) -> Float[Tensor, "W B ..."]:
    """Return `(1 - w) a + w b` for every weight. Between two noises the norm falls: less noise than was trained on."""
    w = weights.to(a).reshape(-1, *[1] * a.ndim)
    return (1 - w) * a + w * b


def slerp(a: Noisy, b: Noisy, weights: Float[Tensor, "W"]) -> Float[Tensor, "W B ..."]:
    """Return the way from `a` to `b` along the great circle, row by row; rows of equal norm keep it.

    Opposite rows have no shortest way: `SolverError`.

    **Source:** Shoemake 1985; Song et al. 2021 (DDIM), Eq. 67.
    """
    flat = [x.flatten(1).to(torch.float64) for x in (a, b)]
    one, other = (x / x.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny) for x in flat)
    # Half-angle form: exact for nearly parallel rows, where the cosine has no digits left.
    sum_norm = (one + other).norm(dim=1)
    if bool((sum_norm < 1e-6).any() and (one.norm(dim=1) > 0).all()):
        raise SolverError("expected noises with a shortest way between them, got opposite ones: interpolate linearly")
    angle = 2 * torch.atan2((one - other).norm(dim=1), sum_norm).reshape(-1, *[1] * (a.ndim - 1))
    w = weights.to(angle).reshape(-1, *[1] * a.ndim)
    parallel = angle < 1e-9
    sine = torch.where(parallel, 1.0, angle.sin())
    from_a = torch.where(parallel, 1 - w, ((1 - w) * angle).sin() / sine)
    from_b = torch.where(parallel, w, (w * angle).sin() / sine)
    return (from_a * a + from_b * b).to(a.dtype)


def interpolate(
    denoise: Denoiser,
    path: Path,
    x_a: Noisy,
    x_b: Noisy,
    *,
    weights: Float[Tensor, "W"],
    how: Literal["spherical", "linear"] = "spherical",
    solver: Solver,
    start: float = 1.0,
    cleanest: float | None = None,
) -> Float[Tensor, "W B ..."]:
    """Return data between `x_a` and `x_b` [B, ...]: both are encoded, the noises interpolated, and decoded.

    A weight of 0 gives `x_a` and 1 gives `x_b`, to the solver's accuracy.

    **Source:** Song et al. 2021 (DDIM), section 5.3.
    """
    if x_a.shape != x_b.shape:
        raise ShapeError(f"expected two batches of one shape, got {tuple(x_a.shape)} and {tuple(x_b.shape)}")
    a, b = (encode(denoise, path, x, solver=solver, start=start, cleanest=cleanest) for x in (x_a, x_b))
    between = (slerp if how == "spherical" else lerp)(a, b, weights)
    decoded = [decode(denoise, path, x, solver=solver, start=start, cleanest=cleanest) for x in between]
    return torch.stack(decoded)
