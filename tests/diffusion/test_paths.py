"""Discrete schedules against the formulas of the literature, and the check of the terminal noise."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from noise2action.config import decode, encode
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.paths import (
    SCHEDULES,
    VE,
    Cosine,
    LinearVP,
    Path,
    Schedule,
    Straight,
    SubVP,
    Table,
    TerminalSNRWarning,
    check_terminal_snr,
    terminal_snr,
)
from noise2action.diffusion.schedules import (
    betas_of,
    cosine_betas,
    linear_betas,
    scaled_linear_betas,
    sigmoid_betas,
    sigmoid_raw_betas,
    zero_terminal_snr,
)
from noise2action.diffusion.targets import Epsilon, V
from noise2action.errors import PathError


def unscaled_linear(steps: int) -> Table:
    """The mistake in circulation: the betas of 1000 steps, on fewer."""
    return Table(tuple(np.linspace(1e-4, 0.02, steps).tolist()))


def test_linear_betas_are_those_of_ddpm() -> None:
    np.testing.assert_allclose(linear_betas(1000), np.linspace(1e-4, 0.02, 1000), rtol=1e-13)
    assert Table(linear_betas(1000)).alpha_bar[-1].item() == pytest.approx(4.04e-5, rel=2e-3)


def test_linear_betas_are_rescaled_to_the_number_of_steps() -> None:
    np.testing.assert_allclose(linear_betas(100), np.linspace(1e-3, 0.2, 100), rtol=1e-13)
    # Nearly the same noise at the end: the product of (1 - beta) differs from exp(-sum beta) by its squares.
    assert Table(linear_betas(100)).alpha_bar[-1].item() < 4.04e-5
    assert Table() == Table(linear_betas(100))


def test_unscaled_betas_leave_a_third_of_the_signal_and_are_reported() -> None:
    path = unscaled_linear(100)
    abar = path.alpha_bar[-1].item()
    assert abar == pytest.approx(0.364, abs=5e-4)
    assert terminal_snr(path) == pytest.approx(abar / (1 - abar), rel=1e-12)
    with pytest.warns(TerminalSNRWarning, match=r"got 0\.57\d at t=1 on Table.*adds more noise"):
        Diffusion(path=path)
    with pytest.raises(PathError, match="adds more noise"):
        Diffusion(path=path, strict=True)


@pytest.mark.parametrize(
    "path",
    [Straight(), Cosine(), LinearVP(), SubVP(), VE(), Table(), Table(linear_betas(1000)), Table(cosine_betas(100))],
    ids=lambda p: type(p).__name__,
)
def test_the_terminal_check_is_silent_where_the_noise_suffices(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_terminal_snr(path, strict=True)


def test_scaled_linear_is_reported_as_it_is() -> None:
    """Stable Diffusion's own schedule keeps 0.5 % of the power (Lin et al. 2024, table 1: sqrt(abar_T) = 0.068265)."""
    path = Table(scaled_linear_betas(1000))
    assert path.ends()[0] == pytest.approx(0.068265, abs=1e-5)
    with pytest.warns(TerminalSNRWarning):
        check_terminal_snr(path)
    check_terminal_snr(path, limit=0.01, strict=True)


def test_scaled_linear_betas_written_out() -> None:
    expected = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    np.testing.assert_allclose(scaled_linear_betas(1000), expected, rtol=1e-12)
    roots = np.sqrt(scaled_linear_betas(50))
    np.testing.assert_allclose(np.diff(roots), np.diff(roots)[0], rtol=1e-9)


@pytest.mark.parametrize("steps", [50, 100, 1000])
def test_cosine_betas_written_out(steps: int) -> None:
    s = 0.008
    k = np.arange(steps + 1)
    abar = np.cos((k / steps + s) / (1 + s) * np.pi / 2) ** 2 / np.cos(s / (1 + s) * np.pi / 2) ** 2
    expected = np.minimum(1 - abar[1:] / abar[:-1], 0.999)
    np.testing.assert_allclose(cosine_betas(steps), expected, rtol=1e-10)
    # All but the clipped last step follow the curve.
    np.testing.assert_allclose(Table(cosine_betas(steps)).alpha_bar[:-1], abar[:-1], rtol=1e-9)
    assert cosine_betas(steps)[-1] == 0.999


