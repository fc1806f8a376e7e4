"""The maze: PointMaze's physics, four routes, and geometry computed here from where the ball was."""

import sys
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics", reason="the extra `sim` is not installed: the maze is not tested")
from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

from noise2action.envs import maze
from noise2action.envs.episode import split_seed
from noise2action.envs.layouts import side
from noise2action.envs.maze import GOAL_RADIUS, MAP, MAX_STEPS, SHARES, Driver, Maze, demonstrate
from noise2action.envs.rendering import mujoco
from noise2action.errors import MissingExtraError, TaskError

WALLS = np.array([(j - 3, 6 - i) for i, row in enumerate(MAP) for j, cell in enumerate(row) if cell == "#"])


@pytest.fixture(scope="module")
def demonstrations():
    return [demonstrate(seed) for seed in range(30)]


def crossing(positions: np.ndarray, y: float) -> float:
    """x where the way [T, 2] last crosses the line upwards."""
    k = np.flatnonzero((positions[:-1, 1] < y) & (positions[1:, 1] >= y))[-1]
    (x0, y0), (x1, y1) = positions[k : k + 2]
    return x0 + (x1 - x0) * (y - y0) / (y1 - y0)


def test_the_physics_is_that_of_point_maze() -> None:
    ours = Maze()
    start = ours.reset(seed=3)[0]["position"].astype(np.float64)
    theirs = PointMazeEnv(maze_map=[[int(cell == "#") for cell in row] for row in MAP])
    theirs.reset(seed=0)
    theirs.point_env.set_state(ours.data.qpos.copy(), np.zeros(2))
    rng = np.random.default_rng(0)
    # Up into the first wall, along it, and about.
    forces = [(0.0, 0.5)] * 8 + [(0.5, 0.3)] * 4 + [tuple(rng.uniform(-1, 1, 2)) for _ in range(30)]
    for force in forces:
        observation = ours.step(np.array(force))[0]
        for _ in range(10):
            state = theirs.point_env.step(np.array(force))[0]
        np.testing.assert_allclose(np.concatenate([observation["position"], observation["velocity"]]), state, atol=1e-4)
    assert np.linalg.norm(observation["position"] - start) > 1


def test_layouts_of_training_and_evaluation_never_meet() -> None:
    cells = {}
    for layouts in ("training", "evaluation"):
        env = Maze(layouts=layouts)
        drawn = []
        for seed in range(300):
            env.reset(seed=seed)
            drawn.append(np.concatenate([env.data.qpos, env._goal]))
            assert side(drawn[-1], np.zeros(len(drawn[-1])), np.ones(len(drawn[-1]))) == layouts
        assert np.all(np.abs(np.array(drawn) - [0, -5, 0, 5]) <= 0.3)
        # Start and goal are drawn all over their squares.
        assert np.all(np.ptp(drawn, axis=0) > 0.55)
        cells[layouts] = {tuple(np.floor(x * 100).astype(int)) for x in drawn}
        assert len({x.tobytes() for x in drawn}) == 300
    assert not cells["training"] & cells["evaluation"]


def test_demonstrators_succeed_by_every_route_which_is_where_they_went(demonstrations) -> None:
    assert all(demo.success for demo in demonstrations)
    routes = Counter(demo.route for demo in demonstrations)
    assert set(routes) == set(SHARES)
    # Three standard errors.
    for route, share in SHARES.items():
        assert abs(routes[route] / 30 - share) < 3 * np.sqrt(share * (1 - share) / 30)
    for seed, demo in enumerate(demonstrations):
        assert demo.route == Driver(split_seed(seed)[1]).route
        positions = demo.observations["position"]
        sides = ["left" if crossing(positions, y) < 0 else "right" for y in (-2.0, 4.0)]
        assert demo.route == "-".join(sides)
        assert 50 < len(demo.actions) < MAX_STEPS
        # Walls stop the ball of 0.1 m; they give a little.
        assert np.min(np.max(np.abs(positions[:, None] - WALLS), axis=-1)) > 0.58
        assert np.all(np.abs(demo.actions) <= 1)


