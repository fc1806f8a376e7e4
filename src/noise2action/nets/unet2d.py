"""2-D U-Net over images, told by time and label: residual blocks, attention at the lowest resolution, skips."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from .embed import Sinusoidal, per_sample

Maps = Float[Tensor, "B C h w"]
"""Feature maps."""


@dataclass(frozen=True)
class UNet2dConfig:
    """2-D U-Net for images of any height and width, modulated by diffusion time and class."""

    widths: tuple[int, ...] = (32, 64)
    """Channels at each resolution; each further level halves height and width."""
    blocks: int = 1
    """Residual blocks a level, on the way down and on the way up."""
    heads: int = 4
    """Heads of the self-attention, which is at the lowest resolution."""
    groups: int = 8
    """Groups of every GroupNorm."""
    dropout: float = 0.0
    """Dropout inside the residual blocks."""
    time_dim: int = 64
    """Width of the sinusoidal time embedding."""
    time_scale: float = 1000.0
    """Factor on t in [0, 1] before the sinusoids."""

    def __post_init__(self) -> None:
        """Reject sizes that build no network."""
        if not self.widths or self.groups < 1 or any(w < 1 or w % self.groups for w in self.widths):
            raise ConfigError(f"expected widths that divide by groups={self.groups}, got {self.widths}")
        if self.heads < 1 or self.widths[-1] % self.heads:
            raise ConfigError(f"expected heads that divide the last width {self.widths[-1]}, got {self.heads}")
        if self.blocks < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(f"expected blocks >= 1 and dropout in [0, 1), got {self.blocks} and {self.dropout}")
        if self.time_dim < 4 or self.time_dim % 2:
            raise ConfigError(f"expected an even time_dim >= 4, got {self.time_dim}")

    def build(self, *, shape: tuple[int, ...], classes: int = 0) -> "UNet2d":
        """Return the network for images [C, H, W] = `shape`; the same weights serve any H and W."""
        if len(shape) != 3 or min(shape) < 1:
            raise ConfigError(f"expected images of shape (C, H, W) for a 2-D U-Net, got {shape}: use another network")
        return UNet2d(self, channels=shape[0], classes=classes)


class ResidualBlock(nn.Module):
    """`skip(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x)))) * (1 + scale) + shift))`; conv2 starts at zero.

    **Source:** Ho et al. 2020, appendix B; scale and shift by Dhariwal & Nichol 2021, section 3 (AdaGN).
    """

    def __init__(self, channels_in: int, channels_out: int, told: int, config: UNet2dConfig) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(config.groups, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.told = nn.Linear(told, 2 * channels_out)
        self.norm2 = nn.GroupNorm(config.groups, channels_out)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)
        _zero(self.conv2)

    def forward(self, x: Maps, told: Float[Tensor, "B1 D"]) -> Float[Tensor, "B C2 h w"]:
        """Return the block's output; `told` has one row, or one a sample."""
        scale, shift = self.told(told)[..., None, None].chunk(2, dim=1)
        h = self.norm2(self.conv1(nn.functional.silu(self.norm1(x)))) * (1 + scale) + shift
        return self.skip(x) + self.conv2(self.dropout(nn.functional.silu(h)))


class Attention(nn.Module):
    """`x + out(softmax(q k^T / sqrt(d)) v)` over all pixels; out starts at zero. **Source:** Ho et al. 2020, app. B."""

    def __init__(self, channels: int, config: UNet2dConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.GroupNorm(config.groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        _zero(self.out)

    def forward(self, x: Maps) -> Maps:
        """Return the maps after every pixel has looked at every other."""
        q, k, v = (
            part.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3)  # [B, heads, h w, d]
            for part in self.qkv(self.norm(x)).chunk(3, dim=1)
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(seen.transpose(2, 3).reshape(x.shape))


class UNet2d(nn.Module):
    """Image, time and label in, prediction of the image's shape out."""

    def __init__(self, config: UNet2dConfig, *, channels: int, classes: int) -> None:
        super().__init__()
        widths, told = config.widths, 4 * config.time_dim
        self.channels, self.classes, self.multiple = channels, classes, 2 ** (len(widths) - 1)
        self.time = Sinusoidal(config.time_dim, scale=config.time_scale)
        self.time_layers = nn.Sequential(nn.Linear(config.time_dim, told), nn.SiLU(), nn.Linear(told, told))
        # The last row is the learned null. Without classes there is nothing to tell apart: no weights.
        self.label = nn.Embedding(classes + 1, told) if classes else None
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)

        def block(channels_in: int, channels_out: int) -> ResidualBlock:
            return ResidualBlock(channels_in, channels_out, told, config)

        last = len(widths) - 1
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for n, width in enumerate(widths):
            before = widths[max(n - 1, 0)]
            self.down.append(nn.ModuleList([block(before if k == 0 else width, width) for k in range(config.blocks)]))
            self.up.insert(0, nn.ModuleList([block(2 * width, width) for _ in range(config.blocks)]))
        self.shrink = nn.ModuleList([nn.Conv2d(w, w, 3, stride=2, padding=1) for w in widths[:-1]])
        self.grow = nn.ModuleList([nn.Conv2d(widths[n], widths[n - 1], 3, padding=1) for n in range(last, 0, -1)])
        self.middle = nn.ModuleList([block(widths[-1], widths[-1]) for _ in range(2)])
        self.attention = Attention(widths[-1], config)
        self.leave = nn.Sequential(
            nn.GroupNorm(config.groups, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], channels, 3, padding=1)
        )
        _zero(self.leave[-1])

    def forward(self, x: Maps, t: Tensor, labels: Int[Tensor, "B"]) -> Maps:
        """Return the prediction for noisy images `x` at time `t` ([] or [B]) of class `labels` (`classes` is null)."""
        if x.shape[1] != self.channels:
            raise ShapeError(f"expected images with {self.channels} channels, got {tuple(x.shape[1:])}")
        told = self.time_layers(self.time(per_sample(t, len(x) if t.ndim else 1)).to(x.dtype))
        if self.label is not None:
            told = told + self.label(labels)
        told = nn.functional.silu(told)
        height, width = x.shape[-2:]
        # Each level halves the image: pad right and bottom to a multiple here, crop below.
        h = self.enter(nn.functional.pad(x, (0, -width % self.multiple, 0, -height % self.multiple)))
        skips: list[Tensor] = []
        for n, level in enumerate(self.down):
            if n:
                h = self.shrink[n - 1](h)
            for block in level:  # pyright: ignore[reportGeneralTypeIssues]
                h = block(h, told)
                skips.append(h)
        first, second = self.middle
        h = second(self.attention(first(h, told)), told)
        for n, level in enumerate(self.up):
            if n:
                h = self.grow[n - 1](nn.functional.interpolate(h, scale_factor=2.0, mode="nearest"))
            for block in level:  # pyright: ignore[reportGeneralTypeIssues]
                h = block(torch.cat([h, skips.pop()], dim=1), told)
        return self.leave(h)[..., :height, :width]


def _zero(layer: nn.Module) -> None:
    for p in layer.parameters():
        nn.init.zeros_(p)
