import pytest
import torch
from torch.nn.functional import conv2d, group_norm, linear, pad, silu

from noise2action.errors import ConfigError, ShapeError
from noise2action.nets.unet2d import UNet2dConfig

CONFIG = UNet2dConfig(widths=(8, 16, 24), blocks=2, heads=2, groups=4, time_dim=8)
CLASSES = 3


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def build(config=CONFIG, channels=2, classes=CLASSES, dtype=torch.float64):
    torch.manual_seed(0)
    built = config.build(shape=(channels, 8, 8), classes=classes).to(dtype).eval()
    with torch.no_grad():
        for p in built.parameters():
            p.normal_(0, 0.15)
    return built


def inputs(height=8, width=8, batch=3, channels=2):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(batch, channels, height, width, generator=g, dtype=torch.float64)
    return x, torch.rand(batch, generator=g), torch.randint(0, CLASSES + 1, (batch,), generator=g)


def written_out(w, config, x, t, labels):
    """The network as formulas over its weights by name."""

    def conv(name, h, **settings):
        return conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **settings)

    def norm(name, h):
        return group_norm(h, config.groups, w[f"{name}.weight"], w[f"{name}.bias"])

    def residual(name, h, told):
        film = linear(told, w[f"{name}.told.weight"], w[f"{name}.told.bias"])[:, :, None, None]
        out = norm(f"{name}.norm2", conv(f"{name}.conv1", silu(norm(f"{name}.norm1", h)), padding=1))
        c = out.shape[1]
        out = conv(f"{name}.conv2", silu(out * (1 + film[:, :c]) + film[:, c:]), padding=1)
        return out + (conv(f"{name}.skip", h) if f"{name}.skip.weight" in w else h)

    def attention(name, h):
        b, c, height, width = h.shape
        d = c // config.heads
        q, k, v = conv(f"{name}.qkv", norm(f"{name}.norm", h)).reshape(b, 3, config.heads, d, -1).unbind(1)
        scores = torch.einsum("bhdi,bhdj->bhij", q, k) / d**0.5
        seen = torch.einsum("bhij,bhdj->bhdi", scores.softmax(-1), v).reshape(b, c, height, width)
        return h + conv(f"{name}.out", seen)

    half = config.time_dim // 2
    frequencies = torch.exp(-torch.log(torch.tensor(1e4)) * torch.arange(half) / (half - 1))
    phase = t[:, None] * config.time_scale * frequencies
    time = torch.cat([phase.sin(), phase.cos()], 1).double()
    time = silu(linear(time, w["time_layers.0.weight"], w["time_layers.0.bias"]))
    told = silu(linear(time, w["time_layers.2.weight"], w["time_layers.2.bias"]) + w["label.weight"][labels])
    levels, (height, width) = len(config.widths), x.shape[-2:]
    multiple = 2 ** (levels - 1)
    h = conv("enter", pad(x, (0, -width % multiple, 0, -height % multiple)), padding=1)
    skips = []
    for n in range(levels):
        if n:
            h = conv(f"shrink.{n - 1}", h, stride=2, padding=1)
        for k in range(config.blocks):
            h = residual(f"down.{n}.{k}", h, told)
            skips.append(h)
    h = residual("middle.1", attention("attention", residual("middle.0", h, told)), told)
    for n in range(levels):
        if n:
            h = conv(f"grow.{n - 1}", h.repeat_interleave(2, 2).repeat_interleave(2, 3), padding=1)
        for k in range(config.blocks):
            h = residual(f"up.{n}.{k}", torch.cat([h, skips.pop()], 1), told)
    return conv("leave.2", silu(norm("leave.0", h)), padding=1)[..., :height, :width]


@pytest.mark.parametrize("config", [CONFIG, UNet2dConfig(widths=(8,), heads=1, groups=2, time_dim=4)])
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 33), (6, 4)])
def test_the_network_is_the_formula_written_out(config, size):
    built, given = build(config), inputs(*size)
    close(built(*given), written_out(dict(built.named_parameters()), config, *given), atol=1e-6)


