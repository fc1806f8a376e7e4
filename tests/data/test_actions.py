import math

import pytest
import torch

from noise2action.data.actions import Delta, Relative, check_action_space
from noise2action.data.rotations import from_axis_angle, from_sixd, to_sixd
from noise2action.errors import ConfigError, SchemaError
from noise2action.schema import Feature, Schema
from noise2action.seeds import generator

close = torch.testing.assert_close
B, H = 4, 6
SCHEMA = Schema(
    observations=(Feature("pose", (3,)), Feature("heading", (1,), kind="angle")), action=Feature("action", (3,))
)
# Position, an angle, a gripper and a rotation: every kind of element at once.
MIXED = {"reference": "pose", "absolute": (4,), "angles": (3,), "rotations": (5,)}


def rotations(*shape):
    v = torch.randn(*shape, 3, dtype=torch.float64, generator=generator(1))
    return to_sixd(from_axis_angle(v))


def mixed():
    """Return actions [B, H, 11] and start [B, 11] of `MIXED`; angles in [-pi, pi)."""
    g = generator(0)
    plain, first = torch.randn(B, H, 5, dtype=torch.float64, generator=g), torch.randn(B, 5, generator=g)
    return torch.cat([plain, rotations(B, H)], 2), torch.cat([first.double(), rotations(B)], 1)


@pytest.mark.parametrize("space", [Delta("pose"), Relative("pose"), Delta(**MIXED), Relative(**MIXED)])
def test_decoding_undoes_encoding(space):
    actions, start = mixed()
    before = actions.clone(), start.clone()
    again = space.decode(space.encode(actions, start), start)
    if not space.angles:
        close(again, actions)
    else:
        plain = [i for i in range(11) if i != 3]
        close(again[..., plain], actions[..., plain])
        close(torch.cos(again[..., 3] - actions[..., 3]), torch.ones(B, H, dtype=torch.float64))  # up to whole turns
    close((actions, start), before, rtol=0, atol=0)


def test_relative_is_the_difference_to_the_start_and_delta_that_to_the_action_before():
    actions = torch.randn(B, H, 3, generator=generator(0))
    start = torch.randn(B, 3, generator=generator(1))
    relative, delta = Relative("pose").encode(actions, start), Delta("pose").encode(actions, start)
    for h in range(H):
        close(relative[:, h], actions[:, h] - start)
        close(delta[:, h], actions[:, h] - (start if h == 0 else actions[:, h - 1]))
    close(Delta("pose").decode(delta, start), start.unsqueeze(1) + delta.cumsum(1))


def test_elements_that_stay_absolute_angles_and_rotations_go_their_own_way():
    actions, start = mixed()
    start[:, 3], actions[:, 0, 3] = 3.0, -3.0  # across the wrap: a small turn
    relative = Relative(**MIXED).encode(actions, start)
    close(relative[..., 4], actions[..., 4])
    close(relative[:, 0, 3], torch.full((B,), 2 * math.pi - 6, dtype=torch.float64))
    assert bool((relative[..., 3].abs() <= math.pi).all())
    turn = from_sixd(start[:, 5:]).mT.unsqueeze(1) @ from_sixd(actions[..., 5:])
    close(from_sixd(relative[..., 5:]), turn)
    still = Delta(**MIXED).encode(start.unsqueeze(1).expand(B, H, 11), start)
    close(from_sixd(still[..., 5:]), torch.eye(3, dtype=torch.float64).expand(B, H, 3, 3))
    close(still[..., :4], torch.zeros(B, H, 4, dtype=torch.float64))


def test_relative_chunks_do_not_depend_on_the_place():
    actions, start = torch.randn(B, H, 3, generator=generator(0)), torch.randn(B, 3, generator=generator(1))
    moved = torch.tensor([5.0, -3.0, 2.0])
    for space in (Relative("pose"), Delta("pose")):
        close(space.encode(actions + moved, start + moved), space.encode(actions, start))


@pytest.mark.parametrize(
    ("space", "error", "match"),
    [
        (Relative("poze"), SchemaError, "did you mean 'pose'"),
        (Delta("heading"), SchemaError, r"of shape \(1,\)"),
        (Relative("pose", absolute=(3,)), ConfigError, "below 3, got 3"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(space, error, match):
    with pytest.raises(error, match=match):
        check_action_space(space, SCHEMA)


@pytest.mark.parametrize("wrong", [{"absolute": (1, 1)}, {"absolute": (-1,)}, {"angles": (8,), "rotations": (3,)}])
def test_elements_named_twice_are_refused(wrong):
    with pytest.raises(ConfigError, match="distinct elements"):
        Relative("pose", **wrong)
