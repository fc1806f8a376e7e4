"""Distances between sets of samples, and what generated samples cover of a distribution.

Every distance takes two sets [n, D] and [m, D]; sums over pairs are made in blocks, in float64.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor

from ..seeds import generator

Samples = Tensor | NDArray[Any]
"""Samples [n, D]."""
BLOCK = 1 << 22
"""Pairs that are held in memory at once."""


def energy_distance(a: Samples, b: Samples) -> float:
    """Return the energy distance `2 E|a - b| - E|a - a'| - E|b - b'|`, the biased V-statistic: 0 for identical sets.

    Between two independent sets of one distribution its mean is `(1/n + 1/m) E|a - a'|`, not 0: compare with that.

    **Source:** Szekely & Rizzo 2013, Eq. 6.1.
    """
    a, b = _samples(a, b)
    return max(0.0, 2 * _mean_distance(a, b) - _mean_distance(a, a) - _mean_distance(b, b))


def sliced_wasserstein(a: Samples, b: Samples, *, projections: int = 256, seed: int = 0) -> float:
    """Return the sliced 1-Wasserstein distance: the mean, over random directions, of the distance of projections.

    **Source:** Bonneel et al. 2015, section 2.3.
    """
    a, b = _samples(a, b)
    directions = torch.randn(a.shape[1], projections, generator=generator(seed, "directions"), dtype=torch.float64)
    directions /= directions.norm(dim=0)
    return float(_wasserstein(a @ directions, b @ directions).mean())


def mmd(a: Samples, b: Samples, *, bandwidth: float | None = None) -> float:
    """Return the squared maximum mean discrepancy, biased, of the kernel `exp(-|a - b|^2 / (2 bandwidth^2))`.

    The bandwidth is the median distance between `a` and `b` unless given.

    **Source:** Gretton et al. 2012, Eq. 5.
    """
    a, b = _samples(a, b)
    if bandwidth is None:
        bandwidth = float(torch.cdist(a[:1000], b[:1000]).median())
    return max(0.0, _mean_kernel(a, a, bandwidth) + _mean_kernel(b, b, bandwidth) - 2 * _mean_kernel(a, b, bandwidth))


def mode_coverage(x: Samples, modes: Samples, radius: float, *, norm: float = 2.0, share: float = 0.1) -> float:
    """Return the fraction of `modes` [K, D] whose ball holds at least `share` of its equal part `n / K` of `x`."""
    nearest, inside = _assigned(x, modes, radius, norm)
    counts = torch.bincount(nearest[inside], minlength=len(modes))
    return float((counts >= share * len(x) / len(modes)).double().mean())


def off_mode_fraction(x: Samples, modes: Samples, radius: float, *, norm: float = 2.0) -> float:
    """Return the fraction of `x` that lies in no mode's ball."""
    return float((~_assigned(x, modes, radius, norm)[1]).double().mean())


def precision_recall(real: Samples, fake: Samples, *, k: int = 3) -> tuple[float, float]:
    """Return (precision, recall): samples of one set inside the union of the other's k-nearest-neighbour balls.

    **Source:** Kynkaanniemi et al. 2019, Eq. 1-2.
    """
    real, fake = _samples(real, fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(f"expected k in [1, {min(len(real), len(fake)) - 1}], got {k}")
    return _inside(fake, real, k), _inside(real, fake, k)


def frechet(a: Samples, b: Samples) -> float:
    """Return the Frechet distance of Gaussians fitted to features: `|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2)`.

    With the features of an Inception network it is the FID.

    **Source:** Heusel et al. 2017, Eq. 6.
    """
    a, b = _samples(a, b)
    cov_a, cov_b = (np.atleast_2d(np.cov(s.numpy(), rowvar=False)) for s in (a, b))
    # The root of the symmetric product has the same trace, and is real where covariances are singular.
    root = _root(cov_a)
    cross = np.trace(_root(root @ cov_b @ root))
    gap = float((a.mean(0) - b.mean(0)).square().sum())
    return max(0.0, gap + float(np.trace(cov_a) + np.trace(cov_b) - 2 * cross))


def _samples(a: Samples, b: Samples) -> tuple[Tensor, Tensor]:
    a, b = (torch.as_tensor(s).detach().to("cpu", torch.float64).flatten(1) for s in (a, b))
    if not len(a) or not len(b) or a.shape[1] != b.shape[1]:
        raise ValueError(f"expected two sets of samples of one dimension, got {tuple(a.shape)} and {tuple(b.shape)}")
    return a, b


def _blocks(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Yield the distances from a few rows of `a` at a time to all of `b`."""
    for rows in a.split(max(1, BLOCK // len(b))):
        yield torch.cdist(rows, b, compute_mode="donot_use_mm_for_euclid_dist")


def _mean_distance(a: Tensor, b: Tensor) -> float:
    return sum(float(block.sum()) for block in _blocks(a, b)) / (len(a) * len(b))


def _mean_kernel(a: Tensor, b: Tensor, bandwidth: float) -> float:
    scale = -0.5 / bandwidth**2
    return sum(float(block.square_().mul_(scale).exp_().sum()) for block in _blocks(a, b)) / (len(a) * len(b))


def _wasserstein(a: Float[Tensor, "n P"], b: Float[Tensor, "m P"]) -> Float[Tensor, "P"]:
    """Return the 1-Wasserstein distance of every column: the mean gap of quantiles."""
    a, b = a.sort(dim=0).values, b.sort(dim=0).values
    if len(a) == len(b):
        return (a - b).abs().mean(0)
    # Both quantile functions are steps: they change at multiples of 1/n and of 1/m only.
    n, m = len(a), len(b)
    ends = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))
    widths = ends.diff(prepend=ends.new_zeros(1)).double() / (n * m)
    return ((a[(ends - 1) // m] - b[(ends - 1) // n]).abs() * widths.unsqueeze(1)).sum(0)


def _assigned(x: Samples, modes: Samples, radius: float, norm: float) -> tuple[Tensor, Tensor]:
    """Return the nearest mode of every sample, and whether it lies in its ball."""
    x, modes = _samples(x, modes)
    distance, nearest = torch.cdist(x, modes, p=norm).min(dim=1)
    return nearest, distance <= radius


def _inside(x: Tensor, support: Tensor, k: int) -> float:
    """Return the fraction of `x` in a ball around a point of `support` that reaches its k-th neighbour."""
    # The nearest point is the point itself, at distance 0.
    radii = torch.cat([block.kthvalue(k + 1, dim=1).values for block in _blocks(support, support)])
    inside = [(block <= radii).any(dim=1) for block in _blocks(x, support)]
    return float(torch.cat(inside).double().mean())


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the square root of a symmetric matrix that has no negative eigenvalues but by rounding."""
    values, vectors = linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
