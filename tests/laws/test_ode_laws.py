"""The probability flow as an ODE: against closed forms, scipy on the path's own clock, and torchdiffeq."""

import math

import pytest
import torch
from exact import SMOOTH, Gaussian, f64, name
from exact import Mixture as ThreeModes
from scipy.integrate import solve_ivp

from noise2action.diffusion.denoisers import Counted
from noise2action.diffusion.exact import Mixture
from noise2action.diffusion.ode import (
    AdaptiveSteps,
    FixedSteps,
    Flow,
    Solver,
    adaptive,
    cleanest_time,
    decode,
    encode,
    interpolate,
    lerp,
    slerp,
    transport,
)
from noise2action.diffusion.paths import VE, Cosine, LinearVP, Path, Straight, Table, linear_betas
from noise2action.diffusion.tableau import Step
from noise2action.errors import ConfigError, PathError, ShapeError, SolverError

close = torch.testing.assert_close
SOLVERS: list[Solver] = [FixedSteps(60), AdaptiveSteps()]
SHORT_TABLE = Table(linear_betas(100))


def mixture(path: Path, n: int = 8, seed: int = 0) -> tuple[Mixture, torch.Tensor]:
    """Return three tilted Gaussians in the plane and `n` samples of them."""
    modes = ThreeModes.on(path)
    data = Mixture(path, modes.weights, modes.means, modes.covariances)
    return data, data.draw(n, torch.Generator().manual_seed(seed))[0]


