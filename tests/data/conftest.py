import numpy as np
import pytest

from noise2action.data.episodes import Episodes


@pytest.fixture
def episodes():
    """Return three episodes of 5, 1 and 7 steps with arrays of several ranks and dtypes."""
    rng = np.random.default_rng(0)
    arrays = {
        "action": rng.normal(size=(13, 2)).astype(np.float32),
        "state": rng.normal(size=(13, 5)),
        "image.top": rng.integers(0, 255, size=(13, 4, 4, 3)).astype(np.uint8),
        "flag": rng.integers(0, 2, size=13).astype(bool),
        "zeros": np.zeros((13, 2), np.int16),
    }
    return Episodes(arrays, np.array([5, 6, 13]))
