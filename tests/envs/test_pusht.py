"""PushT against the simulator, the recorded human data, and geometry computed here."""

from dataclasses import replace

import numpy as np
import pytest
import zarr

pytest.importorskip("gym_pusht", reason="the extra `sim` is not installed: PushT is not tested")
from gym_pusht.envs.pusht import PushTEnv
from shapely import affinity
from shapely.geometry import box
from shapely.ops import unary_union

from noise2action.data.augment import mirrored
from noise2action.data.episodes import Episodes
from noise2action.envs.episode import record
from noise2action.envs.pusht import MAX_STEPS, PushT
from noise2action.envs.pusht_planner import BAR, GOAL, STEM, demonstrate, driver
from noise2action.envs.tasks import find as find_task
from noise2action.errors import TaskError
from noise2action.recipes import find


def coverage(x: float, y: float, angle: float) -> float:
    block = unary_union([box(*BAR[0], *BAR[1]), box(*STEM[0], *STEM[1])])

    def at(x, y, angle):
        return affinity.translate(affinity.rotate(block, angle, origin=(0, 0), use_radians=True), x, y)

    goal = at(256.0, 256.0, np.pi / 4)
    return goal.intersection(at(x, y, angle)).area / goal.area


def pose(observation) -> tuple[float, float, float]:
    return (*map(float, observation["block_position"]), float(observation["block_angle"][0]))


def test_layouts_and_physics_are_those_of_gym_pusht() -> None:
    ours, theirs = PushT(), PushTEnv(obs_type="state")
    for seed in (0, 5):
        observation, state = ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0]
        rng = np.random.default_rng(seed)
        for _ in range(60):
            np.testing.assert_array_equal(np.concatenate(list(observation.values())), state.astype(np.float32))
            target = np.clip(state[2:4] + rng.normal(0, 60, 2), 0, 512)
            observation, reward, *_ = ours.step(target)
            state, expected, *_ = theirs.step(target)
            assert reward == pytest.approx(float(expected))


def test_layouts_cover_the_board_and_every_angle() -> None:
    env = PushT()
    rows = np.array([np.concatenate(list(env.reset(seed=seed)[0].values())) for seed in range(300)])
    assert np.all(rows[:, :2].min(0) < 80)
    assert np.all(rows[:, :2].max(0) > 420)
    assert np.histogram(rows[:, 4], bins=8, range=(0, 2 * np.pi))[0].min() > 15


def test_a_state_is_set_exactly() -> None:
    env = PushT()
    state = [100.0, 120.0, 300.5, 260.25, 4.0]
    observation, _ = env.reset(options={"state": np.array(state)})
    np.testing.assert_array_equal(np.concatenate(list(observation.values())), np.array(state, np.float32))
    with pytest.raises(TaskError, match="finite state"):
        env.reset(options={"state": np.zeros(4)})
    with pytest.raises(TaskError, match=r"got 'sate': known: state \(did you mean 'state'\?\)"):
        env.reset(options={"sate": [1, 2]})


def test_score_and_success_are_the_coverage_of_the_outline() -> None:
    for x, y, angle in [(256, 256, np.pi / 4), (258, 256, np.pi / 4), (262, 256, 0.8), (256, 280, 1.0), (100, 100, 0)]:
        env = PushT()
        env.reset(options={"state": np.array([20.0, 490.0, x, y, angle])})
        observation, reward, terminated, _, info = env.step(np.array([20.0, 490.0]))
        expected = coverage(*pose(observation))
        assert reward == pytest.approx(min(1.0, expected / 0.95), abs=1e-5)
        assert info["score"] == reward
        assert info["success"] == terminated == (expected >= 0.95)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_demonstration_ends_at_95_percent(seed) -> None:
    demo = demonstrate(seed)
    assert demo.success
    assert len(demo.actions) < MAX_STEPS
    seen = [
        coverage(x, y, a)
        for (x, y), (a,) in zip(demo.observations["block_position"], demo.observations["block_angle"], strict=True)
    ]
    assert max(seen) < 0.95
    assert np.all((demo.actions >= 0) & (demo.actions <= 512))
    # A person's hand: no target jumps.
    assert np.max(np.linalg.norm(np.diff(demo.actions, axis=0), axis=1)) < 60


