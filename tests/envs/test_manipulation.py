"""The manipulation tasks against Metaworld's own, their layouts, their demonstrator and their routes."""

import os
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("metaworld", reason="needs the extra `sim`")

from noise2action.envs.episode import record, split_seed
from noise2action.envs.grasp import Grasp
from noise2action.envs.grasp_novel import HELD_OUT, SHAPES, TRAINED, GraspNovel, Part, filled
from noise2action.envs.layouts import draw, side
from noise2action.envs.manipulation import MANIPULATION, manipulation
from noise2action.envs.post import HEIGHT, POST_Y, GraspBehindPost
from noise2action.envs.sawyer import HAND_HIGH, HAND_LOW, Sawyer
from noise2action.envs.sawyer_driver import SHARES, Driver
from noise2action.envs.tasks import TASKS, find
from noise2action.errors import TaskError
from noise2action.schema import Feature

METAWORLD = {
    "grasp_seen": "pick-place-v3",
    "push_block": "push-v3",
    "insert_peg": "peg-insert-side-v3",
    "open_drawer": "drawer-open-v3",
    "assembly": "assembly-v3",
}
ARMS = pytest.mark.parametrize("name", MANIPULATION)


@pytest.mark.parametrize(("name", "theirs"), METAWORLD.items())
def test_agrees_with_metaworld(name: str, theirs: str) -> None:
    """The library's own environment, driven by the same actions, sees the same poses and says success when we do.

    It keeps where the hand starts in single precision in two scenes, hence 1e-7 m.
    """
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS  # noqa: PLC0415

    library: Any = ALL_V3_ENVIRONMENTS[theirs]()
    library._partially_observable = False
    library.__dict__.pop("sawyer_observation_space", None)
    library._set_task_called = True
    ours = MANIPULATION[name]()
    for seed in range(2):
        ours.reset(seed=seed)
        library._last_rand_vec = ours.layout.copy()
        library.reset()
        for _ in range(ours.max_steps):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                action = ours.guide()
            numbers, _, _, _, said = library.step(action)
            _, _, terminated, _, info = ours.step(action)
            state = ours.state
            mine = np.concatenate([state["hand"], state["gripper"], state["object"]])
            assert np.abs(numbers[:7] - mine).max() < 2e-7
            assert np.abs(numbers[-3:] - state["goal"]).max() < 2e-7
            assert bool(said["success"]) == info["success"]
            if terminated:
                break
        assert info["success"]


