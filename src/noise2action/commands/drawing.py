"""Drawing samples of a generative model: how, what they took, and the steps on the way."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..diffusion.denoisers import Counted, Denoiser
from ..diffusion.grids import Grid
from ..diffusion.paths import Path, Table
from ..diffusion.sampling import Sampler, prior
from ..diffusion.tableau import OnStep, Step
from ..generative import AnyModel, Guidance
from ..seeds import generator

NFE, IMAGE_NFE = 37, 20
"""Network evaluations of points and of images where nobody says how many; 37 is whole steps of every sampler, of 1, 2,
3 and 4 evaluations."""


def usual_grid(path: Path) -> str:
    """Return the grid for `path` where nobody names one: of a discrete one no step may come twice."""
    return "trailing" if isinstance(path, Table) else "log_snr"


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn."""

    sampler: Sampler
    grid: Grid
    nfe: int
    guidance: Guidance = field(default_factory=Guidance)
    guide: Callable[[Denoiser], Denoiser] | None = None
    """Further guidance, applied last."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Samples, and what they took."""

    x: Tensor
    nfe: int
    """Network evaluations, counted."""
    seconds: float


def draw(
    model: AnyModel,
    drawing: Drawing,
    n: int,
    *,
    labels: Int[Tensor, "*K n"] | None,
    seed: int,
    on_step: OnStep | None = None,
) -> Drawn:
    """Return `n` samples in raw units."""
    counts: list[Counted] = []

    def counted(denoise: Denoiser) -> Denoiser:
        counts.append(Counted(denoise))
        return counts[-1] if drawing.guide is None else drawing.guide(counts[-1])

    began = time.perf_counter()
    x = model.sample(
        n,
        sampler=drawing.sampler,
        grid=drawing.grid,
        nfe=drawing.nfe,
        labels=labels,
        w=drawing.guidance,
        guide=counted,
        generator=generator(seed, "sampling"),
        on_step=on_step,
    )
    return Drawn(x, counts[0].nfe, time.perf_counter() - began)


@dataclass(frozen=True, eq=False)
class Course:
    """A sampling from noise to samples, in normalised units; the last row is the result."""

    states: Float[Tensor, "k n ..."]
    """x_t, scaled down to a spread of 1 where the path lets it explode."""
    estimates: Float[Tensor, "k n ..."]
    """What the network made of each state."""
    times: list[float]


def course(model: AnyModel, drawing: Drawing, n: int, *, labels: Int[Tensor, "n"] | None, seed: int) -> Course:
    """Return the steps of `draw` with the same arguments."""
    steps: list[Step] = []
    draw(model, drawing, n, labels=labels, seed=seed, on_step=steps.append)
    path = model.config.objective.path
    # The noise that the sampling started from: the same generator gives it again.
    first = prior(path, steps[0].x, start=steps[0].t, generator=generator(seed, "sampling"))
    times = [*(step.t for step in steps), 0.0]
    at = torch.tensor(times, dtype=torch.float64)
    scales = (path.alpha(at) ** 2 + path.sigma(at) ** 2).rsqrt().clamp(max=1.0).tolist()
    states = [x * scale for x, scale in zip((first, *(step.x for step in steps)), scales, strict=True)]
    return Course(torch.stack(states), torch.stack([step.x0_hat for step in (*steps, steps[-1])]), times)
