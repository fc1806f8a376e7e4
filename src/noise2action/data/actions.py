"""Action spaces: what a network predicts about an action; and rotations without jumps.

A space converts chunks between robot units and what is learnt, given the state that they refer to. Both directions are
exact inverses of each other (angles up to whole turns).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ConfigError, SchemaError, did_you_mean
from ..schema import Schema
from ..shapes import Chunk
from .episodes import ACTION, Array, Episodes
from .rotations import from_sixd, to_sixd
from .windows import Windows

Reference = Float[Tensor, "B A"]
"""The state at a chunk's first action, element by element that of the action; robot units."""


@dataclass(frozen=True)
class Absolute:
    """Actions as they are."""


@dataclass(frozen=True)
class Relative:
    """Every action relative to the state at the chunk's first action: one origin a chunk, and errors do not add up.

    **Source:** Chi et al. 2024 (UMI), "relative trajectory".
    """

    reference: str
    """State feature that actions refer to, element by element, in the same units and frame."""
    absolute: tuple[int, ...] = ()
    """Action elements that stay as they are, such as a gripper's opening."""
    angles: tuple[int, ...] = ()
    """Action elements that are angles in rad: their differences lie in [-pi, pi)."""
    rotations: tuple[int, ...] = ()
    """First of the six elements of every 6-D rotation: R becomes start^T R."""

    def __post_init__(self) -> None:
        """Reject elements that are named twice."""
        _check_elements(self)

    def encode(self, actions: Chunk, start: Reference) -> Chunk:
        """Return `actions` relative to `start`."""
        return _minus(self, actions, start.unsqueeze(1).expand_as(actions))

    def decode(self, chunk: Chunk, start: Reference) -> Chunk:
        """Return `start` moved by each element of `chunk`."""
        return _plus(self, chunk, start.unsqueeze(1).expand_as(chunk))


@dataclass(frozen=True)
class Delta:
    """Every action relative to the one before it, the first one relative to the state at that time.

    Small numbers that do not depend on the place; but errors add up over a chunk.
    """

    reference: str
    """State feature that the first action refers to, element by element, in the same units and frame."""
    absolute: tuple[int, ...] = ()
    """Action elements that stay as they are, such as a gripper's opening."""
    angles: tuple[int, ...] = ()
    """Action elements that are angles in rad: their differences lie in [-pi, pi)."""
    rotations: tuple[int, ...] = ()
    """First of the six elements of every 6-D rotation: R becomes before^T R."""

    def __post_init__(self) -> None:
        """Reject elements that are named twice."""
        _check_elements(self)

    def encode(self, actions: Chunk, start: Reference) -> Chunk:
        """Return the change from each action to the next, beginning at `start`."""
        return _minus(self, actions, torch.cat([start.unsqueeze(1), actions[:, :-1]], dim=1))

    def decode(self, chunk: Chunk, start: Reference) -> Chunk:
        """Return where the changes lead from `start`."""
        actions: list[Tensor] = []
        for change in chunk.unbind(1):
            start = _plus(self, change, start)
            actions.append(start)
        return torch.stack(actions, dim=1)


AnyActionSpace = Absolute | Delta | Relative
"""Every action space that a configuration can name."""


def check_action_space(space: AnyActionSpace, schema: Schema) -> None:
    """Raise `SchemaError` or `ConfigError` unless the actions of `schema` can be expressed in `space`."""
    if isinstance(space, Absolute):
        return
    shapes = {f.name: f.shape for f in schema.observations}
    if space.reference not in shapes:
        raise SchemaError(
            f"action_space.reference: expected an observation that actions refer to, got {space.reference!r}: "
            f"{did_you_mean(space.reference, shapes)}"
        )
    if shapes[space.reference] != schema.action.shape:
        raise SchemaError(
            f"action_space.reference: expected an observation of the action's shape {schema.action.shape}, got "
            f"{space.reference!r} of shape {shapes[space.reference]}: name one whose elements are the action's"
        )
    last = max(_elements(space), default=-1)
    if last >= schema.action_dim:
        raise ConfigError(f"action_space: expected elements below {schema.action_dim}, got {last}")


def learnt_actions(episodes: Episodes, windows: Windows, space: AnyActionSpace) -> Array:
    """Return all real actions of all windows as the network will see them, [N, A], to fit a normaliser on."""
    if isinstance(space, Absolute):
        return episodes.arrays[ACTION]
    actions = torch.from_numpy(np.array(episodes.arrays[ACTION], np.float32))
    state = torch.from_numpy(np.array(episodes.arrays[space.reference], np.float32))
    steps = torch.from_numpy(windows.actions)
    return space.encode(actions[steps], state[steps[:, 0]])[torch.from_numpy(windows.valid)].numpy()


def _elements(space: Delta | Relative) -> list[int]:
    """Return every element that a space treats in its own way."""
    return [*space.absolute, *space.angles, *(r + i for r in space.rotations for i in range(6))]


def _check_elements(space: Delta | Relative) -> None:
    named = _elements(space)
    if len(set(named)) != len(named) or min(named, default=0) < 0:
        raise ConfigError(
            "action_space: expected distinct elements >= 0 in absolute, angles and rotations (six elements each), "
            f"got {sorted(named)}"
        )


def _minus(space: Delta | Relative, x: Float[Tensor, "*B A"], origin: Float[Tensor, "*B A"]) -> Float[Tensor, "*B A"]:
    """Return `x` seen from `origin`; rotations by composition, not by difference."""
    change = x - origin
    absolute, angles = list(space.absolute), list(space.angles)
    change[..., absolute] = x[..., absolute]
    change[..., angles] = torch.remainder(change[..., angles] + torch.pi, 2 * torch.pi) - torch.pi
    for first in space.rotations:
        part = slice(first, first + 6)
        change[..., part] = to_sixd(from_sixd(origin[..., part]).mT @ from_sixd(x[..., part]))
    return change


def _plus(space: Delta | Relative, change: Float[Tensor, "*B A"], origin: Float[Tensor, "*B A"]) -> Tensor:
    """Return what is seen as `change` from `origin`, the inverse of `_minus`."""
    x = origin + change
    absolute = list(space.absolute)
    x[..., absolute] = change[..., absolute]
    for first in space.rotations:
        part = slice(first, first + 6)
        x[..., part] = to_sixd(from_sixd(origin[..., part]) @ from_sixd(change[..., part]))
    return x
