"""Residual MLP over the flattened chunk: for low-dimensional tasks on a CPU the practical default."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..condition import Condition
from ..errors import ConfigError, ShapeError, first_wrong
from ..shapes import Chunk
from .conditioning import Conditioning, check_conditioning
from .embed import EMBEDDINGS, TimeEmbedding, check_time, per_sample

REFUSED = {"cross_attention": "an MLP has no tokens that could attend; use the network transformer or dit"}


@dataclass(frozen=True)
class MLPConfig:
    """Residual MLP over the flattened chunk, told by time and observation."""

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
    conditioning: Conditioning = "adaln"
    """The observation is an input in any case; concat makes it and time nothing but inputs."""
    time_embedding: TimeEmbedding = "sinusoidal"
    """How diffusion time becomes a vector."""
    time_dim: int = 128
    """Width of the time embedding."""
    time_scale: float = 1000.0
    """Factor on t in [0, 1] before the sinusoids; steps of the table."""

    def __post_init__(self) -> None:
        """Reject sizes that build no network."""
        check_conditioning(self.conditioning, REFUSED)
        check_time(self.time_embedding, self.time_dim, self.time_scale)
        sizes = ("width", "blocks", "expansion", "condition_width")
        if wrong := first_wrong(self, **{name: 1 <= getattr(self, name) <= 65_536 for name in sizes}):
            raise ConfigError(f"expected widths, blocks and expansion in [1, 65536], got {wrong}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"expected dropout in [0, 1), got {self.dropout}")

    def build(
        self, *, horizon: int, action_dim: int, condition_dim: int, token_dim: int | None = None
    ) -> "MLP | ConcatMLP":
        """Return the network for chunks [B, horizon, action_dim] and condition vectors [B, condition_dim].

        Tokens are not looked at: the vector holds the same.
        """
        network = ConcatMLP if self.conditioning == "concat" else MLP
        return network(self, horizon=horizon, action_dim=action_dim, condition_dim=condition_dim)


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


class FiLMBlock(nn.Module):
    """x + Linear(SiLU(Linear(norm(x)) * (1 + scale) + shift)). **Source:** Perez et al. 2018, Eq. 2."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.enter = nn.Linear(width, hidden)
        self.layers = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, "B W"], modulation: Float[Tensor, "B M"]) -> Float[Tensor, "B W"]:
        """Return the block's output."""
        shift, scale = modulation.chunk(2, dim=-1)
        return x + self.layers(self.enter(self.norm(x)) * (1 + scale) + shift)


class ConcatBlock(nn.Module):
    """x + Linear(SiLU(Linear(norm(x)))). **Source:** He et al. 2016, with the norm of Xiong et al. 2020."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, "B W"]) -> Float[Tensor, "B W"]:
        """Return the block's output."""
        return x + self.layers(self.norm(x))


class MLP(nn.Module):
    """Flattened chunk and condition in, flattened chunk out; every block is modulated by time and condition."""

    def __init__(self, config: MLPConfig, *, horizon: int, action_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.chunk = (horizon, action_dim)
        width, told, size = config.width, config.condition_width, horizon * action_dim
        hidden = config.expansion * width
        film = config.conditioning == "film"
        self.per_block = 2 * hidden if film else 3 * width
        self.time = EMBEDDINGS[config.time_embedding](config.time_dim, config.time_scale)
        self.time_layers = nn.Sequential(
            nn.Linear(config.time_dim, told),
            nn.SiLU(),
            nn.Linear(told, told),
        )
        self.condition = nn.Sequential(nn.Linear(condition_dim, 2 * told), nn.SiLU(), nn.Linear(2 * told, told))
        self.modulation = nn.Linear(told, config.blocks * self.per_block + 2 * width)
        self.enter = nn.Linear(size + condition_dim, width)
        block = FiLMBlock if film else Block
        self.blocks = nn.ModuleList([block(width, hidden, config.dropout) for _ in range(config.blocks)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.leave = nn.Linear(width, size)
        # adaLN-zero: every block starts as the identity (FiLM: as if told nothing), the output starts at zero.
        for layer in (self.modulation, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Chunk, t: Tensor, condition: Condition) -> Chunk:
        """Return the prediction for the noisy chunk `x` at time `t` ([] or [B])."""
        check_chunk(x, self.chunk)
        observed = condition.vector
        time = self.time(per_sample(t, len(x) if t.ndim else 1)).to(x.dtype)
        told = self.time_layers(time) + self.condition(observed)
        width = self.norm.normalized_shape[0]
        *per_block, final = self.modulation(nn.functional.silu(told)).split(
            [*[self.per_block] * len(self.blocks), 2 * width], dim=-1
        )
        h = self.enter(torch.cat([x.flatten(1), observed], dim=1))
        for block, modulation in zip(self.blocks, per_block, strict=True):
            h = block(h, modulation)
        shift, scale = final.chunk(2, dim=-1)
        return self.leave(self.norm(h) * (1 + scale) + shift).unflatten(1, self.chunk)


class ConcatMLP(nn.Module):
    """The same network, but time and condition are inputs beside the flattened chunk and modulate nothing."""

    def __init__(self, config: MLPConfig, *, horizon: int, action_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.chunk = (horizon, action_dim)
        width, size = config.width, horizon * action_dim
        self.time = EMBEDDINGS[config.time_embedding](config.time_dim, config.time_scale)
        self.enter = nn.Linear(size + condition_dim + config.time_dim, width)
        hidden = config.expansion * width
        self.blocks = nn.Sequential(*(ConcatBlock(width, hidden, config.dropout) for _ in range(config.blocks)))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.leave = nn.Linear(width, size)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Chunk, t: Tensor, condition: Condition) -> Chunk:
        """Return the prediction for the noisy chunk `x` at time `t` ([] or [B])."""
        check_chunk(x, self.chunk)
        time = self.time(per_sample(t, len(x))).to(x.dtype)
        h = self.enter(torch.cat([x.flatten(1), condition.vector, time], dim=1))
        return self.leave(self.norm(self.blocks(h))).unflatten(1, self.chunk)


def check_chunk(x: Tensor, chunk: tuple[int, int]) -> None:
    """Raise `ShapeError` unless `x` [B, H, A] holds chunks (H, A) of the one shape that a network was built for."""
    if x.shape[1:] != chunk:
        raise ShapeError(f"expected a chunk {chunk}, got {tuple(x.shape[1:])}: the MLP's horizon is fixed")
