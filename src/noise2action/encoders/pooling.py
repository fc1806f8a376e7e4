"""Pooling: the feature maps of an image to one vector, by where things are or by how much there is."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ConfigError

Maps = Float[Tensor, "N C h w"]
"""Feature maps."""


@dataclass(frozen=True)
class SpatialSoftmaxConfig:
    """Spatial softmax: where in the image each feature is."""

    keypoints: int = 32
    """Features that are located, two numbers each."""
    temperature: float = 1.0
    """Divides the features before the softmax: lower is sharper."""
    learn: Literal["nothing", "temperature"] = "nothing"
    """What is learned beyond the features: temperature lets it start from the value above."""

    def __post_init__(self) -> None:
        """Reject no keypoints and a temperature that is not above 0."""
        if not (1 <= self.keypoints <= 65_536 and 0 < self.temperature < math.inf):
            raise ConfigError(
                f"expected keypoints in [1, 65536] and a temperature > 0, got {self.keypoints} and {self.temperature:g}"
            )

    def build(self, *, channels: int, size: tuple[int, int]) -> "SpatialSoftmax":
        """Return the pooling of maps [N, channels, *size]."""
        return SpatialSoftmax(self, channels=channels, size=size)


@dataclass(frozen=True)
class AveragePoolConfig:
    """Average of each feature over the image."""

    def build(self, *, channels: int, size: tuple[int, int]) -> "AveragePool":
        """Return the pooling of maps [N, channels, *size]."""
        return AveragePool(channels)


AnyPoolConfig = SpatialSoftmaxConfig | AveragePoolConfig
"""Every pooling that can be chosen by name."""


class SpatialSoftmax(nn.Module):
    """Expected image coordinates `sum_p softmax_p(f_k / temperature) (x_p, y_p)` of every keypoint k.

    Coordinates go from -1 (left, top) to 1 (right, bottom) between the centres of the outermost cells.

    **Source:** Finn et al. 2016, "Deep spatial autoencoders", section IV-B.
    """

    def __init__(self, config: SpatialSoftmaxConfig, *, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.dim = 2 * config.keypoints
        self.size = size
        self.nets = nn.Conv2d(channels, config.keypoints, kernel_size=1)
        # The name and the place under which published checkpoints hold it.
        self.pos_grid = nn.Buffer(coordinates(size))
        learned = config.learn == "temperature"
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature))) if learned else None
        self.temperature = config.temperature

    def attention(self, maps: Maps) -> Float[Tensor, "N K h w"]:
        """Return where each keypoint looks: weights >= 0 that sum to 1 over the image."""
        # In float32 whatever the maps are: half precision places a keypoint to a few pixels only.
        logits = self.nets(maps).float()
        temperature = self.temperature if self.log_temperature is None else self.log_temperature.exp()
        if isinstance(temperature, Tensor) or temperature != 1:
            logits = logits / temperature
        return logits.flatten(2).softmax(dim=2).unflatten(2, tuple(maps.shape[2:]))

    def forward(self, maps: Maps) -> Float[Tensor, "N F"]:
        """Return x and y of every keypoint, [N, 2 K]: x_1, y_1, x_2, ..."""
        size = maps.shape[2], maps.shape[3]
        # Cameras of different sizes may share this module.
        grid = self.pos_grid if size == self.size else coordinates(size).to(self.pos_grid.device)
        return (self.attention(maps).flatten(2) @ grid).flatten(1).to(maps.dtype)


class AveragePool(nn.Module):
    """Mean of every feature over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dim = channels

    def forward(self, maps: Maps) -> Float[Tensor, "N F"]:
        """Return the mean features [N, C]."""
        return maps.mean(dim=(2, 3))


def coordinates(size: tuple[int, int]) -> Float[Tensor, "P 2"]:
    """Return (x, y) of every cell of a map [h, w], row by row, each from -1 to 1."""
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in size)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    return grid.flatten(0, 1).float()
