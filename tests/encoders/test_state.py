import pytest
import torch

from noise2action.encoders.state import StateEncoder
from noise2action.errors import ShapeError
from noise2action.schema import Feature

FEATURES = (Feature("p", (2,)), Feature("a", (1,), kind="angle"))


def test_vectors_stay_and_angles_become_cosine_and_sine_step_by_step():
    encoder = StateEncoder(FEATURES, obs_steps=2)
    p, a = torch.randn(3, 2, 2), torch.rand(3, 2, 1) * 6
    steps = [torch.cat([p[:, o], a[:, o].cos(), a[:, o].sin()], 1) for o in range(2)]
    assert encoder.dim == 8
    assert torch.equal(encoder({"p": p, "a": a}).vector, torch.cat(steps, 1))


def test_an_angle_and_the_same_angle_a_turn_later_are_the_same():
    encoder = StateEncoder(FEATURES, obs_steps=1)
    p, a = torch.randn(3, 1, 2), torch.rand(3, 1, 1)
    turned = encoder({"p": p, "a": a + 2 * torch.pi}).vector
    torch.testing.assert_close(encoder({"p": p, "a": a}).vector, turned, rtol=0, atol=1e-5)


def test_another_history_length_is_refused():
    with pytest.raises(ShapeError, match=r"'p': expected \[B, 2"):
        StateEncoder(FEATURES, obs_steps=2)({"p": torch.zeros(1, 3, 2), "a": torch.zeros(1, 2, 1)})
