"""Conditional 1-D U-Net over action chunks, with weights named and shaped as in the public diffusion-policy nets."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..condition import Condition
from ..errors import ConfigError
from ..shapes import Chunk
from .attention import Attention, ObservationTokens, something
from .conditioning import Conditioning, check_conditioning
from .embed import EMBEDDINGS, ShiftedSinusoidal, TimeEmbedding, check_time, per_sample

REFUSED = {"adaln": "a norm followed by scale and shift is film here"}


@dataclass(frozen=True)
class UNet1dConfig:
    """Conditional 1-D U-Net: convolutions over time, FiLM by diffusion time and, as published, the observation."""

    widths: tuple[int, ...] = (128, 256, 512)
    """Channels at each resolution; each further level halves the time axis."""
    kernel: int = 5
    """Kernel size of the residual convolutions, odd."""
    groups: int = 8
    """Groups of every GroupNorm but the last."""
    film_scale: bool = True
    """FiLM scales and shifts; otherwise it only shifts."""
    conditioning: Conditioning = "film"
    """concat adds it as `widths[0]` projected channels; cross_attention lets the middle ask its tokens."""
    time_embedding: TimeEmbedding = "sinusoidal"
    """How diffusion time becomes a vector."""
    time_dim: int = 128
    """Width of the time embedding."""
    time_scale: float = 100.0
    """Factor on t in [0, 1] before the sinusoids: the number of discrete steps; steps of the table."""
    time_offset: float = 0.0
    """Added after that, sinusoids only: -1 for networks that were trained with steps counted from 0."""

    def __post_init__(self) -> None:
        """Reject sizes that build no network."""
        check_conditioning(self.conditioning, REFUSED)
        check_time(self.time_embedding, self.time_dim, self.time_scale)
        if self.time_offset and self.time_embedding != "sinusoidal":
            raise ConfigError(f"expected time_offset=0 with time_embedding={self.time_embedding}, got a shift")
        if not 1 <= self.groups <= 1024 or len(self.widths) > 16 or max(self.widths, default=1) > 65_536:
            raise ConfigError(
                f"expected groups in [1, 1024] and at most 16 widths up to 65536, got {self.groups} and {self.widths}"
            )
        if not self.widths or any(w < 1 or w % self.groups for w in self.widths) or self.widths[0] % 8:
            raise ConfigError(f"expected widths that divide by groups={self.groups}, the first by 8, got {self.widths}")
        if not 1 <= self.kernel <= 255 or self.kernel % 2 == 0:
            raise ConfigError(f"expected an odd kernel in [1, 255], got {self.kernel}")

    def build(self, *, horizon: int, action_dim: int, condition_dim: int, token_dim: int | None = None) -> "UNet1d":
        """Return the network for action_dim channels; one set of weights serves any horizon."""
        if horizon < 1:
            raise ConfigError(f"expected a horizon of at least 1, got {horizon}")
        return UNet1d(self, action_dim=action_dim, condition_dim=condition_dim, token_dim=token_dim)


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


class MiddleAttention(nn.Module):
    """`x + Attention(norm(x), observation tokens)` over channels [B, C, H]; a head for each group of the GroupNorms.

    **Source:** Rombach et al. 2022, section 3.3.
    """

    def __init__(self, channels: int, *, heads: int, condition_dim: int, token_dim: int | None) -> None:
        super().__init__()
        self.observation = ObservationTokens(channels, condition_dim=condition_dim, token_dim=token_dim)
        self.norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, heads=heads)

    def forward(self, x: Float[Tensor, "B C H"], condition: Condition) -> Float[Tensor, "B C H"]:
        """Return the channels after every step has asked the observation."""
        memory, there = self.observation(condition)
        return x + self.attention(self.norm(x.transpose(1, 2)), memory, something(there)).transpose(1, 2)


class UNet1d(nn.Module):
    """Encoder, middle and decoder over the time axis, with skip connections."""

    def __init__(self, config: UNet1dConfig, *, action_dim: int, condition_dim: int, token_dim: int | None) -> None:
        super().__init__()
        widths, step = config.widths, config.time_dim
        embedding = EMBEDDINGS[config.time_embedding](step, config.time_scale)
        if config.time_offset:
            embedding = ShiftedSinusoidal(step, scale=config.time_scale, offset=config.time_offset)
        self.diffusion_step_encoder = nn.Sequential(
            embedding,
            nn.Linear(step, 4 * step),
            nn.Mish(),
            nn.Linear(4 * step, step),
        )
        self.film = config.conditioning == "film"
        told = step + condition_dim if self.film else step
        beside = widths[0] if config.conditioning == "concat" else 0
        self.beside = nn.Linear(condition_dim, beside) if beside else None
        levels = list(zip((action_dim + beside, *widths[:-1]), widths, strict=True))
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
        self.mid_attention = None
        if config.conditioning == "cross_attention":
            self.mid_attention = MiddleAttention(
                widths[-1], heads=config.groups, condition_dim=condition_dim, token_dim=token_dim
            )
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
        told = torch.cat([steps, condition.vector], dim=1) if self.film else steps
        length = x.shape[1]
        # The time axis is halved at each level: pad to a multiple here, crop below.
        h = nn.functional.pad(x.transpose(1, 2), (0, -length % self.multiple))
        if self.beside is not None:
            beside = self.beside(condition.vector).unsqueeze(-1)
            h = torch.cat([h, beside.expand(-1, -1, h.shape[-1])], dim=1)
        skips: list[Tensor] = []
        for first, second, down in self.down_modules:  # pyright: ignore[reportGeneralTypeIssues]
            h = second(first(h, told), told)
            skips.append(h)
            h = down(h)
        first, second = self.mid_modules
        h = first(h, told)
        if self.mid_attention is not None:
            h = self.mid_attention(h, condition)
        h = second(h, told)
        for first, second, up in self.up_modules:  # pyright: ignore[reportGeneralTypeIssues]
            h = up(second(first(torch.cat([h, skips.pop()], dim=1), told), told))
        return self.final_conv(h)[..., :length].transpose(1, 2)
