import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from noise2action.encoders.image import GREY, Camera, CropRatio, CropSize, centre_crop, jittered, random_crop
from noise2action.errors import ConfigError, SchemaError, ShapeError
from noise2action.schema import Feature
from noise2action.seeds import generator

close = torch.testing.assert_close
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)


def camera(shape=(8, 6, 3), crop=None):
    return Camera(Feature("top", shape, kind="image", dtype="uint8"), crop=crop, mean=MEAN, std=STD)


def images(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(0, "images"))


def test_bytes_become_colours_less_the_mean_by_the_deviation():
    x = images(2, 3, 8, 6, 3)
    want = (x.double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    close(camera()(x, torch.float32), want.float().flatten(0, 1).permute(0, 3, 1, 2))


def test_every_layout_and_dtype_gives_the_same_input():
    x = images(2, 3, 8, 6, 3)
    whole = camera()(x, torch.float32)
    first = camera((3, 8, 6))
    close(camera()(x / 255, torch.float32), whole)
    assert torch.equal(first(x.movedim(4, 2), torch.float32), whole)
    close(first(x.movedim(4, 2) / 255, torch.float32), whole)
    close(camera()(x, torch.bfloat16).float(), whole, rtol=0, atol=0.03)


@pytest.mark.parametrize("crop", [CropSize(5, 4), CropRatio(0.7), CropRatio(1.0), None])
def test_without_a_generator_the_crop_is_the_centre(crop):
    x, cam = images(2, 1, 8, 6, 3), camera(crop=crop)
    h, w = cam.size
    top, left = round((8 - h) / 2), round((6 - w) / 2)
    middle = x[:, :, top : top + h, left : left + w]
    assert torch.equal(centre_crop(x, (h, w)), middle)
    want = Camera(Feature("top", (h, w, 3), kind="image"), crop=None, mean=MEAN, std=STD)
    assert torch.equal(cam(x, torch.float32), want(middle, torch.float32))


def test_a_ratio_rounds_to_whole_pixels():
    assert CropRatio(0.875).of((96, 100)) == (84, 88)
    assert CropRatio(0.01).of((8, 8)) == (1, 1)


@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 10_000))
def test_a_random_crop_is_a_window_of_every_sample_at_one_place_of_its_history(height, width, seed):
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(7), indexing="ij")
    place = torch.stack([rows, columns, rows * 0], dim=-1).to(torch.uint8).expand(4, 2, 9, 7, 3)
    found = random_crop(place, (height, width), generator=torch.Generator().manual_seed(seed)).long()
    corner = found[:, :, :1, :1]
    window = torch.stack([*torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")], dim=-1)
    assert torch.equal(found[..., :2], corner[..., :2] + window)
    assert torch.equal(found[:, 0], found[:, 1])


def test_every_place_of_a_crop_is_equally_likely_and_the_seed_decides():
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(3), indexing="ij")
    place = (rows * 3 + columns).to(torch.uint8)[None, None, :, :, None].expand(6000, 1, 4, 3, 3)
    found, again = (random_crop(place, (2, 2), generator=generator(0, "crop"))[:, 0, 0, 0, 0] for _ in range(2))
    assert torch.equal(found, again)
    counts = torch.bincount(found.long(), minlength=12)[[0, 1, 3, 4, 6, 7]]
    assert counts.sum() == 6000
    assert (counts - 1000).abs().max() < 5 * (6000 * (1 / 6) * (5 / 6)) ** 0.5


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            torch.zeros(1, 2, 8, 7, 3, dtype=torch.uint8),
            ShapeError,
            r"'top': expected \[B, 2, 8, 6, 3\], got \(1, 2, 8, 7",
        ),
        (torch.zeros(1, 2, 3, 8, 6, dtype=torch.uint8), ShapeError, "channels are on the other end"),
        (torch.zeros(1, 1, 8, 6, 3, dtype=torch.uint8), ShapeError, r"got \(1, 1, 8, 6, 3\)"),
        (torch.zeros(2, 8, 6, 3, dtype=torch.uint8), ShapeError, "expected"),
        (torch.zeros(1, 2, 8, 6, 3, dtype=torch.int64), SchemaError, r"expected uint8.*got torch.int64"),
        (torch.full((1, 2, 8, 6, 3), 255.0), SchemaError, r"in 0\.\.1, got 255\.\.255: give 0\.\.255 as uint8"),
        (torch.full((1, 2, 8, 6, 3), -0.1), SchemaError, r"in 0\.\.1, got -0\.1"),
        (torch.full((1, 2, 8, 6, 3), float("nan")), SchemaError, r"in 0\.\.1, got nan"),
    ],
)
def test_other_images_are_refused_by_name(x, error, message):
    with pytest.raises(error, match=message):
        camera().check(x, steps=2)


def test_swapped_channels_are_named_for_channels_first_as_well():
    with pytest.raises(ShapeError, match="channels are on the other end"):
        camera((3, 8, 6)).check(torch.zeros(1, 1, 8, 6, 3, dtype=torch.uint8), steps=1)


def test_a_crop_beyond_the_image_names_the_camera():
    with pytest.raises(ConfigError, match="camera 'top': expected a crop inside 8 x 6, got 9 x 6"):
        camera(crop=CropSize(9, 6))


@pytest.mark.parametrize("crop", [lambda: CropSize(0, 4), lambda: CropRatio(0.0), lambda: CropRatio(1.1)])
def test_impossible_crops_are_refused(crop):
    with pytest.raises(ConfigError, match="expected a crop"):
        crop()


def test_jitter_changes_colours_within_its_strength_and_nothing_else():
    x = images(200, 2, 8, 6, 3).float() / 255 * 0.5 + 0.2
    seen = jittered(x, 0.1, generator=generator(0, "jitter"))
    again = jittered(x, 0.1, generator=generator(0, "jitter"))
    assert torch.equal(seen, again)
    assert torch.equal(jittered(x, 0.0, generator=generator(0, "jitter")).round(decimals=5), x.round(decimals=5))
    grey = torch.tensor(GREY)
    # The mean brightness moves by brightness alone, which is drawn a sample, the same for its history.
    factor = (seen @ grey).mean((1, 2, 3)) / (x @ grey).mean((1, 2, 3))
    assert 0.9 <= float(factor.min()) < 0.92
    assert 1.08 < float(factor.max()) <= 1.1
    # Saturation leaves grey as it is, contrast what has no contrast.
    flat = torch.full((3, 2, 4, 4, 3), 0.5)
    seen = jittered(flat, 0.1, generator=generator(1, "jitter"))
    close(seen, seen[:, :1, :1, :1, :1].expand_as(seen))
    assert float(jittered(torch.ones(20, 1, 4, 4, 3), 0.9, generator=generator(2, "jitter")).max()) <= 1


def test_jitter_is_for_training_only():
    x = images(3, 2, 8, 6, 3)
    plain = camera()
    other = Camera(plain.feature, crop=None, mean=MEAN, std=STD, jitter=0.3)
    assert torch.equal(other(x, torch.float32), plain(x, torch.float32))
    assert not torch.equal(other(x, torch.float32, generator(0, "jitter")), plain(x, torch.float32))
