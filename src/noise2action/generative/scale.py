"""The scale of data: a mean and one standard deviation, kept with a model's weights."""

import torch
from torch import nn

from ..errors import DataError
from ..shapes import Noisy


class Scale(nn.Module):
    """Mean of each coordinate (or channel) and one standard deviation of all, as buffers.

    One factor for all keeps the shape of the distribution, so that distances mean the same in both units.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(shape[0], *[1] * (len(shape) - 1)))
        self.std = nn.Buffer(torch.ones(()))

    @torch.no_grad()
    def fit(self, x: Noisy) -> None:
        """Store the scale of `x` [n, *shape]; `DataError` where it does not vary."""
        mean = x.mean([axis for axis in range(x.ndim) if axis != 1], keepdim=True)[0]
        std = (x - mean).square().mean().sqrt()
        if not bool(std.isfinite()) or not float(std) > 0:
            raise DataError(f"expected data that varies, got a standard deviation of {float(std):g}")
        self.mean.copy_(mean)
        self.std.copy_(std)

    def normalised(self, x: Noisy) -> Noisy:
        """Return `x` (raw units) with mean 0 and standard deviation 1."""
        return (x - self.mean) / self.std

    def raw(self, y: Noisy) -> Noisy:
        """Return `y` (normalised) in the units of the data."""
        return y * self.std + self.mean
