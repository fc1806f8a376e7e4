import numpy as np
import pytest
import torch

from noise2action.control.executor import Executor
from noise2action.errors import SchemaError, ShapeError
from noise2action.policies import PolicySpec
from small_policies import SCHEMA


class Recorder:
    """A policy whose action i of a plan made from newest position x is [x, i]; it keeps what it saw."""

    schema = SCHEMA

    def __init__(self, **spec):
        self.spec = PolicySpec(**{"obs_steps": 3, "horizon": 6, "stride": 2, **spec})
        self.seen = []

    def loss(self, batch, *, generator):
        raise AssertionError("an executor never trains")

    def plan(self, history, committed=None, *, generator=None, watch=None, on_step=None):
        self.seen.append(history["position"][..., 0].tolist())
        newest = history["position"][:, -1, :1]
        index = torch.arange(self.spec.horizon).float().expand(len(newest), -1)
        return torch.stack([newest.expand(-1, self.spec.horizon), index], dim=2)


def observation(*x):
    return {
        "position": np.stack([np.array([v, 0], np.float32) for v in x]),
        "heading": np.zeros((len(x), 1), np.float32),
    }


def generators(n):
    return [torch.Generator() for _ in range(n)]


def test_it_repeats_the_first_observation_then_slides_and_plans_every_stride():
    policy = Recorder()
    executor = Executor(policy, generators(1))
    planned, actions = [], []
    for tick in range(5):
        actions.append(executor.act(observation(tick))[0].tolist())
        planned.append(executor.planned)
    assert policy.seen == [[[0, 0, 0]], [[0, 1, 2]], [[2, 3, 4]]]
    assert planned == [True, False, True, False, True]
    assert actions == [[0, 0], [0, 1], [2, 0], [2, 1], [4, 0]]


def test_chunks_that_begin_in_the_past_are_executed_from_the_newest_observation_on():
    executor = Executor(Recorder(first_action=-2), generators(1))
    assert [executor.act(observation(0))[0, 1] for _ in range(3)] == [2, 3, 2]


def test_robots_that_are_done_are_not_planned_for():
    policy = Recorder()
    executor = Executor(policy, generators(2))
    actions = executor.act(observation(5, 7), active=np.array([False, True]))
    assert policy.seen == [[[7, 7, 7]]]
    assert actions[1].tolist() == [7, 0]


def test_observations_that_do_not_fit_are_refused():
    executor = Executor(Recorder(), generators(2))
    with pytest.raises(ShapeError, match="'position': expected \\(2, 2\\), got \\(1, 2\\)"):
        executor.act(observation(1))


def test_what_a_step_of_the_history_misses_is_missing_and_the_policy_decides():
    given = []

    class Listing(Recorder):
        def plan(self, history, committed=None, **more):
            given.append(sorted(history))
            return super().plan(history, committed, **more)

    executor = Executor(Listing(stride=1), generators(1))
    whole = observation(1)
    for tick in (whole, {"position": whole["position"]}, whole, whole, whole):
        executor.act(tick)
    both = ["heading", "position"]
    assert given == [both, ["position"], ["position"], ["position"], both]

    class Needing(Recorder):
        def plan(self, history, committed=None, **more):
            raise SchemaError(f"expected an observation 'heading', got {sorted(history)}")

    with pytest.raises(SchemaError, match="'heading'"):
        Executor(Needing(), generators(1)).act({"position": whole["position"]})


def test_the_stages_of_a_tick_are_timed():
    executor = Executor(Recorder(), generators(1))
    executor.act(observation(1))
    assert len(executor.watch.milliseconds["history"]) == 1


def test_a_picture_whose_channels_run_backwards_is_taken_and_words_are_not():
    executor = Executor(Recorder(), generators(1))
    backwards = {"position": observation(1)["position"][:, ::-1], "heading": np.zeros((1, 1), np.float32)}
    assert backwards["position"].strides[1] < 0
    executor.act(backwards)
    with pytest.raises(SchemaError, match="'heading': expected numbers, got"):
        executor.act({**observation(1), "heading": np.array([["left"]])})
