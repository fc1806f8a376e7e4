import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noise2action.data import formats
from noise2action.data.augment import Mirror, Retarget, mirrored, retargeted
from noise2action.data.episodes import Episodes
from noise2action.errors import ConfigError, DataError

# PushT: the goal (256, 256, 45 deg) and the T are unchanged by the reflection about the line x + y = 512.
PUSHT = Mirror(
    matrix=((0.0, -1.0), (-1.0, 0.0)),
    shift=(512.0, 512.0),
    angle_offset=math.pi / 2,
    points=("action", "state[0:4]"),
    angles=("state[4]",),
)


def pusht(steps=40):
    rng = np.random.default_rng(0)
    state = np.column_stack([rng.uniform(0, 512, (steps, 4)), rng.uniform(0, 2 * np.pi, steps)]).astype(np.float32)
    return Episodes(
        {"action": rng.uniform(0, 512, (steps, 2)).astype(np.float32), "state": state}, np.array([15, steps])
    )


def test_the_reflection_is_the_formula_and_keeps_the_originals():
    episodes = pusht()
    both = mirrored(episodes, PUSHT)
    assert both.ends.tolist() == [15, 40, 55, 80]
    x, y = episodes.arrays["action"].T
    assert np.array_equal(both.arrays["action"][40:], np.column_stack([512 - y, 512 - x]))
    assert np.array_equal(both.arrays["state"][:40], episodes.arrays["state"])
    angle = episodes.arrays["state"][:, 4].astype(np.float64)
    assert np.allclose(both.arrays["state"][40:, 4], np.mod(np.pi / 2 - angle, 2 * np.pi), atol=1e-6)
    assert both.arrays["state"].dtype == np.float32


def test_twice_is_the_identity():
    twice = mirrored(mirrored(pusht(), PUSHT), PUSHT)
    assert np.allclose(twice.arrays["state"][-40:], twice.arrays["state"][:40], atol=1e-4)


def test_the_goal_is_fixed_and_a_block_direction_is_reflected():
    goal = Episodes(
        {"action": np.full((1, 2), 256.0), "state": np.array([[256, 256, 256, 256, np.pi / 4]])}, np.array([1])
    )
    assert np.allclose(mirrored(goal, PUSHT).arrays["state"][1], goal.arrays["state"][0])
    # The stem of the T, local (0, 1), must point where the reflection sends it.
    episodes = pusht()
    angle = mirrored(episodes, PUSHT).arrays["state"][:, 4].astype(np.float64)
    stem = np.column_stack([-np.sin(angle), np.cos(angle)])
    assert np.allclose(stem[40:], stem[:40] @ np.array(PUSHT.matrix).T, atol=1e-5)


def test_every_column_is_named_once():
    episodes = pusht()
    with pytest.raises(DataError, match=r"state\[4\] 0 times"):
        mirrored(episodes, Mirror(PUSHT.matrix, PUSHT.shift, 0.0, points=("action", "state[0:4]")))
    with pytest.raises(DataError, match=r"state\[3\] 2 times"):
        mirrored(episodes, Mirror(PUSHT.matrix, PUSHT.shift, 0.0, ("action", "state[0:4]"), unchanged=("state[3:5]",)))
    with pytest.raises(DataError, match="did you mean 'state'"):
        mirrored(episodes, Mirror(PUSHT.matrix, PUSHT.shift, 0.0, points=("stat",)))
    with pytest.raises(DataError, match="pairs"):
        mirrored(episodes, Mirror(PUSHT.matrix, PUSHT.shift, 0.0, points=("state",)))
    with pytest.raises(DataError, match="columns of 'state' from 0 to 5"):
        mirrored(episodes, Mirror(PUSHT.matrix, PUSHT.shift, 0.0, points=("state[4:6]",)))
    with pytest.raises(ConfigError, match="expected columns such as"):
        mirrored(episodes, Mirror(PUSHT.matrix, PUSHT.shift, 0.0, points=("state[:",)))


@pytest.mark.parametrize("matrix", [((1.0, 0.0), (0.0, 1.0)), ((2.0, 0.0), (0.0, -1.0)), ((0.0, -1.0), (1.0, 0.0))])
def test_anything_but_a_reflection_is_refused(matrix):
    with pytest.raises(ConfigError, match="reflection"):
        Mirror(matrix, (0.0, 0.0), 0.0, points=("action",))
    with pytest.raises(ConfigError, match="glide"):
        Mirror(((1.0, 0.0), (0.0, -1.0)), (3.0, 0.0), 0.0, points=("action",))


def test_pusht_demonstrations_stay_in_the_plane(real_data):
    folder = real_data / "pusht_cchi_v7_zarr"
    both = mirrored(formats.read(folder, ["action", "state"]), PUSHT)
    assert len(both) == 412
    assert both.arrays["action"].min() >= 0
    assert both.arrays["action"].max() <= 512
    with pytest.raises(DataError, match="keypoint"):
        mirrored(formats.read(folder / "pusht_cchi_v7_lowdim.npz"), PUSHT)


