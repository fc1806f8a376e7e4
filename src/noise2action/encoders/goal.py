"""Goals: what to reach, said as numbers (a goal image is a camera that only its newest image counts of)."""

import torch
from torch import Tensor, nn

from ..errors import SchemaError
from ..schema import Feature
from .part import Encoded, Observations, Part
from .state import check_steps, encoded, width


class GoalStatePart(Part):
    """A goal of numbers, such as a position to reach: its newest step, encoded as a state is."""

    once = True

    def __init__(self, feature: Feature, *, obs_steps: int) -> None:
        super().__init__(feature.name, (feature,), obs_steps=obs_steps)
        self.dim = self.cell_dim = width(feature)
        self.cells = 1

    def check(self, observations: Observations) -> None:
        """Raise `ShapeError` for another shape, `SchemaError` for a goal outside its declared range."""
        check_steps(self.features[0], observations[self.name], steps=self.obs_steps)
        check_range(self.features[0], observations[self.name])

    def forward(self, observations: Observations, visions: nn.ModuleList, generator: torch.Generator | None) -> Encoded:
        """Return the newest goal; its range is not checked, for it is normalised."""
        newest = encoded(self.features[0], observations[self.name], steps=self.obs_steps)[:, -1:]
        return Encoded(newest, newest)


def bounds(feature: Feature) -> tuple[float, float]:
    """Return the smallest and the largest legal value; infinite where none is declared."""
    return -torch.inf if feature.low is None else feature.low, torch.inf if feature.high is None else feature.high


def check_range(feature: Feature, x: Tensor) -> None:
    """Raise `SchemaError` unless all of `x`, in the feature's own unit, is finite and inside its declared range."""
    if not x.numel():
        return
    low, high = x.min(), x.max()
    least, most = bounds(feature)
    # Tensors compare in the precision of `x`: a bound of 0.7 is met by 0.7 in float32. Written so that NaN fails.
    if not (low >= least and high <= most and x.isfinite().all()):
        raise SchemaError(
            f"goal {feature.name!r}: expected values in {least:g}..{most:g} {feature.unit}".rstrip()
            + f", got {low:g}..{high:g}"
        )