def test_sigmoid_betas_written_out_and_scaled() -> None:
    shape = 1 / (1 + np.exp(-np.linspace(-6, 6, 1000)))
    expected = 1e-4 + shape * (0.02 - 1e-4)
    np.testing.assert_allclose(sigmoid_betas(1000), expected, rtol=1e-12)
    # Unscaled they would reach 0.998; most steps would then be pure noise.
    assert max(sigmoid_betas(1000)) < 0.02
    abar = Table(sigmoid_betas(1000)).alpha_bar
    assert (abar > 0.01).double().mean() > 0.5


def test_the_raw_sigmoid_is_mostly_pure_noise() -> None:
    shape = 1 / (1 + np.exp(-np.linspace(-6, 6, 1000)))
    np.testing.assert_allclose(sigmoid_raw_betas(1000), shape, rtol=1e-12)
    abar = Schedule(name="sigmoid_raw").alpha_bar
    assert (abar < 1e-4).double().mean() > 0.5


@pytest.mark.parametrize("betas", [scaled_linear_betas(1000), linear_betas(100), (0.1, 0.2), (0.5, 0.01, 0.3)])
def test_zero_terminal_snr_is_lins_algorithm_1(betas: tuple[float, ...]) -> None:
    roots = np.sqrt(np.cumprod(1 - np.array(betas)))
    first, last = roots[0], roots[-1]
    shifted = (roots - last) * first / (first - last)
    path = Table(zero_terminal_snr(betas))
    np.testing.assert_allclose(path.alpha_bar[1:], shifted**2, rtol=1e-11)
    assert path.betas[-1] == 1.0
    assert path.betas[0] == pytest.approx(betas[0], rel=1e-10)  # the first step is kept
    assert path.ends() == (0.0, 1.0)
    assert terminal_snr(path) == 0.0
    np.testing.assert_allclose(zero_terminal_snr(path.betas), path.betas, rtol=1e-9)


def test_no_noise_can_be_predicted_from_a_zero_terminal_snr() -> None:
    path = Schedule(steps=100, zero_terminal=True)
    Diffusion(path=path, target=V(), strict=True)
    with pytest.raises(PathError, match=r"Epsilon target on Schedule cannot start at t=1 .*use target=v"):
        Diffusion(path=path, target=Epsilon())
    with pytest.raises(PathError, match="expected at least 2 steps"):
        Schedule(steps=1, zero_terminal=True)


@pytest.mark.filterwarnings("ignore:expected a terminal SNR")
@pytest.mark.parametrize("zero_terminal", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_the_table_of_its_name_and_goes_through_a_config(name: str, zero_terminal: bool) -> None:
    betas = SCHEDULES[name](50)
    path = Schedule(steps=50, name=name, zero_terminal=zero_terminal)
    assert path.betas == (zero_terminal_snr(betas) if zero_terminal else betas)
    typed = {"kind": "schedule", "steps": 50, "name": name, "zero_terminal": zero_terminal}
    objective = decode(Diffusion, {"path": typed})
    assert objective.path == path
    assert encode(objective)["path"] == typed


def test_betas_of_cumulative_powers() -> None:
    betas = (0.1, 0.2, 0.5)
    np.testing.assert_allclose(betas_of(Table(betas).alpha_bar[1:].tolist()), betas, rtol=1e-14)
    assert betas_of([0.5, 0.0]) == (0.5, 1.0)


def test_alpha_bar_is_the_product_of_what_each_step_keeps() -> None:
    path = Table((0.1, 0.2, 0.5))
    abar = [1.0, 0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.5]
    np.testing.assert_allclose(path.alpha_bar, abar, rtol=1e-15)
    t = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0], dtype=torch.float64)
    np.testing.assert_allclose(path.alpha(t), np.sqrt(abar), rtol=1e-15)
    np.testing.assert_allclose(path.sigma(t), np.sqrt(1 - np.array(abar)), rtol=1e-12, atol=1e-16)
    assert path.steps == 3


