"""How probable a generative model finds data: the exact log-density of what its probability flow samples."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..diffusion import likelihood
from ..diffusion.likelihood import Trace
from ..diffusion.ode import Solver, cleanest_time
from ..errors import ConfigError
from ..seeds import Generators
from ..shapes import Noisy
from . import AnyModel
from .model import Model


def check_density(model: AnyModel) -> Model:
    """Return `model`, or raise `ConfigError` for a latent one: its decoder gives samples no density."""
    if not isinstance(model, Model):
        raise ConfigError(
            "expected a model of the data itself, got a latent one: its decoder gives samples no density; "
            "train without --latent"
        )
    return model


def log_likelihood(
    model: AnyModel,
    x: Noisy,
    labels: Int[Tensor, "B"] | None = None,
    *,
    solver: Solver,
    trace: Trace,
    generator: Generators | None = None,
) -> Float[Tensor, "B"]:
    """Return log p(x | labels) in nats, float64, of each of `x` [B, *shape], in the units of the data.

    Without labels it is log p(x), which a model of labelled data knows where it was trained with hidden labels.
    Raises `ConfigError` where `check_density` does.
    """
    model = check_density(model)
    objective = model.config.objective
    nats = likelihood.log_likelihood(
        model.denoiser(labels),
        objective.path,
        model.normalised(x),
        solver=solver,
        trace=trace,
        generator=generator,
        start=objective.span[1],
        cleanest=cleanest_time(objective.path, low=objective.span[0]),
    )
    return nats - math.prod(model.config.shape) * float(torch.log(model.scale.std))