@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_the_flow_of_a_gaussian_in_both_directions(path: Path) -> None:
    data = Gaussian(path)
    start, end = path.time_at(f64(-1.5, 2.5)).unbind()
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(1)
    for solver in (FixedSteps(25), AdaptiveSteps(1e-8, 1e-8, scheme="dop853")):
        for t, s in ((start, end), (end, start)):
            moved = transport(data.denoise, path, x, start=float(t), end=float(s), solver=solver)
            close(moved, data.flow(x, t, s), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("path", [*SMOOTH, SHORT_TABLE], ids=name)
def test_encoding_a_gaussian_is_the_closed_form(path: Path) -> None:
    data = Gaussian(path)
    zero, one = f64(0.0, 1.0).unbind()
    x0 = torch.linspace(-1, 2, 7, dtype=torch.float64).unsqueeze(1)
    for solver in (FixedSteps(25), AdaptiveSteps(1e-7, 1e-7, scheme="dop853")):
        close(
            encode(data.denoise, path, x0, solver=solver) / path.ends()[1],
            data.flow(x0, zero, one) / path.ends()[1],
            atol=2e-4 if path is SHORT_TABLE else 1e-5,  # its first step leaves much more noise than the others' 0.002
            rtol=0,
        )


@pytest.mark.unchecked
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("path", [*SMOOTH, SHORT_TABLE], ids=name)
def test_decoding_inverts_encoding(path: Path, solver: Solver) -> None:
    data, x0 = mixture(path)
    for denoise, x in ((data.denoise, x0), (Gaussian(path).denoise, x0)):
        x1 = encode(denoise, path, x, solver=solver)
        assert (decode(denoise, path, x1, solver=solver) - x).abs().max() < 1e-4
        assert (x1 - x).abs().max() > 0.1


@pytest.mark.parametrize("path", [LinearVP(), VE()], ids=name)
def test_agrees_with_scipy_on_the_paths_own_clock(path: Path) -> None:
    """`dx = x0_hat d alpha + eps_hat d sigma` in t, with the path's rates, by another scheme."""
    data, x0 = mixture(path, n=4)
    start, end = (float(t) for t in path.time_at(f64(1.5, -1.5)))

    def velocity(t: float, state: "object") -> "object":
        now = torch.tensor(t, dtype=torch.float64)
        x_t = torch.as_tensor(state, dtype=torch.float64).reshape(x0.shape)
        x0_hat = data.denoise(x_t, now)
        eps_hat = (x_t - path.alpha(now) * x0_hat) / path.sigma(now)
        alpha_rate, sigma_rate = path.rates(now)
        return (alpha_rate * x0_hat + sigma_rate * eps_hat).flatten().numpy()

    found = solve_ivp(velocity, (start, end), x0.flatten().numpy(), method="RK45", rtol=1e-7, atol=1e-7)
    expected = torch.as_tensor(found.y[:, -1]).reshape(x0.shape)
    for solver in (FixedSteps(60), AdaptiveSteps(1e-7, 1e-7, scheme="dop853")):
        ours = transport(data.denoise, path, x0, start=start, end=end, solver=solver)
        close(ours, expected, atol=3e-5, rtol=3e-5)


def test_agrees_with_torchdiffeq() -> None:
    torchdiffeq = pytest.importorskip("torchdiffeq")
    path = Straight()
    data, x0 = mixture(path, n=8)
    # On this path eps_hat - x0_hat = (x - x0_hat) / t is the velocity itself.
    x1 = torchdiffeq.odeint(
        lambda t, x: (x - data.denoise(x, t)) / t, x0, f64(0.05, 1.0), method="dopri5", rtol=1e-8, atol=1e-8
    )[-1]
    for solver in (FixedSteps(100), AdaptiveSteps(1e-7, 1e-7, scheme="dop853")):
        close(transport(data.denoise, path, x0, start=0.05, end=1.0, solver=solver), x1, atol=2e-5, rtol=2e-5)


def test_fixed_steps_converge_with_order_four() -> None:
    path = Cosine()
    data, x0 = mixture(path, n=8)
    start, end = 0.1, 0.9
    exact = transport(data.denoise, path, x0, start=start, end=end, solver=AdaptiveSteps(1e-12, 1e-12, scheme="dop853"))
    errors = [
        (transport(data.denoise, path, x0, start=start, end=end, solver=FixedSteps(n)) - exact).abs().max().item()
        for n in (30, 60)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.4)


def test_the_tolerance_holds_for_every_sample_of_a_batch() -> None:
    """One sample near the watershed of two modes among many easy ones is as exact as alone."""
    path = Straight()
    data = Mixture(path, f64(0.5, 0.5), f64(-1.0, 1.0).unsqueeze(1), 0.01 * torch.ones(2, 1, 1, dtype=torch.float64))
    x1 = torch.cat([f64(1e-3), torch.full((255,), 2.0, dtype=torch.float64)]).unsqueeze(1)
    exact = decode(data.denoise, path, x1[:1], solver=AdaptiveSteps(1e-11, 1e-11, scheme="dop853"))
    alone, among = (decode(data.denoise, path, x, solver=AdaptiveSteps())[:1] for x in (x1[:1], x1))
    assert (among - exact).abs().item() < 2e-4
    assert (among - exact).abs().item() < 10 * (alone - exact).abs().item()


@pytest.mark.parametrize("path", [Cosine(), VE()], ids=name)
def test_the_adaptive_sampler_ends_at_the_denoisers_estimate(path: Path) -> None:
    data, _ = mixture(path)
    x1 = torch.randn(16, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * path.ends()[1]
    clean = cleanest_time(path)
    seen: list[Step] = []
    counted = Counted(data.denoise)
    x0 = adaptive(counted, path, x1, rtol=1e-6, atol=1e-6, on_step=seen.append)
    at_clean = transport(data.denoise, path, x1, start=1.0, end=clean, solver=AdaptiveSteps(1e-6, 1e-6))
    close(x0, data.denoise(at_clean, torch.tensor(clean, dtype=torch.float64)), atol=1e-9, rtol=1e-9)
    assert (seen[0].t, seen[-1].s) == (1.0, pytest.approx(clean, rel=1e-9))
    assert [step.index for step in seen] == list(range(len(seen)))
    assert all(step.t > step.s for step in seen)
    close(seen[-1].x, at_clean)
    few = Counted(data.denoise)
    adaptive(few, path, x1)
    assert few.nfe < counted.nfe


def test_the_dtype_of_the_network_is_kept_around_a_float64_state() -> None:
    path = Cosine()
    data, x0 = mixture(path)
    seen: set[torch.dtype] = set()

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.update((x_t.dtype, t.dtype))
        return data.denoise(x_t.double(), t.double()).float()

    x1 = encode(denoise, path, x0.float(), solver=AdaptiveSteps())
    assert (seen, x1.dtype) == ({torch.float32}, torch.float32)
    close(decode(denoise, path, x1, solver=AdaptiveSteps()), x0.float(), atol=1e-4, rtol=0)


def test_the_noisy_end_is_exactly_one() -> None:
    for path in (Straight(), Cosine(), VE(), SHORT_TABLE):
        times: list[float] = []

        def denoise(x_t: torch.Tensor, t: torch.Tensor, times: list[float] = times) -> torch.Tensor:
            times.append(float(t))
            return x_t * 0.5

        decode(denoise, path, torch.ones(1, 1, dtype=torch.float64), solver=FixedSteps(4))
        assert max(times) == 1.0
        assert min(times) == pytest.approx(cleanest_time(path), rel=1e-9)


def test_no_network_call_is_cleaner_than_asked() -> None:
    table = Table(linear_betas(50))
    assert cleanest_time(table) == pytest.approx(1 / 50, rel=1e-12)
    assert cleanest_time(Straight()) == pytest.approx(0.002 / 1.002)
    assert cleanest_time(Straight(), low=0.03) == 0.03
    assert Flow(lambda x, t: x, Straight(), cleanest=0.03).floor == pytest.approx(0.03)
    with pytest.raises(PathError, match="inside"):
        encode(lambda x, t: x, Straight(), torch.ones(1, 1), solver=FixedSteps(4), cleanest=0.0)


def test_slerp_and_lerp() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 3, 4, generator=g, dtype=torch.float64).unbind()
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).reshape(-1, 1, 1)
    w = torch.linspace(0, 1, 7, dtype=torch.float64)
    between = slerp(a, b, w)
    close(between[0], a)
    close(between[-1], b)
    close(between.flatten(2).norm(dim=2), a.flatten(1).norm(dim=1).expand(7, 5))
    # The angle to `a` grows in proportion to the weight.
    cosine = (between * a).flatten(2).sum(2) / (a * a).flatten(1).sum(1)
    close(cosine.acos()[1:], w[1:, None] * cosine[-1].acos(), atol=1e-6, rtol=1e-6)
    close(lerp(a, b, w)[2], a * (2 / 3) + b / 3)


