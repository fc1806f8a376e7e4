"""Cameras: images as they come, checked, cropped and normalised, ready for a vision network."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ..errors import ConfigError, SchemaError, ShapeError
from ..schema import Feature
from .part import Encoded, Observations, Part
from .pooling import SpatialSoftmax
from .resnet import ResNet, ResNetConfig, StandardResNetConfig, map_size
from .vit import ViT, ViTConfig

AnyVisionConfig = ResNetConfig | StandardResNetConfig | ViTConfig
"""Every vision network that can be chosen by name."""
Vision = ResNet | ViT
"""What they build."""
ImageTokens = Literal["pooled", "cells"]
"""Tokens of an image. pooled: its vector. cells: every place of the last feature maps, every patch of a ViT."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue in 0..1 that ImageNet weights expect to be subtracted."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of red, green and blue in 0..1 that ImageNet weights expect to be divided by."""


@dataclass(frozen=True)
class CropSize:
    """A crop of so many pixels: at a random place while training, at the centre otherwise."""

    height: int
    """Rows that stay."""
    width: int
    """Columns that stay."""

    def __post_init__(self) -> None:
        """Reject empty crops."""
        if min(self.height, self.width) < 1:
            raise ConfigError(f"expected a crop of 1 x 1 at least, got {self.height} x {self.width}")

    def of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of the crop of an image of `size`; `ConfigError` where it is larger."""
        if self.height > size[0] or self.width > size[1]:
            raise ConfigError(f"expected a crop inside {size[0]} x {size[1]}, got {self.height} x {self.width}")
        return self.height, self.width


@dataclass(frozen=True)
class CropRatio:
    """A crop of a share of height and width: at a random place while training, at the centre otherwise."""

    ratio: float = 0.9
    """Share of the height, and of the width, that stays."""

    def __post_init__(self) -> None:
        """Reject shares outside (0, 1]."""
        if not 0 < self.ratio <= 1:
            raise ConfigError(f"expected a crop ratio in (0, 1], got {self.ratio}")

    def of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of the crop of an image of `size`."""
        return max(1, round(self.ratio * size[0])), max(1, round(self.ratio * size[1]))


@dataclass(frozen=True)
class CropEach:
    """A crop of its own size for each camera, or goal image, by name; those that are not named are seen whole."""

    sizes: dict[str, tuple[int, int]]
    """By name: rows and columns that stay."""


AnyCrop = CropSize | CropRatio | CropEach
"""Every crop that can be chosen by name."""


def cropped(feature: Feature, crop: AnyCrop | None) -> tuple[int, int]:
    """Return (height, width) of what is seen of an image; `ConfigError` where the crop is larger than it."""
    if isinstance(crop, CropEach):
        crop = CropSize(*crop.sizes[feature.name]) if feature.name in crop.sizes else None
    return feature.image_size if crop is None else crop.of(feature.image_size)


class Camera(nn.Module):
    """Images of one feature to network inputs: `(crop(x) / 255 - mean) / std`, channels first."""

    def __init__(
        self,
        feature: Feature,
        *,
        crop: AnyCrop | None,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        jitter: float = 0.0,
    ) -> None:
        super().__init__()
        self.feature, self.jitter = feature, jitter
        try:
            self.size = cropped(feature, crop)
        except ConfigError as error:
            raise ConfigError(f"camera {feature.name!r}: {error}") from error
        self.mean = nn.Buffer(torch.tensor(mean, dtype=torch.float32))
        self.std = nn.Buffer(torch.tensor(std, dtype=torch.float32))

    @property
    def crops(self) -> bool:
        """Whether an input is smaller than the image."""
        return self.size != self.feature.image_size

    def check(self, x: Tensor, *, steps: int) -> None:
        """Raise `ShapeError` or `SchemaError` unless `x` is [B, steps, *shape], uint8 or floating in 0..1."""
        name, shape = self.feature.name, self.feature.shape
        if tuple(x.shape[1:]) != (steps, *shape):
            hint = self.feature.remedy(tuple(x.shape[2:]))
            raise ShapeError(f"camera {name!r}: expected [B, {steps}, {_sizes(shape)}], got {tuple(x.shape)}{hint}")
        if x.dtype == torch.uint8:
            return
        if not x.is_floating_point():
            raise SchemaError(
                f"camera {name!r}: expected uint8, or floating values in 0..1, got {x.dtype}: give 0..255 as uint8"
            )
        if x.numel():
            low, high = float(x.detach().min()), float(x.detach().max())
            # Written so that NaN fails as well.
            if not (low >= 0 and high <= 1):
                raise SchemaError(
                    f"camera {name!r}: expected floating values in 0..1, got {low:g}..{high:g}: "
                    "give 0..255 as uint8, and no normalised images"
                )

    def forward(
        self, x: Shaped[Tensor, "B O ..."], dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> Float[Tensor, "N 3 h w"]:
        """Return the inputs of all steps, [B O, 3, *size] in `dtype`; a generator crops and jitters at random.

        The history of a sample is cropped at one place and jittered alike, so that what stands still stands still.
        """
        x = x.movedim(2, 4) if self.feature.channels_first else x
        if self.crops:
            x = centre_crop(x, self.size) if generator is None else random_crop(x, self.size, generator=generator)
        whole = 255.0 if x.dtype == torch.uint8 else 1.0
        if generator is not None and self.jitter:
            x, whole = jittered(x.float() / whole, self.jitter, generator=generator), 1.0
        height, width = self.size
        # One row of pixels at a time, three numbers each: far faster than three numbers at a time.
        mean, std = ((whole * c).to(dtype).repeat(width) for c in (self.mean, self.std))
        rows = (x.to(dtype).reshape(-1, height, width * 3) - mean) / std
        # Laid out channels last in memory: convolutions on a CPU are faster for it.
        return rows.unflatten(2, (width, 3)).permute(0, 3, 1, 2)


def centre_crop(x: Shaped[Tensor, "B O H W 3"], size: tuple[int, int]) -> Shaped[Tensor, "B O h w 3"]:
    """Return the middle of every image; half a pixel is rounded to even, as torchvision does."""
    top, left = round((x.shape[2] - size[0]) / 2), round((x.shape[3] - size[1]) / 2)
    return x[:, :, top : top + size[0], left : left + size[1]]


def random_crop(
    x: Shaped[Tensor, "B O H W 3"], size: tuple[int, int], *, generator: torch.Generator
) -> Shaped[Tensor, "B O h w 3"]:
    """Return a part of every sample's images at a place of its own, all places equally likely."""
    tops, lefts = (
        torch.randint(whole - part + 1, (len(x),), generator=generator, device=generator.device).tolist()
        for whole, part in zip(x.shape[2:4], size, strict=True)
    )
    # A copy a sample is far faster than one gather of all pixels.
    parts = [
        x[b, :, top : top + size[0], left : left + size[1]]
        for b, (top, left) in enumerate(zip(tops, lefts, strict=True))
    ]
    return torch.stack(parts) if parts else x[:, :, : size[0], : size[1]]


