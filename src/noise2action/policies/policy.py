"""What every policy is: its step conventions, and the two things that it can do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..data.actions import Absolute, AnyActionSpace
from ..data.windows import Batch
from ..diffusion.objective import Losses
from ..diffusion.tableau import OnStep
from ..errors import ConfigError, SchemaError, ShapeError
from ..schema import Schema
from ..seeds import Generators
from ..shapes import Chunk
from ..timing import Stopwatch

FASTEST = 10_000
"""Highest control rate, Hz."""


@dataclass(frozen=True)
class PolicySpec:
    """Step conventions of a policy, stated here and nowhere else."""

    obs_steps: int = 2
    """Observed steps that a plan is made from."""
    horizon: int = 16
    """Actions in a chunk."""
    stride: int = 8
    """Actions executed before the next plan (receding horizon)."""
    first_action: int = 0
    """Tick of a chunk's first action, counted from the newest observation; 1 - obs_steps is the original convention."""
    control_hz: float = 10.0
    """Control rate in Hz."""
    action_space: AnyActionSpace = field(default_factory=Absolute)
    """What is learnt about an action: itself, its change, or where it is relative to the chunk's start."""

    def __post_init__(self) -> None:
        """Reject conventions that leave nothing to execute."""
        if not (1 <= self.obs_steps <= 1024 and 1 <= self.horizon <= 4096 and 0 < self.control_hz <= FASTEST):
            raise ConfigError(
                f"expected obs_steps in [1, 1024], horizon in [1, 4096] and control_hz in (0, {FASTEST}], got "
                f"{self.obs_steps}, {self.horizon} and {self.control_hz:g}"
            )
        if not 1 - self.obs_steps <= self.first_action <= 0:
            raise ConfigError(f"expected first_action in [{1 - self.obs_steps}, 0], got {self.first_action}")
        if not 1 <= self.stride <= self.horizon + self.first_action:
            raise ConfigError(
                f"expected a stride in [1, {self.horizon + self.first_action}] (horizon {self.horizon}, "
                f"first_action {self.first_action}), got {self.stride}"
            )

    @property
    def dt(self) -> float:
        """Control period in seconds."""
        return 1 / self.control_hz

    def learnt(self, actions: Tensor, history: Mapping[str, Tensor]) -> Tensor:
        """Return the first actions of a chunk [B, K, A], in robot units, in the action space."""
        space = self.action_space
        return actions if isinstance(space, Absolute) else space.encode(actions, self._start(space.reference, history))

    def commanded(self, actions: Tensor, history: Mapping[str, Tensor]) -> Tensor:
        """Return a chunk's actions [B, K, A], in the action space, in robot units: the inverse of `learnt`."""
        space = self.action_space
        return actions if isinstance(space, Absolute) else space.decode(actions, self._start(space.reference, history))

    def check_committed(self, committed: Tensor, *, dim: int) -> None:
        """Raise `ShapeError` unless `committed` is [B, K, A] with K at most the horizon, of `dim` = A numbers."""
        if committed.ndim != 3 or committed.shape[1] > self.horizon or committed.shape[2] != dim:
            raise ShapeError(f"committed: expected [B, K <= {self.horizon}, {dim}], got {tuple(committed.shape)}")

    def keeping(self, committed: Tensor | None, actions: Chunk) -> Chunk:
        """Return planned `actions` with the committed ones at their start."""
        return actions if committed is None else torch.cat([committed, actions[:, committed.shape[1] :]], dim=1)

    def _start(self, reference: str, history: Mapping[str, Tensor]) -> Tensor:
        """Return the state [B, A] at the chunk's first action, robot units."""
        if reference not in history:
            raise SchemaError(f"expected an observation {reference!r} that actions refer to, got {sorted(history)}")
        return history[reference][:, self.obs_steps - 1 + self.first_action]


@runtime_checkable
class Policy(Protocol):
    """A stateless policy: the same inputs and generator give the same outputs. Queues and clocks live in executors."""

    spec: PolicySpec
    schema: Schema

    def loss(self, batch: Batch, *, generator: torch.Generator) -> Losses:
        """Return the training loss a sample of a normalised batch."""
        ...

    def plan(
        self,
        history: Mapping[str, Tensor],
        committed: Tensor | None = None,
        *,
        generator: Generators | None = None,
        watch: Stopwatch | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return a chunk [B, H, A] in robot units.

        `history` holds each observation [B, O, ...] in robot units, oldest first. `committed` [B, K, A], K <= H, are
        actions at the chunk's start that will be executed whatever is planned. `watch` times the stages.
        """
        ...
