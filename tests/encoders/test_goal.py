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
    [(-1.01, r"-1\.\.2 m, got -1.01 \(element 1\)"), (2.5, "got 2.5"), (torch.nan, "got nan"), (torch.inf, "inf")],
)
def test_a_goal_outside_its_range_is_refused(value, message):
    with pytest.raises(SchemaError, match=f"goal 'goal': expected values in .*{message}"):
        GoalStatePart(GOAL, obs_steps=1).check({"goal": torch.tensor([[[0.0, value]]])})


def test_every_element_may_have_a_range_of_its_own():
    place = Feature("goal", (2,), unit="m", low=(-0.5, 0.0), high=(0.5, 0.7), goal=True)
    for dtype in (torch.float16, torch.float32, torch.float64):
        check_range(place, torch.tensor([[0.5, 0.7], [-0.5, 0.0]], dtype=dtype))
    check_range(place, torch.zeros(3, 1, 2, dtype=torch.int64))
    check_range(place, torch.zeros(0, 1, 2))
    for goal, message in (
        ((0.9, 0.3), r"values in -0.5\.\.0.5 m, got 0.9 \(element 0\)"),
        ((0.4, -0.4), r"values in 0\.\.0.7 m, got -0.4 \(element 1\)"),
    ):
        with pytest.raises(SchemaError, match=message):
            check_range(place, torch.tensor([[[0.1, 0.1]], [list(goal)]]))


def test_without_a_range_only_what_is_not_finite_is_refused():
    check_range(Feature("goal", (1,)), torch.tensor([1e9]))
    with pytest.raises(SchemaError, match="got inf"):
        check_range(Feature("goal", (1,)), torch.tensor([torch.inf]))


def test_another_shape_is_refused():
    with pytest.raises(ShapeError, match="'goal'"):
        GoalStatePart(GOAL, obs_steps=2).check({"goal": torch.zeros(1, 1, 2)})
