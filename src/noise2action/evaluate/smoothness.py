"""How smoothly actions follow each other, and whether chunks join without a jump."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Jumps:
    """Mean distance between consecutive actions, in action units: where a new chunk begins, and within chunks.

    `boundary` well above `within` means that chunks do not join. None where an episode has no such pair.
    """

    boundary: float | None
    within: float | None


def rms_jerk(actions: Float[np.ndarray, "T A"], control_hz: float) -> float | None:
    """Return the root mean square jerk of executed actions, in action units / s^3; None for fewer than four.

    Jerk is the third difference times control_hz^3 (exact for a cubic); its length is taken over A before the mean.
    """
    if len(actions) < 4:
        return None
    jerk = np.diff(actions.astype(np.float64), n=3, axis=0) * control_hz**3
    return float(np.sqrt((jerk**2).sum(axis=1).mean()))


def jumps(actions: Float[np.ndarray, "T A"], planned: Bool[np.ndarray, " T"]) -> Jumps:
    """Return the mean jumps; `planned` is True at ticks whose action is the first of a new chunk."""
    steps = np.linalg.norm(np.diff(actions.astype(np.float64), axis=0), axis=1)
    starts = planned[1:]
    return Jumps(_mean(steps[starts]), _mean(steps[~starts]))


def _mean(values: Float[np.ndarray, " n"]) -> float | None:
    return float(values.mean()) if len(values) else None
