"""Autoencoders: data to a small code of fixed scale and back, for diffusion in the space of codes."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..seeds import randn_like

Coded = Float[Tensor, "B ..."]
"""Data [B, *shape] or codes [B, *latent]."""


@dataclass(frozen=True)
class MLPAutoencoderConfig:
    """MLPs over flattened data, for vectors and action chunks."""

    latent: tuple[int, ...] = (8,)
    """Shape of a code; (steps, dim) makes it a chunk that any chunk network denoises."""
    width: int = 256
    """Width of the hidden layers."""
    depth: int = 2
    """Hidden layers of the encoder, and of the decoder."""
    noise: float = 0.1
    """Standard deviation of the noise on a code while the decoder learns; codes have variance 1."""

    def __post_init__(self) -> None:
        """Reject sizes that build no network."""
        _check(self.latent, self.noise)
        if min(self.width, self.depth) < 1:
            raise ConfigError(f"expected width, depth >= 1, got {self.width} and {self.depth}")

    def build(self, *, shape: tuple[int, ...]) -> "Autoencoder":
        """Return the autoencoder of data [B, *shape]."""

        def layers(size_in: int, shape_out: tuple[int, ...]) -> nn.Sequential:
            hidden = [self.width] * self.depth
            parts: list[nn.Module] = [nn.Flatten()]
            for one, other in zip([size_in, *hidden[:-1]], hidden, strict=True):
                parts += [nn.Linear(one, other), nn.SiLU()]
            return nn.Sequential(*parts, nn.Linear(hidden[-1], prod(shape_out)), nn.Unflatten(1, shape_out))

        encoder, decoder = layers(prod(shape), self.latent), layers(prod(self.latent), shape)
        return Autoencoder(encoder, decoder, shape=shape, latent=self.latent, noise=self.noise)


@dataclass(frozen=True)
class ConvAutoencoderConfig:
    """Convolutions over images; a code is an image of fewer pixels."""

    widths: tuple[int, ...] = (32, 64)
    """Channels at each resolution; each further level halves height and width."""
    channels: int = 2
    """Channels of a code."""
    groups: int = 8
    """Groups of every GroupNorm."""
    noise: float = 0.1
    """Standard deviation of the noise on a code while the decoder learns; codes have variance 1."""

    def __post_init__(self) -> None:
        """Reject sizes that build no network."""
        _check((self.channels,), self.noise)
        if not self.widths or self.groups < 1 or any(w < 1 or w % self.groups for w in self.widths):
            raise ConfigError(f"expected widths that divide by groups={self.groups}, got {self.widths}")

    def build(self, *, shape: tuple[int, ...]) -> "Autoencoder":
        """Return the autoencoder of images [B, C, H, W]; a code is [channels, ceil(H / f), ceil(W / f)]."""
        if len(shape) != 3:
            raise ConfigError(f"expected images of shape (C, H, W), got {shape}: use the MLP autoencoder")
        channels, height, width = shape
        factor, widths = 2 ** (len(self.widths) - 1), self.widths
        padding = (0, -width % factor, 0, -height % factor)
        small = (height + padding[3]) // factor, (width + padding[1]) // factor

        def block(one: int, other: int) -> list[nn.Module]:
            return [nn.Conv2d(one, other, 3, padding=1), nn.GroupNorm(self.groups, other), nn.SiLU()]

        down: list[nn.Module] = [nn.ZeroPad2d(padding), *block(channels, widths[0])]
        up: list[nn.Module] = [*block(self.channels, widths[-1])]
        for one, other in pairwise(widths):
            down += [nn.Conv2d(one, one, 3, stride=2, padding=1), *block(one, other)]
        for one, other in pairwise(widths[::-1]):
            up += [nn.Upsample(scale_factor=2), *block(one, other)]
        encoder = nn.Sequential(*down, *block(widths[-1], widths[-1]), nn.Conv2d(widths[-1], self.channels, 1))
        crop = nn.ZeroPad2d((0, -padding[1], 0, -padding[3]))
        decoder = nn.Sequential(*up, *block(widths[0], widths[0]), nn.Conv2d(widths[0], channels, 3, padding=1), crop)
        return Autoencoder(encoder, decoder, shape=shape, latent=(self.channels, *small), noise=self.noise)


AnyAutoencoderConfig = MLPAutoencoderConfig | ConvAutoencoderConfig
"""Every autoencoder that a configuration can name."""


class Autoencoder(nn.Module):
    """Encoder and decoder around codes that are normalised over each sample: mean 0 and mean square 1, exactly.

    The normalisation has no parameters and is part of both sides, so the scale of codes cannot drift while encoder,
    decoder and a diffusion on the codes learn together, and what a sampler returns is put on the sphere that the
    decoder knows. Noise on the codes in training keeps nearby codes similar, so that a sampler's error stays small.

    **Source:** Rombach et al. 2022 (latent diffusion), section 3.1, with this constraint instead of their KL term.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, *, shape: tuple[int, ...], latent: tuple[int, ...], noise: float
    ) -> None:
        super().__init__()
        if prod(latent) < 3:
            raise ConfigError(f"expected codes of at least 3 numbers (mean 0 and mean square 1 fix 2), got {latent}")
        self.encoder, self.decoder = encoder, decoder
        self.shape, self.latent, self.noise = shape, latent, noise

    def encode(self, x: Coded) -> Coded:
        """Return the normalised codes [B, *latent] of `x` [B, *shape]; `ShapeError` where it has another shape."""
        return normalised(self._through(self.encoder, x, self.shape))

    def decode(self, z: Coded) -> Coded:
        """Return the data [B, *shape] that the codes `z` [B, *latent] stand for; their scale does not matter."""
        return self._through(self.decoder, normalised(z), self.latent)

    def forward(self, x: Coded, *, generator: torch.Generator) -> tuple[Coded, Coded]:
        """Return (codes of `x`, what the decoder makes of them after noise was added): what training needs."""
        code = self.encode(x)
        return code, self.decode(code + self.noise * randn_like(code, generator))

    def _through(self, layers: nn.Module, x: Tensor, expected: tuple[int, ...]) -> Tensor:
        if x.shape[1:] != expected:
            raise ShapeError(f"expected {expected} a sample, got {tuple(x.shape[1:])}")
        return layers(x.to(next(layers.parameters()).dtype)).to(x.dtype)


def normalised(z: Coded) -> Coded:
    """Return each sample of `z` minus its mean, over its standard deviation."""
    return nn.functional.layer_norm(z, z.shape[1:])


def _check(latent: tuple[int, ...], noise: float) -> None:
    if not latent or not 1 <= min(latent) <= max(latent) <= 10**6:
        raise ConfigError(f"expected a latent of positive sizes, got {latent}")
    if not 0 <= noise <= 1:
        raise ConfigError(f"expected noise in [0, 1], got {noise}")
