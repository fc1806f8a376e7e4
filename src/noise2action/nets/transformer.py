"""Transformer encoder-decoder over action tokens: the trajectory asks, the observation answers."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..condition import Condition
from ..errors import ConfigError
from ..shapes import Chunk
from .attention import Block, ObservationTokens, Positions, causal
from .conditioning import Conditioning, check_conditioning
from .dit import DiT, DiTConfig
from .embed import EMBEDDINGS, TimeEmbedding, check_time, per_sample

REFUSED = {"film": "FiLM behind a LayerNorm is adaln"}


@dataclass(frozen=True)
class TransformerConfig:
    """Transformer encoder-decoder: action tokens are queries; time and observation tokens are keys and values."""

    width: int = 128
    """Width of a token."""
    layers: int = 4
    """Blocks over the trajectory."""
    encoder_layers: int = 1
    """Blocks over time and observation tokens before the trajectory attends to them (cross_attention only)."""
    heads: int = 4
    """Heads of every attention."""
    expansion: int = 4
    """Hidden width of a block's MLP, in multiples of `width`."""
    dropout: float = 0.0
    """Dropout of attention weights and inside the MLPs."""
    causal: bool = False
    """Whether an action sees only itself and earlier actions."""
    conditioning: Conditioning = "cross_attention"
    """concat puts the observation tokens before the actions; adaln makes it a DiT."""
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
        if not 0 <= self.encoder_layers <= 1024:
            raise ConfigError(f"expected encoder_layers in [0, 1024], got {self.encoder_layers}")
        _ = self.as_dit

    @property
    def as_dit(self) -> DiTConfig:
        """The DiT of the same size."""
        return DiTConfig(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            expansion=self.expansion,
            dropout=self.dropout,
            causal=self.causal,
            time_embedding=self.time_embedding,
            time_dim=self.time_dim,
            time_scale=self.time_scale,
        )

    def build(
        self, *, horizon: int, action_dim: int, condition_dim: int, token_dim: int | None = None
    ) -> "Transformer | DiT":
        """Return the network for action_dim channels; one set of weights serves any horizon."""
        if self.conditioning == "adaln":
            return self.as_dit.build(
                horizon=horizon, action_dim=action_dim, condition_dim=condition_dim, token_dim=token_dim
            )
        return Transformer(self, action_dim=action_dim, condition_dim=condition_dim, token_dim=token_dim)


class Transformer(nn.Module):
    """Actions as tokens, with sinusoidal positions; time and observation as tokens, without.

    Observation tokens are a set: their order changes nothing, and one that is masked has no influence.

    **Source:** Vaswani et al. 2017, section 3; for action chunks Chi et al. 2023, section III-A.
    """

    def __init__(
        self, config: TransformerConfig, *, action_dim: int, condition_dim: int, token_dim: int | None
    ) -> None:
        super().__init__()
        width, self.causal = config.width, config.causal
        self.crosses = config.conditioning == "cross_attention"

        def block(*, crosses: bool) -> Block:
            sizes = {"heads": config.heads, "expansion": config.expansion}
            return Block(width, **sizes, dropout=config.dropout, crosses=crosses, modulated=False)

        self.time = EMBEDDINGS[config.time_embedding](config.time_dim, config.time_scale)
        self.time_layers = nn.Sequential(nn.Linear(config.time_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.observation = ObservationTokens(width, condition_dim=condition_dim, token_dim=token_dim)
        count = config.encoder_layers if self.crosses else 0
        self.encoder = nn.ModuleList(block(crosses=False) for _ in range(count))
        self.enter = nn.Linear(action_dim, width)
        self.positions = Positions(width)
        self.blocks = nn.ModuleList(block(crosses=self.crosses) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, action_dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Chunk, t: Tensor, condition: Condition) -> Chunk:
        """Return the prediction for the noisy chunk `x` of any length at time `t` ([] or [B])."""
        told, there = self._told(t, condition, like=x)
        h = self.enter(x)
        h = h + self.positions.of(h)
        if self.crosses:
            for block in self.encoder:
                told = block(told, mask=there)
            mask = causal(x.shape[1], before=0, like=h) if self.causal else None
            for block in self.blocks:
                h = block(h, mask=mask, memory=told, there=there)
        else:
            before, length = told.shape[1], x.shape[1]
            mask = None if there is None else nn.functional.pad(there, (0, length), value=True)
            if self.causal:
                order = causal(length, before=before, like=h)
                mask = order if mask is None else order & mask
            h = torch.cat([told, h], dim=1)
            for block in self.blocks:
                h = block(h, mask=mask)
            h = h[:, before:]
        return self.leave(self.norm(h))

    def _told(self, t: Tensor, condition: Condition, *, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the time token and the observation tokens [B, 1 + N, W], and which of them are there."""
        time = self.time(per_sample(t, len(like) if t.ndim else 1)).to(like.dtype)
        tokens, there = self.observation(condition)
        time = self.time_layers(time).unsqueeze(1).expand(len(like), -1, -1)
        there = None if there is None else nn.functional.pad(there, (1, 0), value=True)
        return torch.cat([time, tokens], dim=1), there
