"""State history to condition: every vector as it is, every angle as cosine and sine."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..condition import Condition
from ..errors import ShapeError
from ..schema import Feature


class StateEncoder(nn.Module):
    """Concatenates normalised state features over the observed steps; has no weights."""

    def __init__(self, features: tuple[Feature, ...], *, obs_steps: int) -> None:
        super().__init__()
        self.features = features
        self.obs_steps = obs_steps

    @property
    def dim(self) -> int:
        """D, the width of the condition vector."""
        return self.obs_steps * sum(f.size * (2 if f.kind == "angle" else 1) for f in self.features)

    def forward(self, observations: Mapping[str, Tensor]) -> Condition:
        """Return the condition of `observations`, name -> [B, O, ...]; angles in rad, not normalised."""
        parts: list[Tensor] = []
        for feature in self.features:
            x = observations[feature.name]
            if tuple(x.shape[1:]) != (self.obs_steps, *feature.shape):
                raise ShapeError(
                    f"observation {feature.name!r}: expected [B, {self.obs_steps}, *{feature.shape}], "
                    f"got {tuple(x.shape)}"
                )
            x = x.flatten(2)
            parts.extend((x.cos(), x.sin()) if feature.kind == "angle" else (x,))
        return Condition(vector=torch.cat(parts, dim=2).flatten(1))
