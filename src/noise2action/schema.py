"""Named features: what an observation or an action is made of."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import SchemaError

Kind = Literal["vector", "angle", "image", "text"]
UNKNOWN = -1
"""Position of a sentence that a text feature does not have."""


def words(sentence: str) -> list[str]:
    """Return the words of a sentence, however it is capitalised, spaced and punctuated."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", sentence).casefold())


@dataclass(frozen=True)
class Feature:
    """One named array of an observation or an action.

    `kind` says how it is encoded: an `angle` (rad) becomes its cosine and sine, a `vector` is normalised. An `image` is
    (height, width, 3) or (3, height, width), uint8 in 0..255 or floating in 0..1. A `text` is the position of a
    sentence in `sentences`, an integer of shape (1,).
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind = "vector"
    dtype: str = "float32"
    unit: str = ""
    low: float | tuple[float, ...] | None = None
    """Smallest legal value of every element, or of each one by one, where it is known."""
    high: float | tuple[float, ...] | None = None
    """Largest legal value of every element, or of each one by one, where it is known."""
    goal: bool = False
    """Whether it says what to reach: of a history, only the newest step counts."""
    sentences: tuple[str, ...] = ()
    """What a `text` may say, by position; others may be said at run time."""

    def __post_init__(self) -> None:
        """Reject empty shapes, reversed ranges, and images and texts of another form."""
        if any(size < 1 for size in self.shape):
            raise SchemaError(f"feature {self.name!r}: expected a shape of positive sizes, got {self.shape}")
        for end in (self.low, self.high):
            if isinstance(end, tuple) and len(end) != self.size:
                raise SchemaError(
                    f"feature {self.name!r}: expected one end of the range, or {self.size}, one an element, got {end}"
                )
        # Written so that NaN fails as well.
        if self.low is not None and self.high is not None and not np.all(np.less(self.low, self.high)):
            raise SchemaError(f"feature {self.name!r}: expected low < high, got {self.low} and {self.high}")
        if self.kind == "image" and (len(self.shape) != 3 or 3 not in (self.shape[0], self.shape[2])):
            raise SchemaError(
                f"feature {self.name!r}: expected an image (height, width, 3) or (3, height, width), got {self.shape}"
            )
        if self.kind == "text" and self.shape != (1,):
            raise SchemaError(
                f"feature {self.name!r}: expected a text of shape (1,), the position of a sentence, got {self.shape}"
            )
        if self.sentences and (self.kind != "text" or len(set(self.sentences)) != len(self.sentences)):
            raise SchemaError(f"feature {self.name!r}: expected distinct sentences of a text, got {self.sentences}")

    @property
    def is_state(self) -> bool:
        """Whether it is an array of numbers that a normaliser maps: neither an image nor a text."""
        return self.kind in ("vector", "angle")

    def position(self, sentence: str) -> int | None:
        """Return the position of a sentence in `sentences`, in whatever case and spacing; None for an unknown one."""
        if sentence in self.sentences:
            return self.sentences.index(sentence)
        return next((k for k, known in enumerate(self.sentences) if words(known) == words(sentence)), None)

    @property
    def channels_first(self) -> bool:
        """Whether an image is (3, height, width)."""
        return self.shape[-1] != 3

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image."""
        return (self.shape[1], self.shape[2]) if self.channels_first else (self.shape[0], self.shape[1])

    def remedy(self, shape: tuple[int, ...]) -> str:
        """Return what makes an image of another `shape` fit, for the end of an error; empty where nothing is known."""
        if self.kind != "image" or len(shape) != 3 or shape == self.shape:
            return ""
        if shape == ((*self.shape[1:], 3) if self.channels_first else (3, *self.shape[:2])):
            return ": its channels are on the other end, permute them"
        height, width = self.image_size
        end = "first" if self.channels_first else "last"
        return f": resize it to {height} x {width} pixels, channels {end}, as in the data of the training"

    @property
    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Smallest and largest legal value of every element, in the feature's shape; infinite where none is known."""
        ends = np.empty((2, self.size))
        ends[0] = -np.inf if self.low is None else self.low
        ends[1] = np.inf if self.high is None else self.high
        low, high = ends.reshape(2, *self.shape)
        return low, high

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

    @property
    def normalised(self) -> tuple[str, ...]:
        """Names of the features that a normaliser maps, the action last; images and texts are encoded as they are."""
        return tuple(name for name, feature in self.features.items() if feature.is_state)

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
