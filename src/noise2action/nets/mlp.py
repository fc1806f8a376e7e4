"""Residual MLP over the flattened chunk: for low-dimensional tasks on a CPU the practical default."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..condition import Condition
from ..errors import ConfigError, ShapeError
from ..shapes import Chunk
from .embed import Sinusoidal, per_sample


@dataclass(frozen=True)
class MLPConfig:
    """Residual MLP over the flattened chunk, modulated by time and observation (adaLN)."""

    width: int = 512
    """Width of the residual stream."""
    blocks: int = 4
    """Residual blocks."""
    expansion: int = 2
    """Hidden width of a block, in multiples of `width`."""
    condition_width: int = 256
    """Width of the embedding of time and observation that modulates the blocks."""
    dropout: float = 0.0
    """Dropout inside the blocks."""
    time_dim: int = 128
    """Width of the sinusoidal time embedding."""
    time_scale: float = 1000.0
    """Factor on t in [0, 1] before the sinusoids."""

    def __post_init__(self) -> None:
        """Reject sizes that build no network."""
        sizes = (self.width, self.blocks, self.expansion, self.condition_width)
        if min(sizes) < 1 or max(*sizes, self.time_dim) > 65_536 or self.time_dim < 4 or self.time_dim % 2:
            raise ConfigError(f"expected widths, blocks, expansion >= 1 and an even time_dim >= 4, got {self}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"expected dropout in [0, 1), got {self.dropout}")

    def build(self, *, horizon: int, action_dim: int, condition_dim: int) -> "MLP":
        """Return the network for chunks [B, horizon, action_dim] and condition vectors [B, condition_dim]."""
        return MLP(self, horizon=horizon, action_dim=action_dim, condition_dim=condition_dim)


class Block(nn.Module):
    """x + gate * Linear(SiLU(Linear(norm(x) * (1 + scale) + shift))). **Source:** Peebles & Xie 2023, section 3.2."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, "B W"], modulation: Float[Tensor, "B M"]) -> Float[Tensor, "B W"]:
        """Return the block's output."""
        shift, scale, gate = modulation.chunk(3, dim=-1)
        return x + gate * self.layers(self.norm(x) * (1 + scale) + shift)


class MLP(nn.Module):
    """Flattened chunk and condition in, flattened chunk out; every block is modulated by time and condition."""

    def __init__(self, config: MLPConfig, *, horizon: int, action_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.chunk = (horizon, action_dim)
        width, told, size = config.width, config.condition_width, horizon * action_dim
        self.time = Sinusoidal(config.time_dim, scale=config.time_scale)
        self.time_layers = nn.Sequential(
            nn.Linear(config.time_dim, told),
            nn.SiLU(),
            nn.Linear(told, told),
        )
        self.condition = nn.Sequential(nn.Linear(condition_dim, 2 * told), nn.SiLU(), nn.Linear(2 * told, told))
        self.modulation = nn.Linear(told, (3 * config.blocks + 2) * width)
        self.enter = nn.Linear(size + condition_dim, width)
        hidden = config.expansion * width
        self.blocks = nn.ModuleList([Block(width, hidden, config.dropout) for _ in range(config.blocks)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.leave = nn.Linear(width, size)
        # adaLN-zero: every block starts as the identity, the output starts at zero.
        for layer in (self.modulation, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Chunk, t: Tensor, condition: Condition) -> Chunk:
        """Return the prediction for the noisy chunk `x` at time `t` ([] or [B])."""
        if x.shape[1:] != self.chunk:
            raise ShapeError(f"expected a chunk {self.chunk}, got {tuple(x.shape[1:])}: the MLP's horizon is fixed")
        observed = condition.vector
        time = self.time(per_sample(t, len(x) if t.ndim else 1)).to(x.dtype)
        told = self.time_layers(time) + self.condition(observed)
        width = self.norm.normalized_shape[0]
        *per_block, final = self.modulation(nn.functional.silu(told)).split(
            [*[3 * width] * len(self.blocks), 2 * width], dim=-1
        )
        h = self.enter(torch.cat([x.flatten(1), observed], dim=1))
        for block, modulation in zip(self.blocks, per_block, strict=True):
            h = block(h, modulation)
        shift, scale = final.chunk(2, dim=-1)
        return self.leave(self.norm(h) * (1 + scale) + shift).unflatten(1, self.chunk)
