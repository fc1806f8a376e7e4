"""Success against the geometry of the physics state, written out here: random actions, near misses, touches."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import numpy as np
import pytest

pytest.importorskip("metaworld", reason="needs the extra `sim`")

from noise2action.envs.manipulation import MANIPULATION
from noise2action.envs.sawyer import Sawyer

ARMS = pytest.mark.parametrize("name", MANIPULATION)
SITES = {"insert_peg": "pegHead", "assembly": "RoundNut"}
REACH = 0.01
"""The hand moves by this much (m) in an action, and may have let go of the post again when it is over."""


def family(name: str) -> str:
    return "push" if name.startswith("push") else "grasp" if name.startswith("grasp") else name


def point(env: Sawyer, name: str) -> np.ndarray:
    """What has to be at the goal [3], from the joints: a point of the free object, or the drawer's handle."""
    data, model = env._data, env._stage.model
    if name == "open_drawer":
        return data.body("drawer_link").xpos + np.array([0.0, -0.16, 0.0])
    at, (w, *v) = data.qpos[9:12], data.qpos[12:16]
    local = model.site(SITES[name]).pos if name in SITES else np.zeros(3)
    return at + local + 2 * np.cross(v, np.cross(v, local) + w * local)


def goal(env: Sawyer, name: str) -> np.ndarray:
    """Where that is [3], from the layout that was just reset to; a block's mark is as high as the block is now."""
    place = env.layout[-3:]
    if family(name) == "push":
        return np.array([*place[:2], env._data.qpos[11]])
    return place + np.array({"insert_peg": (0.03, 0.0, 0.13), "open_drawer": (0.0, -0.36, 0.09)}.get(name, (0, 0, 0)))


def arrived(name: str, gap: np.ndarray) -> bool:
    """Whether `gap` [3], from the goal to the point, is small enough."""
    if name == "assembly":
        return bool(np.hypot(gap[0], gap[1]) < 0.02 and gap[2] < 0.0)
    stretch, radius = (np.array([1.0, 2.0, 2.0]), 0.07) if name == "insert_peg" else (np.ones(3), 0.0)
    radius = {"grasp": 0.07, "push": 0.05, "open_drawer": 0.03}.get(family(name), radius)
    return bool(np.sqrt(np.sum((gap * stretch) ** 2)) <= radius)


def clearance(env: Sawyer) -> float:
    """Least distance (m) of the post from what moves and can collide with it."""
    model, post = env._stage.model, env._stage.model.geom("post").id
    moving = model.body_weldid[model.geom_bodyid] != 0
    meets = (model.geom_contype & model.geom_conaffinity[post]) | (model.geom_contype[post] & model.geom_conaffinity)
    geoms = np.flatnonzero(moving & (meets != 0))
    return min(mujoco.mj_geomDistance(model, env._data, int(geom), post, 0.1, None) for geom in geoms)


def guided(env: Sawyer) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.clip(env.guide(), -1.0, 1.0)


def at_random(env: Sawyer, rng: np.random.Generator) -> Iterator[np.ndarray]:
    del env
    while True:
        yield rng.uniform(-1, 1, 4)


def perturbed(env: Sawyer, rng: np.random.Generator) -> Iterator[np.ndarray]:
    while True:
        yield guided(env) + np.array([*rng.normal(0.0, 0.5, 3), 0.0])


def truncated(env: Sawyer, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Guided until the goal is near, and at random from there."""
    while env.error() > 0.12:
        yield guided(env)
    yield from at_random(env, rng)


@ARMS
@pytest.mark.parametrize("drive", [at_random, perturbed, truncated])
def test_success_is_the_geometry_of_the_state(name: str, drive: Callable[..., Iterator[Any]]) -> None:
    env = MANIPULATION[name]()
    for seed in range(2):
        env.reset(seed=seed)
        aim, actions = goal(env, name), drive(env, np.random.default_rng(seed))
        for _ in range(100):
            _, reward, terminated, _, info = env.step(next(actions))
            touched = name.endswith("post") and terminated and clearance(env) < REACH
            assert info["success"] == (arrived(name, point(env, name) - aim) and not touched) == (reward == 1.0)
            assert terminated == (info["success"] or touched)
            assert (info["score"] == 1.0) == info["success"]
            if terminated:
                break


@ARMS
def test_near_misses_are_misses(name: str) -> None:
    """The object is put at places around the border of what counts."""
    env, rng, said = MANIPULATION[name](), np.random.default_rng(0), []
    for seed in range(30):
        env.reset(seed=seed)
        aim = goal(env, name)
        if name == "open_drawer":
            env._data.qpos[9] = rng.uniform(-0.18, -0.15)
        else:
            offset = rng.normal(0.0, 1.0, 3)
            offset *= (
                rng.uniform(0.5, 1.5) * {"grasp": 0.07, "push": 0.05}.get(family(name), 0.03) / np.linalg.norm(offset)
            )
            env._data.qpos[9:12] += aim + offset - point(env, name)
        info = env.step(np.zeros(4))[4]
        said.append(info["success"])
        assert info["success"] == arrived(name, point(env, name) - aim)
    assert 5 <= sum(said) <= 25


@pytest.mark.parametrize("name", ["grasp_seen_post", "push_block_post"])
def test_who_touches_the_post_fails_though_the_object_arrives(name: str) -> None:
    ends = []
    for offset in np.linspace(0.03, 0.09, 7):
        env = MANIPULATION[name]()
        env.reset(seed=1)
        aim = goal(env, name)
        for _ in range(60):
            past = np.array([env._post[0] + offset, env.hand[1] + 0.1, 0.12])
            _, _, terminated, _, _ = env.step([*10 * (past - env.hand), -1.0])
            if terminated:
                break
        near = clearance(env)
        assert near < REACH if terminated else near > 0.0
        env._data.qpos[9:12] = aim
        after = env.step(np.zeros(4))[4]
        assert after["success"] == (not terminated)
        ends.append(terminated)
    assert set(ends) == {True, False}
