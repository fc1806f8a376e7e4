"""Laws of every density over training times: its distribution, its range, and what it does to a path's steps."""

import pytest
import torch
from exact import PATHS, SMOOTH, TIME_LAWS, name
from scipy import stats

from noise2action.diffusion.grids import Trailing
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.paths import LinearVP, Path, Straight, Table
from noise2action.diffusion.targets import Clean
from noise2action.diffusion.times import (
    LogitNormal,
    LogNormal,
    LossSecondMoment,
    Stratified,
    TimeLaw,
    Uniform,
    buckets,
)
from noise2action.errors import PathError

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


@pytest.mark.filterwarnings("ignore:expected a terminal SNR")
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


@pytest.mark.filterwarnings("ignore:expected a terminal SNR")
def test_training_reaches_the_step_that_sampling_starts_from() -> None:
    """A span that ends between two steps: training rounds up, sampling to the nearest."""
    for end in (0.501, 0.505, 0.509):
        diffusion = Diffusion(path=Table(), span=(0.0, end))
        trained = diffusion.draw_times(N, torch.Generator().manual_seed(4)).max().item()
        started = Trailing().times(Table(), 5, start=end)[0].item()
        assert trained == 0.51
        assert started == {0.501: 0.5, 0.505: 0.5, 0.509: 0.51}[end]


def test_a_table_is_trained_at_every_step_alike() -> None:
    t = Diffusion(path=Table(), times=Stratified()).draw_times(100, torch.Generator().manual_seed(3))
    # One time in each hundredth, rounded up: each of the hundred steps exactly once.
    assert (t * 100).round().long().sort().values.tolist() == list(range(1, 101))


def known(t: torch.Tensor) -> torch.Tensor:
    """Return a loss that a time law is to learn: large and noisy near the data."""
    return 0.1 + 3 * torch.exp(-6 * t)


def filled(law: LossSecondMoment, loss, rounds: int = 40) -> torch.Tensor:
    memory, generator = law.memory(), torch.Generator().manual_seed(0)
    for _ in range(rounds):
        t, _ = law.draw_learnt(256, path=Straight(), memory=memory, generator=generator)
        law.remember(memory, t, loss(t))
    return memory


def test_a_learnt_law_is_uniform_until_every_bucket_has_its_losses() -> None:
    law = LossSecondMoment(buckets=4, history=2)
    memory = law.memory()
    centres = torch.tensor([0.1, 0.1, 0.3, 0.3, 0.6, 0.6, 0.9], dtype=torch.float64)
    law.remember(memory, centres, 1 + centres)
    assert law.density(memory).tolist() == [1.0] * 4
    t, density = law.draw_learnt(400, path=Straight(), memory=memory, generator=torch.Generator().manual_seed(0))
    assert (t * 400).floor().long().sort().values.tolist() == list(range(400))
    assert density.tolist() == [1.0] * 400
    law.remember(memory, centres[-1:], 1 + centres[-1:])
    assert law.density(memory).tolist() != [1.0] * 4


def test_a_learnt_law_remembers_the_last_losses_of_each_bucket() -> None:
    """Against a list a bucket, whatever the batches: with more of a bucket in one batch than it remembers too."""
    law, generator = LossSecondMoment(buckets=5, history=3), torch.Generator().manual_seed(1)
    memory, lists = law.memory(), [[] for _ in range(5)]
    for size in (1, 2, 40, 7, 3, 100, 1):
        t, losses = torch.rand(2, size, generator=generator, dtype=torch.float64)
        law.remember(memory, t, losses)
        for place, loss in zip(t.tolist(), losses.tolist(), strict=True):
            lists[int(place * 5)].append(loss)
        for row, past in zip(memory, lists, strict=True):
            assert row[0] == len(past)
            assert sorted(row[1:].tolist()) == sorted((past + [0.0] * max(0, 3 - len(past)))[-3:])


@pytest.mark.parametrize("loss", [known, lambda t: 2 * t + 0.01, lambda t: torch.where(t < 0.3, 5.0, 1e-3)])
def test_a_learnt_law_converges_to_the_root_of_the_second_moment(loss) -> None:
    law = LossSecondMoment(buckets=20, history=20, uniform=0.01)
    density = law.density(filled(law, loss))
    fine = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    moment = loss(fine).double().square().reshape(20, -1).mean(1).sqrt()
    expected = 0.99 * moment / moment.mean() + 0.01
    # Twenty losses a bucket, spread over its width: a few percent.
    torch.testing.assert_close(density, expected, rtol=0.08, atol=0.02)
    assert density.mean().item() == pytest.approx(1, rel=1e-12)


