"""Sizes of encoders have bounds, and a legal observation can be made of every feature."""

import pytest
import torch
from observed import ALL, built, seen

from noise2action.encoders.fuse import EncoderConfig
from noise2action.encoders.pooling import SpatialSoftmaxConfig
from noise2action.encoders.resnet import ResNetConfig
from noise2action.encoders.text import HashedNGramsConfig, SentenceModelConfig
from noise2action.encoders.vit import ViTConfig
from noise2action.errors import ConfigError, SchemaError, ShapeError
from noise2action.schema import Feature

HUGE = 65_537
UNSAID = Feature("unsaid", (1,), kind="text", dtype="int64")
NEAR = Feature("near", (3,), low=0.7, high=1.0, goal=True)
FAR = Feature("far", (1,), high=-3.0, goal=True)
FLOATS = Feature("floats", (3, 16, 12), kind="image", dtype="float32")


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (EncoderConfig, {"text_dim": HUGE}),
        (EncoderConfig, {"token_dim": HUGE}),
        (EncoderConfig, {"proprioception": (8, HUGE)}),
        (ViTConfig, {"width": 4 * HUGE}),
        (ViTConfig, {"width": HUGE, "heads": HUGE}),
        (ViTConfig, {"depth": 1025}),
        (ViTConfig, {"patch": HUGE}),
        (ViTConfig, {"dim": HUGE}),
        (ResNetConfig, {"dim": HUGE}),
        (ResNetConfig, {"widths": (32, 64, 16 * HUGE)}),
        (ResNetConfig, {"blocks": (1, 1, 1025)}),
        (ResNetConfig, {"strides": (1, 2, HUGE)}),
        (SpatialSoftmaxConfig, {"keypoints": HUGE}),
        (HashedNGramsConfig, {"width": HUGE}),
        (HashedNGramsConfig, {"words": 1025}),
        (HashedNGramsConfig, {"letters": (3, 1025)}),
        (SentenceModelConfig, {"width": HUGE}),
    ],
)
def test_absurd_sizes_are_told_before_anything_is_allocated(config, sizes):
    with pytest.raises(ConfigError, match=r"expected .*(65536|1024)"):
        config(**sizes)


def test_the_example_is_a_legal_observation_of_every_feature():
    features = (*ALL, UNSAID, NEAR, FAR, FLOATS)
    encoder = built(features)
    example = encoder.example()
    assert list(example) == [f.name for f in features]
    encoder.check(example)
    assert torch.equal(example["near"], torch.full((1, 2, 3), 0.7))
    assert torch.equal(example["far"], torch.full((1, 2, 1), -3.0))
    assert not example["aim"].any()
    assert encoder(example).vector.shape == (1, encoder.dim)


def test_a_goal_at_its_bound_is_inside_in_every_precision():
    encoder = built((NEAR,))
    for dtype in (torch.float16, torch.float32, torch.float64):
        encoder.check({"near": torch.full((1, 2, 3), 0.7, dtype=dtype)})
    for wrong in (0.69, 1.01, torch.nan, torch.inf):
        with pytest.raises(SchemaError, match=r"expected values in 0\.7\.\.1"):
            encoder.check({"near": torch.full((1, 2, 3), wrong)})


def test_observations_of_several_batch_sizes_are_told():
    x = seen()
    with pytest.raises(ShapeError, match=r"one batch size, got \{.*'left': 3.*'said': 1"):
        built().check({**x, "said": x["said"][:1]})


def test_an_array_instead_of_a_tensor_is_told():
    x = seen()
    # The tests' type checks look at the first value of a mapping only; users have none.
    with pytest.raises(SchemaError, match=r"'said': expected a tensor \[B, 2, ...\], got ndarray: use torch.as_tensor"):
        built().check({**x, "said": x["said"].numpy()})


def test_cells_need_a_width():
    with pytest.raises(ConfigError, match="expected token_dim with image_tokens=cells, got null"):
        EncoderConfig(image_tokens="cells")
