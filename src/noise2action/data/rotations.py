"""Rotations as matrices, quaternions, axis-angles, Euler angles, and as six numbers without jumps.

Networks should predict the six numbers: every representation with fewer than five has a discontinuity somewhere, and
near it neighbouring rotations are far apart. Everything goes by way of matrices [..., 3, 3] that act on column vectors.

- six numbers [..., 6]: the first column of the matrix, then the second
- quaternions [..., 4]: (w, x, y, z); q and -q are one rotation
- axis-angles [..., 3]: the axis times the angle in rad
- Euler angles [..., 3]: (roll, pitch, yaw) in rad about the fixed axes x, y, z: R = Rz(yaw) Ry(pitch) Rx(roll)

**Source:** Zhou et al. 2019, "On the Continuity of Rotation Representations in Neural Networks", section 4.2.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

Matrix = Float[Tensor, "*B 3 3"]

_GIMBAL = 1e-6


def from_sixd(x: Float[Tensor, "*B 6"]) -> Matrix:
    """Return the rotation whose first two columns are those of `x` made orthonormal by Gram-Schmidt.

    Any six numbers will do, but zeros and parallel columns: they are no rotation, and give no orthonormal matrix.
    """
    first = normalize(x[..., :3], dim=-1)
    second = x[..., 3:]
    second = normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def to_sixd(rotation: Matrix) -> Float[Tensor, "*B 6"]:
    """Return the first two columns, one after the other."""
    return torch.cat([rotation[..., 0], rotation[..., 1]], dim=-1)


def from_quaternion(q: Float[Tensor, "*B 4"]) -> Matrix:
    """Return the rotation of a quaternion of any length but 0."""
    w, x, y, z = normalize(q, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def to_quaternion(rotation: Matrix) -> Float[Tensor, "*B 4"]:
    """Return the unit quaternion with w >= 0.

    **Source:** Bar-Itzhack 2000, in the form that divides by the largest of the four elements, so by 1/2 at least.
    """
    m = [[rotation[..., i, j] for j in range(3)] for i in range(3)]
    # Row k of 4 q q^T: the quaternion times 4 q_k.
    yz, zx, xy = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    rows = (
        (1 + m[0][0] + m[1][1] + m[2][2], yz, zx, xy),
        (yz, 1 + m[0][0] - m[1][1] - m[2][2], m[1][0] + m[0][1], m[0][2] + m[2][0]),
        (zx, m[1][0] + m[0][1], 1 - m[0][0] + m[1][1] - m[2][2], m[2][1] + m[1][2]),
        (xy, m[0][2] + m[2][0], m[2][1] + m[1][2], 1 - m[0][0] - m[1][1] + m[2][2]),
    )
    outer = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    largest = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*outer.shape[:-2], 1, 4)
    q = normalize(outer.gather(-2, largest).squeeze(-2), dim=-1)
    return torch.where(q[..., :1] < 0, -q, q)


def from_axis_angle(v: Float[Tensor, "*B 3"]) -> Matrix:
    """Return the rotation about `v` by the length of `v` in rad, the exponential of its cross product."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    rows = ((zero, -z, y), (z, zero, -x), (-y, x, zero))
    return torch.linalg.matrix_exp(torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2))


def to_axis_angle(rotation: Matrix) -> Float[Tensor, "*B 3"]:
    """Return the axis times the angle in [0, pi] rad."""
    q = to_quaternion(rotation)
    w, v = q[..., :1], q[..., 1:]
    length = v.norm(dim=-1, keepdim=True)
    # angle / sin(angle / 2) goes to 2 where the angle goes to 0.
    small = length < torch.finfo(length.dtype).eps
    return v * torch.where(small, 2.0, 2 * torch.atan2(length, w) / torch.where(small, 1.0, length))


def from_euler(angles: Float[Tensor, "*B 3"]) -> Matrix:
    """Return Rz(yaw) Ry(pitch) Rx(roll) of `angles` = (roll, pitch, yaw)."""
    roll, pitch, yaw = (
        from_axis_angle(angle.unsqueeze(-1) * torch.eye(3, dtype=angles.dtype, device=angles.device)[i])
        for i, angle in enumerate(angles.unbind(-1))
    )
    return yaw @ pitch @ roll


def to_euler(rotation: Matrix) -> Float[Tensor, "*B 3"]:
    """Return (roll, pitch, yaw), pitch in [-pi/2, pi/2].

    At the ends of pitch roll and yaw turn about one axis: there roll is 0.
    """
    m = [[rotation[..., i, j] for j in range(3)] for i in range(3)]
    level = torch.hypot(m[0][0], m[1][0])
    locked = level < _GIMBAL
    roll = torch.where(locked, 0.0, torch.atan2(m[2][1], m[2][2]))
    yaw = torch.where(locked, torch.atan2(-m[0][1], m[1][1]), torch.atan2(m[1][0], m[0][0]))
    return torch.stack([roll, torch.atan2(-m[2][0], level), yaw], dim=-1)
