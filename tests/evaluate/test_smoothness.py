"""Jerk and chunk jumps of trajectories whose values are known."""

import numpy as np
import pytest

from noise2action.evaluate.smoothness import jumps, rms_jerk


@pytest.mark.parametrize("hz", [1.0, 10.0, 50.0])
def test_jerk_of_a_cubic_is_its_third_derivative(hz):
    t = np.arange(40) / hz
    actions = np.stack([0.5 * t**3 - t**2 + 3, -2 * t**3 + t], axis=1)
    # third derivatives 3 and -12
    assert rms_jerk(actions, hz) == pytest.approx(np.hypot(3, 12), rel=1e-6)


def test_jerk_of_a_parabola_is_zero_and_needs_four_actions():
    t = np.arange(4.0)[:, None]
    assert rms_jerk(t**2, 10.0) == pytest.approx(0)
    assert rms_jerk(t[:3], 10.0) is None


def test_jerk_is_a_root_mean_square_over_time():
    actions = np.array([0.0, 0.0, 0.0, 0.0, 1.0])[:, None]
    # third differences: 0 and 1
    assert rms_jerk(actions, 2.0) == pytest.approx(8 * np.sqrt(1 / 2))


def test_jumps_split_at_chunk_boundaries():
    actions = np.array([[0, 0], [1, 0], [2, 0], [5, 4], [6, 4], [7, 4.0]])
    planned = np.array([True, False, False, True, False, False])
    found = jumps(actions, planned)
    assert (found.boundary, found.within) == (5, 1)


def test_the_first_plan_is_no_boundary():
    found = jumps(np.zeros((3, 2)), np.array([True, False, False]))
    assert (found.boundary, found.within) == (None, 0)
    assert jumps(np.ones((1, 2)), np.array([True])).within is None
