"""Time embeddings: diffusion time to a vector."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Sinusoidal(nn.Module):
    """Sines and cosines of `scale * t` at `dim / 2` geometric frequencies from 1 to 1/10000, sines first.

    With t = k / T and `scale = T` it is the embedding of the step number k.

    **Source:** Vaswani et al. 2017, section 3.5; Ho et al. 2020, appendix B.
    """

    def __init__(self, dim: int, *, scale: float) -> None:
        super().__init__()
        self.scale = scale
        exponent = torch.arange(dim // 2, dtype=torch.float32) / (dim // 2 - 1)
        self.frequencies = nn.Buffer(torch.exp(-math.log(10_000) * exponent), persistent=False)

    def forward(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B D"]:
        """Return the embedding of each time, in float32: half precision would merge neighbouring times."""
        phase = (t * self.scale).unsqueeze(1) * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=1)


def per_sample(t: Tensor, batch: int) -> Float[Tensor, "B"]:
    """Return `t` ([] or [B]) as [B], in float32."""
    if t.ndim > 1:
        raise ValueError(f"expected t of shape [] or [B], got {tuple(t.shape)}")
    return t.to(torch.float32).expand(batch)
