import math

import numpy as np
import pytest
import torch
from scipy import stats

from noise2action.data.points import POINTS
from noise2action.evaluate import distances
from noise2action.evaluate.distances import (
    energy_distance,
    frechet,
    mmd,
    mode_coverage,
    off_mode_fraction,
    precision_recall,
    sliced_wasserstein,
)
from noise2action.evaluate.quality import FEWEST, Trial, quality

close = torch.testing.assert_close


def normal(n, d=2, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


A, B = normal(30, 3), normal(20, 3, seed=1) + 0.5


@pytest.fixture(params=[1 << 22, 70])
def blocks(request, monkeypatch):
    """Sums in one block, and in many: 70 pairs are a few rows."""
    monkeypatch.setattr(distances, "BLOCK", request.param)


def mean_over_pairs(f, a, b):
    return sum(f(x, y) for x in a.tolist() for y in b.tolist()) / (len(a) * len(b))


@pytest.mark.usefixtures("blocks")
def test_energy_distance_is_its_formula():
    ab, aa, bb = (mean_over_pairs(math.dist, *pair) for pair in ((A, B), (A, A), (B, B)))
    close(energy_distance(A, B), 2 * ab - aa - bb)
    close(energy_distance(A.float().numpy(), B.float()), energy_distance(A, B), rtol=1e-5, atol=0)


@pytest.mark.parametrize("distance", [energy_distance, sliced_wasserstein, mmd])
def test_identical_sets_are_at_distance_zero_and_order_does_not_matter(distance):
    assert distance(A, A.flip(0)) < 1e-12
    close(distance(A, B), distance(B, A))
    assert distance(A, B) > 0.01


def test_energy_distance_of_two_draws_has_the_mean_of_its_bias():
    a, b = (normal(4000).reshape(200, 20, 2), normal(6000, seed=1).reshape(200, 30, 2))
    found = [energy_distance(x, y) for x, y in zip(a, b, strict=True)]
    # E|a - a'| of a standard normal pair in the plane is sqrt(pi).
    expected = (1 / 20 + 1 / 30) * math.sqrt(math.pi)
    close(float(np.mean(found)), expected, rtol=3 * np.std(found) / expected / 200**0.5, atol=0)


def test_energy_distance_on_the_line_is_the_squared_gap_of_distribution_functions():
    a, b = A[:, :1], B[:, :1]
    close(energy_distance(a, b), stats.energy_distance(a[:, 0].numpy(), b[:, 0].numpy()) ** 2)


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection():
    # E|u . v| over the circle is 2 |v| / pi.
    shift = torch.tensor([3.0, -4.0])
    found = sliced_wasserstein(A[:, :2], A[:, :2] + shift, projections=20_000, seed=0)
    close(found, 5 * 2 / math.pi, rtol=0.01, atol=0)


@pytest.mark.parametrize("n", [20, 30])
def test_sliced_wasserstein_is_the_mean_of_projected_distances(n):
    b = torch.cat([B, B + 1])[:n]
    directions = torch.randn(3, 16, generator=distances.generator(5, "directions"), dtype=torch.float64)
    directions /= directions.norm(dim=0)
    each = [stats.wasserstein_distance((A @ u).numpy(), (b @ u).numpy()) for u in directions.T]
    close(sliced_wasserstein(A, b, projections=16, seed=5), float(np.mean(each)))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("bandwidth", [0.7, None])
def test_mmd_is_the_sum_of_its_kernels(bandwidth):
    h = bandwidth or float(torch.cdist(A, B).median())
    aa, bb, ab = (
        mean_over_pairs(lambda x, y: math.exp(-(math.dist(x, y) ** 2) / (2 * h * h)), *pair)
        for pair in ((A, A), (B, B), (A, B))
    )
    close(mmd(A, B, bandwidth=bandwidth), aa + bb - 2 * ab)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_their_definition(k):
    def inside(x, support):
        radii = [sorted(math.dist(p, q) for q in support)[k] for p in support]
        return np.mean([any(math.dist(y, p) <= r for p, r in zip(support, radii, strict=True)) for y in x])

    a, b = A.tolist(), B.tolist()
    assert precision_recall(A, B, k=k) == (inside(b, a), inside(a, b))


def test_precision_and_recall_of_known_sets():
    line = torch.arange(10.0)[:, None]
    # Neighbours are 1 apart: the half line is inside, and covers up to one beyond its end.
    assert precision_recall(line, line[:5], k=1) == (1.0, 0.6)
    assert precision_recall(line, line + 100, k=1) == (0.0, 0.0)
    with pytest.raises(ValueError, match="expected k"):
        precision_recall(line, line, k=10)


def test_modes_are_counted_by_their_share():
    modes = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    x = torch.tensor([[0.1, 0.0]] * 90 + [[3.8, 0.3]] * 4 + [[2.0, 2.0]] * 6)
    assert mode_coverage(x, modes, 0.5) == 0.5  # 4 of 50 are less than a tenth
    assert mode_coverage(x, modes, 0.5, share=0.05) == 1.0
    assert off_mode_fraction(x, modes, 0.5) == 0.06
    # |(0.2, 0.3)| = 0.36, its largest coordinate 0.3.
    assert off_mode_fraction(x, modes, 0.31) == 0.1
    assert off_mode_fraction(x, modes, 0.31, norm=math.inf) == 0.06


def test_frechet_of_gaussians_with_common_axes_is_the_closed_form():
    # Samples with exactly these moments: whitened, then stretched.
    x = normal(500, 3)
    x = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), (x - x.mean(0)).T, upper=False).T
    turn = torch.linalg.qr(normal(3, 3, seed=2)).Q
    s, r = torch.tensor([1.0, 2.0, 0.0]).double(), torch.tensor([0.5, 2.0, 3.0]).double()
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    a, b = (x * s) @ turn.T, (x * r) @ turn.T + shift
    close(frechet(a, b), float(shift.square().sum() + (s - r).square().sum()))
    assert frechet(a, a) < 1e-9


def test_samples_of_different_dimension_are_refused():
    with pytest.raises(ValueError, match="one dimension"):
        energy_distance(A, B[:, :2])


def test_quality_puts_every_metric_beside_that_of_the_data():
    points = POINTS["mixture"]
    half = [points.draw(400, k).x for k in range(6)]
    trials = [Trial(half[k][half[k][:, 0] > 0], half[k + 1], half[k + 2]) for k in (0, 3)]
    found = quality(trials, modes=points.modes)
    first, second = (energy_distance(t.generated, t.held_out) for t in trials)
    close(found["energy_distance"], (first + second) / 2)
    # Student's t of one degree of freedom.
    close(found["energy_distance_ci95"][1], (first + second) / 2 + 12.7062 * abs(first - second) / 2, rtol=1e-4, atol=0)
    close(found["energy_distance_data"], np.mean([energy_distance(t.data, t.held_out) for t in trials]))
    assert found["energy_distance"] > 20 * found["energy_distance_data"]
    assert found["mode_coverage"] < 0.7 < found["mode_coverage_data"] == 1.0
    assert found["recall"] < 0.7 < found["precision"]
    assert "mode_coverage" not in quality(trials)


def test_a_trial_has_sets_of_one_size():
    sets = [torch.arange(2.0 * n).reshape(n, 2) for n in (30, 12, 20)]
    trial = Trial.of(*sets)
    for found, whole in zip((trial.generated, trial.held_out, trial.data), sets, strict=True):
        assert torch.equal(found, whole[:12])
    assert Trial.of(sets[0], sets[1][: FEWEST - 1], sets[2]) is None
