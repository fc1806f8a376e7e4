"""Description: what a data set holds, from its metadata alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stored:
    """One array as stored: shape of one time step and dtype."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class Description:
    """What a data set holds. `ends` [N] are the episode ends, `notes` say what `read` leaves out and why."""

    path: Path
    format: str
    features: Mapping[str, Stored]
    ends: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    @property
    def episodes(self) -> int:
        """N, the number of episodes."""
        return len(self.ends)

    @property
    def steps(self) -> int:
        """T, the number of time steps."""
        return int(self.ends[-1])

    @property
    def megabytes(self) -> float:
        """Size of all arrays once decoded, in 10^6 bytes."""
        steps = sum(int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize for f in self.features.values())
        return self.steps * steps / 1e6
