"""Which of several valid ways the rollouts took, against the split of the demonstrations."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

NONE = "none"
"""Label of an episode that ended before it took any mode."""


@dataclass(frozen=True)
class Modes:
    """Mode statistics of a set of episodes.

    `entropy` is that of the modes that were taken, demonstrated or not, in bits, and `reference_entropy` that of the
    reference; episodes without a mode (`NONE`) have no part in it. `total_variation` is half the sum of absolute share
    differences (0 equal, 1 disjoint).
    """

    shares: Mapping[str, float]
    """Share of all episodes by label; labels outside the reference included."""
    coverage: float
    """Share of the reference's modes that were taken at least once."""
    entropy: float
    reference_entropy: float
    total_variation: float


def mode_statistics(labels: Sequence[str], reference: Mapping[str, float]) -> Modes:
    """Return the mode statistics of `labels` (one an episode) against `reference` (mode -> share, sum 1).

    Raises `ValueError` for no labels, or shares that are not positive with sum 1.
    """
    if not labels:
        raise ValueError("expected at least one label, got none: evaluate at least one episode")
    if not reference or min(reference.values()) <= 0 or abs(sum(reference.values()) - 1) > 1e-6:
        raise ValueError(f"expected positive reference shares with sum 1, got {dict(reference)}")
    counts = Counter(labels)
    names = sorted({*counts, *reference})
    shares = {name: counts[name] / len(labels) for name in names}
    taken = [count for name, count in counts.items() if name != NONE]
    return Modes(
        shares=shares,
        coverage=sum(name in counts for name in reference) / len(reference),
        entropy=float(stats.entropy(taken, base=2)) if taken else 0.0,
        reference_entropy=float(stats.entropy(list(reference.values()), base=2)),
        total_variation=sum(abs(shares[name] - reference.get(name, 0.0)) for name in names) / 2,
    )
