"""Windows: which time steps a training sample is made of. Pure index arithmetic, no data."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, DataError
from ..shapes import Chunk, Valid
from .episodes import checked_ends

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Windows:
    """One window for every anchor, the time step of its newest observation.

    Observations are the steps `anchor - obs_steps + 1 .. anchor`, actions the steps `anchor + first_action ..` of
    length `horizon`. Steps outside the anchor's episode are replaced by its first or last step, so no window crosses
    an episode boundary; `valid` tells the real actions from the repeated ones.
    """

    ends: Index
    """Exclusive episode ends [N]."""
    obs_steps: int
    """O, observations in a window."""
    horizon: int
    """H, actions in a window."""
    first_action: int = 0
    """Step of the first action relative to the anchor; `1 - obs_steps` is the original diffusion-policy rule."""
    pad_after: int | None = None
    """How many actions may lie beyond the episode's end; None makes every time step an anchor. The original
    diffusion-policy code uses `executed actions - 1`."""

    def __post_init__(self) -> None:
        """Reject numbers that leave an anchor without its own action."""
        object.__setattr__(self, "ends", checked_ends(self.ends))
        if self.obs_steps < 1 or self.horizon < 1:
            raise ConfigError(f"expected obs_steps and horizon >= 1, got {self.obs_steps} and {self.horizon}")
        if not 1 - self.obs_steps <= self.first_action <= 0:
            raise ConfigError(
                f"expected first_action from {1 - self.obs_steps} (1 - obs_steps) to 0, got {self.first_action}"
            )
        if self.horizon + self.first_action < 1:
            raise ConfigError(
                f"expected horizon > {-self.first_action} (so that a window holds the action at its newest "
                f"observation), got {self.horizon}"
            )
        if self.pad_after is not None and self.pad_after < 0:
            raise ConfigError(f"expected pad_after >= 0 or None, got {self.pad_after}")
        if not len(self):
            raise DataError(
                f"expected at least one window, got none: the longest episode is shorter than horizon - pad_after = "
                f"{self.horizon - (self.pad_after or 0)} steps"
            )

    def __len__(self) -> int:
        """Return W, the number of windows."""
        return len(self.anchors)

    @cached_property
    def anchors(self) -> Index:
        """Time step of each window's newest observation, [W]."""
        steps = np.arange(self.ends[-1], dtype=np.int64)
        if self.pad_after is None:
            return steps
        _, last = self._bounds(steps)
        return steps[steps + self.first_action + self.horizon - 1 <= last + self.pad_after]

    @cached_property
    def observations(self) -> Index:
        """Time steps of the observations, oldest first, [W, O]."""
        first, last = self._bounds(self.anchors)
        steps = self.anchors[:, None] + np.arange(1 - self.obs_steps, 1)
        return np.clip(steps, first[:, None], last[:, None])

    @cached_property
    def actions(self) -> Index:
        """Time steps of the actions, [W, H]."""
        first, last = self._bounds(self.anchors)
        return np.clip(self._unclipped_actions, first[:, None], last[:, None])

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """True where an action lies inside the episode, [W, H]."""
        return self.actions == self._unclipped_actions

    @property
    def _unclipped_actions(self) -> Index:
        return self.anchors[:, None] + self.first_action + np.arange(self.horizon)

    def _bounds(self, steps: Index) -> tuple[Index, Index]:
        episode = np.searchsorted(self.ends, steps, side="right")
        starts = np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])
        return starts[episode], self.ends[episode] - 1


@dataclass(frozen=True, eq=False)
class Batch:
    """Training samples in normalised units.

    `observations` [B, O, ...] by name, `actions` [B, H, A], `valid` [B, H] True where an action is real.
    """

    observations: Mapping[str, Tensor]
    actions: Chunk
    valid: Valid

    def __len__(self) -> int:
        """Return B, the number of samples."""
        return len(self.actions)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the same batch on `device`."""
        return Batch(
            {name: x.to(device) for name, x in self.observations.items()},
            self.actions.to(device),
            self.valid.to(device),
        )
