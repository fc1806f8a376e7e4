"""Axis legend and tensor aliases.

| axis | meaning |
|---|---|
| B | batch |
| O | observed steps (`obs_steps`), oldest first |
| H | horizon: actions in a chunk |
| A | action dimension |
| D | flat condition or observation dimension |
| N | sampler steps; a grid has N + 1 times |
| T | time steps of a data set, all episodes end to end |

Diffusion time `t` lies in [0, 1]: t = 0 is data, t = 1 is noise.
"""

from jaxtyping import Bool, Float
from torch import Tensor

Chunk = Float[Tensor, "B H A"]
"""Actions of a chunk."""

Noisy = Float[Tensor, "B ..."]
"""Anything diffusion works on: chunks, points, images, latents."""

Valid = Bool[Tensor, "B H"]
"""True where an action is real, False where a window was padded."""


def broadcast(t: Tensor, x: Tensor) -> Tensor:
    """Return `t` ([], [B] or [B, H]) with trailing axes added so that it broadcasts against `x` [B, ...]."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t