def test_the_same_layout_is_solved_in_several_ways() -> None:
    ends = []
    for seed in range(3):
        env = PushT()
        ends.append(record(env, 77, driver(env.sim, np.random.default_rng(seed))))
    assert all(demo.success for demo in ends)
    assert len({len(demo.actions) for demo in ends}) > 1


def test_the_goal_is_the_simulator_goal() -> None:
    env = PushTEnv(obs_type="state")
    env.reset(seed=0)
    np.testing.assert_allclose(env.goal_pose, [GOAL.x, GOAL.y, GOAL.angle])
    vertices = np.array([v for shape in env.block.shapes for v in shape.get_vertices()])
    for corner in (*BAR, *STEM):
        assert np.min(np.linalg.norm(vertices - corner, axis=1)) < 1e-9


def test_human_actions_replay_to_the_recorded_states(real_data) -> None:
    file = real_data / "pusht_cchi_v7_zarr" / "pusht_cchi_v7_lowdim.npz"
    if not file.exists():
        pytest.skip(f"no human demonstrations at {file}")
    data = np.load(file)
    states, actions, ends = data["state"], data["action"], data["episode_ends"]
    env = PushT()
    finals = []
    for start, end in list(zip([0, *ends[:-1]], ends, strict=True))[:30]:
        observation, _ = env.reset(options={"state": states[start]})
        for t in range(start, end):
            np.testing.assert_allclose(observation["agent_position"], states[t, :2], atol=1e-2)
            error = np.linalg.norm(observation["block_position"] - states[t, 2:4])
            turn = (observation["block_angle"][0] - states[t, 4] + np.pi) % (2 * np.pi) - np.pi
            observation = env.step(actions[t])[0]
        finals.append((error, abs(turn)))
    # Contacts amplify the rounding of the recorded first state a little in a few episodes.
    assert np.median(finals, axis=0) == pytest.approx([0.0, 0.0], abs=1e-3)
    assert np.all(np.max(finals, axis=0) < [4.0, 0.05])


def test_the_camera_shows_what_the_recorded_images_show(real_data) -> None:
    source = real_data / "pusht_cchi_v7_zarr" / "pusht_cchi_v7_replay.zarr"
    stored = zarr.open_group(str(source), mode="r", zarr_format=2)
    env = find_task("pusht_image").make()
    for step in (0, 500, 20_000):
        seen, _ = env.reset(options={"state": stored["data/state"][step]})
        recorded = stored["data/img"][step]
        assert seen["image"].dtype == np.uint8
        # Another version of the drawing library sets a few pixels at edges otherwise.
        assert np.abs(seen["image"].astype(float) - recorded).mean() < 0.2
        np.testing.assert_allclose(seen["agent_position"], stored["data/state"][step][:2], atol=1e-3)


def test_the_picture_of_a_reflected_layout_is_the_reflected_picture() -> None:
    env, mirror = find_task("pusht_image").make(), find("pusht_image").data.mirror
    state = np.array([[100.0, 330.0, 300.0, 180.0, 0.6]])
    there = {"agent_position": state[:, :2], "block_position": state[:, 2:4], "block_angle": state[:, 4:]}
    image = env.reset(options={"state": state[0]})[0]["image"]
    whole = Episodes({**there, "image": image[None]}, np.array([1]))
    points = ("agent_position", "block_position")
    reflected = mirrored(whole, replace(mirror, points=points, angles=("block_angle",))).slice(1)
    other = np.concatenate([reflected[name][0] for name in there])
    drawn = env.reset(options={"state": other})[0]["image"]
    assert np.abs(image.astype(float) - reflected["image"][0]).mean() > 3  # the picture is not its own reflection
    # Edges are drawn half a pixel to one side.
    assert np.abs(drawn.astype(float) - reflected["image"][0]).mean() < 1
