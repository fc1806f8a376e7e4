"""Residual MLP for vectors, with time and class: small, for points in a few dimensions and latents."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError, first_wrong
from .embed import Sinusoidal, per_sample


@dataclass(frozen=True)
class PointMLPConfig:
    """Residual MLP over a vector, modulated by time and class (adaLN)."""

    width: int = 64
    """Width of the residual stream."""
    blocks: int = 4
    """Residual blocks."""
    expansion: int = 2
    """Hidden width of a block, in multiples of `width`."""
    condition_width: int = 32
    """Width of the embedding of time and class that modulates the blocks."""
    frequencies: int = 4
    """Sines and cosines of each coordinate beside itself, of wavelengths 4, 2, 1, ...; sharp densities need some."""
    time_dim: int = 32
    """Width of the sinusoidal time embedding."""
    time_scale: float = 1000.0
    """Factor on t in [0, 1] before the sinusoids."""

    def __post_init__(self) -> None:
        """Reject sizes that build no network."""
        sizes = ("width", "blocks", "expansion", "condition_width")
        right = {name: 1 <= getattr(self, name) <= 65_536 for name in sizes}
        if wrong := first_wrong(self, **right, time_dim=4 <= self.time_dim <= 65_536 and not self.time_dim % 2):
            raise ConfigError(
                f"expected widths, blocks, expansion in [1, 65536] and an even time_dim in [4, 65536], got {wrong}"
            )
        if not 0 <= self.frequencies <= 16:
            raise ConfigError(f"expected frequencies in [0, 16], got {self.frequencies}")

    def build(self, *, shape: tuple[int, ...], classes: int = 0) -> "PointMLP":
        """Return the network for vectors [B, D] of `shape` (D,) and labels in [0, classes]."""
        if len(shape) != 1:
            raise ConfigError(f"expected vectors of one axis for a point_mlp, got shape {shape}: use unet2d for images")
        return PointMLP(self, dim=shape[0], classes=classes)


class Block(nn.Module):
    """x + gate * Linear(SiLU(Linear(norm(x) * (1 + scale) + shift))). **Source:** Peebles & Xie 2023, section 3.2."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, "B W"], modulation: Float[Tensor, "b M"]) -> Float[Tensor, "B W"]:
        """Return the block's output; one row of `modulation` serves the whole batch."""
        shift, scale, gate = modulation.chunk(3, dim=-1)
        return x + gate * self.layers(self.norm(x) * (1 + scale) + shift)


class PointMLP(nn.Module):
    """Vector, time and class in, vector out; the label `classes` is the learned null."""

    def __init__(self, config: PointMLPConfig, *, dim: int, classes: int) -> None:
        super().__init__()
        self.dim, self.classes = dim, classes
        width, told = config.width, config.condition_width
        self.time = Sinusoidal(config.time_dim, scale=config.time_scale)
        self.time_layers = nn.Sequential(nn.Linear(config.time_dim, told), nn.SiLU(), nn.Linear(told, told))
        # Without classes there is nothing to tell apart: no weights, and no way to ask for a class.
        self.label = nn.Embedding(classes + 1, told) if classes else None
        self.turns = nn.Buffer(math.pi / 2 * 2.0 ** torch.arange(config.frequencies), persistent=False)
        self.enter = nn.Linear(dim * (1 + 2 * config.frequencies), width)
        self.modulation = nn.Linear(told, (3 * config.blocks + 2) * width)
        self.blocks = nn.ModuleList([Block(width, config.expansion * width) for _ in range(config.blocks)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.leave = nn.Linear(width, dim)
        # adaLN-zero: every block starts as the identity, the output starts at zero.
        for layer in (self.modulation, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "B D"], t: Tensor, labels: Int[Tensor, "B"]) -> Float[Tensor, "B D"]:
        """Return the prediction for the noisy vectors `x` at time `t` ([] or [B]) under `labels`."""
        if x.shape[1:] != (self.dim,):
            raise ShapeError(f"expected vectors of {self.dim} numbers, got {tuple(x.shape[1:])}")
        told = self.time_layers(self.time(per_sample(t, len(x) if t.ndim else 1)).to(x.dtype))
        if self.label is not None:
            told = told + self.label(labels)
        width = self.norm.normalized_shape[0]
        *per_block, final = self.modulation(nn.functional.silu(told)).split(
            [*[3 * width] * len(self.blocks), 2 * width], dim=-1
        )
        phase = (x.unsqueeze(-1) * self.turns).flatten(1)
        h = self.enter(torch.cat([x, phase.sin(), phase.cos()], dim=1))
        for block, modulation in zip(self.blocks, per_block, strict=True):
            h = block(h, modulation)
        shift, scale = final.chunk(2, dim=-1)
        return self.leave(self.norm(h) * (1 + scale) + shift)
