"""Regions that samples are kept out of, by a cost on the network's estimate of x0."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..diffusion.denoisers import Denoiser, descend
from ..errors import ConfigError
from . import AnyModel

MARGIN = 1.2
"""Distance, in radii, at which the cost of a disc begins: its slope must not end where samples must not be."""


@dataclass(frozen=True)
class Disc:
    """A disc in the plane, in the units of the data."""

    x: float
    y: float
    radius: float

    def __post_init__(self) -> None:
        """Reject what is no disc."""
        if not (math.isfinite(self.x) and math.isfinite(self.y) and 0 < self.radius < math.inf):
            raise ConfigError(f"expected a disc with a finite centre and a radius above 0, got {self}")

    def holds(self, points: Float[Tensor, "n 2"]) -> Bool[Tensor, "n"]:
        """Return whether each point lies inside."""
        return self._distance(points) < 1

    def cost(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, "n"]:
        """Return `max(0, 1.2 - d / radius)^2` of each point at the distance d from the centre."""
        return torch.relu(MARGIN - self._distance(points)) ** 2

    def _distance(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, "n"]:
        return (points - points.new_tensor([self.x, self.y])).norm(dim=1) / self.radius


def avoid(model: AnyModel, disc: Disc, *, scale: float = 3.0) -> Callable[[Denoiser], Denoiser]:
    """Return the guidance, for `model.sample(guide=...)`, that keeps samples of `model` out of `disc`.

    It is `descend` on the disc's cost. Where noise is high x0_hat is near the mean of the data, so a disc there, and
    more so a larger scale, also thins what lies around it.

    Raises `ConfigError` unless samples are points in the plane.
    """
    if model.config.shape != (2,) or not (math.isfinite(scale) and scale >= 0):
        raise ConfigError(
            f"expected a model of points in the plane and a finite scale >= 0 to avoid a disc, got samples of shape "
            f"{model.config.shape} and {scale:g}"
        )

    def guide(denoise: Denoiser) -> Denoiser:
        return descend(denoise, lambda y: disc.cost(model.raw(y)), path=model.config.objective.path, scale=scale)

    return guide