def test_a_learnt_law_draws_from_its_density_and_weighs_it_away() -> None:
    law = LossSecondMoment(buckets=10, history=10)
    memory = filled(law, known)
    t, density = law.draw_learnt(N, path=Straight(), memory=memory, generator=torch.Generator().manual_seed(3))
    assert bool(((t >= 0) & (t <= 1)).all())
    share = torch.bincount((t * 10).long(), minlength=10) / N
    # Stratified draws: a bucket's count is within one of its share.
    torch.testing.assert_close(share.double(), law.density(memory) / 10, rtol=0, atol=1.5 / N)
    assert torch.equal(density, law.density(memory)[(t * 10).long()])
    exact = 0.1 + 3 * (1 - torch.exp(torch.tensor(-6.0))) / 6
    assert (known(t) / density).mean().item() == pytest.approx(exact.item(), rel=1e-3)


def test_the_loss_by_noise_level_does_not_depend_on_how_often_a_level_is_drawn() -> None:
    law = LossSecondMoment(buckets=10)
    objective = Diffusion(path=Straight(), target=Clean(), times=law)
    generator, memory = torch.Generator().manual_seed(7), law.memory()
    x0 = torch.zeros(512, 1, dtype=torch.float64)
    for _ in range(40):
        losses = objective.loss(lambda x, t: known(t).sqrt().unsqueeze(1), x0, generator=generator, memory=memory)
    torch.testing.assert_close(losses.at_time, known(losses.t), rtol=1e-6, atol=0)
    assert not torch.allclose(losses.value, losses.at_time)


def test_importance_sampling_keeps_the_mean_loss_and_lowers_its_variance() -> None:
    """Through the objective: a network whose loss at t is known, with and without a memory."""
    x0 = torch.zeros(64, 1, dtype=torch.float64)
    law = LossSecondMoment(buckets=20)
    objective = Diffusion(path=Straight(), target=Clean(), times=law)
    plain = Diffusion(path=Straight(), target=Clean())

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return known(t).sqrt().unsqueeze(1).to(x.dtype)

    memory = law.memory()
    for seed in range(30):
        objective.loss(net, x0, generator=torch.Generator().manual_seed(seed), memory=memory)
    kept = memory.clone()
    learnt, uniform = [], []
    for seed in range(300):
        memory = kept.clone()
        generator = torch.Generator().manual_seed(1000 + seed)
        learnt.append(objective.loss(net, x0, generator=generator, memory=memory).value)
        uniform.append(plain.loss(net, x0, generator=generator).value)
    exact = (0.1 + 3 * (1 - torch.exp(torch.tensor(-6.0))) / 6).item()
    for values in (learnt, uniform):
        means = torch.stack(values).mean(1)
        assert abs(means.mean().item() - exact) < 5 * means.std().item() / 300**0.5
    # p ~ L makes every weighted loss the same, but for its change inside a bucket.
    assert torch.cat(learnt).std() < 0.2 * torch.cat(uniform).std()


def test_a_law_without_memory_draws_as_before() -> None:
    x0 = torch.randn(16, 3, generator=torch.Generator().manual_seed(5))

    def value(objective: Diffusion, memory: torch.Tensor | None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(6)
        return objective.loss(lambda x, t: x, x0, generator=generator, memory=memory).value

    plain = value(Diffusion(), None)
    assert torch.equal(plain, value(Diffusion(times=LossSecondMoment()), None))
    # An empty memory: the same times, through the inverse of a distribution function.
    torch.testing.assert_close(value(Diffusion(times=LossSecondMoment()), LossSecondMoment().memory()), plain)
    assert [law.memory() for law in TIME_LAWS if not isinstance(law, LossSecondMoment)] == [None] * 6


@pytest.mark.parametrize(
    "build",
    [
        lambda: LossSecondMoment(buckets=0),
        lambda: LossSecondMoment(history=0),
        lambda: LossSecondMoment(uniform=0.0),
        lambda: LossSecondMoment(uniform=float("nan")),
    ],
)
def test_numbers_out_of_range_are_rejected(build) -> None:
    with pytest.raises(PathError, match="expected buckets, history"):
        build()


def test_buckets_are_means_by_time() -> None:
    t = torch.tensor([0.0, 0.05, 0.1, 0.55, 0.999, 1.0])
    values = torch.tensor([1.0, 3.0, 10.0, 7.0, 2.0, 4.0])
    assert buckets(t, values) == [2.0, 10.0, None, None, None, 7.0, None, None, None, 3.0]
    assert buckets(t, values, count=1) == [4.5]
    assert buckets(t, values, count=2) == [pytest.approx(14 / 3), pytest.approx(13 / 3)]
    # Sums are float64: a thousand float32 values of 0.1 would otherwise drift.
    assert buckets(torch.zeros(100_000), torch.full((100_000,), 0.1), count=1) == [pytest.approx(0.1, rel=1e-7)]