def test_slerp_of_parallel_opposite_and_zero_rows() -> None:
    a = torch.tensor([[1.0, 2.0, -1.0]])
    w = torch.tensor([0.0, 0.25, 1.0])
    close(slerp(a, a, w), a.expand(3, 1, 3))
    close(slerp(a, a * (1 + 1e-7), w), a.expand(3, 1, 3))
    close(slerp(a, 3 * a, w)[1], 1.5 * a)
    assert slerp(a, torch.zeros(1, 3), w).isfinite().all()
    with pytest.raises(SolverError, match="linearly"):
        slerp(a, -a, w)


@pytest.mark.parametrize("how", ["spherical", "linear"])
def test_interpolation_begins_and_ends_at_the_data(how: str) -> None:
    path = Cosine()
    data, x = mixture(path)
    a, b = x[:4], x[4:]
    w = f64(0.0, 0.5, 1.0)
    between = interpolate(data.denoise, path, a, b, weights=w, how=how, solver=AdaptiveSteps())
    close(between[0], a, atol=1e-4, rtol=0)
    close(between[-1], b, atol=1e-4, rtol=0)
    # Between the data lies data: of a density that the straight middle between modes does not have.
    zero = torch.zeros((), dtype=torch.float64)
    assert data.log_density(between[1], zero).median() > data.log_density((a + b) / 2, zero).median()
    with pytest.raises(ShapeError, match="one shape"):
        interpolate(data.denoise, path, a, b[:, :1], weights=w, solver=AdaptiveSteps())


def test_what_cannot_be_solved_is_told() -> None:
    path = Straight()
    data, x0 = mixture(path)
    with pytest.raises(SolverError, match="20 network evaluations"):
        encode(data.denoise, path, x0, solver=AdaptiveSteps(max_nfe=20))
    with pytest.raises(SolverError, match="NaN"):
        encode(lambda x, t: x / 0 * 0, path, x0, solver=FixedSteps(4))
    with pytest.raises(ShapeError, match="denoiser that returns"):
        encode(lambda x, t: x[:, :1], path, x0, solver=FixedSteps(4))
    noisy = torch.Generator().manual_seed(0)
    with pytest.raises(SolverError, match="max_nfe"):
        encode(lambda x, t: torch.randn(x.shape, generator=noisy, dtype=x.dtype), path, x0, solver=AdaptiveSteps())
    for bad in (
        lambda: FixedSteps(1),
        lambda: AdaptiveSteps(rtol=0.0),
        lambda: AdaptiveSteps(max_nfe=0),
    ):
        with pytest.raises(ConfigError, match="expected"):
            bad()
    with pytest.raises(PathError, match=r"\[0, 1\]"):
        transport(data.denoise, path, x0, start=0.0, end=1.5, solver=FixedSteps(4))
