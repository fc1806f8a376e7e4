"""Exact likelihood: the probability flow as a change of variables from data to the noise that sampling starts from.

    log p(x0) = log N(y_1; 0, (sigma_1 / s_1)^2 I) + int_0^u1 div(dy/du) du,    s = alpha + sigma

in the coordinates of `ode`. It is the density of what the flow's sampler makes, not a bound: where a path leaves signal
at its noisy end, sampling starts from noise without that signal, and the density is that of such samples.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ConfigError, first_wrong
from ..seeds import Generators, randn_like
from ..shapes import Noisy
from .denoisers import Denoiser
from .ode import Flow, Solver
from .paths import Path

AT_ONCE = 32
"""Directions that are differentiated together: bounds the memory, which is this many copies of the activations."""


class Trace(ABC):
    """How the divergence of the flow is computed: as the mean of e . J e over directions e, times a factor."""

    @abstractmethod
    def directions(self, flat: Float[Tensor, "B D"], generator: Generators | None) -> Float[Tensor, "K B D"]:
        """Return the directions, drawn once and kept along the whole flow."""

    @abstractmethod
    def factor(self, dims: int) -> float:
        """Return what each direction counts."""


@dataclass(frozen=True)
class Exact(Trace):
    """The trace itself: one backward pass a dimension."""

    limit: int = 1024
    """Dimensions beyond which it is refused."""

    def directions(self, flat: Float[Tensor, "B D"], generator: Generators | None) -> Float[Tensor, "K B D"]:
        """Return the D unit vectors; `ConfigError` where there are more than `limit`."""
        batch, dims = flat.shape
        if dims > self.limit:
            raise ConfigError(
                f"expected at most {self.limit} dimensions for the exact trace, got {dims}: use the estimate of "
                "Hutchinson (trace hutchinson)"
            )
        return torch.eye(dims, dtype=flat.dtype, device=flat.device).unsqueeze(1).expand(dims, batch, dims)

    def factor(self, dims: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Hutchinson(Trace):
    """An unbiased estimate of the trace from random directions: one backward pass a probe.

    **Source:** Hutchinson 1989; Grathwohl et al. 2019 (FFJORD), section 3.1.
    """

    noise: Literal["rademacher", "gaussian"] = "rademacher"
    """Signs have the smaller variance, and none where the Jacobian is diagonal."""
    probes: int = 1
    """Directions a sample."""

    def __post_init__(self) -> None:
        """Reject unknown noise and no probes."""
        known = self.noise in ("rademacher", "gaussian")
        if wrong := first_wrong(self, noise=known, probes=1 <= self.probes <= 10_000):
            raise ConfigError(f"expected noise rademacher or gaussian and 1 <= probes <= 10000, got {wrong}")

    def directions(self, flat: Float[Tensor, "B D"], generator: Generators | None) -> Float[Tensor, "K B D"]:
        """Return `probes` directions a sample."""
        z = randn_like(flat.unsqueeze(1).expand(-1, self.probes, -1), generator).transpose(0, 1)
        return z if self.noise == "gaussian" else torch.where(z >= 0, 1.0, -1.0).to(flat.dtype)

    def factor(self, dims: int) -> float:
        """Return 1 / probes."""
        return 1 / self.probes


AnyTrace = Exact | Hutchinson


def log_likelihood(
    denoise: Denoiser,
    path: Path,
    x0: Noisy,
    *,
    solver: Solver,
    trace: Trace,
    generator: Generators | None = None,
    start: float = 1.0,
    cleanest: float | None = None,
) -> Float[Tensor, "B"]:
    """Return log p(x0) in nats, float64, for each of `x0` [B, ...], in the units that the denoiser works in.

    `generator` draws Hutchinson's directions. `start` is the time that sampling starts from, `cleanest` the smallest
    that the network is asked about (see `ode.cleanest_time`): structure finer than the noise there is not resolved, and
    a coordinate that never varies has a density as high as that noise allows. Works inside `torch.no_grad` too. A
    denoiser that clips x0_hat has no density where it does.

    **Source:** Chen et al. 2018 (neural ODEs), Eq. 8; Song et al. 2021 (SDE), Eq. 39.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        flow = Flow(denoise, path, x0.dtype, cleanest)
        y0 = x0.detach().clone().to(torch.float64)
        flat = y0.flatten(1)
        field = _Augmented(flow, y0.shape, trace.directions(flat, generator), trace.factor(flat.shape[1]))
        state = torch.cat([flat, flat.new_zeros(len(flat), 1)], dim=1)
        state = solver.integrate(field, state, flow.knots(0.0, start))
        noise, log_det = state[:, :-1], state[:, -1]
        return standard_normal(noise / flow.at(start)) - flat.shape[1] * math.log(flow.at(start)) + log_det


def standard_normal(z: Float[Tensor, "B D"]) -> Float[Tensor, "B"]:
    """Return log N(z; 0, I) in nats."""
    return -0.5 * (z * z).sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


def bits_per_dimension(nats: Tensor, dims: int) -> Tensor:
    """Return -nats / (dims ln 2): the code length of a log-density, relative to a resolution of one unit.

    Negative where the density is above one. For data with levels 1 / n apart add log2(n).
    """
    return -nats / (dims * math.log(2))


@dataclass(frozen=True, eq=False)
class _Augmented:
    """The flow and the divergence beside it: d(y, log det) / du of the state [B, D + 1]."""

    flow: Flow
    shape: tuple[int, ...]
    directions: Float[Tensor, "K B D"]
    factor: float

    def __call__(self, u: float, state: Float[Tensor, "B D1"]) -> Float[Tensor, "B D1"]:
        """Return the derivative, detached."""
        flat = state[:, :-1].detach().clone().requires_grad_()
        y = flat.reshape(self.shape)
        velocity = self.flow.velocity(u, y).flatten(1)
        divergence = flat.new_zeros(len(flat))
        for some in self.directions.split(AT_ONCE):
            (pulled,) = torch.autograd.grad(velocity, flat, some, is_grads_batched=True, retain_graph=True)
            divergence += (pulled * some).sum((0, 2))
        return torch.cat([velocity.detach(), self.factor * divergence.unsqueeze(1)], dim=1)
