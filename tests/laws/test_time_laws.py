"""Laws of every density over training times: its distribution, its range, and what it does to a path's steps."""

import pytest
import torch
from exact import PATHS, SMOOTH, TIME_LAWS, name
from scipy import stats

from noise2action.diffusion.grids import Trailing
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.paths import LinearVP, Path, Straight, Table
from noise2action.diffusion.times import LogitNormal, LogNormal, Stratified, TimeLaw, Uniform, buckets

N = 4000


def draw(law: TimeLaw, path: Path, n: int = N, seed: int = 0) -> torch.Tensor:
    return law.draw(n, path=path, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("law", TIME_LAWS, ids=name)
@pytest.mark.parametrize("path", PATHS, ids=name)
def test_times_are_in_range_and_reproducible(path: Path, law: TimeLaw) -> None:
    t = draw(law, path)
    assert t.shape == (N,)
    assert t.dtype == torch.float64
    assert bool(((t >= 0) & (t <= 1)).all())
    assert torch.equal(t, draw(law, path))
    assert not torch.equal(t, draw(law, path, seed=1))


def same_law(sample: torch.Tensor, distribution) -> None:
    # Kolmogorov-Smirnov with a fixed seed: a right sampler fails one seed in a thousand, a wrong one always.
    assert stats.kstest(sample.numpy(), distribution.cdf).pvalue > 1e-3


@pytest.mark.parametrize("law", [Uniform(), Stratified()], ids=name)
def test_uniform(law: TimeLaw) -> None:
    same_law(draw(law, Straight()), stats.uniform())


@pytest.mark.parametrize("law", [t for t in TIME_LAWS if isinstance(t, LogitNormal)], ids=name)
def test_logit_normal(law: LogitNormal) -> None:
    same_law(torch.logit(draw(law, Straight())), stats.norm(law.mean, law.std))


@pytest.mark.parametrize("law", [t for t in TIME_LAWS if isinstance(t, LogNormal)], ids=name)
@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_log_normal_in_noise_over_signal(path: Path, law: LogNormal) -> None:
    t = draw(law, path)
    log_ratio = -path.half_log_snr(t)
    # A path that ends at a finite ratio gathers at t = 1 what lies beyond: leave the tail out on both sides.
    end = -path.half_log_snr(torch.ones((), dtype=torch.float64)).item()
    inside = log_ratio[log_ratio < end - 1e-6]
    assert len(inside) > 0.98 * N
    normal = stats.norm(law.mean, law.std)
    truncated = stats.truncnorm(-torch.inf, (end - law.mean) / law.std, loc=law.mean, scale=law.std)
    same_law(inside, truncated if end < 20 else normal)


@pytest.mark.parametrize("n", [1, 2, 17, 256])
def test_stratified_has_one_time_in_each_stratum_in_random_order(n: int) -> None:
    t = draw(Stratified(), Straight(), n)
    assert (t * n).floor().long().sort().values.tolist() == list(range(n))
    if n > 2:
        assert not torch.equal(t, t.sort().values)


def test_stratified_lowers_the_variance_of_a_mean() -> None:
    """The mean of t^2 over 64 times: the error of independent draws is about n^(-1/2), of strata n^(-3/2)."""
    spread = {
        law: torch.stack([(draw(law, Straight(), 64, s) ** 2).mean() for s in range(200)]) for law in TIME_LAWS[:2]
    }
    plain, strata = spread[Uniform()], spread[Stratified()]
    assert strata.std() < 0.1 * plain.std()
    # Unbiased: 5 standard errors of the mean of 200.
    assert abs(strata.mean() - 1 / 3) < 5 * strata.std() / 200**0.5
    assert abs(plain.mean() - 1 / 3) < 5 * plain.std() / 200**0.5


@pytest.mark.parametrize("law", TIME_LAWS, ids=name)
@pytest.mark.parametrize("span", [(0.0, 1.0), (0.1, 1.0), (0.0, 0.6), (0.25, 0.75)])
@pytest.mark.parametrize("path", [Straight(), LinearVP(), Table()], ids=name)
def test_the_span_is_respected(path: Path, law: TimeLaw, span: tuple[float, float]) -> None:
    diffusion = Diffusion(path=path, times=law, span=span)
    t = diffusion.draw_times(N, torch.Generator().manual_seed(2))
    assert t.dtype == torch.float64
    assert bool(((t >= span[0]) & (t <= span[1] + 1e-12)).all())
    if isinstance(path, Table):
        k = t * path.steps
        torch.testing.assert_close(k, k.round(), rtol=0, atol=1e-9)
        assert k.min() >= 1


def test_training_reaches_the_step_that_sampling_starts_from() -> None:
    """A span that ends between two steps is rounded up by both."""
    diffusion = Diffusion(path=Table(), span=(0.0, 0.505))
    trained = diffusion.draw_times(N, torch.Generator().manual_seed(4)).max().item()
    assert trained == Trailing().times(Table(), 5, start=0.505)[0].item() == 0.51


def test_a_table_is_trained_at_every_step_alike() -> None:
    t = Diffusion(path=Table(), times=Stratified()).draw_times(100, torch.Generator().manual_seed(3))
    # One time in each hundredth, rounded up: each of the hundred steps exactly once.
    assert (t * 100).round().long().sort().values.tolist() == list(range(1, 101))


def test_buckets_are_means_by_time() -> None:
    t = torch.tensor([0.0, 0.05, 0.1, 0.55, 0.999, 1.0])
    values = torch.tensor([1.0, 3.0, 10.0, 7.0, 2.0, 4.0])
    assert buckets(t, values) == [2.0, 10.0, None, None, None, 7.0, None, None, None, 3.0]
    assert buckets(t, values, count=1) == [4.5]
    assert buckets(t, values, count=2) == [pytest.approx(14 / 3), pytest.approx(13 / 3)]
    # Sums are float64: a thousand float32 values of 0.1 would otherwise drift.
    assert buckets(torch.zeros(100_000), torch.full((100_000,), 0.1), count=1) == [pytest.approx(0.1, rel=1e-7)]
