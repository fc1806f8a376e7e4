"""Short fits on points of the plane: what the studies of training share, so that their numbers compare."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.points import POINTS, Points
from ..diffusion.exact import Mixture
from ..diffusion.objective import Diffusion
from ..evaluate.distances import energy_distance, off_mode_fraction
from ..generative.model import Model, ModelConfig
from ..nets import PointMLPConfig
from ..seeds import derive, generator
from ..train.generative import GenerativeTrain, fit

NET = PointMLPConfig(width=48, blocks=2, condition_width=32)
"""Small enough that a fit takes a second, large enough to draw a spiral."""
POOL = 20_000
"""Training points: more than a short fit sees twice."""


@dataclass(frozen=True)
class Budget:
    """What one fit and one measurement may cost."""

    steps: int
    """Optimiser steps of 256 points."""
    samples: int
    """Points that samples and data are compared by."""
    seeds: int
    """Repeats, each with its own data, weights and noise; the same ones for everything that is compared."""


@dataclass(frozen=True)
class Quality:
    """How far samples are from held-out data."""

    energy: float
    """Energy distance."""
    off: float
    """Fraction of samples off the support, %."""


def fitted(objective: Diffusion, x: Float[Tensor, "n D"], *, budget: Budget, seed: int) -> Model:
    """Return a small network trained on `x` by `objective` for the budget; seeds pair fits of different objectives."""
    config = ModelConfig(shape=tuple(x.shape[1:]), net=NET, objective=objective)
    warmup = min(50, budget.steps // 4)
    train = replace(GenerativeTrain(), steps=budget.steps, batch_size=256, warmup_steps=warmup)
    model = fit(config, x, train=train, seed=derive(seed, "fit"))
    assert isinstance(model, Model), "a model without an autoencoder"
    return model


def sampled(model: Model, budget: Budget, *, nfe: int, seed: int) -> Float[Tensor, "n D"]:
    """Return DDIM samples on a trailing grid, from the same noise for every model of a seed."""
    return model.sample(budget.samples, nfe=nfe, generator=generator(seed, "noise"))


def quality(samples: Float[Tensor, "n D"], points: Points, *, seed: int) -> Quality:
    """Return the distance of samples to as many held-out points of `points`."""
    data = points.draw(len(samples), derive(seed, "held out")).x
    modes = points.modes
    off = off_mode_fraction(samples, modes.centres, modes.radius, norm=modes.norm)
    return Quality(energy_distance(samples, data), 100 * off)


def spiral(seed: int, n: int = POOL) -> Float[Tensor, "n 2"]:
    """Return training points of the spiral."""
    return POINTS["swiss_roll"].draw(n, derive(seed, "training")).x


def in_units_of(model: Model, data: Mixture) -> Mixture:
    """Return the exact mixture `data` in the normalised units that the network of `model` sees."""
    means = model.normalised(data.means.float()).to(torch.float64)
    ends = model.normalised(torch.eye(data.means.shape[1])).to(torch.float64)
    # One scale for all coordinates: the difference of two unit vectors has the length sqrt(2) / std.
    factor = (ends[0] - ends[1]).norm() / 2**0.5
    return Mixture(data.path, data.weights, means, data.covariances * factor**2)
