"""Vision transformer over image patches."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ConfigError
from .resnet import Images, Seen


@dataclass(frozen=True)
class ViTConfig:
    """Small vision transformer."""

    patch: int = 16
    """Height and width of a patch in pixels; it must divide the image, cropped."""
    width: int = 128
    """Width of a token inside."""
    depth: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Heads of the self-attention."""
    pool: Literal["class", "mean"] = "class"
    """What becomes the vector: a token of its own that attends to all patches, or the mean of the patches."""
    dim: int = 64
    """Width of the vector."""

    def __post_init__(self) -> None:
        """Reject sizes that build no network."""
        sizes = (self.patch, self.width, self.heads, self.dim)
        if min(sizes) < 1 or max(sizes) > 65_536 or self.width % self.heads or not 1 <= self.depth <= 1024:
            raise ConfigError(
                "expected patch, width, heads and dim in [1, 65536], a width that divides by heads, and depth in "
                f"[1, 1024], got {self.patch}, {self.width}, {self.heads}, {self.dim} and {self.depth}"
            )

    def build(self, *, size: tuple[int, int]) -> "ViT":
        """Return the network for images of (height, width) `size`, with fresh weights."""
        if any(n % self.patch for n in size):
            raise ConfigError(
                f"expected images that divide by the patch of {self.patch} px, got {size[0]} x {size[1]}: "
                "crop them, or choose another patch"
            )
        return ViT(self, size=size)

    def cells(self, size: tuple[int, int]) -> int:
        """Return the patches of an image of `size`."""
        return (size[0] // self.patch) * (size[1] // self.patch)

    def check_shared(self, size: tuple[int, int], other: tuple[int, int]) -> None:
        """Raise `ConfigError` unless both sizes are one: every patch has an embedding of its place."""
        if size != other:
            raise ConfigError(
                f"expected cameras of one size to share a ViT, got {size} and {other}: use separate weights or a crop"
            )


class ViTBlock(nn.Module):
    """`x + attention(norm1(x))`, then `x + mlp(norm2(x))`. **Source:** Dosovitskiy et al. 2021, equations 2-3."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Float[Tensor, "N M C"]) -> Float[Tensor, "N M C"]:
        """Return the tokens after each has looked at all."""
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=2)
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Images to a feature vector and one token a patch."""

    def __init__(self, config: ViTConfig, *, size: tuple[int, int]) -> None:
        super().__init__()
        self.config = config
        patches = config.cells(size)
        self.patches = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.class_token = nn.Parameter(torch.zeros(config.width)) if config.pool == "class" else None
        self.positions = nn.Parameter(torch.randn(patches + (config.pool == "class"), config.width) * 0.02)
        self.blocks = nn.ModuleList([ViTBlock(config) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, config.dim)
        self.dim, self.cell_dim = config.dim, config.width

    def forward(self, images: Images) -> Seen:
        """Return one vector an image, and its patches' tokens."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1)
        x = x + self.positions
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        cells = x if self.class_token is None else x[:, 1:]
        return Seen(self.out(x.mean(dim=1) if self.class_token is None else x[:, 0]), cells)
