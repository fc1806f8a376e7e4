"""What a task is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import TaskError
from ..schema import Schema
from .episode import Act, Demonstration, Env

SIZES = range(16, 1025)
"""Edges of a picture (pixels)."""
DEFAULT_SIZE = 96


@dataclass(frozen=True)
class Task:
    """A simulated task and its demonstrator."""

    name: str
    schema: Schema
    control_hz: float
    """Actions a second."""
    max_steps: int
    """Actions after which an episode is cut off."""
    make: Callable[[], Env]
    """A fresh environment; `MissingExtraError` where the simulator is not installed."""
    demonstrator: Callable[[Env, np.random.Generator], Act]
    """Who demonstrates in an environment that is about to be reset; the generator draws what people choose."""
    demonstrate: Callable[[int], Demonstration]
    """One demonstrated episode, layout and demonstrator's choices fixed by the seed; it may have failed."""


def pictures(name: str, known: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Return the cameras and the size of their pictures (pixels) that a task's name ends in: "@table+gripperPOV:224".

    `TaskError` for a camera that is not `known` or named twice, and for a size that is no number from 16 to 1024.
    """
    plain, _, view = name.partition("@")
    names, _, edge = view.partition(":")
    cameras, remedy = tuple(names.split("+")), f"write {plain}@{known[0]}:{DEFAULT_SIZE}"
    if unknown := [camera for camera in cameras if camera not in known]:
        raise TaskError(f"expected cameras of {', '.join(known)}, got {', '.join(map(repr, unknown))}: {remedy}")
    if len(set(cameras)) != len(cameras):
        raise TaskError(f"expected each camera once, got {names!r}: {remedy}")
    if edge and not (edge.isdecimal() and int(edge) in SIZES):
        raise TaskError(f"expected a size of {SIZES[0]} to {SIZES[-1]} pixels after ':', got {edge!r}: {remedy}")
    return cameras, int(edge) if edge else DEFAULT_SIZE
