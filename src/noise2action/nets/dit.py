"""DiT: a transformer over action tokens whose blocks are modulated by time and observation (adaLN-zero)."""

from dataclasses import dataclass

from torch import Tensor, nn

from ..condition import Condition
from ..errors import ConfigError
from ..shapes import Chunk
from .attention import Block, ObservationTokens, Positions, causal, something
from .conditioning import Conditioning, check_conditioning
from .embed import EMBEDDINGS, TimeEmbedding, check_time, per_sample

REFUSED = {"film": "FiLM behind a LayerNorm is adaln", "concat": "use the network transformer, which prepends tokens"}


@dataclass(frozen=True)
class DiTConfig:
    """Diffusion transformer: action tokens; every layer is modulated by time and observation (adaLN-zero)."""

    width: int = 128
    """Width of a token."""
    layers: int = 4
    """Blocks."""
    heads: int = 4
    """Heads of every attention."""
    expansion: int = 4
    """Hidden width of a block's MLP, in multiples of `width`."""
    dropout: float = 0.0
    """Dropout of attention weights and inside the MLPs."""
    causal: bool = False
    """Whether an action sees only itself and earlier actions."""
    conditioning: Conditioning = "adaln"
    """cross_attention lets the blocks also attend to the observation's tokens."""
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
        if min(self.layers, self.heads, self.expansion) < 1 or max(self.layers, self.expansion) > 1024:
            raise ConfigError(
                f"expected layers, heads and expansion in [1, 1024], got {self.layers}, {self.heads} and "
                f"{self.expansion}"
            )
        if not 4 <= self.width <= 65_536 or self.width % 2 or self.width % self.heads:
            raise ConfigError(f"expected an even width >= 4 that divides by heads={self.heads}, got {self.width}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"expected dropout in [0, 1), got {self.dropout}")

    def build(self, *, horizon: int, action_dim: int, condition_dim: int, token_dim: int | None = None) -> "DiT":
        """Return the network for action_dim channels; one set of weights serves any horizon."""
        return DiT(self, action_dim=action_dim, condition_dim=condition_dim, token_dim=token_dim)


class DiT(nn.Module):
    """Actions as tokens, with sinusoidal positions; time and condition vector modulate, condition tokens may be asked.

    **Source:** Peebles & Xie 2023, section 3.2 (adaLN-zero, and cross-attention beside it).
    """

    def __init__(self, config: DiTConfig, *, action_dim: int, condition_dim: int, token_dim: int | None) -> None:
        super().__init__()
        width, self.causal = config.width, config.causal
        crosses = config.conditioning == "cross_attention"
        self.time = EMBEDDINGS[config.time_embedding](config.time_dim, config.time_scale)
        self.time_layers = nn.Sequential(nn.Linear(config.time_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Sequential(nn.Linear(condition_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.observation = (
            ObservationTokens(width, condition_dim=condition_dim, token_dim=token_dim) if crosses else None
        )
        self.enter = nn.Linear(action_dim, width)
        self.positions = Positions(width)
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads=config.heads,
                expansion=config.expansion,
                dropout=config.dropout,
                crosses=crosses,
                modulated=True,
            )
            for _ in range(config.layers)
        )
        self.per_block = (9 if crosses else 6) * width
        self.modulation = nn.Linear(width, config.layers * self.per_block + 2 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.leave = nn.Linear(width, action_dim)
        # adaLN-zero: every block starts as the identity, the output starts at zero.
        for layer in (self.modulation, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Chunk, t: Tensor, condition: Condition) -> Chunk:
        """Return the prediction for the noisy chunk `x` of any length at time `t` ([] or [B])."""
        time = self.time(per_sample(t, len(x) if t.ndim else 1)).to(x.dtype)
        told = nn.functional.silu(self.time_layers(time) + self.condition(condition.vector))
        width = self.norm.normalized_shape[0]
        sizes = [*[self.per_block] * len(self.blocks), 2 * width]
        *per_block, final = self.modulation(told).unsqueeze(1).split(sizes, dim=-1)
        memory, there = (None, None) if self.observation is None else self.observation(condition)
        there = something(there)
        h = self.enter(x)
        h = h + self.positions.of(h)
        mask = causal(x.shape[1], before=0, like=h) if self.causal else None
        for block, modulation in zip(self.blocks, per_block, strict=True):
            h = block(h, mask=mask, memory=memory, there=there, modulation=modulation)
        shift, scale = final.chunk(2, dim=-1)
        return self.leave(self.norm(h) * (1 + scale) + shift)
