"""Laws of every sampler: what it samples, how often it calls the network, and what its output depends on."""

import math
import re
import warnings
from itertools import pairwise

import pytest
import torch
from exact import (
    DENOISER_SAMPLERS,
    GRIDS,
    PATHS,
    SAMPLERS,
    SMOOTH,
    TABLES,
    Gaussian,
    Mixture,
    is_stochastic,
    name,
    nfe_of,
    often,
    times_of,
)
from torch import Tensor

from noise2action.diffusion.denoisers import Counted, clip, pin
from noise2action.diffusion.grids import Grid, Karras, Leading, LogSNR, Trailing
from noise2action.diffusion.paths import VE, Cosine, EDMPath, LinearVP, Path, Schedule, Straight, Table
from noise2action.diffusion.samplers import (
    DDIM,
    DDPM,
    NAMED,
    Adaptive,
    EDMStochastic,
    EulerMaruyama,
    Heun,
    Hybrid,
    Renoise,
    Scheduler,
)
from noise2action.diffusion.sampling import CoarseGridWarning, Sampler, TableSampler, place, sample
from noise2action.diffusion.tableau import Step
from noise2action.errors import PathError, SolverError

close = torch.testing.assert_close
STOCHASTIC = [s for s in SAMPLERS if is_stochastic(s)]