def _played(env: Sawyer, seed: int, steps: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [env.reset(seed=seed)[0], *(env.step(rng.uniform(-1, 1, 4))[0] for _ in range(steps))]


def _same(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> bool:
    return all(np.array_equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a)


@ARMS
def test_a_seed_fixes_the_episode(name: str) -> None:
    env, other = MANIPULATION[name](), MANIPULATION[name]()
    first = _played(env, 3, 20)
    assert not _same(first, _played(other, 4, 20))
    # Environments of a class share the compiled scene: taking turns must not show.
    assert _same(first, _played(env, 3, 20))
    rng = np.random.default_rng(3)
    turns = [env.reset(seed=3)[0]]
    other.reset(seed=4)
    for _ in range(20):
        turns.append(env.step(rng.uniform(-1, 1, 4))[0])
        other.step(np.ones(4))
    assert _same(first, turns)
    assert all(env.observation_space.contains(seen) for seen in first)


@ARMS
def test_a_demonstration_succeeds_and_its_actions_succeed_again(name: str) -> None:
    layout, rng = split_seed(0)
    env = MANIPULATION[name](layouts="training")
    driver = Driver(env, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = record(env, layout, driver.act)
    assert made.success
    assert made.score == 1.0
    assert made.route == driver.route
    assert np.abs(made.actions).max() <= 1.0
    again = iter(made.actions)
    replayed = record(env, layout, lambda _: next(again))
    assert replayed.success
    assert all(np.array_equal(replayed.observations[key], value) for key, value in made.observations.items())


STANDING = {
    "grasp_seen": (("obj", 3, 0), ("goal", 3, 3)),
    "grasp_novel": (("obj", 2, 3), ("goal", 3, 6)),
    "push_block": (("obj", 2, 0), ("goal", 2, 3)),
    "insert_peg": (("peg", 3, 0), ("box", 3, 3)),
    "open_drawer": (("drawer", 3, 0),),
    "assembly": (("RoundNut", 3, 0), ("pegTop", 3, 3)),
    "grasp_seen_post": (("post", 1, 0), ("obj", 3, 1), ("goal", 3, 4)),
    "push_block_post": (("post", 1, 0), ("obj", 2, 1), ("goal", 2, 4)),
}
"""Bodies and marks of the scene whose first coordinates, so many, are those of the layout from a place on."""


@ARMS
def test_training_and_evaluation_layouts_never_meet(name: str) -> None:
    cells = {}
    low, high = np.array(MANIPULATION[name].layout_low), np.array(MANIPULATION[name].layout_high)
    # Coordinates that hardly vary have no part in it.
    wide = high - low >= 0.02
    for layouts in ("training", "evaluation"):
        env = MANIPULATION[name](layouts=layouts)
        drawn = []
        for seed in range(100):
            env.reset(seed=seed)
            drawn.append(env.layout.copy())
            assert side(env.layout, low, high) == layouts
        assert (drawn >= low).all()
        assert (drawn <= high).all()
        assert (np.ptp(drawn, axis=0) > 0.7 * (high - low))[wide].all()
        cells[layouts] = {tuple(np.floor(layout[wide] * 100).astype(int)) for layout in drawn}
    assert not cells["training"] & cells["evaluation"]


@ARMS
def test_what_a_layout_says_is_where_things_are(name: str) -> None:
    env, other = MANIPULATION[name](layouts="training"), MANIPULATION[name]()
    for seed in range(5):
        # The scene is shared: what stands fast is moved when the other begins.
        other.reset(seed=seed)
        env.reset(seed=seed)
        for what, count, first in STANDING[name]:
            at = env._data.site(what) if what in ("goal", "pegTop") else env._data.body(what)
            assert at.xpos[:count] == pytest.approx(env.layout[first : first + count], abs=1e-9), what


@given(st.integers(0, 2**32), st.sampled_from(["training", "evaluation"]))
def test_a_drawn_layout_is_on_its_side_of_the_checkerboard(seed: int, layouts: Any) -> None:
    layout = draw(np.random.default_rng(seed), (-0.1, 0.6), (0.1, 0.7), layouts)
    assert int(np.floor(layout[0] / 0.01) + np.floor(layout[1] / 0.01)) % 2 == (layouts == "evaluation")


def test_what_hardly_varies_makes_no_other_layout() -> None:
    low, high = (0.0, -0.001), (0.1, 0.001)
    assert side((0.004, -0.0005), low, high) == side((0.004, 0.0005), low, high) == "training"
    assert side((0.014, 0.0), low, high) == "evaluation"


def test_layouts_are_for_one_of_two_things() -> None:
    for_what: Any = "train"
    with pytest.raises(Exception, match="train"):
        draw(np.random.default_rng(0), (0.0,), (1.0,), for_what)


def test_nothing_is_there_before_reset() -> None:
    for task in (GraspNovel, GraspBehindPost):
        with pytest.raises(TaskError, match="expected reset"):
            task().render()
        with pytest.raises(TaskError, match="expected reset"):
            task().step(np.zeros(4))


def test_no_legal_layout_is_an_error() -> None:
    with pytest.raises(TaskError, match="none in 1000 draws: widen the range"):
        draw(np.random.default_rng(0), (0.0,), (1.0,), "training", legal=lambda _: False)


def test_demonstrators_take_their_ways_as_often_as_they_should() -> None:
    env = Grasp()
    env.reset(seed=0)
    taken = [Driver(env, np.random.default_rng(seed)).route for seed in range(2000)]
    for route, share in SHARES.items():
        assert abs(taken.count(route) / 2000 - share) < 4 * np.sqrt(share * (1 - share) / 2000)


@pytest.mark.parametrize("name", ["grasp_seen", "insert_peg", "grasp_seen_post"])
@pytest.mark.parametrize("route", SHARES)
def test_the_environment_tells_the_way_that_was_taken(name: str, route: str) -> None:
    env = MANIPULATION[name](layouts="training")
    driver = Driver(env, np.random.default_rng(1))
    driver.route = route
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert record(env, 5, driver.act).route == route


def test_the_average_of_the_ways_past_a_post_touches_it() -> None:
    env = GraspBehindPost()
    for seed in range(5):
        env.reset(seed=seed)
        ways = [env.way(route) for route in ("left", "right")]
        middle = np.mean(ways, axis=0)[1]
        for _ in range(60):
            _, _, terminated, _, info = env.step([*10 * (middle - env.hand), -1.0])
            if terminated:
                break
        assert terminated
        assert not info["success"]
        assert env.hand[1] < POST_Y
        assert env.hand[2] < HEIGHT


def test_held_out_shapes_are_in_no_demonstration() -> None:
    assert not set(TRAINED) & set(HELD_OUT)
    assert not set(TRAINED.values()) & set(HELD_OUT.values())
    for layouts, shapes in (("training", TRAINED), ("evaluation", HELD_OUT)):
        env = GraspNovel(layouts=layouts)
        assert {(env.reset(seed=seed), env.shape)[1] for seed in range(30)} == set(shapes)


def test_the_filled_share_of_a_shape() -> None:
    """Closed forms: a box, a cylinder, a cylinder on a thinner one, two crossed boxes."""
    exact = {"box": 1.0, "cylinder": np.pi / 4, "mushroom": np.pi / 8 * (1 + 0.6**2), "cross": 2 * 0.45 - 0.45**2}
    for name, share in exact.items():
        assert abs(filled(name) - share) < 0.03, name
    assert set(exact) < set(SHAPES)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-3, 3))
def test_a_turned_part_contains_the_turned_points(x: float, y: float, turn: float) -> None:
    plain, turned = Part(half=(0.7, 0.3, 1.0)), Part(half=(0.7, 0.3, 1.0), turn=turn)
    c, s = np.cos(turn), np.sin(turn)
    at, there, z = np.array([x, y]), np.array([c * x - s * y, s * x + c * y]), np.zeros(1)
    # Rounding may move a point on the rim.
    if abs(abs(at) - (0.7, 0.3)).min() > 1e-9:
        assert plain.contains(at[:1], at[1:], z) == turned.contains(there[:1], there[1:], z)


def _width(env: GraspNovel, height: float) -> float:
    """Half the width of the object's front face at a height over its centre, as the collision engine measures it."""
    import mujoco  # noqa: PLC0415

    model, data = env._furnished(), env._data
    turn = data.body("obj").xmat.reshape(3, 3)
    ahead, hit = turn[:, 0].copy(), np.zeros(1, np.int32)
    # Beside the middle, so that a thin part that lies across is missed by none of the shapes.
    origin = data.body("obj").xpos + turn @ np.array([-0.2, 0.0, height])
    distance = mujoco.mj_ray(model, data, origin, ahead, None, 1, -1, hit)
    assert model.geom_bodyid[hit[0]] == model.body("obj").id
    return 0.2 - distance


def test_a_shape_collides_as_it_is_drawn() -> None:
    """Low and high, rays from the side meet the widths that the parts say; lying on the table, the height is right."""
    widths = {"step": (1.0, 0.6), "mushroom": (0.6, 1.0)}
    for layouts in ("training", "evaluation"):
        env = GraspNovel(layouts=layouts)
        for seed in range(12):
            env.reset(seed=seed)
            half, height = env.layout[0], env.layout[1]
            for level, share in zip((-0.5, 0.5), widths.get(env.shape, (1.0, 1.0)), strict=True):
                assert _width(env, level * height) == pytest.approx(share * half, abs=1e-6), env.shape
            for _ in range(10):
                env.step(np.zeros(4))
            assert abs(env.object_position[2] - height) < 2e-3


def test_an_object_can_be_seen_at_96_pixels() -> None:
    """Hiding it changes a part of the picture of the camera over the table that is large enough to show a shape."""
    env = GraspNovel(camera="table", picture=96)
    for seed in range(8):
        env.reset(seed=seed)
        shown = env.render().astype(int)
        model = env._furnished()
        colours = model.geom_rgba.copy()
        model.geom_rgba[model.geom_bodyid == model.body("obj").id, 3] = 0.0
        hidden = env.render().astype(int)
        model.geom_rgba[:] = colours
        assert (abs(shown - hidden).sum(axis=2) > 20).sum() >= 20


def test_a_touch_within_an_action_counts() -> None:
    """Grazing runs: whenever the post is touched in any step of the physics, the episode has failed."""
    import mujoco  # noqa: PLC0415

    grazed = 0
    for offset in np.linspace(0.045, 0.075, 25):
        env = GraspBehindPost()
        env.reset(seed=1)
        touched = False
        step = mujoco.mj_step

        def spied(model: Any, data: Any, nstep: int = 1, step: Any = step) -> None:
            nonlocal touched
            step(model, data, nstep)
            touched |= bool((data.contact.geom == model.geom("post").id).any())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mujoco, "mj_step", spied)
            for _ in range(60):
                aim = np.array([env._post[0] + offset, env.hand[1] + 0.1, 0.12])
                _, _, terminated, _, info = env.step([*10 * (aim - env.hand), -1.0])
                if terminated:
                    break
        assert terminated == touched
        assert not (touched and info["success"])
        grazed += touched
    assert 0 < grazed < 25


