"""Samplers by name: each is a small dataclass of options; all but `Adaptive` are a `Tableau` on the grid.

`NAMED` holds every one that samples a denoiser, under the name that the field uses.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import PathError, first_wrong
from ..seeds import Generators
from .denoisers import Clipped, Denoiser
from .grids import Grid
from .multistep import adams, ddim, dpm_solver_pp, renoise, unipc
from .ode import adaptive
from .paths import Path
from .sampling import Sampler, TableSampler
from .sde import Churn, ddpm, dpm_solver_pp_sde, edm_stochastic, euler_maruyama, predictor_corrector
from .singlestep import CLASSIC, HEUN, MIDPOINT, Frame, dpm_solver, dpm_solver_pp_2s, runge_kutta
from .tableau import OnStep, Tableau, join

NOISIEST = -5.1
"""Half-log-SNR that solvers in half-log-SNR start from where the path starts noisier: a step from minus infinity is of
first order, and one from nearly there amplifies what is wrong with x0_hat. The clip of DPM-Solver's public code."""


class _FromFiniteSNR(TableSampler):
    """A sampler whose formulas have no value where no signal is left."""

    def start(self, path: Path, start: float) -> float:
        """Return the time to start from: half-log-SNR -5.1, or `start` where that is cleaner."""
        return min(start, float(path.time_at(torch.tensor(NOISIEST, dtype=torch.float64))))


def _check_order(order: int, highest: int) -> None:
    if not 1 <= order <= highest:
        raise PathError(f"expected an order of 1 to {highest}, got {order}")


@dataclass(frozen=True)
class DDIM(TableSampler):
    """DDIM; flow Euler on `Straight`."""

    eta: float = 0.0
    """0: deterministic; 1: ancestral with the posterior variance."""

    def __post_init__(self) -> None:
        """Reject eta outside [0, 1]."""
        if not 0 <= self.eta <= 1:
            raise PathError(f"expected eta in [0, 1], got {self.eta}: 0 is deterministic, 1 is ancestral sampling")

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `ddim(path, grid, eta)`."""
        return ddim(path, grid, eta=self.eta)


@dataclass(frozen=True)
class DDPM(TableSampler):
    """DDPM ancestral sampling."""

    variance: Literal["posterior", "beta"] = "posterior"
    """beta~ of the posterior, or beta of the step."""

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `ddpm(path, grid, variance)`."""
        return ddpm(path, grid, variance=self.variance)


@dataclass(frozen=True)
class Euler(TableSampler):
    """Euler's method on the probability flow: in either frame it is DDIM, exact for constant x0_hat and eps_hat."""

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `ddim(path, grid)`."""
        return ddim(path, grid)


@dataclass(frozen=True)
class Midpoint(TableSampler):
    """The explicit midpoint method of order 2 on the probability flow."""

    frame: Frame = "straight"
    """Coordinates: straight (flow matching), or edm (x / alpha)."""

    @property
    def calls(self) -> int:
        """Two calls a step."""
        return MIDPOINT.stages

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `runge_kutta(path, grid, MIDPOINT)`."""
        return runge_kutta(path, grid, MIDPOINT, frame=self.frame)


@dataclass(frozen=True)
class Heun(TableSampler):
    """Heun's second-order method on the probability flow; with frame=edm EDM's deterministic sampler."""

    frame: Frame = "straight"
    """Coordinates: straight (flow matching), or edm (x / alpha)."""

    @property
    def calls(self) -> int:
        """Two calls a step."""
        return HEUN.stages

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `runge_kutta(path, grid, HEUN)`."""
        return runge_kutta(path, grid, HEUN, frame=self.frame)


@dataclass(frozen=True)
class RK4(TableSampler):
    """The classic Runge-Kutta method of order 4 on the probability flow."""

    frame: Frame = "straight"
    """Coordinates: straight (flow matching), or edm (x / alpha)."""

    @property
    def calls(self) -> int:
        """Four calls a step."""
        return CLASSIC.stages

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `runge_kutta(path, grid, RK4)`."""
        return runge_kutta(path, grid, CLASSIC, frame=self.frame)


