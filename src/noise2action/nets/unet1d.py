"""Conditional 1-D U-Net over action chunks, with weights named and shaped as in the public diffusion-policy nets."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..condition import Condition
from ..errors import ConfigError
from ..shapes import Chunk
from .embed import Sinusoidal, per_sample


@dataclass(frozen=True)
class UNet1dConfig:
    """Conditional 1-D U-Net: convolutions over time, FiLM by diffusion time and observation."""

    widths: tuple[int, ...] = (128, 256, 512)
    """Channels at each resolution; each further level halves the time axis."""
    kernel: int = 5
    """Kernel size of the residual convolutions, odd."""
    groups: int = 8
    """Groups of every GroupNorm but the last."""
    film_scale: bool = True
    """FiLM scales and shifts; otherwise it only shifts."""
    time_dim: int = 128
    """Width of the sinusoidal time embedding."""
    time_scale: float = 100.0
    """Factor on t in [0, 1] before the sinusoids: the number of discrete steps."""

    def __post_init__(self) -> None:
        """Reject sizes that build no network."""
        if not self.widths or any(w < 1 or w % self.groups for w in self.widths) or self.widths[0] % 8:
            raise ConfigError(f"expected widths that divide by groups={self.groups}, the first by 8, got {self.widths}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError(f"expected an odd kernel, got {self.kernel}")
        if self.time_dim < 4 or self.time_dim % 2:
            raise ConfigError(f"expected an even time_dim >= 4, got {self.time_dim}")

    def build(self, *, horizon: int, action_dim: int, condition_dim: int) -> "UNet1d":
        """Return the network for action_dim channels; one set of weights serves any horizon."""
        if horizon < 1:
            raise ConfigError(f"expected a horizon of at least 1, got {horizon}")
        return UNet1d(self, action_dim=action_dim, condition_dim=condition_dim)


class ConvBlock(nn.Module):
    """Conv1d, GroupNorm, Mish."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2),
            nn.GroupNorm(groups, channels_out),
            nn.Mish(),
        )

    def forward(self, x: Float[Tensor, "B C H"]) -> Float[Tensor, "B C2 H"]:
        """Return the block's output."""
        return self.block(x)


class ResidualBlock(nn.Module):
    """Two convolutions with FiLM between them: `conv2(scale * conv1(x) + bias) + residual(x)`.

    **Source:** Chi et al. 2023, section III-A; Perez et al. 2018 (FiLM), Eq. 2.
    """

    def __init__(self, channels_in: int, channels_out: int, told: int, config: UNet1dConfig) -> None:
        super().__init__()
        self.film_scale = config.film_scale
        self.conv1 = ConvBlock(channels_in, channels_out, config.kernel, config.groups)
        self.conv2 = ConvBlock(channels_out, channels_out, config.kernel, config.groups)
        film = 2 * channels_out if config.film_scale else channels_out
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(told, film))
        same = channels_in == channels_out
        self.residual_conv = nn.Identity() if same else nn.Conv1d(channels_in, channels_out, 1)

    def forward(self, x: Float[Tensor, "B C H"], told: Float[Tensor, "B D"]) -> Float[Tensor, "B C2 H"]:
        """Return the block's output, told by time and observation."""
        film = self.cond_encoder(told).unsqueeze(-1)
        h = self.conv1(x)
        if self.film_scale:
            scale, bias = film.chunk(2, dim=1)
            h = scale * h + bias
        else:
            h = h + film
        return self.conv2(h) + self.residual_conv(x)


class UNet1d(nn.Module):
    """Encoder, middle and decoder over the time axis, with skip connections."""

    def __init__(self, config: UNet1dConfig, *, action_dim: int, condition_dim: int) -> None:
        super().__init__()
        widths, step = config.widths, config.time_dim
        self.diffusion_step_encoder = nn.Sequential(
            Sinusoidal(step, scale=config.time_scale),
            nn.Linear(step, 4 * step),
            nn.Mish(),
            nn.Linear(4 * step, step),
        )
        told = step + condition_dim
        levels = list(zip((action_dim, *widths[:-1]), widths, strict=True))
        last = len(levels) - 1

        def block(channels_in: int, channels_out: int) -> ResidualBlock:
            return ResidualBlock(channels_in, channels_out, told, config)

        self.down_modules = nn.ModuleList(
            nn.ModuleList(
                [block(i, o), block(o, o), nn.Conv1d(o, o, 3, stride=2, padding=1) if n < last else nn.Identity()]
            )
            for n, (i, o) in enumerate(levels)
        )
        self.mid_modules = nn.ModuleList([block(widths[-1], widths[-1]), block(widths[-1], widths[-1])])
        self.up_modules = nn.ModuleList(
            nn.ModuleList([block(2 * o, i), block(i, i), nn.ConvTranspose1d(i, i, 4, stride=2, padding=1)])
            for i, o in reversed(levels[1:])
        )
        self.final_conv = nn.Sequential(
            ConvBlock(widths[0], widths[0], config.kernel, 8),  # 8 groups whatever the others have, as published
            nn.Conv1d(widths[0], action_dim, 1),
        )
        self.multiple = 2**last

    def forward(self, x: Chunk, t: Tensor, condition: Condition) -> Chunk:
        """Return the prediction for the noisy chunk `x` of any length at time `t` ([] or [B])."""
        sinusoids, *layers = self.diffusion_step_encoder
        steps = sinusoids(per_sample(t, len(x))).to(x.dtype)
        for layer in layers:
            steps = layer(steps)
        told = torch.cat([steps, condition.vector], dim=1)
        length = x.shape[1]
        # The time axis is halved at each level: pad to a multiple here, crop below.
        h = nn.functional.pad(x.transpose(1, 2), (0, -length % self.multiple))
        skips: list[Tensor] = []
        for first, second, down in self.down_modules:  # pyright: ignore[reportGeneralTypeIssues]
            h = second(first(h, told), told)
            skips.append(h)
            h = down(h)
        for middle in self.mid_modules:
            h = middle(h, told)
        for first, second, up in self.up_modules:  # pyright: ignore[reportGeneralTypeIssues]
            h = up(second(first(torch.cat([h, skips.pop()], dim=1), told), told))
        return self.final_conv(h)[..., :length].transpose(1, 2)
