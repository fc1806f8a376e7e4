"""Residual networks over images, with the children and the names of the ones that are published with weights."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ConfigError, first_wrong
from .pooling import AnyPoolConfig, Maps, SpatialSoftmaxConfig

Images = Float[Tensor, "N 3 H W"]
"""Normalised images, channels first."""


class Seen(NamedTuple):
    """What a vision network makes of images."""

    vector: Float[Tensor, "N F"]
    """One feature vector an image."""
    cells: Float[Tensor, "N M C"]
    """The same before pooling: one feature vector for each of M places, row by row."""


@dataclass(frozen=True)
class ResNetConfig:
    """Residual CNN of any size. The default is small enough to train and run on a CPU."""

    KIND: ClassVar = "resnet"

    widths: tuple[int, ...] = (32, 64, 128)
    """Channels of each stage."""
    blocks: tuple[int, ...] = (1, 1, 1)
    """Residual blocks of each stage."""
    strides: tuple[int, ...] = (1, 2, 1)
    """By how much each stage shrinks the image, after the stem has shrunk it by 4."""
    stem: Literal["patch", "standard"] = "patch"
    """First layer. patch: one 4 x 4 convolution of stride 4. standard: 7 x 7 of stride 2, then max pooling."""
    norm: Literal["group", "batch"] = "group"
    """Normalisation; weights trained on ImageNet want batch."""
    group_channels: int = 16
    """Channels in a group of every GroupNorm."""
    pool: AnyPoolConfig = field(default_factory=SpatialSoftmaxConfig)
    """How the last feature maps become a vector."""
    dim: int = 64
    """Width of the vector."""
    activation: Literal["relu", "none"] = "relu"
    """After the last, linear layer."""
    weights: str | None = None
    """Safetensors file of ImageNet weights in torchvision's key naming, read once before training; null for none."""

    def __post_init__(self) -> None:
        """Reject sizes that build no network, and weights that cannot fit it."""
        stages = len(self.widths)
        if not stages or len(self.blocks) != stages or len(self.strides) != stages:
            raise ConfigError(
                f"expected as many blocks and strides as widths, got {self.blocks} and {self.strides} for {self.widths}"
            )
        sizes = {
            "widths": self.widths,
            "strides": self.strides,
            "dim": (self.dim,),
            "group_channels": (self.group_channels,),
        }
        if wrong := first_wrong(self, **{name: min(size) >= 1 and max(size) <= 65_536 for name, size in sizes.items()}):
            raise ConfigError(f"expected widths, strides, dim and group_channels in [1, 65536], got {wrong}")
        if min(self.blocks) < 1 or max(self.blocks) > 1024:
            raise ConfigError(f"expected blocks in [1, 1024], got {self.blocks}")
        if self.norm == "group" and any(w % self.group_channels for w in self.widths):
            raise ConfigError(f"expected widths that divide by group_channels={self.group_channels}, got {self.widths}")
        if self.weights is not None and (self.norm, self.stem) != ("batch", "standard"):
            raise ConfigError(
                f"expected norm=batch and stem=standard with ImageNet weights, got {self.norm} and {self.stem}: "
                "their features mean nothing under another normalisation"
            )

    def build(self, *, size: tuple[int, int]) -> "ResNet":
        """Return the network for images of (height, width) `size`, with fresh weights."""
        return ResNet(self, size=size)

    def cells(self, size: tuple[int, int]) -> int:
        """Return the places in the last feature maps of an image of `size`."""
        height, width = map_size(self, size)
        return height * width

    def check_shared(self, size: tuple[int, int], other: tuple[int, int]) -> None:
        """Do nothing: convolutions and pooling take images of any size."""


