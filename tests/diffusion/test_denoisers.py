"""Guidance: functions from denoiser to denoiser, each against its formula, and in the order they are written."""

import pytest
import torch
from torch import Tensor

from noise2action.diffusion.denoisers import Counted, cfg, clip, dynamic_threshold, pin
from noise2action.diffusion.grids import Trailing
from noise2action.diffusion.multistep import ddim
from noise2action.diffusion.paths import Cosine, LinearVP
from noise2action.diffusion.samplers import Heun
from noise2action.diffusion.tableau import run

X = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
HALF = torch.tensor(0.5, dtype=torch.float64)


def wide(x_t: Tensor, t: Tensor) -> Tensor:
    return 3 * x_t


def test_clip_bounds_the_estimate_and_nothing_else() -> None:
    out = clip(wide, -0.5, 2.0)(X, HALF)
    assert torch.equal(out, (3 * X).clamp(-0.5, 2.0))
    assert (out.min(), out.max()) == (-0.5, 2.0)
    assert clip(wide)(X, HALF).abs().max() == 1.0


def test_a_clipped_sample_stays_in_bounds() -> None:
    path = Cosine()
    grid = Trailing().times(path, 8)
    assert run(clip(wide), ddim(path, grid, eta=1.0), X, generator=torch.Generator()).abs().max() <= 1.0
    assert Heun()(clip(wide), path, grid, X).abs().max() <= 1.0


@pytest.mark.parametrize(("quantile", "floor"), [(0.995, 1.0), (0.9, 1.0), (0.5, 0.3), (1.0, 2.0)])
def test_dynamic_threshold_is_imagens(quantile: float, floor: float) -> None:
    x0_hat = 3 * X
    out = dynamic_threshold(wide, quantile=quantile, floor=floor)(X, HALF)
    for row, thresholded in zip(x0_hat, out, strict=True):
        s = max(float(row.abs().flatten().quantile(quantile)), floor)
        torch.testing.assert_close(thresholded, row.clamp(-s, s) * floor / s, rtol=1e-14, atol=0)
    assert out.abs().max() <= floor * (1 + 1e-15)


def test_dynamic_threshold_leaves_small_estimates_alone_and_rows_apart() -> None:
    small = X / X.abs().max()
    assert torch.equal(dynamic_threshold(lambda x, t: x)(small, HALF), small)
    mixed = torch.cat([small, 100 * small])
    assert torch.equal(dynamic_threshold(lambda x, t: x)(mixed, HALF)[:4], small)


def test_pin_replaces_the_known_and_only_the_known() -> None:
    mask = torch.zeros(5, 2, dtype=torch.bool)
    mask[:2] = True
    value = torch.full((5, 2), 9.0, dtype=torch.float64)
    out = pin(wide, value, mask)(X, HALF)
    assert bool((out[:, :2] == 9).all())
    assert torch.equal(out[:, 2:], (3 * X)[:, 2:])


def test_pin_stops_a_nan_estimate() -> None:
    out = pin(lambda x, t: x * torch.nan, torch.ones(5, 2, dtype=torch.float64), torch.ones(5, 2, dtype=torch.bool))
    assert torch.equal(out(X, HALF), torch.ones_like(X))


def conditional(x_t: Tensor, t: Tensor) -> Tensor:
    return (x_t + 1).sin()


def unconditional(x_t: Tensor, t: Tensor) -> Tensor:
    return 0.3 * x_t


def both(x_t: Tensor, t: Tensor) -> Tensor:
    """Rows of the first half under the condition, of the second under the null condition."""
    assert t.ndim == 0 or len(t) == len(x_t)
    first, second = x_t.chunk(2)
    return torch.cat([conditional(first, t), unconditional(second, t)])


@pytest.mark.parametrize("time", ["shared", "a sample", "an action"])
@pytest.mark.parametrize("w", [-1.0, 0.0, 1.0, 7.5])
def test_cfg_scale_and_one_call(w: float, time: str) -> None:
    t = {"shared": HALF, "a sample": torch.rand(4, dtype=torch.float64), "an action": torch.rand(4, 5)}[time]
    counted = Counted(both)
    out = cfg(counted, w)(X, t)
    assert counted.nfe == 1
    c, u = conditional(X, t), unconditional(X, t)
    assert torch.equal(out, (1 + w) * c - w * u)
    if w == 0:
        assert torch.equal(out, c)
    if w == -1:
        assert torch.equal(out, u)


def test_cfg_combines_noise_estimates_as_published() -> None:
    """`eps~ = (1 + w) eps(x, c) - w eps(x, null)` (Ho & Salimans 2022, Eq. 6): affine in x0_hat with weights 1."""
    path, w = LinearVP(), 2.5
    alpha, sigma = path.alpha(HALF), path.sigma(HALF)

    def eps(x0_hat: Tensor) -> Tensor:
        return (X - alpha * x0_hat) / sigma

    published = (1 + w) * eps(conditional(X, HALF)) - w * eps(unconditional(X, HALF))
    torch.testing.assert_close(eps(cfg(both, w)(X, HALF)), published, rtol=1e-12, atol=1e-12)


def test_cfg_calls_the_network_once_a_step() -> None:
    path, counted = Cosine(), Counted(both)
    run(cfg(counted, 3.0), ddim(path, Trailing().times(path, 7)), X)
    assert counted.nfe == 7


def test_guidance_composes_from_the_inside_out() -> None:
    mask = torch.zeros(5, 2, dtype=torch.bool)
    mask[0] = True
    value = torch.full((5, 2), 5.0, dtype=torch.float64)
    c, u = conditional(X, HALF), unconditional(X, HALF)
    # Clipped last: in bounds. Clipped before the guidance: each estimate in bounds, the combination not.
    last = clip(cfg(both, 4.0), -0.5, 0.5)(X, HALF)
    first = cfg(clip(both, -0.5, 0.5), 4.0)(X, HALF)
    assert torch.equal(last, (5 * c - 4 * u).clamp(-0.5, 0.5))
    assert torch.equal(first, 5 * c.clamp(-0.5, 0.5) - 4 * u.clamp(-0.5, 0.5))
    assert not torch.equal(first, last)
    # Pinned outside: the known value is not clipped. Inside: it is.
    assert bool((pin(clip(wide), value, mask)(X, HALF)[:, 0] == 5).all())
    assert bool((clip(pin(wide, value, mask))(X, HALF)[:, 0] == 1).all())


def test_counted_counts_and_changes_nothing() -> None:
    counted = Counted(wide)
    assert counted.nfe == 0
    assert torch.equal(counted(X, HALF), wide(X, HALF))
    counted(X, HALF)
    assert counted.nfe == 2