@pytest.mark.parametrize("size", range(5, 34))
def test_an_image_of_any_size_is_the_padded_image_cropped(size):
    height, width = size, 38 - size
    built, (x, t, labels) = build(), inputs(height, width)
    full = pad(x, (0, -width % 4, 0, -height % 4))
    y = built(x, t, labels)
    assert y.shape == x.shape
    close(y, built(full, t, labels)[..., :height, :width])


def test_one_time_for_the_batch_is_that_time_for_each():
    built, (x, _, labels) = build(), inputs()
    t = torch.tensor(0.3)
    close(built(x, t, labels), built(x, t.expand(3), labels))


def test_the_attention_does_not_care_where_pixels_are():
    attention, g = build().attention, torch.Generator().manual_seed(2)
    x = torch.randn(2, 24, 3, 5, generator=g, dtype=torch.float64)
    order = torch.randperm(15, generator=g)
    shuffled = x.flatten(2)[..., order].unflatten(2, (3, 5))
    close(attention(shuffled).flatten(2), attention(x).flatten(2)[..., order])


def test_a_new_network_predicts_zero_and_its_blocks_do_nothing():
    built, (x, t, labels) = CONFIG.build(shape=(2, 8, 8), classes=CLASSES).double(), inputs()
    assert torch.equal(built(x, t, labels), torch.zeros_like(x))
    maps, told = torch.randn(3, 24, 4, 4, dtype=torch.float64), torch.randn(3, 32, dtype=torch.float64)
    assert torch.equal(built.middle[0](maps, told), maps)
    assert torch.equal(built.attention(maps), maps)


@pytest.mark.parametrize("asked", range(CLASSES + 1))
def test_each_class_and_the_null_has_a_learned_row_of_its_own(asked):
    built, (x, t, _) = build(), inputs()
    built(x, t, torch.full((3,), asked)).square().sum().backward()
    used = built.label.weight.grad.abs().sum(1) > 0
    assert used.tolist() == [row == asked for row in range(CLASSES + 1)]


def test_every_parameter_learns():
    built = build()
    x, t, _ = inputs(batch=4)
    built(x, t, torch.arange(4)).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in built.parameters())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [0, 10])
def test_the_number_of_parameters(channels, classes):
    def affine(i, o, taps=1):
        return (i * taps + 1) * o

    def block(i, o):
        return 2 * i + affine(i, o, 9) + affine(told, 2 * o) + 2 * o + affine(o, o, 9) + (i != o) * affine(i, o)

    d, told, (a, b, c) = 8, 32, CONFIG.widths
    down = block(a, a) + block(a, a) + block(a, b) + block(b, b) + block(b, c) + block(c, c)
    up = sum(2 * block(2 * w, w) for w in CONFIG.widths)
    middle = 2 * block(c, c) + 2 * c + affine(c, 3 * c) + affine(c, c)
    scales = affine(a, a, 9) + affine(b, b, 9) + affine(c, b, 9) + affine(b, a, 9)
    ends = affine(channels, a, 9) + 2 * a + affine(a, channels, 9)
    tellers = affine(d, told) + affine(told, told) + (classes > 0) * (classes + 1) * told
    built = CONFIG.build(shape=(channels, 8, 8), classes=classes)
    assert sum(p.numel() for p in built.parameters()) == down + up + middle + scales + ends + tellers


@pytest.mark.parametrize(
    "bad",
    [
        {"widths": ()},
        {"widths": (12, 20)},
        {"heads": 5},
        {"blocks": 0},
        {"dropout": 1.0},
        {"time_dim": 3},
        {"groups": 0},
    ],
)
def test_sizes_that_build_nothing_are_refused(bad):
    with pytest.raises(ConfigError, match="expected"):
        UNet2dConfig(**bad)


def test_data_that_are_no_images_are_refused():
    with pytest.raises(ConfigError, match="expected images"):
        CONFIG.build(shape=(2,))
    x, t, labels = inputs(channels=3)
    with pytest.raises(ShapeError, match="expected images with 2 channels"):
        build()(x, t, labels)
