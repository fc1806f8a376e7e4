"""What is kept of failures does not depend on which of them came first."""

import itertools

import gymnasium
import numpy as np
import pytest

from noise2action.compare.actors import FAILURES, LastFrame


class Fails(gymnasium.Env):
    """One step, which fails unless the seed is divisible by five; its picture is its seed."""

    def reset(self, *, seed=None, options=None):
        self.now = seed
        return {}, {}

    def step(self, action):
        return {}, 0.0, True, False, {"success": self.now % 5 == 0}

    def render(self):
        return np.full((1, 1, 3), self.now, dtype=np.uint8)


@pytest.mark.parametrize("order", list(itertools.permutations((12, 11, 10, 13, 14, 16)))[::37])
def test_the_failures_with_the_lowest_seeds_are_kept_in_whatever_order_they_end(order):
    kept = {}
    for seed in order:
        env = LastFrame(Fails(), kept)
        env.reset(seed=seed)
        env.step(None)
    assert FAILURES == 4
    assert {seed: int(frame[0, 0, 0]) for seed, frame in kept.items()} == {11: 11, 12: 12, 13: 13, 14: 14}
