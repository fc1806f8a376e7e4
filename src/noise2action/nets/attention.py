"""Attention, the transformer block, and observation tokens: what transformer, DiT and U-Net share."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..condition import Condition
from ..errors import ShapeError
from .embed import Sinusoidal

Tokens = Float[Tensor, "B L W"]
"""Tokens of a sequence."""


class Attention(nn.Module):
    """`out(softmax(q k^T / sqrt(d)) v)` in several heads: queries from one sequence, keys and values from another.

    **Source:** Vaswani et al. 2017, section 3.2.
    """

    def __init__(self, width: int, *, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tokens, memory: Float[Tensor, "B N W"], there: Tensor | None = None) -> Tokens:
        """Return what each token of `x` finds in `memory`, of which it sees where `there` [B | 1, 1, L | 1, N]."""
        key, v = self.key_value(memory).chunk(2, dim=-1)
        q, k, v = (self._heads(part) for part in (self.query(x), key, v))
        dropout = self.dropout if self.training else 0.0
        found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=there, dropout_p=dropout)
        return self.out(found.transpose(1, 2).flatten(2))

    def weights(
        self, x: Tokens, memory: Float[Tensor, "B N W"], there: Tensor | None = None
    ) -> Float[Tensor, "B heads L N"]:
        """Return the softmax in it: how much each token of `x` takes of each of `memory`, >= 0, with the sum 1."""
        q, k = self._heads(self.query(x)), self._heads(self.key_value(memory).chunk(2, dim=-1)[0])
        logits = (q @ k.transpose(2, 3)).float() / q.shape[3] ** 0.5
        return (logits if there is None else logits.masked_fill(~there, -torch.inf)).softmax(dim=3)

    def _heads(self, x: Tokens) -> Float[Tensor, "B heads L d"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Self-attention, cross-attention where there is a memory, then an MLP; each is residual around a LayerNorm.

    Without modulation `x + layer(norm(x))` (pre-norm; Xiong et al. 2020), and the norms have weights of their own; with
    it `x + gate * layer(norm(x) * (1 + scale) + shift)`.

    **Source:** Vaswani et al. 2017, section 3.1; the modulation (adaLN) Peebles & Xie 2023, section 3.2.
    """

    def __init__(
        self, width: int, *, heads: int, expansion: int, dropout: float, crosses: bool, modulated: bool
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads=heads, dropout=dropout)
        self.cross = Attention(width, heads=heads, dropout=dropout) if crosses else None
        self.layers = nn.Sequential(
            nn.Linear(width, expansion * width),
            nn.SiLU(),  # GELU costs a CPU up to five times as much, its gate is nearly the same
            nn.Dropout(dropout),
            nn.Linear(expansion * width, width),
        )
        count = 3 if crosses else 2
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=not modulated) for _ in range(count))

    def forward(
        self,
        x: Tokens,
        *,
        mask: Tensor | None = None,
        memory: Float[Tensor, "B N W"] | None = None,
        there: Tensor | None = None,
        modulation: Float[Tensor, "b 1 M"] | None = None,
    ) -> Tokens:
        """Return the block's output.

        `mask` says which of its own tokens each token sees, `there` which of `memory`; `modulation` holds shift, scale
        and gate of each layer, in order.
        """
        layers: list[Callable[[Tensor], Tensor]] = [lambda h: self.attention(h, h, mask), self.layers]
        if self.cross is not None and memory is not None:
            cross = self.cross
            layers.insert(1, lambda h: cross(h, memory, there))
        if modulation is None:
            for norm, layer in zip(self.norms, layers, strict=True):
                x = x + layer(norm(x))
            return x
        parts = modulation.chunk(3 * len(layers), dim=-1)
        for n, (norm, layer) in enumerate(zip(self.norms, layers, strict=True)):
            shift, scale, gate = parts[3 * n : 3 * n + 3]
            x = x + gate * layer(norm(x) * (1 + scale) + shift)
        return x


class ObservationTokens(nn.Module):
    """A condition's tokens in the network's width; the condition's vector as one token where an encoder makes none.

    No position is added: tokens are a set here. An encoder whose tokens have an order, or come from several cameras,
    writes that into them.
    """

    def __init__(self, width: int, *, condition_dim: int, token_dim: int | None) -> None:
        super().__init__()
        self.token_dim = token_dim
        self.enter = nn.Linear(condition_dim if token_dim is None else token_dim, width)

    def forward(self, condition: Condition) -> tuple[Float[Tensor, "B N W"], Bool[Tensor, "B 1 1 N"] | None]:
        """Return the tokens and which of them are there (None for all); `ShapeError` where the tokens are not."""
        if self.token_dim is None:
            return self.enter(condition.vector.unsqueeze(1)), None
        tokens, mask = condition.tokens, condition.mask
        if tokens is None or tokens.shape[-1] != self.token_dim:
            got = "none" if tokens is None else str(tuple(tokens.shape))
            raise ShapeError(f"expected observation tokens [B, N, {self.token_dim}], got {got}: use the same encoder")
        if mask is None:
            return self.enter(tokens), None
        # A weight of zero is not enough: zero times what an absent camera left there may be NaN.
        return self.enter(torch.where(mask.unsqueeze(-1), tokens, 0)), mask[:, None, None]


def something(there: Bool[Tensor, "B 1 1 N"] | None) -> Bool[Tensor, "B 1 1 N"] | None:
    """Return `there`, with all tokens seen, which are then all the same, where none is: a softmax of none is NaN."""
    return None if there is None else there | ~there.any(-1, keepdim=True)


class Positions(Sinusoidal):
    """Sinusoidal positions 0, 1, ... of any number of tokens. **Source:** Vaswani et al. 2017, section 3.5."""

    def __init__(self, width: int) -> None:
        super().__init__(width, scale=1.0)

    def of(self, x: Tokens) -> Float[Tensor, "L W"]:
        """Return the positions of the tokens `x`, in their precision."""
        return self(torch.arange(x.shape[1], dtype=torch.float32, device=x.device)).to(x.dtype)


def causal(length: int, *, before: int, like: Tensor) -> Bool[Tensor, "1 1 L L"]:
    """Return a mask in which each of `length` tokens sees itself, those before it and the `before` tokens in front."""
    whole = torch.ones(1, 1, before + length, before + length, dtype=torch.bool, device=like.device).tril()
    whole[..., :before] = True
    if before:
        whole[..., :before, before:] = False
    return whole