GREY = (0.299, 0.587, 0.114)
"""Share of red, green and blue in brightness (ITU-R BT.601)."""


def jittered(
    x: Float[Tensor, "B O H W 3"], strength: float, *, generator: torch.Generator
) -> Float[Tensor, "B O H W 3"]:
    """Return images in 0..1 with brightness, contrast and saturation each times a factor in 1 +- `strength` a sample.

    Brightness scales all, contrast the distance to the sample's mean brightness, saturation each pixel's to its own.
    """
    draws = torch.rand(3, len(x), generator=generator, device=generator.device).to(x.device)
    brightness, contrast, saturation = (1 + strength * (2 * draws - 1)).reshape(3, -1, 1, 1, 1, 1)
    grey = torch.tensor(GREY, device=x.device)
    x = brightness * x
    mean = (x @ grey).mean(dim=(1, 2, 3)).reshape(-1, 1, 1, 1, 1)
    x = mean + contrast * (x - mean)
    own = (x @ grey).unsqueeze(-1)
    return (own + saturation * (x - own)).clamp(0, 1)


def check_colours(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Raise `ConfigError` unless there are three finite means and three deviations above 0."""
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ConfigError(f"expected three finite means and three deviations > 0, got {mean} and {std}")


def _sizes(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


class CameraPart(Part):
    """One camera, or a goal image: every step's image through a vision network, which others may share."""

    def __init__(self, camera: Camera, vision: Vision, *, position: int, obs_steps: int, tokens: ImageTokens) -> None:
        super().__init__(camera.feature.name, (camera.feature,), obs_steps=obs_steps)
        self.camera, self.config, self.position, self.image_tokens = camera, vision.config, position, tokens
        self.once, self.dim = camera.feature.goal, vision.dim
        pooled = tokens == "pooled"
        self.cell_dim = vision.dim if pooled else vision.cell_dim
        self.cells = self.steps * (1 if pooled else vision.config.cells(camera.size))

    @property
    def map_size(self) -> tuple[int, int] | None:
        """(height, width) of the map that the tokens of an image are the places of, row by row; None for one token."""
        if self.image_tokens == "pooled":
            return None
        size = self.camera.size
        if isinstance(self.config, ResNetConfig):
            return map_size(self.config, size)
        return size[0] // self.config.patch, size[1] // self.config.patch

    def check(self, observations: Observations) -> None:
        """Raise `ShapeError` or `SchemaError` unless the images have the declared size, layout and dtype."""
        self.camera.check(observations[self.name], steps=self.obs_steps)

    def forward(self, observations: Observations, visions: nn.ModuleList, generator: torch.Generator | None) -> Encoded:
        """Return a vector an image; its cells are that vector, or every place of the image."""
        self.check(observations)
        vector, cells = visions[self.position](self._images(observations, visions, generator))
        vector, cells = (y.unflatten(0, (-1, self.steps)) for y in (vector, cells))
        return Encoded(vector, vector if self.image_tokens == "pooled" else cells.flatten(1, 2))

    def attention(self, observations: Observations, visions: nn.ModuleList) -> Float[Tensor, "B S K h w"] | None:
        """Return where each keypoint looks in every image; None for networks without spatial softmax."""
        vision = visions[self.position]
        if not isinstance(vision, ResNet) or not isinstance(vision.pool, SpatialSoftmax):
            return None
        self.check(observations)
        maps = vision.backbone(self._images(observations, visions, None))
        return vision.pool.attention(maps).unflatten(0, (-1, self.steps))

    def _images(self, observations: Observations, visions: nn.ModuleList, generator: torch.Generator | None) -> Tensor:
        x = observations[self.name][:, -self.steps :]
        return self.camera(x, next(visions[self.position].parameters()).dtype, generator)
