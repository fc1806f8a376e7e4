"""What a network is told about the observation: the type between encoders and networks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """An encoded observation history, computed once per observation and shared by all network calls of a plan."""

    vector: Float[Tensor, "B D"]
    """Every observed step, flattened."""
    tokens: Float[Tensor, "B N E"] | None = None
    """The same as N tokens, for networks that attend; None where an encoder makes none."""
    mask: Bool[Tensor, "B N"] | None = None
    """True where a token is there; a token that is not has no influence. None for all."""

    def to(self, dtype: torch.dtype) -> "Condition":
        """Return the condition in another precision."""
        return Condition(self.vector.to(dtype), None if self.tokens is None else self.tokens.to(dtype), self.mask)

    @staticmethod
    def stack(conditions: Sequence["Condition"]) -> "Condition":
        """Return the conditions of several batches, one after the other, as one batch."""
        tokens, masks = [c.tokens for c in conditions], [c.mask for c in conditions]
        return Condition(
            torch.cat([c.vector for c in conditions]),
            None if tokens[0] is None else torch.cat([t for t in tokens if t is not None]),
            None if masks[0] is None else torch.cat([m for m in masks if m is not None]),
        )
