"""The posts: where they stand, what touching is, and which way was taken, against geometry computed here."""

from collections import Counter

import numpy as np
import pytest

from noise2action.envs.episode import split_seed
from noise2action.envs.layouts import side
from noise2action.envs.obstacles import PLACES, POST_RADIUS, ROUTES, SHARES, Driver, Obstacles, demonstrate
from noise2action.envs.two_routes import GOAL, GOAL_RADIUS, PUCK, WALLS
from noise2action.errors import TaskError


@pytest.fixture(scope="module")
def demonstrations():
    return [demonstrate(seed) for seed in range(60)]


def posts_of(observation) -> np.ndarray:
    return observation["posts"].reshape(3, 2).astype(np.float64)


def sides(positions: np.ndarray, posts: np.ndarray) -> list[bool]:
    """Whether each post was passed on its left: the winding of the way as seen from the post, from below to above."""
    found = []
    for post in posts:
        to = positions - post
        angle = np.unwrap(np.arctan2(to[:, 1], to[:, 0]))
        # On the left the way turns clockwise around the post: the angle falls.
        found.append(bool(angle[-1] < angle[0]))
    return found


def test_layouts_of_training_and_evaluation_never_meet() -> None:
    cells = {}
    for layouts in ("training", "evaluation"):
        env = Obstacles(layouts=layouts)
        drawn = []
        for seed in range(200):
            env.reset(seed=seed)
            start, posts = env._trail[0], env._posts
            assert posts[1, 1] == posts[2, 1]
            drawn.append(np.array([*start, *posts[0], posts[1, 0], posts[2, 0], posts[1, 1]]))
            assert side(drawn[-1], np.zeros(len(drawn[-1])), np.ones(len(drawn[-1]))) == layouts
            assert np.all(np.abs(posts - PLACES) <= 0.025)
        cells[layouts] = {tuple(np.floor(x * 100).astype(int)) for x in drawn}
        assert len({x.tobytes() for x in drawn}) == 200
        assert np.all(np.ptp(drawn, axis=0) > 0.045)
    assert not cells["training"] & cells["evaluation"]


def test_demonstrators_succeed_by_every_route_which_is_where_they_went(demonstrations) -> None:
    assert np.mean([demo.success for demo in demonstrations]) >= 0.97
    won = [(seed, demo) for seed, demo in enumerate(demonstrations) if demo.success]
    routes = Counter(demo.route for _, demo in won)
    assert set(routes) == set(SHARES) < set(ROUTES)
    for route, share in SHARES.items():
        assert abs(routes[route] / len(won) - share) < 3 * np.sqrt(share * (1 - share) / len(won))
    for seed, demo in won:
        assert demo.route == Driver(split_seed(seed)[1]).route
        positions = demo.observations["position"].astype(np.float64)
        first, left, right = sides(positions, posts_of({"posts": demo.observations["posts"][0]}))
        row = {(True, True): "left", (False, True): "between", (False, False): "right"}[left, right]
        assert demo.route == f"{'left' if first else 'right'}-{row}"


def test_success_and_failure_are_geometry(demonstrations) -> None:
    ends = Counter()
    rng = np.random.default_rng(0)
    for seed in range(60):
        env = Obstacles()
        observation, _ = env.reset(seed=seed)
        posts, ended = posts_of(observation), False
        aim = rng.uniform([-0.35, 0.3], [0.35, 0.5])
        while not ended:
            observation, reward, terminated, truncated, info = env.step(aim)
            position = env._trail[-1]
            hit = np.min(np.linalg.norm(position - posts, axis=1)) < POST_RADIUS + PUCK - 1e-6 or not np.all(
                (position > WALLS[0] + PUCK) & (position < WALLS[1] - PUCK)
            )
            at_goal = np.linalg.norm(position - GOAL) <= GOAL_RADIUS
            assert terminated == (hit or at_goal)
            assert info["success"] == (at_goal and not hit) == (reward == 1.0)
            ended = terminated or truncated
        ends["touched" if hit else "reached"] += 1
        assert info["route"] in {*ROUTES, "none"}
    assert ends["touched"] > 5


def test_demonstrations_replay(demonstrations) -> None:
    for seed in range(10):
        env = Obstacles(layouts="training")
        env.reset(seed=split_seed(seed)[0])
        for action in demonstrations[seed].actions:
            *_, info = env.step(action)
        assert (info["success"], info["route"]) == (demonstrations[seed].success, demonstrations[seed].route)


@pytest.mark.parametrize(
    ("routes", "post"), [(("left-left", "right-right"), 0), (("left-left", "left-between"), 1)], ids=["first", "row"]
)
def test_the_average_of_two_routes_goes_through_a_post(routes, post) -> None:
    env, gaps = Obstacles(), []
    for seed in range(10):
        ways = []
        for route in routes:
            observation, _ = env.reset(seed=seed)
            driver = Driver(np.random.default_rng(0))
            driver.route = route
            posts, ended = posts_of(observation), False
            while not ended:
                observation, _, terminated, truncated, _ = env.step(driver.act(observation))
                ended = terminated or truncated
            way = np.array(env._trail)
            ways.append(np.interp(np.linspace(0.15, 0.8, 200), way[:, 1], way[:, 0]))
        mean = np.stack([np.mean(ways, axis=0), np.linspace(0.15, 0.8, 200)], axis=1)
        gaps.append(np.min(np.linalg.norm(mean - posts[post], axis=1)))
    assert max(gaps) < POST_RADIUS


def test_options_that_it_does_not_know_are_refused() -> None:
    with pytest.raises(TaskError, match="this task takes none"):
        Obstacles().reset(options={"goal": (0.0, 0.0)})
