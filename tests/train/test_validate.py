from dataclasses import replace

import pytest
import torch

from noise2action.data.loader import Loader
from noise2action.data.windows import Windows
from noise2action.diffusion.times import LossSecondMoment
from noise2action.policies import DiffusionConfig, RegressionConfig
from noise2action.train.validate import ACTION_WINDOWS, LOSS_WINDOWS, validate
from small_policies import NET, SPEC, build, episodes, normalizer

DATA = episodes(30, length=100, seed=1)
SCALES = normalizer(DATA)
HELD_OUT = Loader(
    DATA, Windows(DATA.ends, SPEC.obs_steps, SPEC.horizon, SPEC.first_action), SCALES, batch_size=48, seed=0
)


def spread(count):
    return HELD_OUT.gather(torch.linspace(0, len(HELD_OUT.windows) - 1, count).round().long())


def rows_of(policy, name, monkeypatch):
    """Return the rows of every call of a method of `policy`, filled as they come."""
    method, rows = getattr(policy, name), []

    def counted(given, **options):
        rows.append(len(given) if name == "loss" else len(given["position"]))
        return method(given, **options)

    monkeypatch.setattr(policy, name, counted)
    return rows


@torch.no_grad()
def test_the_validation_is_the_mean_over_windows_and_no_call_gets_more_than_a_batch(monkeypatch):
    policy = build(RegressionConfig(spec=SPEC, net=NET))  # neither its loss nor its plan draws anything
    loss = policy.loss(spread(LOSS_WINDOWS), generator=torch.Generator()).value.mean()
    some = spread(ACTION_WINDOWS)
    planned = policy.plan({name: SCALES.decode(name, x) for name, x in some.observations.items()})
    distance = (planned - SCALES.decode("action", some.actions)).norm(dim=2)[:, : SPEC.stride]
    real = some.valid[:, : SPEC.stride]
    assert not bool(real.all())

    losses, plans = (rows_of(policy, name, monkeypatch) for name in ("loss", "plan"))
    found = validate(policy, HELD_OUT, SCALES)
    assert found.loss == pytest.approx(float(loss), rel=1e-5)
    assert found.action_error == pytest.approx(float(distance[real].mean()), rel=1e-5)
    for rows, count in ((losses, LOSS_WINDOWS), (plans, ACTION_WINDOWS)):
        assert sum(rows) == count
        assert max(rows) == HELD_OUT.batch_size


def test_a_validation_is_repeatable_and_neither_learns_nor_depends_on_what_training_drew():
    config = DiffusionConfig(spec=SPEC, net=NET, draws=2)
    config = replace(config, objective=replace(config.objective, times=LossSecondMoment()))
    policy = build(config)
    first, before = validate(policy, HELD_OUT, SCALES), policy.memory.clone()
    torch.rand(100)
    policy.memory += 1
    assert validate(policy, HELD_OUT, SCALES) == first
    assert torch.equal(policy.memory, before + 1)
