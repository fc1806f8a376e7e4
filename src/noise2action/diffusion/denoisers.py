"""Denoisers `(x_t, t) -> E[x0 | x_t]`, and guidance: functions from denoiser to denoiser.

Guidance composes from the inside out: `pin(clip(denoise), ...)` clips first and pins what is known last.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError
from ..shapes import broadcast
from .paths import Path


@runtime_checkable
class Denoiser(Protocol):
    """Returns the posterior mean E[x0 | x_t], with the shape of `x_t`; `t` is [], [B] or [B, H]."""

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Return x0_hat."""
        ...


@runtime_checkable
class ConsistencyMap(Protocol):
    """Returns where the probability flow from `x_t` ends: same signature as a denoiser, another law."""

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Return the end of the flow."""
        ...


class Counted:
    """A denoiser that counts its calls: `nfe`."""

    def __init__(self, denoise: Denoiser) -> None:
        self.denoise = denoise
        self.nfe = 0

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Return x0_hat and count one network evaluation."""
        self.nfe += 1
        return self.denoise(x_t, t)


@dataclass(frozen=True, eq=False)
class Clipped:
    """A denoiser whose x0_hat lies in [low, high], and the one that it clips."""

    denoise: Denoiser
    low: float | Tensor
    high: float | Tensor

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Return x0_hat, clipped."""
        return self.clamp(self.denoise(x_t, t))

    def clamp(self, x0_hat: Tensor) -> Tensor:
        """Return `x0_hat` inside the bounds."""
        return x0_hat.clamp(self.low, self.high)  # pyright: ignore[reportCallIssue, reportArgumentType] - both alike


def clip(denoise: Denoiser, low: float = -1.0, high: float = 1.0) -> Clipped:
    """Return a denoiser whose x0_hat lies in [low, high]."""
    return Clipped(denoise, low, high)


def dynamic_threshold(denoise: Denoiser, *, quantile: float = 0.995, floor: float = 1.0) -> Denoiser:
    """Return a denoiser whose x0_hat is clamped to the sample's own |x0_hat| quantile s >= floor, then scaled to floor.

    **Source:** Saharia et al. 2022 (Imagen), section 2.3.
    """

    def thresholded(x_t: Tensor, t: Tensor) -> Tensor:
        x0_hat = denoise(x_t, t)
        flat = x0_hat.flatten(1).abs()
        s = flat.quantile(quantile, dim=1).clamp(min=floor).reshape(-1, *[1] * (x0_hat.ndim - 1))
        return x0_hat.clamp(-s, s) * (floor / s)

    return thresholded


def pin(denoise: Denoiser, value: Tensor, mask: Tensor) -> Denoiser:
    """Return a denoiser that knows `value` where `mask` is True (inpainting).

    Replacing x0_hat rather than x_t keeps the noise of the known entries consistent at every level. One that clips
    still shows what it clips; what is known is not clipped.
    """
    within = denoise.denoise if isinstance(denoise, Clipped) else denoise

    def pinned(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.where(mask, value, within(x_t, t))

    if not isinstance(denoise, Clipped):
        return pinned
    low, high = (torch.where(mask, free, b) for free, b in ((-torch.inf, denoise.low), (torch.inf, denoise.high)))
    return Clipped(pinned, low.to(value), high.to(value))


def cfg(
    many: Denoiser,
    w: float | Sequence[float],
    *,
    alone: Callable[[int], Denoiser] | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
    rescale: float = 0.0,
) -> Denoiser:
    """Return classifier-free guidance, one batched call a step: `(1 + w) D(x, c) - w D(x, null)` for one condition.

    `many` denoises K + 1 stacked blocks of rows: those of conditions 1 .. K, the last under the null condition. K
    weights w_k combine them to `sum (1 + w_k) D_k - (sum (1 + w_k) - 1) D_null`. For fixed x_t the noise estimate is
    affine in x0_hat, so this is the usual combination of noise estimates. w = -1 is unconditional, w = 0 conditional,
    w > 0 sharper; a scale s of the form `s c + (1 - s) u` is w = s - 1.

    Outside `interval` (in t, ends included) every weight is 0. Where a single block is left, `alone(k)`, the denoiser
    of block k by itself, is called instead of `many`: fewer rows, and its bits. `rescale` in [0, 1] blends in the
    result scaled to each sample's standard deviation at w = 0, against over-saturation. Raises `ConfigError` for values
    out of range, `ShapeError` where `many` returns another number of rows.

    **Source:** Ho & Salimans 2022, Eq. 6; several conditions: Liu et al. 2022, Eq. 11; interval: Kynkaanniemi et al.
    2024; rescaling: Lin et al. 2024, section 3.4.
    """
    check_guidance(w, interval=interval, rescale=rescale)
    weights = w if isinstance(w, Sequence) else [w]
    low, high = interval
    guided, plain = _shares(weights), _shares([0.0] * len(weights))

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        # One time for all, as samplers ask: plain numbers, no tensor.
        inside = (t >= low) & (t <= high) if t.ndim else None
        everywhere = low <= float(t) <= high if inside is None else bool(inside.all())
        some = everywhere or (inside is not None and bool(inside.any()))
        shares = guided if some else plain
        used = [k for k, share in enumerate(shares) if share]
        if alone is not None and len(used) == 1 and (everywhere or not some):
            return alone(used[0])(x_t, t)
        blocks = _blocks(many, x_t, t, len(shares))
        out = _combined(shares, blocks)
        if some and rescale:
            out = out.lerp(out * _spread_ratio(_combined(plain, blocks), out), rescale)
        if inside is None or everywhere or not some:
            return out
        return torch.where(broadcast(inside, x_t), out, _combined(plain, blocks))

    return denoise


def check_guidance(w: float | Sequence[float], *, interval: tuple[float, float], rescale: float) -> None:
    """Raise `ConfigError` for what `cfg` would not accept."""
    weights = w if isinstance(w, Sequence) else [w]
    if not weights or not all(math.isfinite(v) for v in weights):
        raise ConfigError(f"expected finite guidance weights, one a condition, got {w}")
    if not (0 <= interval[0] < interval[1] <= 1 and 0 <= rescale <= 1):
        raise ConfigError(
            f"expected a guidance interval 0 <= low < high <= 1 and rescale in [0, 1], got {interval} and {rescale}"
        )


def _shares(weights: Sequence[float]) -> list[float]:
    """Return the factor on each block: 1 + w_k, and for the null what makes them add up to 1."""
    return [*(1 + w for w in weights), -(sum(weights) + len(weights) - 1)]


def _blocks(many: Denoiser, x_t: Tensor, t: Tensor, count: int) -> tuple[Tensor, ...]:
    stacked = many(torch.cat([x_t] * count), torch.cat([t] * count) if t.ndim else t)
    if stacked.shape != (count * len(x_t), *x_t.shape[1:]):
        raise ShapeError(
            f"expected {count} stacked blocks of {tuple(x_t.shape)} (one a weight, then the null condition), "
            f"got {tuple(stacked.shape)}"
        )
    return stacked.chunk(count)


def _combined(shares: list[float], blocks: tuple[Tensor, ...]) -> Tensor:
    # A block with no share is left out: its infinities must not become NaN.
    parts = [share * block for share, block in zip(shares, blocks, strict=True) if share]
    return sum(parts[1:], start=parts[0])


def _spread_ratio(wanted: Tensor, x: Tensor) -> Tensor:
    """Return std(wanted) / std(x) over each sample [B, 1, ...]; 1 where x does not vary."""
    has, wants = (v.unsqueeze(-1).flatten(1).std(1, correction=0) for v in (x, wanted))
    return broadcast(torch.where(has > 0, wants / has, 1.0), x)


Cost = Callable[[Tensor], Tensor]
"""x0_hat [B, ...] -> a cost a sample [B], differentiable."""


def descend(denoise: Denoiser, cost: Cost, *, path: Path, scale: float = 1.0) -> Denoiser:
    """Return a denoiser whose x0_hat has moved down the slope of `cost`, by as much as x_t leaves x0 uncertain.

    `x0_hat - scale (sigma^2 / alpha) d cost(x0_hat(x_t)) / d x_t`, through the network: sigma^2 / alpha times the
    Jacobian of x0_hat is the posterior covariance of x0. It is the posterior mean under the density tilted by
    exp(-scale cost), exactly so for Gaussian data and a linear cost. Where alpha = 0 x_t says nothing about x0, and
    x0_hat is returned as it is. Works inside `torch.no_grad`. Raises `ShapeError` unless the cost is [B],
    `ConfigError` where it has no gradient.

    **Source:** Chung et al. 2023 (diffusion posterior sampling), Eq. 16; the covariance: Efron 2011, Eq. 2.8.
    """

    def descended(x_t: Tensor, t: Tensor) -> Tensor:
        time = broadcast(t.to(torch.float64), x_t)
        alpha = path.alpha(time)
        reach = torch.where(alpha > 0, path.variance(time) / alpha, 0.0).to(x_t.dtype)
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            x0_hat = denoise(x, t)
            values = cost(x0_hat)
            if values.shape != x_t.shape[:1]:
                raise ShapeError(
                    f"expected a cost a sample [{len(x_t)}], got {list(values.shape)}: sum over each sample"
                )
            if not values.requires_grad:
                raise ConfigError(
                    "expected a cost that depends on x0_hat, got one without gradient: use torch functions"
                )
            (slope,) = torch.autograd.grad(values.sum(), x)
        return torch.where(reach > 0, x0_hat.detach() - scale * reach * slope, x0_hat.detach())

    return descended
