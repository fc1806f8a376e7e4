"""Handwritten digits: the small real image set that ships inside scikit-learn."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..errors import ConfigError, MissingExtraError
from ..seeds import derive

CLASSES = 10
LEVELS = 16
"""The brightest grey level; pixels are whole numbers from 0."""


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images in [-1, 1]: -1 is the background, 1 the brightest ink."""

    x: Float[Tensor, "N C H W"]
    labels: Int64[Tensor, "N"]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.x)


def digits(*, held_out: float = 0.2, seed: int = 0) -> tuple[Images, Images]:
    """Return (training, held-out) digits: 1797 images of 8 x 8 pixels with 17 grey levels, scaled to [-1, 1].

    The split depends on `seed` alone; each class gives its share to both parts. Raises `ConfigError` for a fraction
    that leaves a part without one image of every class, `MissingExtraError` without scikit-learn.

    **Source:** E. Alpaydin and C. Kaynak, 1998 (Optical Recognition of Handwritten Digits, UCI), the test part.
    """
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "images") from error
    if not 0.01 <= held_out <= 0.99:
        raise ConfigError(f"expected held_out in [0.01, 0.99] for digits, got {held_out}")
    pixels, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(np.asarray(pixels, dtype=np.float32) / (LEVELS / 2) - 1).reshape(-1, 1, 8, 8)
    chosen = np.zeros(len(labels), dtype=bool)
    random = np.random.default_rng(derive(seed, "digits"))
    for digit in range(CLASSES):
        members = random.permutation(np.flatnonzero(labels == digit))
        chosen[members[: round(held_out * len(members))]] = True
    y, apart = torch.from_numpy(np.asarray(labels, dtype=np.int64)), torch.from_numpy(chosen)
    return Images(x[~apart], y[~apart]), Images(x[apart], y[apart])
