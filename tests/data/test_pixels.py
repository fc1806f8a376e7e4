import numpy as np
import pytest

from noise2action.data.pixels import pixels
from noise2action.errors import DataError

WHOLE = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 4, 4, 3)


@pytest.mark.parametrize(
    "stored", [WHOLE, WHOLE.astype(np.float32), WHOLE.astype(np.int64), WHOLE / 255, (WHOLE / 255).astype(np.float32)]
)
def test_images_are_the_same_bytes_however_they_are_stored(stored):
    assert pixels("camera", stored).dtype == np.uint8
    np.testing.assert_array_equal(pixels("camera", stored), WHOLE)


@pytest.mark.parametrize("value", [np.nan, -1.0, 256.0, np.inf])
def test_other_numbers_are_refused_by_name(value):
    wrong = WHOLE.astype(np.float32)
    wrong[3, 1, 1, 0] = value
    with pytest.raises(DataError, match=r"'camera': expected images in 0\.\.1 or 0\.\.255"):
        pixels("camera", wrong)


@pytest.mark.parametrize(
    "wrong", [np.empty((0, 4, 4, 3)), np.empty((0, 4, 4, 3), np.uint8), np.array(["a.png"]), WHOLE > 3]
)
def test_what_is_no_picture_is_refused_by_name(wrong):
    with pytest.raises(DataError, match=r"'camera': expected images \[T, .*store the decoded pixels"):
        pixels("camera", wrong)
