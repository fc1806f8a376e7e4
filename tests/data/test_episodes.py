import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noise2action.data.episodes import Episodes, checked_ends
from noise2action.errors import DataError


def counting(lengths):
    ends = np.cumsum(lengths)
    return Episodes({"action": np.arange(ends[-1], dtype=np.float64)[:, None]}, ends)


lengths = st.lists(st.integers(1, 9), min_size=1, max_size=8)


@given(lengths)
def test_slices_joined_give_the_episodes_back(lengths):
    episodes = counting(lengths)
    again = Episodes.concatenate(episodes.slice(i) for i in range(len(episodes)))
    assert np.array_equal(again.ends, episodes.ends)
    assert np.array_equal(again.arrays["action"], episodes.arrays["action"])


@given(lengths, st.data())
def test_select_takes_whole_episodes_in_order(lengths, data):
    episodes = counting(lengths)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1))
    picked = episodes.select(chosen)
    assert picked.lengths.tolist() == [lengths[i] for i in chosen]
    for row, i in enumerate(chosen):
        assert np.array_equal(picked.slice(row)["action"], episodes.slice(i)["action"])


@given(lengths)
def test_locate_inverts_bounds(lengths):
    episodes = counting(lengths)
    located = [episodes.locate(step) for step in range(episodes.total)]
    assert located == [(i, frame) for i, n in enumerate(lengths) for frame in range(n)]
    assert episodes.starts.tolist() == [episodes.bounds(i)[0] for i in range(len(lengths))]


def test_arrays_are_read_only_views(episodes):
    source = np.zeros((3, 2))
    frozen = Episodes({"action": source}, np.array([3]))
    with pytest.raises(ValueError, match="read-only"):
        frozen.arrays["action"][0] = 1
    assert np.shares_memory(frozen.arrays["action"], source)
    assert source.flags.writeable


@pytest.mark.parametrize(
    ("arrays", "ends", "message"),
    [
        ({"action": np.zeros((4, 2))}, [2, 5], "'action': expected 5 time steps .* got 4"),
        ({"action": np.zeros((4, 2))}, [2, 2, 4], "episode 1: expected an end after 2, got 2"),
        ({"action": np.zeros((4, 2))}, [0, 4], "episode 0"),
        ({}, [4], "at least one array"),
        ({"a/b": np.zeros((4, 2))}, [4], "a/b"),
        ({"..": np.zeros((4, 2))}, [4], "feature name"),
        ({"action": np.zeros((4, 2), complex)}, [4], "'action': expected numbers"),
        ({"action": np.array([None] * 4)}, [4], "'action': expected numbers"),
        ({"action": np.zeros((4, 0))}, [4], "positive sizes"),
    ],
)
def test_inconsistent_episodes_are_refused(arrays, ends, message):
    with pytest.raises(DataError, match=message):
        Episodes(arrays, np.array(ends))


@pytest.mark.parametrize("ends", [[], [4.0], [[4]], [True]])
def test_ends_are_integers_in_a_row(ends):
    with pytest.raises(DataError, match="expected episode ends as integers"):
        checked_ends(ends)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"action": np.zeros((2, 3))}, "episode 1: expected 'action'"),
        ({"other": np.zeros((2, 2))}, "episode 1: expected arrays"),
        ({"action": np.zeros((0, 2))}, "episode 1: expected arrays of one positive length"),
        ({"action": np.zeros((2, 2), np.float32)}, "episode 1: expected 'action' as float64"),
    ],
)
def test_unequal_trajectories_name_the_episode(second, message):
    with pytest.raises(DataError, match=message):
        Episodes.concatenate([{"action": np.zeros((2, 2))}, second])


def test_keep_and_select_name_what_is_missing(episodes):
    assert list(episodes.keep(["state"]).arrays) == ["state"]
    with pytest.raises(DataError, match="nothing"):
        episodes.keep(["nothing"])
    with pytest.raises(DataError, match="at least one episode"):
        episodes.select([])
    with pytest.raises(DataError, match="from 0 to 2, got 3"):
        episodes.select([3])
