import math

import pytest
import torch

from noise2action.data import rotations as r
from noise2action.seeds import generator

close = torch.testing.assert_close
N = 500


def random_rotations(n=N):
    """Return rotations spread evenly over all of them, float64."""
    return r.from_quaternion(torch.randn(n, 4, dtype=torch.float64, generator=generator(0)))


def about(axis, angle):
    """Return the rotation about a coordinate axis, from its definition."""
    i, j = (k for k in range(3) if k != axis)
    if axis == 1:
        i, j = j, i
    m = torch.eye(3, dtype=torch.float64)
    m[i, i] = m[j, j] = math.cos(angle)
    m[j, i], m[i, j] = math.sin(angle), -math.sin(angle)
    return m


PAIRS = {
    "sixd": (r.from_sixd, r.to_sixd),
    "quaternion": (r.from_quaternion, r.to_quaternion),
    "axis-angle": (r.from_axis_angle, r.to_axis_angle),
    "euler": (r.from_euler, r.to_euler),
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_representation_gives_the_rotation_back(name):
    there, back = PAIRS[name]
    rotation = random_rotations()
    close(there(back(rotation)), rotation, rtol=0, atol=1e-9)
    batched = rotation.reshape(5, 10, 10, 3, 3)
    close(there(back(batched)), batched, rtol=0, atol=1e-9)


def half_turns():
    return torch.stack([about(axis, math.pi) for axis in range(3)])


@pytest.mark.parametrize("name", PAIRS)
def test_the_identity_half_turns_and_locked_gimbals_are_rotations_too(name):
    there, back = PAIRS[name]
    locked = torch.stack([about(2, 0.7) @ about(1, p) @ about(0, -1.1) for p in (math.pi / 2, -math.pi / 2)])
    special = torch.cat([torch.eye(3, dtype=torch.float64)[None], half_turns(), locked])
    close(there(back(special)), special, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_comes_out_is_a_rotation(name, dtype):
    there, back = PAIRS[name]
    size = back(torch.eye(3)).shape[-1]
    x = torch.randn(N, size, dtype=dtype, generator=generator(1))
    rotation = there(x)
    assert rotation.dtype == dtype
    close(rotation @ rotation.mT, torch.eye(3, dtype=dtype).expand(N, 3, 3), rtol=0, atol=1e-5)
    close(torch.linalg.det(rotation), torch.ones(N, dtype=dtype), rtol=0, atol=1e-5)


def test_they_agree_with_their_definitions():
    angles = torch.tensor([0.3, -0.9, 2.1], dtype=torch.float64)
    close(r.from_euler(angles), about(2, 2.1) @ about(1, -0.9) @ about(0, 0.3))
    axis = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), dim=0)
    theta, v = 1.2, torch.tensor([0.4, 0.1, -0.7], dtype=torch.float64)
    # Rodrigues' formula.
    turned = v * math.cos(theta) + torch.linalg.cross(axis, v) * math.sin(theta)
    turned = turned + axis * (axis @ v) * (1 - math.cos(theta))
    close(r.from_axis_angle(axis * theta) @ v, turned)
    q = torch.cat([torch.tensor([math.cos(theta / 2)], dtype=torch.float64), axis * math.sin(theta / 2)])
    close(r.from_quaternion(q) @ v, turned)
    close(r.from_quaternion(-3 * q), r.from_quaternion(q))
    close(r.to_quaternion(r.from_quaternion(-q)), q)
    close(r.to_axis_angle(r.from_quaternion(q)), axis * theta)


def test_gram_schmidt_is_the_formula_written_out():
    a1, a2 = torch.randn(2, 3, dtype=torch.float64, generator=generator(2))
    b1 = a1 / (a1 @ a1) ** 0.5
    b2 = a2 - (b1 @ a2) * b1
    b2 = b2 / (b2 @ b2) ** 0.5
    b3 = torch.stack([b1[1] * b2[2] - b1[2] * b2[1], b1[2] * b2[0] - b1[0] * b2[2], b1[0] * b2[1] - b1[1] * b2[0]])
    close(r.from_sixd(torch.cat([a1, a2])), torch.stack([b1, b2, b3], dim=1))


def test_six_numbers_do_not_jump_where_the_others_do():
    angle = torch.linspace(0, 4 * math.pi, 2000, dtype=torch.float64)
    turning = r.from_axis_angle(angle.unsqueeze(1) * torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64))
    step = float((turning[1:] - turning[:-1]).flatten(1).norm(dim=1).max())

    def largest(to):
        x = to(turning)
        return float((x[1:] - x[:-1]).norm(dim=1).max())

    assert largest(r.to_sixd) <= step
    for to in (r.to_quaternion, r.to_axis_angle, r.to_euler):
        assert largest(to) > 100 * step


def test_small_rotations_keep_their_digits_and_have_gradients():
    v = torch.tensor([[0.0, 0.0, 0.0], [1e-9, 0.0, -2e-9]], dtype=torch.float64, requires_grad=True)
    out = r.to_axis_angle(r.from_axis_angle(v))
    close(out, v, rtol=1e-6, atol=1e-15)
    x = torch.randn(4, 6, dtype=torch.float64, generator=generator(3), requires_grad=True)
    assert torch.autograd.gradcheck(r.from_sixd, x)
