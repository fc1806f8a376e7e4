"""Rollouts: episodes depend on their seed only, whoever runs beside them and in whatever process."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stand_ins import MAX_STEPS, TASK, Drift, Wander, die, load_nothing, load_wander

from noise2action.envs import tasks
from noise2action.envs.manipulation import MANIPULATION
from noise2action.errors import TaskError
from noise2action.evaluate.batches import ROWS
from noise2action.evaluate.latency import measure_latency
from noise2action.evaluate.rollouts import rollout
from noise2action.evaluate.workers import WorkerError, rollout_in_processes
from noise2action.policies.policy import PolicySpec
from noise2action.seeds import generator

pytestmark = pytest.mark.unchecked

SEEDS = [3, 0, 17, 4, 29, 8]


def actions(result):
    assert result.trace is not None
    return result.trace.actions


def test_an_episode_does_not_depend_on_its_batch():
    together = rollout(TASK, Wander(), SEEDS, sampler_seed=5)
    alone = [rollout(TASK, Wander(), [seed], sampler_seed=5)[0] for seed in SEEDS]
    assert list(together) == alone
    assert [r.seed for r in together] == SEEDS
    assert len({r.steps for r in together}) > 2
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(actions(a), actions(b))


def test_the_sampler_seed_changes_the_noise_and_not_the_layout():
    first, second = (rollout(TASK, Wander(), [1], sampler_seed=s)[0] for s in (0, 1))
    np.testing.assert_array_equal(first.trace.observations["position"][0], second.trace.observations["position"][0])
    assert not np.array_equal(actions(first), actions(second))


def test_one_episode_is_what_a_plain_loop_makes():
    result = rollout(TASK, Wander(), [7], sampler_seed=2)[0]
    env, policy, noise = Drift(), Wander(), generator(2, "episode", 7)
    seen = [env.reset(seed=7)[0]["position"]] * 2
    executed, chunk, ended = [], None, False
    while not ended:
        if len(executed) % policy.spec.stride == 0:
            history = {"position": torch.from_numpy(np.stack(seen[-2:]))[None]}
            chunk = policy.plan(history, generator=[noise])[0].numpy()
        executed.append(chunk[len(executed) % policy.spec.stride])
        observation, _, terminated, truncated, info = env.step(executed[-1])
        seen.append(observation["position"])
        ended = terminated or truncated
    np.testing.assert_array_equal(actions(result), np.stack(executed))
    assert (result.success, result.score, result.steps) == (info["success"], info["score"], len(executed))
    assert result.route == info["route"]
    assert result.trace.planned.tolist() == [k % 4 == 0 for k in range(result.steps)]
    np.testing.assert_array_equal(result.trace.observations["position"], np.stack(seen[1:]))


def test_running_episodes_share_a_plan():
    policy = Wander()
    results = rollout(TASK, policy, SEEDS)
    assert policy.batches == [ROWS] * -(-max(r.steps for r in results) // policy.spec.stride)


def test_frames_are_kept_for_the_recorded_episodes_only():
    first, second = rollout(TASK, Wander(), SEEDS[:2], record=1)
    assert first.trace.frames.shape == (first.steps + 1, 30, 41, 3)
    assert first.trace.frames[:, 0, 0, 0].tolist() == list(range(first.steps + 1))
    assert second.trace.frames is None


def test_progress_counts_up_to_all_episodes():
    counts = []
    rollout(TASK, Wander(), SEEDS, on_progress=counts.append)
    assert counts == sorted(set(counts))
    assert counts[-1] == len(SEEDS)


def test_an_interrupt_passes_through_and_closes_every_environment():
    def interrupt(done):
        raise KeyboardInterrupt

    Drift.opened = Drift.closed = 0
    with pytest.raises(KeyboardInterrupt):
        rollout(TASK, Wander(), SEEDS, on_progress=interrupt)
    assert Drift.opened == Drift.closed == len(SEEDS)


def test_repeated_seeds_and_endless_episodes_are_refused():
    with pytest.raises(ValueError, match="distinct"):
        rollout(TASK, Wander(), [1, 1])
    short = replace(TASK, max_steps=MAX_STEPS - 30)
    with pytest.raises(TaskError, match="truncate"):
        rollout(short, Wander(), [29])


def test_workers_return_what_one_process_returns():
    counts = []
    found = rollout_in_processes(
        TASK, load_wander, SEEDS, workers=2, sampler_seed=5, record=2, on_progress=counts.append
    )
    expected = rollout(TASK, Wander(), SEEDS, sampler_seed=5, record=2)
    assert found == expected
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(actions(a), actions(b))
    assert [r.trace.frames is not None for r in found] == [True, True, False, False, False, False]
    assert counts[-1] == len(SEEDS)


@pytest.mark.parametrize(
    ("load", "error", "words"), [(load_nothing, ValueError, "checkpoint"), (die, WorkerError, "died")]
)
def test_an_error_in_a_worker_is_raised_here(load, error, words):
    with pytest.raises(error, match=words):
        rollout_in_processes(TASK, partial(load), [1], workers=1)


def test_latency_is_measured_on_one_thread_and_restores_the_count():
    seen = []

    class Watched(Wander):
        def plan(self, *args, **kwargs):
            seen.append(torch.get_num_threads())
            return super().plan(*args, **kwargs)

    torch.set_num_threads(2)
    try:
        latency = measure_latency(Watched(), {"position": np.zeros(2, np.float32)}, calls=20, warmup=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == [1] * 23
    assert latency.calls == 20
    assert 0 < latency.stages["denoise"].p50 <= latency.total.p50 <= latency.total.p99


def test_percentiles_leave_out_the_warm_up(monkeypatch):
    # warm-up calls of 999 ms, then calls of 1 to 100 ms
    durations = [999.0, 999.0, *range(1, 101)]
    ticks = iter(np.cumsum([x for duration in durations for x in (0, duration)]) / 1e3)
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr("noise2action.evaluate.latency.time", clock)

    class Silent(Wander):
        def plan(self, *args, **kwargs):
            return torch.zeros(1, 6, 2)

    latency = measure_latency(Silent(), {"position": np.zeros(2, np.float32)}, calls=100, warmup=2)
    assert (latency.total.p50, latency.total.p99) == pytest.approx((50.5, 99.01))
    assert latency.stages == {}


@pytest.mark.parametrize("name", sorted(tasks.TASKS))
def test_every_task_can_be_rolled_out(name):
    task = tasks.find(name)
    if name.startswith("pusht"):
        pytest.importorskip("gym_pusht", reason="the extra sim is not installed")

    class Still(Wander):
        def plan(self, history, committed=None, **kwargs):
            rows = len(next(iter(history.values())))
            return torch.zeros(rows, 6, task.schema.action_dim)

    still = Still(spec=PolicySpec(2, 6, 4, 0, task.control_hz), schema=task.schema)
    # Pictures of a simulator take seconds; the arm's scenes are drawn alike.
    recorded = name not in MANIPULATION or name == "assembly"
    results = rollout(task, still, [0, 1], record=int(recorded))
    assert all(0 <= r.score <= 1 and r.steps <= task.max_steps and not r.success for r in results)
    assert not recorded or results[0].trace.frames.dtype == np.uint8
    assert (results[0].route is not None) == (not name.startswith("pusht"))
