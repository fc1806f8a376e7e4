"""The puck's physics, both routes, and why an average of the demonstrations fails."""

import numpy as np
import pytest

from noise2action.envs.episode import split_seed
from noise2action.envs.two_routes import (
    CONTROL_HZ,
    GOAL,
    GOAL_RADIUS,
    LAG,
    POST,
    POST_RADIUS,
    PUCK,
    WALLS,
    TwoRoutes,
    demonstrate,
)


@pytest.fixture(scope="module")
def demonstrations():
    return [demonstrate(seed) for seed in range(200)]


def test_velocity_follows_the_command_as_its_differential_equation_says() -> None:
    env = TwoRoutes()
    start = env.reset(seed=0)[0]["position"].astype(np.float64)
    command = np.array([0.3, 0.1])
    observation = env.step(command)[0]
    t = 1 / CONTROL_HZ
    velocity = command * (1 - np.exp(-t / LAG))
    np.testing.assert_allclose(observation["velocity"], velocity, rtol=1e-6)
    np.testing.assert_allclose(observation["position"], start + command * t - LAG * velocity, rtol=1e-6)


def test_demonstrators_succeed_without_touching(demonstrations) -> None:
    assert np.mean([d.success for d in demonstrations]) >= 0.995
    for d in demonstrations:
        positions = d.observations["position"]
        assert np.min(np.linalg.norm(positions - POST, axis=1)) > POST_RADIUS + PUCK
        assert np.all(positions - WALLS[0] > PUCK)
        assert np.all(WALLS[1] - positions > PUCK)
        assert d.route == ("left" if positions[np.argmin(np.abs(positions[:, 1] - POST[1])), 0] < 0 else "right")
        assert 20 <= len(d.actions) <= 60


def test_both_routes_are_taken_alike_and_not_by_the_layout(demonstrations) -> None:
    right = np.array([d.route == "right" for d in demonstrations])
    # Three standard errors of a fair coin.
    assert abs(right.mean() - 0.5) < 3 * 0.5 / np.sqrt(len(right))
    x = np.array([d.observations["position"][0, 0] for d in demonstrations])
    assert abs(np.corrcoef(x, right)[0, 1]) < 3 / np.sqrt(len(right))


def test_success_is_reaching_the_goal_and_failure_is_touching(demonstrations) -> None:
    for seed in range(10):
        env = TwoRoutes()
        env.reset(seed=split_seed(seed)[0])
        for action in demonstrations[seed].actions:
            observation, reward, terminated, _, info = env.step(action)
            reached = np.linalg.norm(observation["position"].astype(np.float64) - GOAL) <= GOAL_RADIUS + 1e-6
            assert info["success"] == terminated == reached == (reward == 1.0)


@pytest.mark.parametrize(("command", "reason"), [((0.0, 0.4), "post"), ((-0.6, 0.0), "wall"), ((0.0, -0.4), "wall")])
def test_touching_ends_the_episode_as_a_failure(command, reason) -> None:
    env = TwoRoutes()
    env.reset(seed=3)
    terminated = False
    while not terminated:
        observation, _, terminated, truncated, info = env.step(np.array(command, np.float32))
        assert not truncated
    gap = np.linalg.norm(observation["position"] - POST) - POST_RADIUS
    assert not info["success"]
    assert info["score"] == 0.0
    assert info["route"] == "none"
    assert (gap < PUCK) == (reason == "post")


def test_success_and_failure_are_geometry() -> None:
    rng, ends = np.random.default_rng(0), []
    for seed in range(25):
        env = TwoRoutes()
        env.reset(seed=seed)
        # Past the post on some side, and then about where the goal is.
        corners, ended = [np.array([rng.choice([-0.3, 0.3]), 0.42]), GOAL + rng.normal(0.0, 0.08, 2)], False
        while not ended:
            position = env._trail[-1]
            if len(corners) > 1 and np.linalg.norm(position - corners[0]) < 0.1:
                corners.pop(0)
            _, reward, terminated, truncated, info = env.step(2 * (corners[0] - position) + rng.normal(0.0, 0.1, 2))
            position = env._trail[-1]
            touched = np.linalg.norm(position - POST) < POST_RADIUS + PUCK or not np.all(
                (position - WALLS[0] >= PUCK) & (WALLS[1] - position >= PUCK)
            )
            reached = np.linalg.norm(position - GOAL) <= GOAL_RADIUS
            assert terminated == (touched or reached)
            assert info["success"] == (reached and not touched) == (reward == 1.0)
            ended = terminated or truncated
        ends.append(info["success"])
    assert 3 < sum(ends) < 23


def replayed(plans: np.ndarray, n: int) -> list[bool]:
    """Success of n layouts under the open-loop actions that `plans` [D, T, 2] average to."""
    successes = []
    for seed in range(n):
        env = TwoRoutes()
        env.reset(seed=10_000 + seed)
        ended = info = False
        for action in plans.mean(0):
            *_, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
            if ended:
                break
        successes.append(bool(ended and info["success"]))
    return successes


def test_the_average_demonstration_hits_the_post_and_one_demonstration_does_not(demonstrations) -> None:
    t = min(len(d.actions) for d in demonstrations)
    starts = np.stack([d.observations["position"][0] for d in demonstrations])
    assert np.mean(replayed(np.stack([d.actions[:t] for d in demonstrations]), 30)) == 0.0
    # Nearest demonstration, executed as it was recorded, wherever the start is.
    successes = []
    for seed in range(30):
        env = TwoRoutes()
        start = env.reset(seed=10_000 + seed)[0]["position"]
        nearest = demonstrations[int(np.argmin(np.linalg.norm(starts - start, axis=1)))]
        for action in nearest.actions:
            *_, terminated, _, info = env.step(action)
            if terminated:
                break
        successes.append(info["success"])
    assert np.mean(successes) >= 0.9
