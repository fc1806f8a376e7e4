import numpy as np
import pytest

from noise2action.data import formats
from noise2action.data.doctor import check_finite, pictures, report, scaling
from noise2action.data.episodes import Episodes
from noise2action.errors import DataError


def healthy():
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(300, 2)) * 0.01, axis=0)
    return {"action": walk, "state": walk + rng.normal(size=(300, 2)) * 0.01}


def found(arrays, ends=(100, 300)):
    return [(f.level, f.key, f.message) for f in report(Episodes(arrays, np.array(ends))).findings]


def test_a_healthy_data_set_has_no_findings_and_right_statistics():
    arrays = healthy()
    result = report(Episodes(arrays, np.array([100, 300])))
    assert result.healthy
    assert result.findings == ()
    assert (result.episodes, result.steps, result.shortest, result.longest) == (2, 300, 100, 200)
    assert result.median_length == 150
    for feature in result.features:
        x = arrays[feature.name]
        for got, wanted in [(feature.low, x.min(0)), (feature.high, x.max(0)), (feature.mean, x.mean(0))]:
            assert np.allclose(got, wanted, rtol=1e-12)
        assert np.allclose(feature.std, x.std(0), rtol=1e-9)


def test_a_dead_camera_is_named():
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 255, (300, 16, 16, 3), dtype=np.uint8)
    half = seen.copy()
    half[:30] = 7
    arrays = {"alive": seen, "dead": np.zeros_like(seen), "half": half, "still": np.broadcast_to(seen[0], seen.shape)}
    said = {f.key: f.message for f in pictures(arrays, arrays)}
    assert sorted(said) == ["dead", "half", "still"]
    assert "every picture is of one value" in said["dead"]
    assert "30 of 300 pictures are of one value" in said["half"]
    assert "every picture is the same" in said["still"]
    assert [key for _, key, _ in found(arrays)] == ["dead", "half", "still"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_holes_are_faults_and_named(value):
    arrays = healthy()
    arrays["state"][103, 1] = arrays["state"][200, 0] = value
    episodes = Episodes(arrays, np.array([100, 300]))
    with pytest.raises(DataError, match=r"'state': .* episode 1, frame 3"):
        check_finite(episodes)
    result = report(episodes)
    assert not result.healthy
    assert result.findings[0].level == "fault"
    assert result.findings[0].message.startswith("2 frames")
    assert np.isfinite(result.features[1].mean).all()


def test_check_finite_passes_integers_and_finite_floats(episodes):
    check_finite(episodes)


def test_constant_and_duplicated_columns():
    arrays = healthy()
    arrays["extra"] = np.column_stack([np.full(300, 7.0), arrays["action"][:, 1]])
    assert found(arrays) == [
        ("warning", "extra", "column 0 is always 7"),
        ("warning", "extra", "column 1 equals column 1 of 'action'"),
    ]


def test_jumps_and_wrapping_angles():
    arrays = healthy()
    arrays["state"][250:, 0] += 5.0
    arrays["angle"] = np.mod(np.linspace(0, 20, 300), 2 * np.pi)[:, None]
    levels = found(arrays)
    assert ("warning", "state") in [f[:2] for f in levels]
    assert any(key == "state" and "episode 1, frame 150" in text for _, key, text in levels)
    assert any(key == "angle" and "wraps?" in text for _, key, text in levels)


def test_columns_that_a_normaliser_makes_hard_to_learn_are_told():
    rng = np.random.default_rng(0)
    column = rng.uniform(-1, 1, 1000)
    spiked, rare = column.copy(), np.zeros(1000)
    spiked[7], rare[:5] = 9.0, 3.0
    columns = {
        "fine": column,
        "constant": np.full(1000, 7.0),
        "clipped": column.clip(-1, 0.75),
        "gripper": (column > 0).astype(float),
        "spiked": spiked,
        "rare": rare,
    }
    arrays = {name: np.float32(x)[:, None] for name, x in columns.items()}
    found = {f.key: f.message for f in scaling(arrays, dict.fromkeys(arrays, "limits"))}
    assert set(found) == {"constant", "clipped", "spiked", "rare"}
    assert found["constant"].startswith("column 0 is always 7")
    assert found["clipped"] == "column 0 is saturated: 12% of its values are 0.75; was it cut off there?"
    assert "reaches 9.17 times" in found["spiked"]
    assert "most values share 20% of -1..1: use the quantile normaliser" in found["spiked"]
    assert "is 0 but for rare values in 0..3" in found["rare"]
    (quantile,) = scaling({"spiked": arrays["spiked"]}, {"spiked": "quantile"})
    assert "quantile normaliser" not in quantile.message


def test_the_columns_of_chunks_are_those_of_their_last_axis():
    chunks = np.random.default_rng(0).uniform(-1, 1, (50, 8, 2))
    chunks[..., 1] = 4.0
    (found,) = scaling({"action": chunks}, {"action": "limits"})
    assert found.message.startswith("column 1 is always 4")


def test_an_episode_boundary_is_no_jump():
    arrays = healthy()
    for x in arrays.values():
        x[100:] += 50
    assert found(arrays) == []


def test_single_step_episodes_and_time_gaps():
    arrays = healthy()
    arrays["timestamp"] = np.concatenate([np.arange(100) / 10, np.arange(200) / 10])
    assert found(arrays) == []
    arrays["timestamp"][150:] += 0.3
    assert found(arrays, (100, 299, 300)) == [
        ("warning", None, "1 episodes have one step only, the first is 2"),
        ("warning", "timestamp", "1 time gaps (expected every 0.1 s), the first is episode 1, frame 50"),
    ]


def test_the_real_pusht_is_healthy_and_its_angle_wraps(real_data):
    result = report(formats.read(real_data / "pusht_cchi_v7_zarr" / "pusht_cchi_v7_lowdim.npz"))
    assert (result.episodes, result.steps, result.shortest, result.longest) == (206, 25650, 49, 246)
    assert [(f.level, f.key) for f in result.findings] == [("warning", "state")]
    assert "wraps" in result.findings[0].message
