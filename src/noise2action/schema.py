"""Named features: what an observation or an action is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .errors import SchemaError

Kind = Literal["vector", "angle"]


@dataclass(frozen=True)
class Feature:
    """One named array of an observation or an action.

    `kind` says how it is encoded: an `angle` (rad) becomes its cosine and sine, a `vector` is normalised.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind = "vector"
    dtype: str = "float32"
    unit: str = ""
    low: float | None = None
    """Smallest legal value of every element, where one is known."""
    high: float | None = None
    """Largest legal value of every element, where one is known."""

    def __post_init__(self) -> None:
        """Reject empty shapes and reversed ranges."""
        if any(size < 1 for size in self.shape):
            raise SchemaError(f"feature {self.name!r}: expected a shape of positive sizes, got {self.shape}")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise SchemaError(f"feature {self.name!r}: expected low < high, got {self.low} and {self.high}")

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size


@dataclass(frozen=True)
class Schema:
    """The features of a task or data set: observations by name, and one action vector [A]."""

    observations: tuple[Feature, ...]
    action: Feature

    def __post_init__(self) -> None:
        """Reject duplicate names and actions that are not vectors."""
        names = [f.name for f in self.observations]
        if len(set(names)) != len(names) or self.action.name in names:
            raise SchemaError(f"expected distinct feature names, got {[*names, self.action.name]}")
        if len(self.action.shape) != 1:
            raise SchemaError(f"expected an action of shape (A,), got {self.action.shape}")

    @property
    def action_dim(self) -> int:
        """A, the number of action elements."""
        return self.action.shape[0]

    @property
    def features(self) -> dict[str, Feature]:
        """Every feature by name, the action last."""
        return {f.name: f for f in (*self.observations, self.action)}

    def check(self, shapes: Mapping[str, Any], *, where: str) -> None:
        """Raise `SchemaError` unless `shapes` (name -> per-step shape) holds every feature with its shape."""
        for name, feature in self.features.items():
            if name not in shapes:
                raise SchemaError(f"{where}: expected a feature {name!r} {feature.shape}, got only {sorted(shapes)}")
            if tuple(shapes[name]) != feature.shape:
                raise SchemaError(
                    f"{where}: expected {name!r} of shape {feature.shape}, got {tuple(shapes[name])}: "
                    "use a recipe that matches this data set"
                )
