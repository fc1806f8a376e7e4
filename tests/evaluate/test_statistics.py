"""Intervals and tests against closed forms, enumeration and simulation."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from noise2action.evaluate.modes import mode_statistics
from noise2action.evaluate.statistics import bootstrap_mean, paired_score, paired_success, unpaired_success, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (7, 20), (95, 100)])
def test_wilson_solves_its_quadratic(k, n):
    rate = wilson(k, n)
    z = stats.norm.ppf(0.975)
    centre = (k + z**2 / 2) / (n + z**2)
    half = z * math.sqrt(k * (n - k) / n + z**2 / 4) / (n + z**2)
    assert (rate.value, rate.n) == (k / n, n)
    assert rate.low == pytest.approx(centre - half, abs=1e-12)
    assert rate.high == pytest.approx(centre + half, abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_rejects_impossible_counts(k, n):
    with pytest.raises(ValueError):  # noqa: PT011 - scipy's words
        wilson(k, n)


def test_bootstrap_covers_the_mean_of_a_skewed_variable():
    rng = np.random.default_rng(0)
    samples = rng.beta(2, 5, size=(150, 40))
    covered = [e.low <= 2 / 7 <= e.high for e in (bootstrap_mean(s.tolist(), 1, bounds=(0.0, 1.0)) for s in samples)]
    # 95 % nominal; 150 draws have a standard error of 1.8 %
    assert 0.88 <= np.mean(covered) <= 0.995


def test_bootstrap_agrees_with_the_normal_interval_for_many_values():
    values = np.random.default_rng(3).normal(2.0, 3.0, 400)
    estimate = bootstrap_mean(values.tolist(), 0)
    half = 1.96 * values.std(ddof=1) / 20
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.05 * half * 2)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.05 * half * 2)


def test_bootstrap_repeats_and_has_an_answer_for_every_small_sample():
    for values in product([0.0, 0.5, 1.0], repeat=4):
        estimate = bootstrap_mean(values, 5, bounds=(0.0, 1.0))
        assert estimate == bootstrap_mean(values, 5, bounds=(0.0, 1.0))
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_a_constant_sample_of_bounded_values_has_the_exact_binomial_interval():
    # all failures: what Clopper and Pearson give for 0 of n
    for n in (1, 5, 40):
        exact = stats.binomtest(0, n).proportion_ci(0.95, method="exact")
        estimate = bootstrap_mean([0.0] * n, 0, bounds=(0.0, 1.0))
        assert (estimate.low, estimate.high) == pytest.approx((exact.low, exact.high))
    middle = bootstrap_mean([0.7] * 9, 0, bounds=(0.0, 1.0))
    share = 1 - 0.025 ** (1 / 9)
    assert (middle.low, middle.high) == pytest.approx((0.7 * (1 - share), 0.7 + 0.3 * share))


def test_a_constant_sample_without_bounds_has_no_width_and_one_value_says_nothing():
    many, one = bootstrap_mean([0.7] * 9, 0), bootstrap_mean([0.7], 0)
    assert (many.low, many.high) == pytest.approx((0.7, 0.7))
    assert (one.low, one.high) == (-math.inf, math.inf)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_bootstrap_rejects_what_has_no_mean(values):
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean(values, 0)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (5, 0), (3, 4), (2, 9), (10, 10)])
def test_mcnemar_is_the_sum_over_all_outcomes_at_most_as_likely(only_a, only_b):
    a = [True] * only_a + [False] * only_b + [True, True, False]
    b = [False] * only_a + [True] * only_b + [True, True, False]
    n = only_a + only_b
    ways = [math.comb(n, k) for k in range(n + 1)]
    expected = sum(w for w in ways if w <= math.comb(n, only_a)) / 2**n
    result = paired_success(a, b)
    assert (result.only_a, result.only_b) == (only_a, only_b)
    assert result.p_value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("table", "low", "high"), [((36, 12, 2, 0), 0.0569, 0.3404), ((20, 12, 2, 16), 0.0562, 0.3292)]
)
def test_paired_interval_is_the_published_one(table, low, high):
    # Newcombe 1998, method 10; table: both, only a, only b, neither
    a = np.repeat([True, True, False, False], table).tolist()
    b = np.repeat([True, False, True, False], table).tolist()
    found = paired_success(a, b).difference
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((5, 56), (0, 29), -0.0381, 0.1926)],
)
def test_unpaired_interval_is_the_published_one(a, b, low, high):
    # Newcombe 1998 on independent proportions, table II, method 10
    one, other = ([k < successes for k in range(n)] for successes, n in (a, b))
    found = unpaired_success(one, other)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert (found.value, found.n) == (pytest.approx(a[0] / a[1] - b[0] / b[1]), min(a[1], b[1]))


def test_paired_difference_is_antisymmetric_and_never_without_width():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(1, 40))
        a, b = rng.random(n) < 0.8, rng.random(n) < 0.4
        forward, backward = paired_success(a.tolist(), b.tolist()), paired_success(b.tolist(), a.tolist())
        assert forward.difference.value == -backward.difference.value
        assert forward.difference.low == pytest.approx(-backward.difference.high)
        assert forward.p_value == backward.p_value
        assert -1 <= forward.difference.low < forward.difference.high <= 1
        assert forward.difference.low <= forward.difference.value <= forward.difference.high


def test_paired_interval_covers_correlated_rates():
    rng = np.random.default_rng(1)
    cells = [0.5, 0.25, 0.1, 0.15]  # both, only a, only b, neither
    covered = 0
    for counts in rng.multinomial(60, cells, size=600):
        a = np.repeat([True, True, False, False], counts)
        b = np.repeat([True, False, True, False], counts)
        d = paired_success(a.tolist(), b.tolist()).difference
        covered += d.low <= 0.15 <= d.high
    assert 0.925 <= covered / 600 <= 0.98


def test_paired_score_removes_what_the_layouts_cause():
    rng = np.random.default_rng(2)
    layout = rng.random(40) * 0.8
    better, worse = layout + 0.1 + 0.01 * rng.standard_normal(40), layout
    difference = paired_score(better.tolist(), worse.tolist(), 0)
    assert 0.09 < difference.low < 0.1 < difference.high < 0.11
    with pytest.raises(ValueError, match="equally long"):
        paired_score([0.1], [0.1, 0.2], 0)


def test_modes_of_a_known_split():
    modes = mode_statistics(["left"] * 6 + ["right"] * 2 + ["none"] * 2, {"left": 0.5, "right": 0.5})
    assert modes.shares == {"left": 0.6, "none": 0.2, "right": 0.2}
    assert modes.coverage == 1
    assert modes.entropy == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))
    assert modes.reference_entropy == pytest.approx(1)
    assert modes.total_variation == pytest.approx((0.1 + 0.2 + 0.3) / 2)


def test_modes_that_nobody_demonstrated_count_in_the_entropy_but_not_as_found():
    taken = ["left-left"] * 33 + ["right-right"] * 66 + ["none"]
    modes = mode_statistics(taken, {"left-left": 0.5, "left-right": 0.5})
    assert modes.entropy == pytest.approx(-(math.log2(1 / 3) / 3 + 2 * math.log2(2 / 3) / 3))
    assert modes.coverage == 0.5
    assert modes.total_variation == pytest.approx((0.17 + 0.5 + 0.66 + 0.01) / 2)


def test_modes_at_their_extremes():
    reference = {"left": 0.5, "right": 0.5}
    perfect = mode_statistics(["left", "right"] * 5, reference)
    assert (perfect.coverage, perfect.total_variation) == (1, 0)
    assert perfect.entropy == pytest.approx(perfect.reference_entropy)
    lost = mode_statistics(["none"] * 4, reference)
    assert (lost.coverage, lost.entropy, lost.total_variation) == (0, 0, 1)
    with pytest.raises(ValueError, match="sum 1"):
        mode_statistics(["left"], {"left": 0.5})
    with pytest.raises(ValueError, match="at least one"):
        mode_statistics([], reference)
