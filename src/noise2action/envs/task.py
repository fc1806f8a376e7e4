"""What a task is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..schema import Schema
from .episode import Act, Demonstration, Env


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
