"""What every task keeps: spaces, seeds, gymnasium's contract, typed errors, demonstrations that replay."""

import inspect
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from noise2action.envs.episode import record, split_seed
from noise2action.envs.tasks import TASKS, Task, find
from noise2action.errors import MissingExtraError, TaskError

SEEN = {name: find(name) for name in ("maze@top:96", "obstacles@top:96", "two_routes@top:96")}
EVERY = TASKS | SEEN
tasks = pytest.mark.parametrize("task", list(EVERY.values()), ids=list(EVERY))
BIG = 2**63 - 1


def rollout(env: gymnasium.Env, actions: np.ndarray, seed: int) -> tuple[list[dict[str, np.ndarray]], list[dict]]:
    observation, info = env.reset(seed=seed)
    observations, infos = [observation], [info]
    for action in actions:
        observation, _, terminated, truncated, info = env.step(action)
        observations.append(observation)
        infos.append(info)
        if terminated or truncated:
            break
    return observations, infos


def actions_of(task: Task, n: int) -> np.ndarray:
    feature = task.schema.action
    low, high = feature.low, feature.high
    return np.random.default_rng(0).uniform(low, high, (n, task.schema.action_dim)).astype(np.float32)


@tasks
def test_gymnasium_accepts_the_environment(task: Task) -> None:
    with warnings.catch_warnings():
        # Positions have no stated range, on purpose: a block can be squeezed past a wall.
        warnings.filterwarnings("ignore", message=".*Box observation space .* value is.*infinity")
        warnings.filterwarnings("ignore", message=".*(alternative render modes|symmetric and normalized)")
        check_env(task.make(), skip_render_check=False)


@tasks
def test_observations_follow_the_schema(task: Task) -> None:
    env = task.make()
    observations, infos = rollout(env, actions_of(task, 20), seed=1)
    for observation in observations:
        assert env.observation_space.contains(observation)
        shapes = {k: v.shape for k, v in observation.items()}
        task.schema.check({**shapes, "action": task.schema.action.shape}, where=task.name)
    assert all(isinstance(info["success"], bool) and 0.0 <= info["score"] <= 1.0 for info in infos)
    scores = [info["score"] for info in infos]
    assert scores == sorted(scores)


