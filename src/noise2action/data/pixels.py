"""Stored images to uint8, whatever they are kept as."""

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .episodes import Array

_AT_ONCE = 256


def pixels(name: str, images: Array) -> NDArray[np.uint8]:
    """Return images [T, ...] as uint8 in 0..255; floating ones lie in 0..255, or all of them in 0..1.

    Raises `DataError` for other numbers, NaN included. A few images at a time are converted: all may be large.
    """
    if images.dtype.kind not in "fiu" or not images.size:
        raise DataError(
            f"{name!r}: expected images [T, height, width, 3] of numbers, got {images.dtype} {images.shape}: store the "
            "decoded pixels"
        )
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    # Written so that NaN fails as well.
    if not (low >= 0 and high <= 255):
        raise DataError(f"{name!r}: expected images in 0..1 or 0..255, got {images.dtype} in {low:g}..{high:g}")
    scale = 255 if images.dtype.kind == "f" and high <= 1 else 1
    whole = np.empty(images.shape, np.uint8)
    for i in range(0, len(images), _AT_ONCE):
        whole[i : i + _AT_ONCE] = np.rint(scale * images[i : i + _AT_ONCE])
    return whole
