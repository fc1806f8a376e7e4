import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from noise2action.encoders.pooling import AveragePoolConfig, SpatialSoftmaxConfig
from noise2action.encoders.resnet import (
    BasicBlock,
    ResNet,
    ResNetConfig,
    StandardResNetConfig,
    map_size,
    resnet18,
    resnet34,
)
from noise2action.errors import ConfigError

close = torch.testing.assert_close
SMALL = {"widths": (16, 16, 32, 32), "blocks": (2, 1, 2, 1), "strides": (1, 2, 2, 2), "stem": "standard"}


def randomise(module: nn.Module) -> None:
    """Give every weight and statistic a value that is none of the usual zeros and ones."""
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    for name, b in module.named_buffers():
        if name.endswith("running_var"):
            b.copy_(torch.rand_like(b) + 0.5)
        elif name.endswith("running_mean"):
            b.copy_(torch.randn_like(b))


class Norm:
    """Group or batch normalisation in plain tensor code."""

    def __init__(self, kind: str):
        self.kind = kind

    def __call__(self, x, state, name):
        weight, bias = (state[f"{name}.{k}"].reshape(-1, 1, 1) for k in ("weight", "bias"))
        if self.kind == "batch":
            mean, var = (state[f"{name}.running_{k}"].reshape(-1, 1, 1) for k in ("mean", "var"))
        else:
            groups = x.reshape(len(x), x.shape[1] // 16, 16, *x.shape[2:])
            mean = groups.mean((2, 3, 4), keepdim=True).expand_as(groups).reshape(x.shape)
            var = groups.var((2, 3, 4), keepdim=True, unbiased=False).expand_as(groups).reshape(x.shape)
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def block_written_out(x, state, prefix, stride, norm):
    def at(name):
        return f"{prefix}{name}"

    h = functional.conv2d(x, state[at("conv1.weight")], stride=stride, padding=1)
    h = norm(h, state, at("bn1")).clamp(min=0)
    h = norm(functional.conv2d(h, state[at("conv2.weight")], padding=1), state, at("bn2"))
    if at("downsample.0.weight") in state:
        x = norm(functional.conv2d(x, state[at("downsample.0.weight")], stride=stride), state, at("downsample.1"))
    return (x + h).clamp(min=0)


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize(("width", "stride"), [(16, 1), (32, 1), (16, 2), (32, 2)])
def test_a_block_is_the_formula_written_out(norm, width, stride):
    block = BasicBlock(16, width, stride, ResNetConfig(widths=(16,), blocks=(1,), strides=(1,), norm=norm)).eval()
    randomise(block)
    x = torch.randn(2, 16, 5, 6)
    close(block(x), block_written_out(x, block.state_dict(), "", stride, Norm(norm)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("size", [(32, 32), (29, 41)])
def test_the_whole_is_the_published_layout_written_out(norm, size):
    """Children 0 and 1 are conv1 and its norm, 4.. the layers; then pool.nets, pool.pos_grid and out, ReLU behind."""
    net = ResNet(ResNetConfig(**SMALL, norm=norm, pool=SpatialSoftmaxConfig(keypoints=5), dim=7), size=size).eval()
    randomise(net)
    state, x = net.state_dict(), torch.randn(2, 3, *size)
    norm = Norm(norm)
    h = functional.conv2d(x, state["backbone.0.weight"], stride=2, padding=3)
    h = functional.max_pool2d(norm(h, state, "backbone.1").clamp(min=0), 3, stride=2, padding=1)
    for layer, (blocks, stride) in enumerate(zip(SMALL["blocks"], SMALL["strides"], strict=True)):
        for n in range(blocks):
            h = block_written_out(h, state, f"backbone.{4 + layer}.{n}.", stride if n == 0 else 1, norm)
    logits = functional.conv2d(h, state["pool.nets.weight"], state["pool.nets.bias"])
    weights = logits.reshape(2 * 5, -1).softmax(1)
    keypoints = (weights @ state["pool.pos_grid"]).reshape(2, 10)
    vector = (keypoints @ state["out.weight"].T + state["out.bias"]).clamp(min=0)
    seen = net(x)
    close(seen.vector, vector, rtol=1e-4, atol=1e-4)
    close(seen.cells, h.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)
    assert seen.cells.shape[1] == net.config.cells(size) == math.prod(map_size(net.config, size))


def test_resnet18_has_the_published_number_of_weights_and_34_its_own():
    # He et al. 2016 with a classifier of 513 000 weights: 11 689 512 and 21 797 672.
    for depth, by_sizes, whole in ((18, resnet18, 11_689_512), (34, resnet34, 21_797_672)):
        config = StandardResNetConfig(depth, norm="batch", weights="a file")
        assert config.resnet == by_sizes(norm="batch", weights="a file")
        with torch.device("meta"):
            net = config.build(size=(96, 96))
        assert sum(p.numel() for p in net.backbone.parameters()) == whole - 513_000


def test_standard_networks_refuse_what_their_sizes_refuse():
    with pytest.raises(ConfigError, match="norm=batch and stem=standard with ImageNet weights, got group"):
        StandardResNetConfig(weights="a file")
    with pytest.raises(ConfigError, match=r"dim and group_channels in \[1, 65536\]"):
        StandardResNetConfig(dim=0)


def test_published_group_norm_has_groups_of_sixteen_channels():
    with torch.device("meta"):
        net = resnet18().build(size=(96, 96))
    norms = [m for m in net.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 20
    assert all(m.num_channels == 16 * m.num_groups for m in norms)


def test_the_default_keeps_places_apart():
    assert map_size(ResNetConfig(), (96, 96)) == (12, 12)


@pytest.mark.parametrize("pool", [AveragePoolConfig(), SpatialSoftmaxConfig(keypoints=4)])
@pytest.mark.parametrize("activation", ["relu", "none"])
def test_the_last_layer_is_linear_then_active(pool, activation):
    net = ResNetConfig(widths=(16,), blocks=(1,), strides=(1,), pool=pool, activation=activation).build(size=(16, 12))
    x = torch.randn(2, 3, 16, 12)
    linear = net.pool(net.backbone(x)) @ net.out.weight.T + net.out.bias
    assert linear.min() < 0
    close(net(x).vector, linear.clamp(min=0) if activation == "relu" else linear)


def test_images_do_not_see_each_other():
    net = ResNetConfig(widths=(16,), blocks=(1,), strides=(1,)).build(size=(16, 16)).eval()
    x = torch.randn(3, 3, 16, 16)
    close(net(x).vector[1], net(x[1:2]).vector[0])


def test_batch_norm_keeps_precise_statistics_beside_half_precision_weights():
    config = ResNetConfig(widths=(16,), blocks=(1,), strides=(1,), norm="batch")
    net, half = config.build(size=(16, 16)), config.build(size=(16, 16))
    half.load_state_dict(net.state_dict())
    for p in half.parameters():
        p.data = p.data.bfloat16()
    x = torch.randn(8, 3, 16, 16)
    close(half(x.bfloat16()).vector.float(), net(x).vector, rtol=0, atol=0.1)
    for mine, other in zip(half.buffers(), net.buffers(), strict=True):
        assert mine.dtype == other.dtype
        close(mine, other, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": (1, 1)},
        {"widths": (), "blocks": (), "strides": ()},
        {"widths": (24, 32, 64)},
        {"dim": 0},
        {"strides": (1, 0, 1)},
        {"weights": "file.safetensors"},
        {"weights": "file.safetensors", "norm": "batch"},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected"):
        ResNetConfig(**options)


def test_images_too_small_for_the_stem_are_refused():
    with pytest.raises(ConfigError, match="4 x 4"):
        ResNetConfig().build(size=(3, 96))
