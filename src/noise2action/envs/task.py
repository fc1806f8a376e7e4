"""What a task is."""

from collections.abc import Callable
from dataclasses import dataclass

from ..schema import Schema
from .episode import Demonstration, Env


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
    demonstrate: Callable[[int], Demonstration]
    """One demonstrated episode, layout and demonstrator's choices fixed by the seed; it may have failed."""
