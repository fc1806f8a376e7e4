"""Time embeddings: diffusion time to a vector."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ConfigError

TimeEmbedding = Literal["sinusoidal", "fourier", "table"]
"""How time becomes a vector; one class below each."""


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
        phase = self.steps(t).unsqueeze(1) * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=1)

    def steps(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """Return what is embedded."""
        return t * self.scale


class ShiftedSinusoidal(Sinusoidal):
    """The embedding of k + `offset`, to the bit of the public code, which is given integers: with -1 from 0 on."""

    def __init__(self, dim: int, *, scale: float, offset: float) -> None:
        super().__init__(dim, scale=scale)
        self.offset = offset
        rate = math.log(10_000) / (dim // 2 - 1)
        # Rounded in their order: at step 1000 the last digit of a frequency is the fifth of a phase.
        self.frequencies = nn.Buffer(torch.exp(torch.arange(dim // 2) * -rate), persistent=False)

    def steps(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """Return k + offset, without the rounding of k / T where t is a step's own time."""
        steps = t * self.scale
        k = steps.round()
        return torch.where((steps - k).abs() <= 1e-6 * k, k, steps) + self.offset


class Fourier(nn.Module):
    """Sines and cosines of `2 pi z t` with `dim / 2` random, fixed z ~ N(0, std^2), sines first.

    The frequencies are drawn once, from the global generator, and saved with the weights.

    **Source:** Tancik et al. 2020, Eq. 5; on diffusion time, with std = 16, Song et al. 2021 (SDE), appendix C.
    """

    def __init__(self, dim: int, *, std: float = 16.0) -> None:
        super().__init__()
        self.frequencies = nn.Buffer(torch.randn(dim // 2) * std)

    def forward(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B D"]:
        """Return the embedding of each time, in float32."""
        phase = 2 * math.pi * t.unsqueeze(1) * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=1)


class Table(nn.Module):
    """A learned vector for each step k = 0..T, interpolated linearly in between; it starts as the sinusoids."""

    def __init__(self, dim: int, *, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.rows = nn.Parameter(Sinusoidal(dim, scale=float(steps))(torch.linspace(0, 1, steps + 1)))

    def forward(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B D"]:
        """Return the embedding of each time, in float32."""
        place = t.clamp(0, 1) * self.steps
        below = place.floor().clamp(max=self.steps - 1).long()
        rows = self.rows.float()
        return torch.lerp(rows[below], rows[below + 1], (place - below).unsqueeze(1))


EMBEDDINGS: dict[TimeEmbedding, Callable[[int, float], nn.Module]] = {
    "sinusoidal": lambda dim, scale: Sinusoidal(dim, scale=scale),
    "fourier": lambda dim, _: Fourier(dim),
    "table": lambda dim, scale: Table(dim, steps=round(scale)),
}
"""A module from t [B] to [B, dim], in float32, by name; `scale` is the number of discrete steps."""


def check_time(embedding: str, dim: int, scale: float) -> None:
    """Raise `ConfigError` unless there is a time embedding of this name, width and scale."""
    if embedding not in EMBEDDINGS:
        raise ConfigError(f"expected time_embedding to be one of {', '.join(EMBEDDINGS)}, got {embedding!r}")
    if dim < 4 or dim % 2 or dim > 65_536:
        raise ConfigError(f"expected an even time_dim in [4, 65536], got {dim}")
    if embedding == "table" and not 1 <= round(scale) <= 100_000:
        raise ConfigError(f"expected time_scale, the rows of the table, in [1, 100000], got {scale:g}")


def per_sample(t: Tensor, batch: int) -> Float[Tensor, "B"]:
    """Return `t` ([] or [B]) as [B], in float32."""
    if t.ndim > 1:
        raise ValueError(f"expected t of shape [] or [B], got {tuple(t.shape)}")
    return t.to(torch.float32).expand(batch)