@dataclass(frozen=True)
class DPMSolver(_FromFiniteSNR):
    """Single-step DPM-Solver on the noise estimate."""

    KIND: ClassVar = "dpm_solver"

    order: int = 2
    """1 (DDIM), 2 or 3: also the calls a step."""

    def __post_init__(self) -> None:
        """Reject orders outside 1 to 3."""
        _check_order(self.order, 3)

    @property
    def calls(self) -> int:
        """As many as its order."""
        return self.order

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `dpm_solver(path, grid, order)`."""
        return dpm_solver(path, grid, order=self.order)


@dataclass(frozen=True)
class DPMSolverPP(_FromFiniteSNR):
    """Multistep DPM-Solver++ on the data estimate: 2M, 3M."""

    KIND: ClassVar = "dpm_solver_pp"

    order: int = 2
    """1 (DDIM), 2 (2M) or 3 (3M)."""

    def __post_init__(self) -> None:
        """Reject orders outside 1 to 3."""
        _check_order(self.order, 3)

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `dpm_solver_pp(path, grid, order)`."""
        return dpm_solver_pp(path, grid, order=self.order)


@dataclass(frozen=True)
class DPMSolverPP2S(_FromFiniteSNR):
    """Single-step DPM-Solver++ 2S on the data estimate."""

    KIND: ClassVar = "dpm_solver_pp_2s"

    @property
    def calls(self) -> int:
        """Two calls a step."""
        return 2

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `dpm_solver_pp_2s(path, grid)`."""
        return dpm_solver_pp_2s(path, grid)


@dataclass(frozen=True)
class DPMSolverPPSDE(_FromFiniteSNR):
    """Multistep SDE-DPM-Solver++: stochastic."""

    KIND: ClassVar = "dpm_solver_pp_sde"

    order: int = 2
    """1 (DDIM at eta = 1) or 2 (2M)."""

    def __post_init__(self) -> None:
        """Reject orders outside 1 to 2."""
        _check_order(self.order, 2)

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `dpm_solver_pp_sde(path, grid, order)`."""
        return dpm_solver_pp_sde(path, grid, order=self.order)


@dataclass(frozen=True)
class UniPC(_FromFiniteSNR):
    """UniPC: a multistep predictor, corrected by the next evaluation at no extra call."""

    KIND: ClassVar = "unipc"

    order: int = 2
    """1 to 3."""

    def __post_init__(self) -> None:
        """Reject orders outside 1 to 3."""
        _check_order(self.order, 3)

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `unipc(path, grid, order)`."""
        return unipc(path, grid, order=self.order)


@dataclass(frozen=True)
class Adams(TableSampler):
    """Exponential Adams-Bashforth multistep, with exact integrals."""

    order: int = 2
    """1 is DDIM; 2 converges like DPM-Solver++ 2M; up to 4."""

    def __post_init__(self) -> None:
        """Reject orders outside 1 to 4."""
        _check_order(self.order, 4)

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `adams(path, grid, order)`."""
        return adams(path, grid, order=self.order)


