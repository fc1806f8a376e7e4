"""Small policies that studies train: the same seed is the same policy, and what is measured is what is said."""

from functools import lru_cache

import pytest
import torch

from noise2action.evaluate.rollouts import EpisodeResult
from noise2action.evaluate.statistics import Estimate, paired_success, unpaired_success, wilson
from noise2action.policies import DiffusionConfig
from noise2action.studies.policies import (
    BOUNDARY,
    JERK,
    NET,
    SPEC,
    SUCCESS,
    Arm,
    Budget,
    Trained,
    against,
    beginning,
    deviation,
    driven,
    held_out,
    measured,
    strangeness,
    taught,
    trained,
)

BUDGET = Budget(demonstrations=6, steps=3, episodes=2, seeds=2)


@lru_cache
def made() -> Trained:
    return trained(DiffusionConfig(spec=SPEC, net=NET), taught(BUDGET, 1).episodes, budget=BUDGET, seed=1)


def episode(seed: int, *, success: bool, jerk: float | None = 1.0) -> EpisodeResult:
    return EpisodeResult(seed, success, float(success), 10, "left", jerk, 0.5, None)


def test_a_policy_is_a_function_of_its_seed_and_sees_the_same_episodes():
    config, episodes = DiffusionConfig(spec=SPEC, net=NET), taught(BUDGET, 1).episodes
    again = trained(config, episodes, budget=BUDGET, seed=1)
    other = trained(config, episodes, budget=BUDGET, seed=2)
    for name, value in made().policy.state_dict().items():
        assert torch.equal(value, again.policy.state_dict()[name])
    assert any(not torch.equal(v, other.policy.state_dict()[n]) for n, v in made().policy.state_dict().items())
    one, two = driven(made().policy, 2), driven(other.policy, 2)
    for name, first in beginning(one).items():
        assert (first == beginning(two)[name]).all()


def test_a_policy_that_plans_what_was_demonstrated_is_no_stranger(monkeypatch):
    found = made()
    batch = held_out(found, windows=20)
    assert bool(batch.valid.all())
    assert len(batch.actions) == 20
    chunk = found.job.normalizer.decode("action", batch.actions)

    monkeypatch.setattr(found.policy, "plan", lambda history, **_: chunk)
    assert strangeness(found, windows=20) == pytest.approx(0, abs=1e-6)
    assert deviation(found, windows=20) == pytest.approx(0, abs=1e-6)
    monkeypatch.setattr(found.policy, "plan", lambda history, **_: chunk + 0.3)
    assert strangeness(found, windows=20) > 0.01
    assert deviation(found, windows=20) == pytest.approx(0.3 * 2**0.5, rel=1e-4)


def test_measures_are_means_over_the_episodes_that_have_them():
    found = measured(
        [episode(0, success=True), episode(1, success=False, jerk=3.0), episode(2, success=False, jerk=None)]
    )
    assert found[SUCCESS] == pytest.approx(100 / 3)
    assert found[JERK] == 2
    assert found[BOUNDARY] == 0.5


def test_an_arm_pools_episodes_and_pairs_trainings():
    one, two = Arm(), Arm()
    for k, successes in enumerate([3, 2, 1]):
        one.add([episode(j, success=j < successes) for j in range(4)], further={"more": float(k)})
        two.add([episode(j, success=j < 1) for j in range(4)], further={"more": float(k)})
    rate = wilson(6, 12)
    assert one.success == Estimate(100 * rate.value, 100 * rate.low, 100 * rate.high, 12)
    assert one.values[SUCCESS] == [75, 50, 25]
    # Differences 50, 25 and 0: mean 25, standard error 25 / sqrt(3), Student's t of two degrees of freedom.
    gap = one.less(two, SUCCESS)
    half = 4.302653 * 25 / 3**0.5
    assert (gap.value, gap.n) == (25, 3)
    assert (gap.low, gap.high) == pytest.approx((25 - half, 25 + half), rel=1e-5)
    assert one.less(two, "more").high == 0


def test_trainings_that_end_alike_claim_no_certainty():
    always, never = Arm(), Arm()
    for _ in range(3):
        always.add([episode(j, success=True) for j in range(40)])
        never.add([episode(j, success=j > 0) for j in range(40)])
    rate = wilson(117, 120)
    level, full = never.mean(SUCCESS), always.mean(SUCCESS)
    assert (level.value, level.n) == (97.5, 3)
    assert (level.low, level.high) == pytest.approx((100 * rate.low, 100 * rate.high))
    assert (full.value, full.high) == (100, 100)
    assert full.low == pytest.approx(100 * wilson(120, 120).low)
    # Student's t alone would have -2.5 [-2.5, -2.5]. Three of 120 against none: Newcombe's paired interval.
    gap = never.less(always, SUCCESS)
    assert gap.value == pytest.approx(-2.5)
    pooled = paired_success([j > 0 for j in range(40)] * 3, [True] * 120).difference
    assert (gap.low, gap.high) == pytest.approx((100 * pooled.low, 100 * pooled.high))
    assert gap.low < -2.5 < gap.high


def test_arms_of_other_episodes_are_not_paired():
    whole, part = Arm(), Arm()
    for _ in range(2):
        part.add([episode(j, success=j > 0) for j in range(10)])
        whole.add([episode(j, success=True) for _ in range(3) for j in range(10)])
    expected = unpaired_success([j > 0 for j in range(10)] * 2, [True] * 60)
    assert part.less(whole, SUCCESS) == Estimate(-10, 100 * expected.low, 100 * expected.high, 2)


def test_differences_of_equal_size_are_no_verdict():
    arms = {"base": Arm(), "other": Arm()}
    for arm, jerk in zip(arms.values(), (1.0, 2.0), strict=True):
        for _ in range(2):
            arm.add([episode(0, success=True)], further={"more": jerk})
    assert arms["other"].less(arms["base"], "more") == Estimate(1.0, 1.0, 1.0, 2)
    assert against(arms, "base", measure="more") == "more is not told apart for other (+1.0 [+1.0, +1.0])"


def test_success_is_a_share():
    one, other = Arm(), Arm()
    for successes in (4, 4, 2):
        one.add([episode(j, success=j < successes) for j in range(4)])
        other.add([episode(j, success=False) for j in range(4)])
    assert one.mean(SUCCESS).high == 100
    assert one.less(other, SUCCESS).high == 100


def test_a_tie_is_told_as_a_tie():
    arms = {"base": Arm(), "up": Arm(), "tie": Arm(), "down": Arm()}
    for name, shift in {"base": (0, 0, 0), "up": (2, 3, 2), "tie": (-1, 1, 0.5), "down": (-2, -1, -2)}.items():
        arms[name].values["x"] = [float(k + s) for k, s in enumerate(shift)]
    text = against(arms, "base", measure="x")
    assert text.startswith("x is higher for up (+2.3 [")
    assert "not told apart for tie (+0.2 [" in text
    assert "lower for down (-1.7 [" in text
