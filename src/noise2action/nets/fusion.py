"""Fusion MLP: features of cameras and joints, time and the noisy chunk in one vector; three hidden layers."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..condition import Condition
from ..errors import ConfigError
from ..shapes import Chunk
from .embed import EMBEDDINGS, TimeEmbedding, check_time, per_sample
from .mlp import check_chunk


@dataclass(frozen=True)
class FusionMLPConfig:
    """Plain MLP: condition vector, time embedding and flattened noisy chunk, concatenated, to the flattened chunk."""

    widths: tuple[int, ...] = (512, 512, 256)
    """Hidden layers."""
    dropout: float = 0.0
    """Dropout after each hidden layer."""
    time_embedding: TimeEmbedding = "sinusoidal"
    """How diffusion time becomes a vector."""
    time_dim: int = 128
    """Width of the time embedding."""
    time_scale: float = 1000.0
    """Factor on t in [0, 1] before the sinusoids; steps of the table."""

    def __post_init__(self) -> None:
        """Reject sizes that build no network."""
        check_time(self.time_embedding, self.time_dim, self.time_scale)
        if not self.widths or not all(1 <= w <= 65_536 for w in self.widths):
            raise ConfigError(f"expected widths in [1, 65536], got {self.widths}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"expected dropout in [0, 1), got {self.dropout}")

    def build(self, *, horizon: int, action_dim: int, condition_dim: int, token_dim: int | None = None) -> "FusionMLP":
        """Return the network for chunks [B, horizon, action_dim] and condition vectors [B, condition_dim].

        Tokens are not looked at: the vector holds the same.
        """
        return FusionMLP(self, horizon=horizon, action_dim=action_dim, condition_dim=condition_dim)


class FusionMLP(nn.Module):
    """`Linear(SiLU(Linear(... [chunk, condition, time] ...)))`: nothing is modulated, everything is an input.

    The condition is what the encoder concatenates, 256 numbers of images and 64 of joints in the classic layout; the
    noisy chunk stands beside it because a denoiser has to see what it denoises.
    """

    def __init__(self, config: FusionMLPConfig, *, horizon: int, action_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.chunk = (horizon, action_dim)
        size = horizon * action_dim
        self.time = EMBEDDINGS[config.time_embedding](config.time_dim, config.time_scale)
        widths = (size + condition_dim + config.time_dim, *config.widths)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(before, after), nn.SiLU(), nn.Dropout(config.dropout))
                for before, after in pairwise(widths)
            )
        )
        self.leave = nn.Linear(widths[-1], size)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Chunk, t: Tensor, condition: Condition) -> Chunk:
        """Return the prediction for the noisy chunk `x` at time `t` ([] or [B])."""
        check_chunk(x, self.chunk)
        time = self.time(per_sample(t, len(x))).to(x.dtype)
        return self.leave(self.layers(torch.cat([x.flatten(1), condition.vector, time], dim=1))).unflatten(
            1, self.chunk
        )
