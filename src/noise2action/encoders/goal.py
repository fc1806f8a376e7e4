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


def check_range(feature: Feature, x: Tensor) -> None:
    """Raise `SchemaError` unless all of `x`, in the feature's own unit, is finite and inside its declared range."""
    # In the precision of `x`: a bound of 0.7 is met by 0.7 in float32.
    precision = torch.result_type(x, 0.0)
    low, high = (torch.as_tensor(end, dtype=precision, device=x.device) for end in feature.bounds)
    # Written so that NaN fails.
    wrong = (~((x >= low) & (x <= high) & x.isfinite())).reshape(-1, feature.size).nonzero()
    if len(wrong):
        row, k = wrong[0].tolist()
        least, most, got = (float(y.flatten()[k]) for y in (low, high, x.reshape(-1, feature.size)[row]))
        raise SchemaError(
            f"goal {feature.name!r}: expected values in {least:g}..{most:g} {feature.unit}".rstrip()
            + f", got {got:g} (element {k}): give a goal inside its range"
        )
