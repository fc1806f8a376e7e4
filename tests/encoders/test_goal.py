import pytest
import torch

from noise2action.encoders.goal import GoalStatePart, check_range
from noise2action.errors import SchemaError, ShapeError
from noise2action.schema import Feature

GOAL = Feature("goal", (2,), unit="m", low=-1.0, high=2.0, goal=True)
NOTHING = torch.nn.ModuleList()


def test_the_newest_goal_counts_and_is_encoded_as_a_state():
    x = torch.rand(3, 2, 2)
    assert torch.equal(GoalStatePart(GOAL, obs_steps=2)({"goal": x}, NOTHING, None).vector, x[:, 1:])
    turned = GoalStatePart(Feature("goal", (2,), kind="angle", goal=True), obs_steps=2)
    assert torch.equal(turned({"goal": x}, NOTHING, None).vector, torch.cat([x.cos(), x.sin()], 2)[:, 1:])


@pytest.mark.parametrize("value", [-1.0, 0.0, 2.0])
def test_a_goal_inside_its_range_passes(value):
    check_range(GOAL, torch.full((1, 1, 2), value))
    check_range(Feature("goal", (2,)), torch.full((1, 1, 2), value))


@pytest.mark.parametrize(
    ("value", "message"),
    [(-1.01, r"-1\.\.2 m, got -1.01\.\.0"), (2.5, r"got 0\.\.2.5"), (torch.nan, "got nan"), (torch.inf, "inf")],
)
def test_a_goal_outside_its_range_is_refused(value, message):
    with pytest.raises(SchemaError, match=f"goal 'goal': expected values in .*{message}"):
        GoalStatePart(GOAL, obs_steps=1).check({"goal": torch.tensor([[[0.0, value]]])})


def test_without_a_range_only_what_is_not_finite_is_refused():
    check_range(Feature("goal", (1,)), torch.tensor([1e9]))
    with pytest.raises(SchemaError, match="got inf"):
        check_range(Feature("goal", (1,)), torch.tensor([torch.inf]))


def test_another_shape_is_refused():
    with pytest.raises(ShapeError, match="'goal'"):
        GoalStatePart(GOAL, obs_steps=2).check({"goal": torch.zeros(1, 1, 2)})
