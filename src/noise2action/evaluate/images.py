"""How good generated images are, beside real images that no model was trained on."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .distances import frechet
from .statistics import Estimate, wilson

Pictures = Float[Tensor, "n C H W"]
"""Images in raw units."""


@dataclass(frozen=True)
class ImageQuality:
    """What a `Judge` says of one set of images."""

    frechet: float
    """Frechet distance of its features to those of the training images."""
    accuracy: Estimate
    """Share of the images whose nearest training image has their label, with Wilson's 95 % interval."""
    nearest: float
    """Median distance to the nearest training image; far below that of held-out images, images are copies."""


class Judge:
    """Training images as the measure of others.

    The features are the leading principal components of the training pixels. An FID's network has 2048 features, whose
    covariance a few hundred images do not determine; these few are linear, deterministic and need no training. The
    distance of n samples of the data itself is not 0: compare with as many held-out images. The classifier is the
    nearest training image, which on these digits is as good as a trained one and is no network that a sampler fools.
    """

    def __init__(self, x: Pictures, labels: Int[Tensor, "n"], *, components: int = 20) -> None:
        self._x, self._labels = x.flatten(1).double(), labels
        self._mean = self._x.mean(0)
        self.axes = torch.linalg.svd(self._x - self._mean, full_matrices=False).Vh[:components]
        self._own = self.features(x)

    def features(self, x: Pictures) -> Float[Tensor, "n F"]:
        """Return the coordinates of `x` on the principal axes of the training images."""
        return (x.flatten(1).double() - self._mean) @ self.axes.T

    def __call__(self, x: Pictures, labels: Int[Tensor, "n"]) -> ImageQuality:
        """Return the quality of `x`, meant to be of the classes `labels`."""
        distance, nearest = torch.cdist(x.flatten(1).double(), self._x).min(dim=1)
        right = int((self._labels[nearest] == labels).sum())
        return ImageQuality(frechet(self.features(x), self._own), wilson(right, len(x)), float(distance.median()))