def test_cameras_replace_what_only_a_simulator_knows() -> None:
    task = find("grasp_novel@corner2+topview:32")
    assert [f.name for f in task.schema.observations] == ["hand", "gripper", "goal", "corner2", "topview"]
    assert task.schema.features["corner2"] == Feature("corner2", (32, 32, 3), kind="image", dtype="uint8")
    assert task.name == "grasp_novel@corner2+topview:32"
    assert find(task.name).schema == task.schema


@pytest.mark.skipif(os.environ.get("MUJOCO_GL", "") == "disable", reason="nothing may be drawn")
@pytest.mark.parametrize(("camera", "size"), [("corner2", 32), ("table", 96), ("gripperPOV", 96), ("corner2", 224)])
def test_a_seed_fixes_the_pictures(camera: str, size: int) -> None:
    task = find(f"push_block@{camera}:{size}")
    one, other = task.make(), task.make()
    first = one.reset(seed=1)[0][camera]
    assert first.shape == (size, size, 3)
    assert first.std() > 10
    assert not np.array_equal(other.reset(seed=2)[0][camera], first)
    shown = one.render()
    assert not np.array_equal(other.render(), shown)
    # They share the scene, which shows the layout of whoever is asked.
    assert np.array_equal(one.render(), shown)
    assert np.array_equal(one.reset(seed=1)[0][camera], first)
    assert np.array_equal(other.reset(seed=1)[0][camera], first)
    moved = one.step(np.ones(4))[0][camera]
    assert not np.array_equal(moved, first)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("grasp_seen@corner9", "expected cameras of .*, got 'corner9'"),
        ("grasp_seen@corner2:8", "expected a size of 16 to 1024 pixels"),
        ("grasp_seen@corner2:big", "expected a size"),
        ("grasp_seen@corner2+corner2", "each camera once"),
        ("grasp_seen@", r"expected cameras of .*, got '': write grasp_seen@table:96"),
        ("gentle_firm@corner2", "expected a task with cameras before '@'"),
        ("grasp_sen@corner2", "did you mean"),
    ],
)
def test_a_wrong_view_is_named(name: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        find(name)


def _guided(env: Sawyer, **options: float) -> dict[str, Any]:
    env.reset(seed=3, options=options)
    for _ in range(env.max_steps):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, _, terminated, truncated, info = env.step(env.guide())
        if terminated or truncated:
            break
    return {**info, "hand": env.hand, "object": env.state["object"]}


def test_disturbances_act_and_leave_no_trace() -> None:
    env = Grasp()
    plain = _guided(env)
    assert plain["success"]
    assert not _guided(env, friction=0.02)["success"]  # it slips out of the fingers
    assert not _guided(env, mass=200.0)["success"]  # it is too heavy to lift
    assert _guided(env, mass=1.5, friction=0.9)["success"]
    assert not np.array_equal(_guided(env, push=200.0)["hand"], plain["hand"])
    again = _guided(env, mass=1, friction=1.0, push=0.0)
    assert all(np.array_equal(again[key], plain[key]) for key in plain)


def test_a_push_displaces_the_hand_while_it_acts() -> None:
    env, still = Grasp(), Grasp()
    env.reset(seed=0, options={"push": 300.0})
    still.reset(seed=0)
    apart = []
    for _ in range(120):
        env.step(np.zeros(4))
        still.step(np.zeros(4))
        apart.append(np.linalg.norm(env.hand[:2] - still.hand[:2]))
    assert max(apart[:40]) == 0.0
    assert max(apart[40:50]) > 5e-3
    assert apart[-1] < 1e-3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frictoin": 1.0}, "did you mean 'friction'"),
        ({"mass": 0.0}, r"mass in \[0.01, 1000\], got 0.0"),
        ({"push": float("nan")}, "got nan"),
        ({"friction": "high"}, "got 'high'"),
    ],
)
def test_a_wrong_disturbance_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        Grasp().reset(seed=0, options=options)


def test_the_table_holds_them_all() -> None:
    assert set(MANIPULATION) < set(TASKS)
    assert all(TASKS[name].schema == manipulation(name).schema for name in MANIPULATION)


def test_a_wrong_action_is_refused_and_a_large_one_limited() -> None:
    env = Grasp()
    env.reset(seed=0)
    with pytest.raises(TaskError, match="shape"):
        env.step(np.zeros(3))
    with pytest.raises(TaskError, match="finite"):
        env.step(np.full(4, np.nan))
    for _ in range(200):
        env.step([100.0, 0.0, 0.0, 0.0])
    assert (env.hand <= HAND_HIGH + 0.02).all()
    assert (env.hand >= HAND_LOW - 0.02).all()