@tasks
def test_a_seed_fixes_layout_and_picture(task: Task) -> None:
    first, second = task.make(), task.make()
    # The second has lived through another episode, of which nothing may remain.
    rollout(second, actions_of(task, 5), seed=9)
    for seed in (0, 7, BIG):
        a, b = first.reset(seed=seed)[0], second.reset(seed=seed)[0]
        assert all(np.array_equal(a[name], b[name]) for name in a)
        np.testing.assert_array_equal(first.render(), second.render())
    actions = actions_of(task, 20)
    for a, b in zip(rollout(first, actions, 3)[0], rollout(second, actions, 3)[0], strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    starts = [first.reset(seed=seed)[0] for seed in range(20)]
    if task.name == "gentle_firm":
        # Fingers are open at first; what differs is the object between them.
        starts = [first.step(np.full(1, 0.025, np.float32))[0] for seed in range(20) if first.reset(seed=seed)]
    assert len({b"".join(x.tobytes() for x in start.values()) for start in starts}) == 20


@tasks
def test_the_picture_is_rgb_and_shows_motion(task: Task) -> None:
    env = task.make()
    env.reset(seed=2)
    before = env.render()
    assert before.dtype == np.uint8
    assert before.shape == (256, 256, 3)
    env.step(actions_of(task, 1)[0])
    assert not np.array_equal(before, env.render())


@tasks
def test_wrong_actions_are_named(task: Task) -> None:
    env = task.make()
    env.reset(seed=0)
    dim = task.schema.action_dim
    with pytest.raises(TaskError, match=rf"shape \({dim},\), got \(3,\)"):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(TaskError, match="finite action"):
        env.step(np.full(dim, np.nan, np.float32))


@tasks
def test_actions_out_of_range_act_as_their_limit(task: Task) -> None:
    high = np.full(task.schema.action_dim, task.schema.action.high, np.float32)
    (_, a), (_, b) = (rollout(task.make(), action[None], seed=4)[0] for action in (high, 3 * high))
    assert all(np.array_equal(a[name], b[name]) for name in a)


@tasks
def test_an_episode_is_cut_off(task: Task) -> None:
    env = task.make()
    observation, _ = env.reset(seed=5)
    # Standing still: a target where the finger is, or no velocity.
    nowhere = np.zeros(task.schema.action_dim)
    where = next((observation[name] for name in ("agent_position", "opening") if name in observation), nowhere)
    still = where.astype(np.float32)
    ends = [env.step(still)[2:4] for _ in range(task.max_steps)]
    assert not any(terminated for terminated, _ in ends)
    assert [truncated for _, truncated in ends] == [False] * (task.max_steps - 1) + [True]


@tasks
def test_demonstrations_are_reproducible_and_replay(task: Task) -> None:
    demo, again = task.demonstrate(11), task.demonstrate(11)
    assert demo.success
    assert demo.score == 1.0
    np.testing.assert_array_equal(demo.actions, again.actions)
    assert not np.array_equal(demo.actions[:5], task.demonstrate(12).actions[:5])
    # Where layouts of training and evaluation differ, demonstrations are of the former.
    env = task.make(layouts="training") if "layouts" in inspect.signature(task.make).parameters else task.make()
    assert env.action_space.contains(demo.actions[0])
    observations, infos = rollout(env, demo.actions, split_seed(11)[0])
    assert infos[-1]["success"]
    for name, values in demo.observations.items():
        np.testing.assert_array_equal(values, np.stack([o[name] for o in observations[:-1]]))
        assert values.dtype == task.schema.features[name].dtype
    assert len(demo.actions) == len(observations) - 1


# The demonstrator of pusht does not look at pictures, which take seconds.
@pytest.mark.parametrize(
    "task",
    [pytest.param(task, marks=pytest.mark.slow if name == "pusht_image" else ()) for name, task in EVERY.items()],
    ids=list(EVERY),
)
def test_the_demonstrator_acts_in_evaluated_layouts_too(task: Task) -> None:
    env = task.make()
    made = [record(env, seed, task.demonstrator(env, np.random.default_rng(seed))) for seed in range(2)]
    assert any(episode.success for episode in made)
    assert np.array_equal(made[0].actions, record(env, 0, task.demonstrator(env, np.random.default_rng(0))).actions)


@pytest.mark.parametrize("size", [96, 224])
@pytest.mark.parametrize(
    ("plain", "camera", "told"),
    [
        ("pusht", "image", ["agent_position"]),
        ("maze", "top", ["position", "velocity", "goal"]),
        ("obstacles", "top", ["position", "velocity"]),
        ("two_routes", "top", ["position", "velocity"]),
    ],
)
def test_a_picture_replaces_what_only_a_simulator_knows(plain: str, camera: str, told: list[str], size: int) -> None:
    task, blind = find(f"{plain}@{camera}:{size}"), find(plain)
    assert [f.name for f in task.schema.observations] == [camera, *told]
    actions = actions_of(task, 8)
    pictures = []
    # It is the same episode, of which the picture tells where things are.
    for a, b in zip(rollout(task.make(), actions, 3)[0], rollout(blind.make(), actions, 3)[0], strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in told)
        pictures.append(a[camera])
    assert all(picture.shape == (size, size, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 9
    assert not np.array_equal(task.make().reset(seed=4)[0][camera], pictures[0])


@pytest.mark.parametrize("name", SEEN)
def test_who_demonstrates_knows_what_the_picture_shows(name: str) -> None:
    seen, blind = find(name).demonstrate(3), find(name.partition("@")[0]).demonstrate(3)
    np.testing.assert_array_equal(seen.actions, blind.actions)


def test_pusht_image_is_pusht_seen_at_96_pixels() -> None:
    one, other = find("pusht_image"), find("pusht@image")
    assert one.schema == other.schema == find("pusht@image:96").schema
    a, b = one.make().reset(seed=1)[0], other.make().reset(seed=1)[0]
    assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("maze@table:96", "expected cameras of top, got 'table': write maze@top:96"),
        ("pusht@top", "expected cameras of image, got 'top': write pusht@image:96"),
        ("obstacles@", "expected cameras of top, got ''"),
        ("two_routes@top+top", "each camera once"),
        ("maze@top:15", r"16 to 1024 pixels after ':', got '15': write maze@top:96"),
        ("maze@top:1025", "16 to 1024 pixels"),
        ("pusht@image:-96", "16 to 1024 pixels"),
        ("pusht_image@image:96", r"a task with cameras before '@', got 'pusht_image'.*did you mean 'pusht'"),
        ("two_routes_goal@top:96", "a task with cameras before '@'"),
    ],
)
def test_a_wrong_view_is_named(name: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        find(name)


def test_unknown_task_and_negative_seed() -> None:
    with pytest.raises(TaskError, match=r"did you mean 'two_routes'"):
        find("two_route")
    for task in TASKS.values():
        with pytest.raises(TaskError, match="seed >= 0"):
            task.demonstrate(-1)


def test_a_missing_simulator_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gym_pusht.envs.pusht", None)
    with pytest.raises(MissingExtraError, match=r"noise2action\[sim\]"):
        find("pusht").make()


def test_the_table_needs_no_simulator_and_no_torch() -> None:
    code = (
        "import sys; from noise2action.envs.tasks import find; find('pusht'); find('two_routes').make(); "
        "print([m for m in ('torch', 'mujoco', 'pymunk', 'gym_pusht', 'pygame', 'shapely') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
