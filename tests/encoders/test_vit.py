import pytest
import torch

from noise2action.encoders.vit import ViTConfig
from noise2action.errors import ConfigError

close = torch.testing.assert_close


def attended(x, block, heads):
    """Multi-head self-attention, one head at a time."""
    width = x.shape[2]
    qkv = x @ block.qkv.weight.T + block.qkv.bias
    size, out = width // heads, []
    for head in range(heads):
        q, k, v = (qkv[..., part * width + head * size :][..., :size] for part in range(3))
        out.append((q @ k.transpose(1, 2) / size**0.5).softmax(2) @ v)
    return torch.cat(out, 2) @ block.proj.weight.T + block.proj.bias


def normed(x, norm):
    return (x - x.mean(2, keepdim=True)) / (
        x.var(2, keepdim=True, unbiased=False) + 1e-5
    ).sqrt() * norm.weight + norm.bias


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_it_is_the_formula_written_out(pool):
    config = ViTConfig(patch=4, width=12, depth=2, heads=3, pool=pool, dim=5)
    net = config.build(size=(8, 12))
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.4)
    images = torch.randn(2, 3, 8, 12)
    patches = [images[:, :, i : i + 4, j : j + 4].flatten(1) for i in (0, 4) for j in (0, 4, 8)]
    x = torch.stack(patches, 1) @ net.patches.weight.flatten(1).T + net.patches.bias
    if pool == "class":
        x = torch.cat([net.class_token.expand(2, 1, -1), x], 1)
    x = x + net.positions
    for block in net.blocks:
        x = x + attended(normed(x, block.norm1), block, 3)
        first, act, second = block.mlp
        x = x + act(normed(x, block.norm2) @ first.weight.T + first.bias) @ second.weight.T + second.bias
    x = normed(x, net.norm)
    vector = (x[:, 0] if pool == "class" else x.mean(1)) @ net.out.weight.T + net.out.bias
    seen = net(images)
    close(seen.vector, vector, rtol=1e-4, atol=1e-4)
    close(seen.cells, x[:, 1:] if pool == "class" else x, rtol=1e-4, atol=1e-4)
    assert seen.cells.shape[1] == config.cells((8, 12)) == 6


def test_images_that_do_not_divide_into_patches_are_refused():
    with pytest.raises(ConfigError, match="16 px, got 90 x 96"):
        ViTConfig().build(size=(90, 96))


@pytest.mark.parametrize("options", [{"width": 10, "heads": 4}, {"depth": 0}, {"patch": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected patch"):
        ViTConfig(**options)
