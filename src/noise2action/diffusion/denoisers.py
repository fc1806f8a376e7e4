"""Denoisers `(x_t, t) -> E[x0 | x_t]`, and guidance: functions from denoiser to denoiser.

Guidance composes from the inside out: `pin(clip(denoise), ...)` clips first and pins what is known last.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


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


def clip(denoise: Denoiser, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """Return a denoiser whose x0_hat lies in [low, high]."""

    def clipped(x_t: Tensor, t: Tensor) -> Tensor:
        return denoise(x_t, t).clamp(low, high)

    return clipped


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

    Replacing x0_hat rather than x_t keeps the noise of the known entries consistent at every level.
    """

    def pinned(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.where(mask, value, denoise(x_t, t))

    return pinned


def cfg(both: Denoiser, w: float) -> Denoiser:
    """Return classifier-free guidance `(1 + w) D(x, c) - w D(x, null)` with one batched call a step.

    `both` denoises a doubled batch: rows [0, B) under the condition, rows [B, 2B) under the null condition. For
    fixed x_t the noise estimate is affine in x0_hat, so this is the usual combination of noise estimates. w = -1 is
    unconditional, w = 0 conditional, w > 0 sharper; on the scale s of `s c + (1 - s) u`, w = s - 1.

    **Source:** Ho & Salimans 2022, Eq. 6.
    """

    def guided(x_t: Tensor, t: Tensor) -> Tensor:
        doubled = both(torch.cat([x_t, x_t]), torch.cat([t, t]) if t.ndim else t)
        conditional, unconditional = doubled.chunk(2)
        return (1 + w) * conditional - w * unconditional

    return guided
