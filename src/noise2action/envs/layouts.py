"""Layouts of training and of evaluation: drawn from the same box, never the same.

Space is cut into cells of 1 cm. A layout whose cell indices add up to an even number is for training, else for
evaluation: a checkerboard. So both cover the whole box evenly, and no evaluated layout was demonstrated, though one
next to it may have been. Coordinates that hardly vary do not count: a millimetre is no other layout.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import TaskError

CELL = 0.01
"""Side of a cell (m, or rad)."""
NARROW = 2 * CELL
"""A coordinate that varies by less has no part in what a layout is for."""
TRIES = 1000

Corner = Sequence[float] | NDArray[np.float64]
"""Of the box that layouts are drawn from, [D] (m)."""
Layouts = Literal["evaluation", "training"]


def side(layout: Corner, low: Corner, high: Corner) -> Layouts:
    """Return what the layout [D] (m) of the box from `low` to `high` is for."""
    wide = np.subtract(high, low) >= NARROW
    return "training" if int(np.floor(np.asarray(layout)[wide] / CELL).sum()) % 2 == 0 else "evaluation"


def draw(
    rng: np.random.Generator,
    low: Corner,
    high: Corner,
    layouts: Layouts,
    *,
    legal: Callable[[NDArray[np.float64]], bool] = lambda layout: True,
) -> NDArray[np.float64]:
    """Return a layout [D] (m) for `layouts`, uniform among the `legal` ones of the box from `low` to `high`.

    `TaskError` for another word, and if none turns up in a thousand draws.
    """
    if layouts not in get_args(Layouts):
        raise TaskError(f"expected layouts for {' or '.join(get_args(Layouts))}, got {layouts!r}")
    for _ in range(TRIES):
        layout = rng.uniform(low, high)
        if side(layout, low, high) == layouts and legal(layout):
            return layout
    raise TaskError(f"expected a legal layout between {low} and {high}, got none in {TRIES} draws: widen the range")