# Asked for by hand, for what they are: no warning tells that noise 0.05 is left.
POOR_GRIDS = [LogSNR(low=-3.0, high=3.0), Karras(rho=1.0, sigma_min=0.05, sigma_max=20.0), Leading(table=100)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bumpy(x_t: Tensor, t: Tensor) -> Tensor:
    """A denoiser without symmetry."""
    t = t.reshape(t.shape + (1,) * (x_t.ndim - t.ndim)) if t.ndim else t
    return (1.7 * x_t + 0.3).sin() * (1 + t)


@pytest.mark.unchecked
@pytest.mark.parametrize("sampler", DENOISER_SAMPLERS, ids=name)
@pytest.mark.parametrize("path", often(PATHS), ids=name)
def test_a_mixture_is_sampled_with_its_weights_means_and_covariances(path: Path, sampler: TableSampler) -> None:
    n, data = 2000, Mixture.on(path)
    # A table is walked in nearly all its steps, or in some 200 calls; a smooth path on DPM-Solver's grid, in some 120.
    steps = min(path.steps - 10, max(200 // sampler.calls, 90)) if isinstance(path, Table) else 120 // sampler.calls
    grid: Grid = Trailing() if isinstance(path, Table) else LogSNR()
    x = sample(
        data.denoise,
        path,
        torch.empty(n, 2, dtype=torch.float64),
        sampler=sampler,
        grid=grid,
        nfe=nfe_of(sampler, steps),
        generator=seeded(11),
    )
    nearest = torch.cdist(x, data.means).argmin(1)
    for k, weight in enumerate(data.weights.tolist()):
        own = x[nearest == k]
        # Five standard errors of a binomial; components are eight standard deviations apart.
        assert abs(len(own) / n - weight) < 5 * math.sqrt(weight * (1 - weight) / n)
        variance = data.covariances[k].diagonal()
        # Five standard errors of a mean; and 0.01 for the grid, a tenth of the narrowest standard deviation.
        assert ((own.mean(0) - data.means[k]).abs() < 5 * (variance / len(own)).sqrt() + 0.01).all()
        # Entries of a covariance have a standard error of at most sqrt(2 / n) of the variances; 8 % for the grid.
        size = (variance[:, None] * variance).sqrt()
        assert ((own.T.cov() - data.covariances[k]).abs() < (5 * math.sqrt(2 / len(own)) + 0.08) * size).all()


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_renoising_a_consistency_map_keeps_the_spread(path: Path) -> None:
    n, data = 20_000, Gaussian(path, mean=0.3, std=0.6)
    x = sample(
        data.consistency,
        path,
        torch.empty(n, 1, dtype=torch.float64),
        sampler=Renoise(),
        grid=Trailing(),
        nfe=4,
        generator=seeded(12),
    )
    # Five standard errors; the prior forgets alpha(1) x0, at most 0.03 of the mean and 0.001 of the variance.
    assert abs(x.mean().item() - data.mean) < 5 * data.std / math.sqrt(n) + 0.03
    assert abs(x.std().item() / data.std - 1) < 5 / math.sqrt(2 * n) + 0.002


def test_renoising_a_posterior_mean_shrinks_the_spread() -> None:
    """Why a consistency map has its own name."""
    data = Gaussian(Cosine(), std=1.0)
    like = torch.empty(5000, 1, dtype=torch.float64)
    kwargs = {"sampler": Renoise(), "grid": Trailing(), "nfe": 4, "generator": seeded(13)}
    assert sample(data.denoise, Cosine(), like, **kwargs).std() < 0.95


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
@pytest.mark.parametrize("path", [Straight(), LinearVP(), Table()], ids=name)
def test_the_same_seed_gives_the_same_bits(path: Path, sampler: TableSampler) -> None:
    def draw(seed: int) -> Tensor:
        like = torch.empty(6, 4, 2)
        return sample(
            bumpy, path, like, sampler=sampler, grid=Trailing(), nfe=nfe_of(sampler, 5), generator=seeded(seed)
        )

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
def test_a_row_with_its_own_generator_does_not_depend_on_the_batch(sampler: TableSampler) -> None:
    def draw(seeds: list[int]) -> Tensor:
        like = torch.empty(len(seeds), 4, 2)
        generators = [seeded(s) for s in seeds]
        return sample(
            bumpy, LinearVP(), like, sampler=sampler, grid=Trailing(), nfe=nfe_of(sampler, 5), generator=generators
        )

    whole = draw([5, 6, 7, 8])
    assert torch.equal(draw([7]), whole[2:3])
    assert torch.equal(draw([8, 5]), whole[[3, 0]])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
def test_noise_after_the_first_depends_on_the_generator_only_where_it_should(sampler: TableSampler) -> None:
    path, x = LinearVP(), torch.randn(4, 2, generator=seeded(1))
    grid = times_of(sampler, path, LogSNR(), 16)
    one, two = (sampler(bumpy, path, grid, x, generator=seeded(s)) for s in (1, 2))
    assert torch.equal(one, two) != (sampler in STOCHASTIC)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
def test_network_evaluations_are_those_asked_for(sampler: TableSampler, steps: int) -> None:
    counted, nfe, path = Counted(bumpy), nfe_of(sampler, steps), Straight()
    sample(counted, path, torch.empty(2, 3), sampler=sampler, grid=Trailing(), nfe=nfe, generator=seeded())
    assert counted.nfe == nfe
    assert sampler.steps(nfe) == steps
    assert sampler.tableau(path, times_of(sampler, path, Trailing(), steps)).nfe == nfe


@pytest.mark.parametrize("nfe", [2, 10])
def test_heun_names_the_odd_numbers_that_it_can_do(nfe: int) -> None:
    with pytest.raises(PathError, match=f"got {nfe}: ask for {nfe - 1} or {nfe + 1}"):
        Heun().steps(nfe)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
@pytest.mark.parametrize("nfe", [0, -1])
def test_no_evaluations_raise(sampler: TableSampler, nfe: int) -> None:
    with pytest.raises(PathError, match="expected"):
        sample(bumpy, Straight(), torch.empty(2, 3), sampler=sampler, grid=Trailing(), nfe=nfe)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
@pytest.mark.parametrize("path", often(PATHS), ids=name)
def test_the_trajectory_is_seen_step_by_step(path: Path, sampler: TableSampler) -> None:
    seen: list[Step] = []
    times_called: list[float] = []

    def watched(x_t: Tensor, t: Tensor) -> Tensor:
        times_called.append(float(t))
        return bumpy(x_t, t)

    like = torch.empty(3, 2, dtype=torch.float64)
    kwargs = {"sampler": sampler, "grid": Trailing(), "nfe": nfe_of(sampler, 5)}
    x = sample(watched, path, like, generator=seeded(), on_step=seen.append, **kwargs)
    grid = times_of(sampler, path, Trailing(), 5).tolist()
    assert [s.index for s in seen] == list(range(len(seen)))
    assert all(before.s == after.t for before, after in pairwise(seen))
    moved = [s for s in seen if s.t != s.s]  # a correction stays at its noise level
    if not isinstance(sampler, EDMStochastic | Hybrid):  # noise before a step makes it begin at a noisier time
        assert [s.t for s in moved] == grid[:-1]
    assert len(moved) == 5
    assert seen[0].t == grid[0]
    assert seen[-1].s == 0.0
    assert seen[-1].x is x
    # The network is never asked at t = 0, and the last step returns its estimate: noise level exactly 0.
    assert min(times_called) == grid[-2]
    final_estimate = seen[-1].x0_hat
    close(x, final_estimate, rtol=0, atol=1e-12)
    assert torch.equal(x, sample(bumpy, path, like, generator=seeded(), **kwargs))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
@pytest.mark.parametrize("path", often(PATHS), ids=name)
def test_the_last_step_is_the_networks_estimate_to_the_last_bit(path: Path, sampler: TableSampler) -> None:
    x0 = torch.randn(3, 2, generator=seeded(3))
    kwargs = {"sampler": sampler, "grid": Trailing(), "nfe": nfe_of(sampler, 4)}
    assert torch.equal(sample(lambda x_t, t: x0, path, torch.empty(3, 2), generator=seeded(), **kwargs), x0)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_are_left_alone_and_types_kept(sampler: TableSampler, dtype: torch.dtype) -> None:
    path = Straight()
    grid = times_of(sampler, path, Trailing(), 4)
    x = torch.randn(3, 2, generator=seeded(), dtype=dtype)
    x_before, grid_before = x.clone(), grid.clone()
    states: list[tuple[Tensor, Tensor]] = []
    out = sampler(bumpy, path, grid, x, generator=seeded(), on_step=lambda s: states.append((s.x, s.x.clone())))
    assert torch.equal(x, x_before)
    assert torch.equal(grid, grid_before)
    assert out.dtype == dtype
    # What a callback kept is not overwritten later.
    assert all(torch.equal(kept, copy) for kept, copy in states)


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if s not in STOCHASTIC], ids=name)
def test_float32_follows_float64(sampler: TableSampler) -> None:
    path, data = LinearVP(), Gaussian(LinearVP())
    x = torch.randn(50, 2, generator=seeded(), dtype=torch.float64)
    grid = LogSNR().times(path, 20)
    double, single = (sampler(data.denoise, path, grid, v) for v in (x, x.float()))
    # Twenty steps of rounding at 1e-7; half-log-SNR 5 divides by sigma = 0.006 in Heun.
    close(single.double(), double, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
@pytest.mark.parametrize("path", often(PATHS), ids=name)
def test_pinned_entries_end_at_their_value_along_their_own_noise(path: Path, sampler: TableSampler) -> None:
    value = torch.randn(4, 3, 2, generator=seeded(1), dtype=torch.float64)
    mask = torch.zeros(3, 2, dtype=torch.bool)
    mask[0] = mask[2, 1] = True
    grid = times_of(sampler, path, Trailing(), 6)
    x = torch.randn(4, 3, 2, generator=seeded(2), dtype=torch.float64) * path.sigma(grid[0])
    states: list[Tensor] = []
    pinned = pin(bumpy, value, mask)
    out = sampler(pinned, path, grid, x, generator=seeded(3), on_step=lambda s: states.append(s.x))
    free = sampler(bumpy, path, grid, x, generator=seeded(3))
    assert torch.equal(out[:, mask], value[:, mask])
    # `bumpy` works entry by entry, so the unknown entries do not feel the known ones.
    assert torch.equal(out[:, ~mask], free[:, ~mask])
    if sampler in STOCHASTIC:
        return
    eps = (x - path.alpha(grid[0]) * value) / path.sigma(grid[0])
    for s, state in zip(grid[1:], states, strict=True):
        expected = path.alpha(s) * value + path.sigma(s) * eps
        close(state[:, mask], expected[:, mask], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sampler", [s for s in STOCHASTIC if s != DDPM(variance="beta")], ids=name)
@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_pinned_entries_have_the_noise_level_of_each_step(path: Path, sampler: TableSampler) -> None:
    n = 20_000
    value, grid = torch.full((n, 1), 0.7, dtype=torch.float64), times_of(sampler, path, Trailing(), 6)
    x = path.alpha(grid[0]) * value + path.sigma(grid[0]) * torch.randn(n, 1, generator=seeded(), dtype=torch.float64)
    mask = torch.ones(1, dtype=torch.bool)
    steps: list[Step] = []
    sampler(pin(bumpy, value, mask), path, grid, x, generator=seeded(1), on_step=steps.append)
    for step in steps[:-1]:
        s, state = torch.tensor(step.s, dtype=torch.float64), step.x
        level = path.sigma(s).item()
        # Five standard errors of a mean and of a standard deviation.
        assert abs(state.mean().item() - path.alpha(s).item() * 0.7) < 5 * level / math.sqrt(n)
        assert abs(state.std().item() / level - 1) < 5 / math.sqrt(2 * n)


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_sampling_starts_at_the_noise_of_the_grids_first_time(path: Path) -> None:
    seen: list[tuple[float, Tensor]] = []

    def spy(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((float(t), x_t))
        return x_t

    like = torch.empty(4000, 1, dtype=torch.float64)
    sample(spy, path, like, sampler=DDIM(), grid=Trailing(), nfe=4, start=0.6, generator=seeded())
    t, x = seen[0]
    assert t == Trailing().times(path, 4, start=0.6)[0].item()
    level = path.sigma(torch.tensor(t, dtype=torch.float64)).item()
    assert abs(x.std().item() / level - 1) < 5 / math.sqrt(8000)


@pytest.mark.unchecked
@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_euler_maruyama_samples_a_gaussian(path: Path) -> None:
    n, data = 20_000, Gaussian(path)
    like = torch.empty(n, 1, dtype=torch.float64)
    kwargs = {"sampler": EulerMaruyama(), "grid": LogSNR(), "nfe": 300, "generator": seeded(14)}
    x = sample(data.denoise, path, like, **kwargs)
    # Five standard errors; 300 steps of a first-order method, and the prior's alpha(-5.1) of the mean.
    assert abs(x.mean().item() - data.mean) < 5 * data.std / math.sqrt(n) + 0.01
    assert abs(x.std().item() / data.std - 1) < 5 / math.sqrt(2 * n) + 0.01


@pytest.mark.parametrize("path", often(PATHS), ids=name)
def test_the_adaptive_solver_follows_the_exact_flow_and_counts_its_calls(path: Path) -> None:
    data, counted = Gaussian(path), Counted(Gaussian(path).denoise)
    grid = Trailing().times(path, 1)
    x = data.marginal_std(grid[0]) * torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(1)
    x = x + path.alpha(grid[0]) * data.mean
    ours = Adaptive(rtol=1e-7, atol=1e-7)(counted, path, grid, x)
    # The last jump to x0_hat costs (sigma / std)^2 / 2 of the last noise level: 1 % on the shortest table.
    close(
        ours, data.flow(x, grid[0], torch.zeros((), dtype=torch.float64)), rtol=0, atol=2e-2 if path in TABLES else 1e-4
    )
    assert 10 < counted.nfe < 500


def test_an_adaptive_solver_that_cannot_reach_its_tolerance_raises() -> None:
    path = LinearVP()
    data = Mixture.on(path)
    with pytest.raises(SolverError, match="max_nfe"):
        Adaptive(rtol=1e-9, atol=1e-9, max_nfe=30)(
            data.denoise, path, Trailing().times(path, 1), torch.randn(4, 2, dtype=torch.float64)
        )


@pytest.mark.unchecked
@pytest.mark.parametrize("grid", [g for g in GRIDS if g not in POOR_GRIDS], ids=name)
@pytest.mark.parametrize("sampler", [*NAMED.values()], ids=name)
def test_every_named_sampler_on_every_grid_samples_a_gaussian_or_says_why_not(sampler: Sampler, grid: Grid) -> None:
    """From few calls, on a path of each kind; what cannot work is an error or a warning, never a silent bad sample."""
    for path in (Cosine(), LinearVP(), VE(), EDMPath(), Schedule()):
        data, nfe = Gaussian(path, mean=0.5, std=0.5), 61
        like = torch.empty(4000, 1, dtype=torch.float64)
        kwargs = {"sampler": sampler, "grid": grid, "nfe": nfe, "generator": seeded(15)}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            place.cache_clear()
            refused = None
            try:
                x = sample(data.denoise, path, like, **kwargs)
            except PathError as error:
                refused = str(error)
        if refused is not None:
            assert re.search("ask for|use ", refused)
        elif not told:
            assert abs(x.mean().item() - data.mean) < 0.06, path
            assert abs(x.std().item() / data.std - 1) < 0.35, path


def test_the_adaptive_solver_does_not_depend_on_the_grid() -> None:
    path, data = Cosine(), Gaussian(Cosine())
    like = torch.empty(50, 1, dtype=torch.float64)
    one, two = (
        sample(data.denoise, path, like, sampler=Adaptive(), grid=grid, nfe=1, generator=seeded(16))
        for grid in (Leading(), Karras())
    )
    assert torch.equal(one, two)


def test_a_grid_that_starts_with_signal_or_ends_in_noise_is_told() -> None:
    data = Gaussian(Cosine())
    like = torch.empty(5, 1, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"terminal SNR.*got 0.\d+ at t=0.751.*grid=trailing"):
        sample(data.denoise, Cosine(), like, sampler=DDIM(), grid=Leading(), nfe=4)
    with pytest.warns(CoarseGridWarning, match=r"call at -1.39 from the trailing grid on the path edm.*--grid karras"):
        sample(Gaussian(EDMPath()).denoise, EDMPath(), like, sampler=DDIM(), grid=Trailing(), nfe=20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ddim_of_schedulers_is_the_step_with_the_unclipped_noise_to_the_precision_of_its_numbers(dtype):
    path = Schedule(steps=50, name="cosine")
    grid = Leading(50).times(path, 50)
    alpha, sigma = (v.tolist() for v in path.scales(grid))
    scales = dict(zip(grid.to(dtype).tolist(), zip(alpha, sigma, strict=True), strict=True))
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def noise(x_t: Tensor) -> Tensor:
        return 0.5 * x_t + 0.5 * torch.tanh(3 * x_t.roll(1, dims=-1))

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        a, r = scales[float(t)]
        return (x_t - r * noise(x_t)) / a

    y = x
    for n in range(50):
        eps = noise(y)
        y = alpha[n + 1] * ((y - sigma[n] * eps) / alpha[n]).clamp(-1, 1) + sigma[n + 1] * eps
    start = (x * sigma[0] / math.hypot(alpha[0], sigma[0])).to(dtype)
    found = Scheduler("ddim")(clip(denoise), path, grid, start)
    close(found.double(), y, rtol=0, atol=4e-6 if dtype == torch.float32 else 1e-12)
