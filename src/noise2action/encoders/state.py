"""State history to condition: every vector as it is, every angle as cosine and sine."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..condition import Condition
from ..errors import SchemaError, ShapeError
from ..schema import Feature
from .part import Encoded, Observations, Part

STATE = "state"
"""Name of the modality that all state features are."""
Steps = Float[Tensor, "B O D"]
"""One vector an observed step, oldest first."""


class StateEncoder(nn.Module):
    """Concatenates normalised state features over the observed steps; has no weights."""

    def __init__(self, features: tuple[Feature, ...], *, obs_steps: int) -> None:
        super().__init__()
        self.features = features
        self.obs_steps = obs_steps

    @property
    def step_dim(self) -> int:
        """Width of one observed step."""
        return sum(width(f) for f in self.features)

    @property
    def dim(self) -> int:
        """D, the width of the condition vector."""
        return self.obs_steps * self.step_dim

    @property
    def token_dim(self) -> int:
        """E, the width of a token: a step, and which step it is where there are several."""
        return self.step_dim + (self.obs_steps if self.obs_steps > 1 else 0)

    def steps(self, observations: Mapping[str, Tensor]) -> Steps:
        """Return every observed step of `observations`, name -> [B, O, ...]; angles in rad, not normalised."""
        return torch.cat([encoded(f, observations[f.name], steps=self.obs_steps) for f in self.features], dim=2)

    def forward(self, observations: Mapping[str, Tensor]) -> Condition:
        """Return the condition of `observations`; a token a step, whose last numbers say which step it is."""
        steps = self.steps(observations)
        tokens = steps
        if self.obs_steps > 1:
            # Attention does not see the order of tokens.
            place = torch.eye(self.obs_steps, dtype=steps.dtype, device=steps.device)
            tokens = torch.cat([steps, place.expand(len(steps), -1, -1)], dim=2)
        return Condition(vector=steps.flatten(1), tokens=tokens)


class StatePart(Part):
    """All state features together, step by step: as they are, or through an MLP that every step shares."""

    once = False

    def __init__(self, features: tuple[Feature, ...], *, layers: tuple[int, ...], obs_steps: int) -> None:
        super().__init__(STATE, features, obs_steps=obs_steps)
        self.state = StateEncoder(features, obs_steps=obs_steps)
        sizes = self.state.step_dim, *layers
        self.mlp = nn.Sequential(*(m for one, other in pairwise(sizes) for m in (nn.Linear(one, other), nn.SiLU())))
        self.dim = self.cell_dim = sizes[-1]
        self.cells = obs_steps

    def check(self, observations: Observations) -> None:
        """Raise `SchemaError` where some features are there and others are not, `ShapeError` for another shape."""
        for feature in self.features:
            if feature.name not in observations:
                raise SchemaError(f"expected an observation {feature.name!r}, got {sorted(observations)}")
            check_steps(feature, observations[feature.name], steps=self.obs_steps)
            if not bool(observations[feature.name].isfinite().all()):
                raise SchemaError(f"observation {feature.name!r}: expected finite numbers, got NaN or infinity")

    def forward(self, observations: Observations, visions: nn.ModuleList, generator: torch.Generator | None) -> Encoded:
        """Return a vector, which is a cell as well, an observed step."""
        self.check(observations)
        steps = self.state.steps(observations)
        if len(self.mlp):
            steps = self.mlp(steps.to(next(self.mlp.parameters()).dtype))
        return Encoded(steps, steps)


def width(feature: Feature) -> int:
    """Return the numbers that a state feature is encoded as."""
    return feature.size * (2 if feature.kind == "angle" else 1)


def encoded(feature: Feature, x: Tensor, *, steps: int) -> Steps:
    """Return `x` [B, steps, *shape] as [B, steps, D]; an angle becomes its cosines, then its sines."""
    check_steps(feature, x, steps=steps)
    x = x.flatten(2)
    return torch.cat([x.cos(), x.sin()], dim=2) if feature.kind == "angle" else x


def check_steps(feature: Feature, x: Tensor, *, steps: int) -> None:
    """Raise `ShapeError` unless `x` is [B, steps, *shape]."""
    if tuple(x.shape[1:]) != (steps, *feature.shape):
        sizes = ", ".join(map(str, (steps, *feature.shape)))
        raise ShapeError(f"observation {feature.name!r}: expected [B, {sizes}] ({steps} steps), got {tuple(x.shape)}")
