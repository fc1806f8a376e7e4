"""Split: training and held-out episodes. Whole episodes, so that no window of a held-out one was trained on."""

import numpy as np

from ..errors import ConfigError
from ..seeds import derive
from .episodes import Episodes


def split(episodes: Episodes, *, held_out: float, seed: int) -> tuple[Episodes, Episodes]:
    """Return (training, held-out) episodes; `held_out` is the fraction of episodes held out, at least one of each.

    Which episodes they are depends on (seed, number of episodes) alone; each part keeps the original order. Split
    before mirroring, or a held-out episode's reflection is trained on.
    """
    if not 0 < held_out < 1:
        raise ConfigError(f"expected held_out between 0 and 1, got {held_out}")
    if len(episodes) < 2:
        raise ConfigError(f"expected at least 2 episodes to split, got {len(episodes)}: train without a held-out part")
    count = min(max(round(held_out * len(episodes)), 1), len(episodes) - 1)
    order = np.random.default_rng(derive(seed, "split")).permutation(len(episodes))
    return episodes.select(np.sort(order[count:])), episodes.select(np.sort(order[:count]))
