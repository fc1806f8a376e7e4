"""Intervals and paired tests: no number is reported without what it is worth.

Everything is 95 %. Paired comparisons need the same episodes (seeds) in the same order: the variance that the
layouts cause cancels, so far fewer episodes separate two policies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..seeds import derive

CONFIDENCE = 0.95
RESAMPLES = 9999


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % confidence interval, from `n` samples."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PairedSuccess:
    """Success rate of a minus that of b on the same episodes.

    `only_a` and `only_b` count the episodes that one solved and the other did not; `p_value` is McNemar's exact
    two-sided test that both are equally likely.
    """

    difference: Estimate
    only_a: int
    only_b: int
    p_value: float


def wilson(successes: int, n: int) -> Estimate:
    """Return the success rate with Wilson's score interval: never outside [0, 1], honest at 0 and n of n.

    **Source:** Wilson, 1927. Raises `ValueError` unless 0 <= successes <= n and n >= 1.
    """
    interval = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


def bootstrap_mean(
    values: Sequence[float], seed: int, *, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate:
    """Return the mean with its bias-corrected and accelerated (BCa) bootstrap interval.

    Resampling a constant sample gives that constant back, which would claim certainty. Where `bounds`, the range that
    values can take, is finite, its interval holds every mean that n equal values do not contradict: other values, of a
    share p with (1 - p)^n = 2.5 %, at the ends of the range. Without bounds it has no width; one value says nothing.

    **Source:** Efron, 1987. Raises `ValueError` for no values or values that are not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"expected a list of at least one finite number, got {values!r}: leave out missing values")
    mean = float(sample.mean())
    if np.ptp(sample) == 0:
        return _constant(mean, len(sample), bounds)
    found = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(derive(seed, "bootstrap")),
    )
    low, high = (float(np.clip(end, *bounds)) for end in found.confidence_interval)
    return Estimate(mean, low, high, len(sample))


def paired_success(a: Sequence[bool], b: Sequence[bool]) -> PairedSuccess:
    """Return the difference of two success rates on the same episodes.

    The interval is Newcombe's hybrid score interval for paired proportions: two Wilson intervals joined with the
    correlation of the outcomes, so it keeps its width where both policies succeed always.

    **Source:** Newcombe, 1998 (Improved confidence intervals for the difference between binomial proportions based
    on paired data), method 10; McNemar, 1947. Raises `ValueError` for lists of different or no length.
    """
    x, y = _paired(a, b)
    n = len(x)
    both, only_a, only_b = (int(k.sum()) for k in ((x > 0) & (y > 0), x > y, x < y))
    rate_a, rate_b = wilson(both + only_a, n), wilson(both + only_b, n)
    correlation = _correlation(both, only_a, only_b, n - both - only_a - only_b)
    discordant = only_a + only_b
    p_value = float(stats.binomtest(only_a, discordant).pvalue) if discordant else 1.0
    return PairedSuccess(_joined((only_a - only_b) / n, rate_a, rate_b, correlation), only_a, only_b, p_value)


def unpaired_success(a: Sequence[bool], b: Sequence[bool]) -> Estimate:
    """Return the difference of two success rates that are not paired, `n` of the fewer.

    Where one list is a part of the other the interval is too wide, never too narrow.

    **Source:** Newcombe, 1998 (Interval estimation for the difference between independent proportions: comparison of
    eleven methods), method 10. Raises `ValueError` for no episodes.
    """
    rate_a, rate_b = wilson(sum(a), len(a)), wilson(sum(b), len(b))
    return _joined(rate_a.value - rate_b.value, rate_a, rate_b, 0.0)


def _joined(difference: float, a: Estimate, b: Estimate, correlation: float) -> Estimate:
    """Return the difference a - b with Newcombe's interval: both half-widths joined by the law of cosines."""

    def distance(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    low = difference - distance(a.value - a.low, b.high - b.value)
    high = difference + distance(a.high - a.value, b.value - b.low)
    return Estimate(difference, low, high, min(a.n, b.n))


def paired_score(a: Sequence[float], b: Sequence[float], seed: int) -> Estimate:
    """Return the mean of a - b over the same episodes, for scores in [0, 1], with its bootstrap interval."""
    x, y = _paired(a, b)
    return bootstrap_mean((x - y).tolist(), seed, bounds=(-1.0, 1.0))


def _paired(a: Sequence[bool] | Sequence[float], b: Sequence[bool] | Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(a) != len(b) or not len(a):
        raise ValueError(f"expected two equally long lists of episodes, got {len(a)} and {len(b)}")
    return np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)


def _constant(value: float, n: int, bounds: tuple[float, float]) -> Estimate:
    unseen = 1 - ((1 - CONFIDENCE) / 2) ** (1 / n)
    low, high = (value + unseen * (end - value) if math.isfinite(end) or n == 1 else value for end in bounds)
    return Estimate(value, low, high, n)


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Return Newcombe's phi of a 2x2 table; a positive one is reduced by his continuity correction."""
    n = both + only_a + only_b + neither
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if not margins:
        return 0.0
    excess = both * neither - only_a * only_b
    return (max(excess - n / 2, 0.0) if excess > 0 else excess) / math.sqrt(margins)