class TestRetarget:
    """Every episode ends with the object at the goal, moved rigidly."""

    RETARGET = Retarget(position="p", angle="a", goal=(5.0, -3.0, 1.2), points=("p", "agent", "action"), ahead=0.5)

    def episodes(self, seed: int = 0, count: int = 5) -> Episodes:
        rng = np.random.default_rng(seed)
        return Episodes.concatenate(
            {
                "p": rng.normal(size=(n, 2)),
                "a": rng.uniform(0, 2 * np.pi, (n, 1)),
                "agent": rng.normal(size=(n, 2)),
                "action": rng.normal(size=(n, 2)),
                "other": rng.normal(size=(n, 3)),
            }
            for n in rng.integers(1, 9, count)
        )

    @given(st.integers(0, 10_000))
    def test_the_extrapolated_pose_is_the_goal(self, seed: int) -> None:
        moved = retargeted(self.episodes(seed), self.RETARGET)
        for i in range(len(moved)):
            p, a = moved.slice(i)["p"], moved.slice(i)["a"][:, 0]
            step = (a[-1] - a[-2:][0] + np.pi) % (2 * np.pi) - np.pi
            np.testing.assert_allclose(p[-1] + 0.5 * (p[-1] - p[-2:][0]), (5.0, -3.0), atol=1e-9)
            np.testing.assert_allclose(np.cos(a[-1] + 0.5 * step - 1.2), 1.0, atol=1e-9)
            assert (a >= 0).all()
            assert (a <= 2 * np.pi).all()

    def test_distances_and_relative_headings_within_an_episode_are_kept(self) -> None:
        before, after = self.episodes(), retargeted(self.episodes(), self.RETARGET)
        for i in range(len(before)):
            old, new = before.slice(i), after.slice(i)
            for one, two in (("p", "agent"), ("agent", "action"), ("p", "action")):
                apart = [np.linalg.norm(x[one][:, None] - x[two][None], axis=-1) for x in (old, new)]
                np.testing.assert_allclose(*apart, atol=1e-9)
            # The agent as the object sees it: the same before and after.
            seen = []
            for x in (old, new):
                c, s = np.cos(x["a"][:, 0]), np.sin(x["a"][:, 0])
                d = x["agent"] - x["p"]
                seen.append(np.stack([c * d[:, 0] + s * d[:, 1], -s * d[:, 0] + c * d[:, 1]], 1))
            np.testing.assert_allclose(*seen, atol=1e-9)
            np.testing.assert_array_equal(old["other"], new["other"])

    def test_retargeting_twice_changes_nothing_more(self) -> None:
        once = retargeted(self.episodes(), self.RETARGET)
        twice = retargeted(once, self.RETARGET)
        for name in ("p", "agent", "action"):
            np.testing.assert_allclose(once.arrays[name], twice.arrays[name], atol=1e-9)

    def test_a_missing_feature_is_told(self) -> None:
        with pytest.raises(DataError, match="expected 'agent' with 2 elements"):
            retargeted(self.episodes().keep(["p", "a", "action"]), self.RETARGET)


class TestImages:
    SIDE = 8

    def mirror(self, matrix, shift):
        return Mirror(matrix, shift, 0.0, points=("action",), images=("camera",))

    @pytest.mark.parametrize(
        ("matrix", "shift"),
        [
            (((-1.0, 0.0), (0.0, 1.0)), (7.0, 0.0)),
            (((1.0, 0.0), (0.0, -1.0)), (0.0, 7.0)),
            (((0.0, 1.0), (1.0, 0.0)), (0.0, 0.0)),
            (((0.0, -1.0), (-1.0, 0.0)), (7.0, 7.0)),
        ],
    )
    def test_a_dot_lands_where_its_point_is_reflected_to(self, matrix, shift) -> None:
        rng = np.random.default_rng(0)
        points = rng.integers(0, self.SIDE, (6, 2))
        images = np.zeros((6, self.SIDE, self.SIDE, 3), np.uint8)
        for image, (x, y) in zip(images, points, strict=True):
            image[y, x] = (10, 20, 30)
        data = Episodes({"action": points.astype(np.float32), "camera": images}, np.array([6]))
        both = mirrored(data, self.mirror(matrix, shift))
        for image, (x, y) in zip(both.arrays["camera"][6:], both.arrays["action"][6:].astype(int), strict=True):
            assert image[y, x].tolist() == [10, 20, 30]
            assert image.astype(int).sum() == 60
        again = mirrored(
            Episodes({n: a[6:] for n, a in both.arrays.items()}, np.array([6])), self.mirror(matrix, shift)
        )
        np.testing.assert_array_equal(again.arrays["camera"][6:], images)

    def test_reflections_that_pixels_cannot_follow_are_refused(self) -> None:
        data = Episodes(
            {"action": np.zeros((2, 2), np.float32), "camera": np.zeros((2, 4, 6, 3), np.uint8)}, np.array([2])
        )
        with pytest.raises(DataError, match="square images"):
            mirrored(data, self.mirror(((0.0, 1.0), (1.0, 0.0)), (0.0, 0.0)))
        c, s = math.cos(0.3), math.sin(0.3)
        with pytest.raises(DataError, match="reflection of pixels"):
            mirrored(data, self.mirror(((c, s), (s, -c)), (0.0, 0.0)))