def test_between_its_steps_a_table_is_linear_in_alpha() -> None:
    path = Table((0.1, 0.2, 0.5))
    steps, roots = np.arange(4) / 3, np.sqrt([1.0, 0.9, 0.72, 0.36])
    for dtype, accuracy in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        t = torch.tensor([0.01, 0.1, 0.2, 0.45, 0.6, 0.7, 0.95], dtype=dtype)
        expected = np.interp(t.double().numpy(), steps, roots)
        np.testing.assert_allclose(path.alpha(t), expected, rtol=accuracy)
        np.testing.assert_allclose(path.sigma(t), np.sqrt(1 - expected**2), rtol=20 * accuracy)
        assert path.alpha(t).dtype == path.sigma(t).dtype == dtype
        beyond = torch.tensor([-0.5, 1.5], dtype=dtype)
        assert torch.equal(path.alpha(beyond), path.alpha(torch.tensor([0.0, 1.0], dtype=dtype)))


def test_sigma_of_a_table_has_all_its_digits_near_the_data() -> None:
    """sigma^2 = 1 - alpha^2 is beta_1 at the first step and falls linearly from there, however small beta_1 is."""
    for first in (1e-4, 1e-8, 1e-12):
        path = Table((first, 0.3, 0.9))
        assert path.sigma(torch.tensor(1 / 3, dtype=torch.float64)).item() == pytest.approx(first**0.5, rel=1e-12)
        t = torch.tensor([1e-3, 1e-6, 1e-9], dtype=torch.float64)
        lost = 3 * t * (first / (1 + (1 - first) ** 0.5))
        np.testing.assert_allclose(path.variance(t), lost * (2 - lost), rtol=1e-9)


@given(st.integers(1, 3000), st.sampled_from([linear_betas, cosine_betas, sigmoid_betas, scaled_linear_betas]))
def test_every_schedule_of_every_length_is_a_process(steps: int, schedule) -> None:
    path = Table(schedule(steps))
    assert path.steps == steps
    assert bool((path.alpha_bar.diff() < 0).all())
    assert path.alpha_bar[0] == 1
    assert 0 < path.alpha_bar[-1] < 1
    t32 = torch.arange(steps + 1, dtype=torch.float32) / steps  # float32 times hit their own step
    assert torch.equal(path.alpha(t32).double(), path.alpha_bar.sqrt().float().double())


@given(st.lists(st.floats(0.001, 0.9), min_size=1, max_size=30))
def test_one_step_then_another_is_the_jump(betas: list[float]) -> None:
    """q(x_k | x_0) from q(x_k | x_(k-1)): mean and variance step by step."""
    path, mean, variance = Table(tuple(betas)), 1.0, 0.0
    for k, beta in enumerate(betas, start=1):
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        t = torch.tensor(k / len(betas), dtype=torch.float64)
        assert float(path.alpha(t)) == pytest.approx(mean, rel=1e-12)
        assert float(path.sigma(t)) ** 2 == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("betas", [(0.0, 0.1), (1.0, 0.1), (0.1, 1.1), (0.1, -0.2), (0.1, float("nan"))])
def test_betas_outside_the_open_interval_are_rejected(betas: tuple[float, ...]) -> None:
    with pytest.raises(PathError, match=r"expected betas in \(0, 1\)"):
        Table(betas)


@pytest.mark.parametrize("schedule", [linear_betas, cosine_betas, sigmoid_betas, scaled_linear_betas])
@pytest.mark.parametrize("steps", [0, -1, 100_001])
def test_lengths_out_of_range_are_rejected(schedule, steps: int) -> None:
    with pytest.raises(PathError, match="expected 1 to 100000 steps"):
        schedule(steps)


def test_an_empty_table_is_rejected() -> None:
    with pytest.raises(PathError, match="expected 1 to 100000 steps"):
        Table(())


@pytest.mark.parametrize(
    "build",
    [
        lambda: LinearVP(beta_min=0.0),
        lambda: LinearVP(beta_min=3.0, beta_max=2.0),
        lambda: SubVP(beta_min=-1.0),
        lambda: VE(sigma_min=0.0),
        lambda: VE(sigma_min=90.0),
        lambda: VE(sigma_max=math.nan),
        lambda: LinearVP(beta_min=math.nan),
    ],
)
def test_parameters_that_do_not_grow_are_rejected(build) -> None:
    with pytest.raises(PathError, match="expected 0 <"):
        build()


def test_paths_are_values() -> None:
    assert Straight() == Straight()
    assert Straight() != Cosine()
    assert LinearVP() != SubVP()
    assert hash(Table()) == hash(Table())
    assert len({Straight(), Cosine(), LinearVP(), SubVP(), Straight()}) == 4