@dataclass(frozen=True)
class StandardResNetConfig:
    """ResNet-18 or ResNet-34, by default with the spatial softmax of diffusion policy.

    **Source:** He et al. 2016, table 1.
    """

    KIND: ClassVar = "standard_resnet"

    depth: Literal[18, 34] = 18
    """Layers with weights."""
    norm: Literal["group", "batch"] = "group"
    """Normalisation; weights trained on ImageNet want batch."""
    pool: AnyPoolConfig = field(default_factory=SpatialSoftmaxConfig)
    """How the last feature maps become a vector."""
    dim: int = 64
    """Width of the vector."""
    weights: str | None = None
    """Safetensors file of ImageNet weights in torchvision's key naming, read once before training; null for none."""

    def __post_init__(self) -> None:
        """Reject sizes that build no network, and weights that cannot fit it."""
        _ = self.resnet

    @property
    def resnet(self) -> ResNetConfig:
        """The same network by its sizes."""
        return ResNetConfig(
            widths=(64, 128, 256, 512),
            blocks={18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[self.depth],
            strides=(1, 2, 2, 2),
            stem="standard",
            norm=self.norm,
            pool=self.pool,
            dim=self.dim,
            weights=self.weights,
        )

    def build(self, *, size: tuple[int, int]) -> "ResNet":
        """Return the network for images of (height, width) `size`, with fresh weights."""
        return self.resnet.build(size=size)

    def check_shared(self, size: tuple[int, int], other: tuple[int, int]) -> None:
        """Do nothing: convolutions and pooling take images of any size."""


def resnet18(*, norm: Literal["group", "batch"] = "group", weights: str | None = None) -> ResNetConfig:
    """Return ResNet-18 by its sizes."""
    return StandardResNetConfig(norm=norm, weights=weights).resnet


def resnet34(*, norm: Literal["group", "batch"] = "group", weights: str | None = None) -> ResNetConfig:
    """Return ResNet-34 by its sizes."""
    return StandardResNetConfig(34, norm=norm, weights=weights).resnet


class BatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose running statistics may be more precise than its weights."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name
        """Return the normalised maps, in the dtype of the argument."""
        if self.running_mean is None or self.running_mean.dtype == input.dtype:
            return super().forward(input)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return nn.functional.batch_norm(
            input.to(self.running_mean.dtype),
            self.running_mean,
            self.running_var,
            self.weight.to(self.running_mean.dtype),
            self.bias.to(self.running_mean.dtype),
            self.training,
            self.momentum or 0.0,
            self.eps,
        ).to(input.dtype)


class BasicBlock(nn.Module):
    """`relu(bn2(conv2(relu(bn1(conv1(x))))) + downsample(x))`. **Source:** He et al. 2016, figure 2."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = _norm(channels_out, config)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = _norm(channels_out, config)
        self.downsample = None
        if stride != 1 or channels_in != channels_out:
            shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, _norm(channels_out, config))

    def forward(self, x: Maps) -> Float[Tensor, "N C2 h2 w2"]:
        """Return the block's output."""
        h = self.bn2(self.conv2(nn.functional.relu(self.bn1(self.conv1(x)))))
        return nn.functional.relu(h + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Images to a feature vector: `activation(out(pool(backbone(x))))`.

    The children of `backbone` are conv1, norm, relu, maxpool, layer1, layer2, ... in the order of published networks.
    """

    def __init__(self, config: ResNetConfig, *, size: tuple[int, int]) -> None:
        super().__init__()
        self.config = config
        first = config.widths[0]
        if config.stem == "standard":
            stem = nn.Conv2d(3, first, 7, stride=2, padding=3, bias=False), nn.MaxPool2d(3, stride=2, padding=1)
        else:
            stem = nn.Conv2d(3, first, 4, stride=4, bias=False), nn.Identity()
        layers: list[nn.Module] = [stem[0], _norm(first, config), nn.ReLU(), stem[1]]
        before = first
        for width, count, stride in zip(config.widths, config.blocks, config.strides, strict=True):
            stage = [
                BasicBlock(before if n == 0 else width, width, stride if n == 0 else 1, config) for n in range(count)
            ]
            layers.append(nn.Sequential(*stage))
            before = width
        self.backbone = nn.Sequential(*layers)
        self.pool = config.pool.build(channels=before, size=map_size(config, size))
        self.out = nn.Linear(self.pool.dim, config.dim)
        for module in self.backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.dim, self.cell_dim = config.dim, before

    def forward(self, images: Images) -> Seen:
        """Return one vector an image, and the cells of the last feature maps."""
        maps = self.backbone(images)
        vector = self.out(self.pool(maps))
        vector = vector.relu() if self.config.activation == "relu" else vector
        return Seen(vector, maps.flatten(2).transpose(1, 2))


def map_size(config: ResNetConfig, size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of the last feature maps for images of `size`; `ConfigError` where nothing is left."""

    def shrunk(n: int) -> int:
        n = n // 4 if config.stem == "patch" else -(-n // 4)
        for stride in config.strides:
            n = -(-n // stride)
        return n

    height, width = (shrunk(n) for n in size)
    if min(height, width) < 1:
        raise ConfigError(f"expected images of 4 x 4 pixels at least, got {size[0]} x {size[1]}")
    return height, width


def _norm(channels: int, config: ResNetConfig) -> nn.Module:
    if config.norm == "batch":
        return BatchNorm2d(channels)
    return nn.GroupNorm(channels // config.group_channels, channels)