def test_success_is_being_near_the_goal_and_replays(demonstrations) -> None:
    for seed in range(4):
        env = Maze(layouts="training")
        env.reset(seed=split_seed(seed)[0])
        for action in demonstrations[seed].actions:
            observation, reward, terminated, _, info = env.step(action)
            near = np.linalg.norm(env.data.qpos - observation["goal"]) <= GOAL_RADIUS + 1e-6
            assert info["success"] == terminated == near == (reward == 1.0)
        assert info["success"]


def test_near_misses_are_misses() -> None:
    """The ball rolls past the goal, at distances around the radius that counts."""
    env, rng, said = Maze(), np.random.default_rng(0), []
    for seed in range(40):
        goal = env.reset(seed=seed)[0]["goal"].astype(np.float64)
        turn = rng.uniform(-np.pi, np.pi)
        env.data.qpos[:] = goal + rng.uniform(0.8, 1.3) * GOAL_RADIUS * np.array([np.cos(turn), np.sin(turn)])
        for _ in range(3):
            _, reward, terminated, _, info = env.step(rng.uniform(-0.1, 0.1, 2))
            # It stops in the step of the physics, a hundredth of a second, in which it comes near enough.
            near = np.linalg.norm(env.data.qpos - env._goal) <= GOAL_RADIUS
            assert info["success"] == terminated == near == (reward == 1.0)
        said.append(info["success"])
    assert 5 < sum(said) < 35


def test_speeds_differ_and_hands_are_unsteady(demonstrations) -> None:
    lengths = [len(demo.actions) for demo in demonstrations]
    assert max(lengths) > 1.25 * min(lengths)
    # The same route from the same layout is driven in ways that differ by centimetres.
    env, ways = Maze(), []
    for seed in range(4):
        observation, driver = env.reset(seed=1)[0], Driver(np.random.default_rng(seed))
        driver.route = "left-left"
        for _ in range(30):
            observation = env.step(driver.act(observation))[0]
        ways.append(observation["position"])
    assert np.min(np.std(ways, axis=0)) > 0.02


def test_the_average_of_two_routes_leads_into_a_wall(demonstrations) -> None:
    for y, part in ((-2.0, 0), (4.0, 1)):
        sides = {"left": [], "right": []}
        for demo in demonstrations:
            sides[demo.route.split("-")[part]].append(crossing(demo.observations["position"], y))
        between = np.array([np.mean([np.mean(found) for found in sides.values()]), y])
        assert np.min(np.max(np.abs(WALLS - between), axis=1)) < 0.5
    # Straight ahead, the ball comes to rest at the first dead end.
    env = Maze()
    env.reset(seed=2)
    for _ in range(60):
        observation, _, terminated, _, info = env.step(np.array([0.0, 0.3]))
    assert not terminated
    assert info["route"] == "none"
    assert observation["position"][1] == pytest.approx(-2.6, abs=0.02)


def test_the_picture_shows_ball_and_goal_where_they_are() -> None:
    env = Maze()
    try:
        first = env.reset(seed=1)[0]
        picture = env.render().astype(int)
    except TaskError as error:
        pytest.skip(str(error))
    # The walls, 13 m long, fill the height; what is flat on the floor is seen at its place.
    scale = 2 * 20.0 * np.tan(np.radians(37.5 / 2)) / len(picture)
    for name, others, colour in (("goal", (1, 2), 0), ("position", (0, 2), 1)):
        lit = np.argwhere(np.all(picture[..., [colour]] > 1.5 * picture[..., others], axis=-1))
        row, column = lit.mean(0)
        seen = [(column - 127.5) * scale, (127.5 - row) * scale]
        np.testing.assert_allclose(seen, first[name], atol=0.15)


def test_options_that_it_does_not_know_are_refused() -> None:
    with pytest.raises(TaskError, match="this task takes none"):
        Maze().reset(options={"goal_cell": (1, 1)})


@pytest.mark.parametrize("library", ["mujoco", "gymnasium_robotics"])
def test_a_missing_simulator_names_the_extra(library, monkeypatch) -> None:
    caches = (mujoco, maze._compiled)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"{library.replace('_', '-')} is not installed.*noise2action\[sim\]"):
        Maze()
    for cached in caches:
        cached.cache_clear()
