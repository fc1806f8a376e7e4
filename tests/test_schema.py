import json
import math

import pytest

from noise2action.config import decode, encode
from noise2action.errors import SchemaError
from noise2action.schema import Feature, Schema


@pytest.mark.parametrize(
    ("shape", "first", "size"),
    [((96, 80, 3), False, (96, 80)), ((3, 96, 80), True, (96, 80)), ((3, 5, 3), False, (3, 5))],
)
def test_an_image_says_where_its_channels_are(shape, first, size):
    image = Feature("top", shape, kind="image", dtype="uint8")
    assert (image.channels_first, image.image_size, image.is_state) == (first, size, False)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (lambda: Feature("top", (96, 96), kind="image"), r"'top': expected an image .*, got \(96, 96\)"),
        (lambda: Feature("top", (96, 96, 4), kind="image"), "expected an image"),
        (lambda: Feature("said", (8,), kind="text"), r"'said': expected a text of shape \(1,\)"),
        (lambda: Feature("said", (1,), kind="text", sentences=("go", "go")), "distinct sentences"),
        (lambda: Feature("p", (1,), sentences=("go",)), "sentences of a text"),
        (lambda: Feature("p", (2,), low=(0.0, 0.0, 0.0)), r"'p': expected one end .*, or 2, .*, got \(0.0, 0.0, 0.0\)"),
        (lambda: Feature("p", (2,), low=0.0, high=(1.0, 0.0)), r"low < high, got 0.0 and \(1.0, 0.0\)"),
        (lambda: Feature("p", (2,), low=float("nan"), high=1.0), "low < high, got nan"),
    ],
)
def test_images_and_texts_of_another_form_are_refused(feature, message):
    with pytest.raises(SchemaError, match=message):
        feature()


def test_vectors_and_angles_are_states():
    assert Feature("p", (2,)).is_state
    assert Feature("a", (1,), kind="angle").is_state
    assert not Feature("said", (1,), kind="text").is_state


def test_a_range_is_one_for_all_elements_or_each_has_its_own():
    feature = Feature("pose", (2, 2), low=(-1.0, 0.0, 1.0, 2.0), high=9.0)
    assert [end.tolist() for end in feature.bounds] == [[[-1, 0], [1, 2]], [[9, 9], [9, 9]]]
    assert [end.tolist() for end in Feature("p", (1,)).bounds] == [[-math.inf], [math.inf]]


def test_it_survives_json_and_one_written_before_there_were_images_reads_the_same():
    schema = Schema(
        (
            Feature("top", (3, 8, 8), kind="image", dtype="uint8"),
            Feature("goal", (2,), low=(-1.0, 0.0), high=0.5, goal=True),
            Feature("said", (1,), kind="text", dtype="int64", sentences=("go left", "go right")),
        ),
        Feature("action", (2,)),
    )
    assert decode(Schema, json.loads(json.dumps(encode(schema)))) == schema
    old = {"name": "p", "shape": [2], "kind": "vector", "dtype": "float32", "unit": "m", "low": None, "high": None}
    assert decode(Feature, old) == Feature("p", (2,), unit="m")
    assert decode(Feature, {**old, "low": -1, "high": 2.0}) == Feature("p", (2,), unit="m", low=-1.0, high=2.0)
