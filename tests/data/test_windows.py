import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from noise2action.data.windows import Batch, Windows
from noise2action.errors import ConfigError, DataError


@st.composite
def rules(draw):
    ends = np.cumsum(draw(st.lists(st.integers(1, 12), min_size=1, max_size=6)))
    obs_steps = draw(st.integers(1, 5))
    first_action = draw(st.integers(1 - obs_steps, 0))
    horizon = draw(st.integers(1 - first_action, 14))
    return Windows(ends, obs_steps, horizon, first_action)


@given(rules())
def test_every_window_equals_the_one_written_out(windows):
    row = 0
    start = 0
    for end in windows.ends:
        for anchor in range(start, end):
            wanted = [anchor + k for k in range(1 - windows.obs_steps, 1)]
            assert windows.observations[row].tolist() == [min(max(k, start), end - 1) for k in wanted]
            wanted = [anchor + windows.first_action + k for k in range(windows.horizon)]
            assert windows.actions[row].tolist() == [min(max(k, start), end - 1) for k in wanted]
            assert windows.valid[row].tolist() == [start <= k < end for k in wanted]
            row += 1
        start = end
    assert len(windows) == row


@given(rules())
def test_no_window_crosses_an_episode_and_each_holds_its_own_action(windows):
    episode = np.searchsorted(windows.ends, windows.anchors, side="right")[:, None]
    assert (np.searchsorted(windows.ends, windows.observations, side="right") == episode).all()
    assert (np.searchsorted(windows.ends, windows.actions, side="right") == episode).all()
    newest = -windows.first_action
    assert (windows.actions[:, newest] == windows.anchors).all()
    assert windows.valid[:, newest].all()


def published_windows(ends, horizon, pad_before, pad_after):
    """Return the original steps: each start from -pad_before to L - horizon + pad_after, edges repeated."""
    rows = []
    start = 0
    for end in ends:
        length = end - start
        pad_before, pad_after = min(max(pad_before, 0), horizon - 1), min(max(pad_after, 0), horizon - 1)
        for first in range(-pad_before, length - horizon + pad_after + 1):
            inside = list(range(max(first, 0) + start, min(first + horizon, length) + start))
            before = [inside[0]] * (max(first, 0) - first)
            rows.append(before + inside + [inside[-1]] * (horizon - len(before) - len(inside)))
        start = end
    return np.array(rows)


@pytest.mark.parametrize(("obs_steps", "executed", "horizon"), [(2, 8, 16), (1, 1, 4), (3, 6, 8), (4, 1, 4)])
def test_windows_of_the_original_diffusion_policy_code(obs_steps, executed, horizon):
    ends = np.cumsum([20, 9, 40, 3, 17])
    windows = Windows(ends, obs_steps, horizon, 1 - obs_steps, pad_after=executed - 1)
    original = published_windows(ends, horizon, obs_steps - 1, executed - 1)
    assert np.array_equal(windows.actions, original)
    # It takes the observations from the first steps of the same window.
    assert np.array_equal(windows.observations, original[:, :obs_steps])


def test_pad_after_reaches_every_anchor_at_horizon_minus_one_plus_first_action():
    ends = np.cumsum([5, 9])
    everything = Windows(ends, 2, 6, -1)
    assert np.array_equal(everything.actions, Windows(ends, 2, 6, -1, pad_after=4).actions)
    assert len(Windows(ends, 2, 6, -1, pad_after=3)) == len(everything) - 2


@pytest.mark.parametrize("numbers", [(0, 4, 0), (1, 0, 0), (2, 4, 1), (2, 4, -2), (3, 2, -2), (2, 16, -1, -1)], ids=str)
def test_impossible_rules_are_refused(numbers):
    with pytest.raises(ConfigError):
        Windows(np.array([10]), *numbers)


def test_no_window_at_all_is_an_error():
    with pytest.raises(DataError, match="at least one window"):
        Windows(np.array([5]), 1, 16, 0, pad_after=0)


def test_batch_moves_whole():
    batch = Batch({"x": torch.zeros(3, 2, 4)}, torch.zeros(3, 5, 1), torch.ones(3, 5, dtype=torch.bool))
    moved = batch.to("meta")
    assert len(batch) == 3
    assert {t.device.type for t in (*moved.observations.values(), moved.actions, moved.valid)} == {"meta"}