@dataclass(frozen=True)
class Adaptive(Sampler):
    """Adaptive Runge-Kutta on the probability flow (SciPy's RK45): it chooses its own steps and calls."""

    rtol: float = 1e-3
    """Relative tolerance of a step; what a float32 network can give is about 1e-6."""
    atol: float = 1e-4
    """Absolute tolerance of a step, in units of the normalised data."""
    max_nfe: int = 2000
    """Network evaluations after which it gives up, with an error."""

    def __post_init__(self) -> None:
        """Reject tolerances that cannot be met."""
        if wrong := first_wrong(self, rtol=1e-13 <= self.rtol < 1, atol=0 < self.atol < 1, max_nfe=self.max_nfe >= 1):
            raise PathError(f"expected 1e-13 <= rtol < 1, 0 < atol < 1 and max_nfe >= 1, got {wrong}")

    def steps(self, nfe: int) -> int:
        """Return 1: the grid is not used."""
        if nfe < 1:
            raise PathError(f"expected at least 1 network evaluation, got {nfe}")
        return 1

    def times(self, path: Path, grid: Grid, *, nfe: int, start: float) -> Float[Tensor, "times"]:
        """Return the start and 0."""
        del grid
        self.steps(nfe)
        ends = torch.tensor([start, 0.0], dtype=torch.float64)
        return torch.cat([path.nearest(ends[:1]), ends[1:]])

    def __call__(
        self,
        denoise: Denoiser,
        path: Path,
        grid: Float[Tensor, "times"],
        x: Tensor,
        *,
        generator: Generators | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return the sample made of the noise `x` from the first time of `grid`; deterministic."""
        return adaptive(
            denoise,
            path,
            x,
            start=float(grid[0]),
            rtol=self.rtol,
            atol=self.atol,
            max_nfe=self.max_nfe,
            on_step=on_step,
        )


@dataclass(frozen=True)
class EulerMaruyama(_FromFiniteSNR):
    """Euler-Maruyama on the reverse SDE: stochastic; wants many steps."""

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `euler_maruyama(path, grid)`."""
        return euler_maruyama(path, grid)


@dataclass(frozen=True)
class EDMStochastic(TableSampler):
    """EDM's stochastic sampler: fresh noise, then a Heun step."""

    KIND: ClassVar = "edm_stochastic"

    churn: Churn = field(default_factory=Churn)
    """How much noise, and where."""
    frame: Frame = "straight"
    """Coordinates of the Heun step: straight (flow matching), or edm (x / alpha)."""

    @property
    def calls(self) -> int:
        """Two calls a step."""
        return HEUN.stages

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `edm_stochastic(path, grid, churn)`."""
        return edm_stochastic(path, grid, churn=self.churn, frame=self.frame)


@dataclass(frozen=True)
class PredictorCorrector(TableSampler):
    """Ancestral steps, each corrected by Langevin steps at its noise level."""

    corrections: int = 1
    """Langevin steps a level."""
    snr: float = 0.16
    """Song's signal-to-noise ratio r of a Langevin step."""

    def __post_init__(self) -> None:
        """Reject numbers out of range."""
        if wrong := first_wrong(self, corrections=self.corrections >= 1, snr=0 < self.snr < math.sqrt(0.5)):
            raise PathError(f"expected corrections >= 1 and 0 < snr < 0.707, got {wrong}")

    @property
    def calls(self) -> int:
        """One for the predictor, one a correction."""
        return 1 + self.corrections

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `predictor_corrector(path, grid, corrections, snr)`."""
        return predictor_corrector(path, grid, corrections=self.corrections, snr=self.snr)


@dataclass(frozen=True)
class Renoise(TableSampler):
    """Multistep consistency sampling."""

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `renoise(path, grid)`."""
        return renoise(path, grid)


@dataclass(frozen=True)
class Scheduler(TableSampler):
    """DDPM or DDIM as diffusers' schedulers compute them, for policies that were deployed with those.

    Two things differ from `DDPM` and `DDIM`: sampling starts, wherever the grid begins, from noise of the variance that
    noisy data of variance 1 have there (1 on a table), and DDIM, where x0_hat is clipped, takes the noise from the
    unclipped estimate.
    """

    KIND: ClassVar = "diffusers"

    name: Literal["ddpm", "ddim"] = "ddpm"
    """DDPM with the posterior variance, or DDIM at eta = 0."""

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return `ddpm(path, grid)` or `ddim(path, grid)`."""
        return ddpm(path, grid) if self.name == "ddpm" else ddim(path, grid)

    def __call__(
        self,
        denoise: Denoiser,
        path: Path,
        grid: Float[Tensor, "times"],
        x: Tensor,
        *,
        generator: Generators | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return the sample made of the noise `x`, which has the path's own scale, along `grid`."""
        if self.name == "ddim" and isinstance(denoise, Clipped):
            denoise = _noise_unclipped(denoise, path, grid, x.dtype)
        alpha, sigma = float(path.alpha(grid[0])), float(path.sigma(grid[0]))
        x = x * (math.hypot(alpha, sigma) / sigma)
        return super().__call__(denoise, path, grid, x, generator=generator, on_step=on_step)


def _noise_unclipped(denoise: Clipped, path: Path, grid: Float[Tensor, "times"], dtype: torch.dtype) -> Denoiser:
    """Return the denoiser with which a DDIM step `b clip(x0_hat) + s eps_hat` has the form of a tableau's row.

    With (a, r) at the step's begin and (b, s) at its end the row gives x0_hat the weight g = b - a s / r, of which b is
    the clipped one's and the rest the noise's: it is handed `(b clip(x0_hat) - (b - g) x0_hat) / g`. So written, the
    unclipped estimate, which is large where there is hardly any signal, is multiplied by the small a alone, and the
    step is as precise as that with the noise.
    """
    alpha, sigma = path.alpha(grid), path.sigma(grid)
    more = alpha[1:] / (alpha[1:] - alpha[:-1] * sigma[1:] / sigma[:-1])
    at = dict(zip(grid[:-1].to(dtype).tolist(), more.tolist(), strict=True))

    def reweighted(x_t: Tensor, t: Tensor) -> Tensor:
        x0_hat = denoise.denoise(x_t, t)
        weight = at[float(t)]
        return torch.add(weight * denoise.clamp(x0_hat), x0_hat, alpha=1 - weight)

    return reweighted


Part = (
    DDIM
    | DDPM
    | Euler
    | Midpoint
    | Heun
    | RK4
    | DPMSolver
    | DPMSolverPP
    | DPMSolverPP2S
    | DPMSolverPPSDE
    | UniPC
    | Adams
    | EulerMaruyama
    | EDMStochastic
    | PredictorCorrector
)
"""What a `Hybrid` can be made of."""


@dataclass(frozen=True)
class Hybrid(_FromFiniteSNR):
    """One sampler down to a noise level, another from there: an ODE refined by an SDE, or the reverse.

    A multistep part begins without a past, at order 1.
    """

    first: Part = field(default_factory=DPMSolverPP)
    """Sampler of the noisier part."""
    second: Part = field(default_factory=DPMSolverPPSDE)
    """Sampler of the cleaner part."""
    switch: float = 1.0
    """Noise level sigma / alpha at which the second takes over, at the grid's first time at or below it."""

    def __post_init__(self) -> None:
        """Reject a level below 0, and samplers whose calls a step differ."""
        if not self.switch >= 0:
            raise PathError(f"expected a noise level switch >= 0, got {self.switch}")
        if self.first.calls != self.second.calls:
            raise PathError(
                f"expected two samplers with the same number of network calls a step, got {self.first.calls} and "
                f"{self.second.calls}: pair ddim, ddpm, multistep ones and euler-maruyama; or heun and edm-stochastic"
            )

    @property
    def calls(self) -> int:
        """As many as its parts."""
        return self.first.calls

    def start(self, path: Path, start: float) -> float:
        """Return the time that the first part starts from."""
        return self.first.start(path, self.second.start(path, start))

    def tableau(self, path: Path, grid: Float[Tensor, "times"]) -> Tableau:
        """Return the rows of `first` above the switch and of `second` below it."""
        noisier = int((path.sigma(grid[:-1]) > self.switch * path.alpha(grid[:-1])).sum())
        parts = [(self.first, grid[: noisier + 1]), (self.second, grid[noisier:])]
        return join([sampler.tableau(path, times) for sampler, times in parts if len(times) > 1])


AnySampler = Part | Adaptive | Hybrid | Renoise | Scheduler

NAMED: dict[str, AnySampler] = {
    "ddim": DDIM(),
    "ddpm": DDPM(),
    "euler": Euler(),
    "midpoint": Midpoint(),
    "heun": Heun(),
    "rk4": RK4(),
    "dpm-solver-1": DPMSolver(order=1),
    "dpm-solver-2": DPMSolver(order=2),
    "dpm-solver-3": DPMSolver(order=3),
    "dpm-solver++-2s": DPMSolverPP2S(),
    "dpm-solver++-2m": DPMSolverPP(order=2),
    "dpm-solver++-3m": DPMSolverPP(order=3),
    "dpm-solver++-sde-2m": DPMSolverPPSDE(order=2),
    "unipc": UniPC(),
    "adams": Adams(),
    "adaptive": Adaptive(),
    "euler-maruyama": EulerMaruyama(),
    "edm-stochastic": EDMStochastic(),
    "predictor-corrector": PredictorCorrector(),
    "hybrid": Hybrid(),
    "hybrid-reverse": Hybrid(first=DPMSolverPPSDE(), second=DPMSolverPP()),
}
"""Every sampler of a denoiser by the field's name for it, with its defaults."""
