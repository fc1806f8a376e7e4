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
from .model import Model

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
            raise ConfigError(
                f"expected a disc with a finite centre and a radius above 0, got x={self.x:g}, y={self.y:g}, "
                f"radius={self.radius:g}"
            )

    def holds(self, points: Float[Tensor, "n 2"]) -> Bool[Tensor, "n"]:
        """Return whether each point lies inside."""
        return self._distance(points) < 1

    def cost(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, "n"]:
        """Return `max(0, 1.2 - d / radius)^2` of each point at the distance d from the centre."""
        return self.depth(points) ** 2

    def depth(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, "n"]:
        """Return how far each point is from where the cost ends, in radii; 0 outside."""
        return torch.relu(MARGIN - self._distance(points))

    def _distance(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, "n"]:
        return (points - points.new_tensor([self.x, self.y])).norm(dim=1) / self.radius


def avoid(model: AnyModel, disc: Disc, *, scale: float = 10.0) -> Callable[[Denoiser], Denoiser]:
    """Return the guidance, for `model.sample(guide=...)`, that keeps samples of `model` out of `disc`.

    It is `descend` on the disc's cost, with x0_hat moved no farther than it takes to leave the cost: without that bound
    the slope, as steep as noise is high, throws samples away from a disc that is near the mean of the data.

    Raises `ConfigError` unless samples are points in the plane and the scale is one.
    """
    if not isinstance(model, Model) or model.config.shape != (2,):
        raise ConfigError(f"expected a model of points in the plane to avoid a disc, got shape {model.config.shape}")
    if not (math.isfinite(scale) and scale >= 0):
        raise ConfigError(f"expected a finite scale >= 0 to avoid a disc, got {scale:g}")

    def guide(denoise: Denoiser) -> Denoiser:
        def kept_out(x_t: Tensor, t: Tensor) -> Tensor:
            seen: list[Tensor] = []

            def cost(x0_hat: Tensor) -> Tensor:
                seen.append(x0_hat.detach())
                return disc.cost(model.raw(x0_hat))

            moved = descend(denoise, cost, path=model.config.objective.path, scale=scale)(x_t, t)
            (x0_hat,) = seen
            room = disc.depth(model.raw(x0_hat)) * disc.radius / model.scale.std
            # The norm of nothing is nothing: a sample outside the disc does not move.
            far = (moved - x0_hat).norm(dim=1)
            return torch.where((far > room).unsqueeze(1), x0_hat + (moved - x0_hat) * (room / far).unsqueeze(1), moved)

        return kept_out

    return guide
