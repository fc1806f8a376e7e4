"""Information: what a noise level destroys, and the variational bound as a code length, in nats.

With `snr = (alpha / sigma)^2`, noise destroys information about x0 at the rate `dI / dsnr = mmse(snr) / 2` (I-MMSE).
A code that sends x_1, then every cleaner x_s given x_t, then x0 costs the area under a staircase above that curve: a
better prediction of x0 is a shorter message, and more steps lose less to the staircase's corners. Nothing but the
half-log-SNR enters: paths with the same noise levels have the same code.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import PathError
from ..seeds import randn_like
from ..shapes import Noisy, broadcast
from .denoisers import Denoiser
from .paths import Path


def snr(path: Path, t: Tensor) -> Tensor:
    """Return the signal-to-noise power ratio (alpha / sigma)^2; infinite at t = 0."""
    return (2 * path.half_log_snr(t)).exp()


def entropy_gaussian(variances: Float[Tensor, "*t D"]) -> Float[Tensor, "*t"]:
    """Return the differential entropy of N(., diag(variances)) in nats: `sum log(2 pi e v) / 2`."""
    return (2 * math.pi * math.e * variances).log().sum(-1) / 2


def mutual_information_gaussian(snr: Float[Tensor, "*t"], variances: Float[Tensor, "D"]) -> Float[Tensor, "*t"]:
    """Return I(x0; x_t) in nats for data N(., diag(variances)): `sum log(1 + snr v) / 2`, the capacity formula.

    **Source:** Shannon 1948, theorem 17; Cover & Thomas 2006, Eq. 9.16.
    """
    return torch.log1p(snr.unsqueeze(-1) * variances).sum(-1) / 2


def mmse_gaussian(snr: Float[Tensor, "*t"], variances: Float[Tensor, "D"]) -> Float[Tensor, "*t"]:
    """Return E |x0 - E[x0 | x_t]|^2 for data N(., diag(variances)): `sum v / (1 + snr v)`, twice dI / dsnr.

    **Source:** Guo, Shamai & Verdu 2005 (I-MMSE), Eq. 1 and 9.
    """
    return (variances / (1 + snr.unsqueeze(-1) * variances)).sum(-1)


def squared_errors(
    denoise: Denoiser, path: Path, x0: Noisy, times: Float[Tensor, "N"], *, generator: torch.Generator
) -> Float[Tensor, "B N"]:
    """Return |x0 - x0_hat(x_t, t)|^2 of each sample at each time, with fresh noise for every one: E is the mmse."""
    columns: list[Tensor] = []
    for t in times.to(torch.float64):
        x_t = _noised(path, x0, t, generator)
        columns.append(((x0 - denoise(x_t, t.to(x0.dtype))) ** 2).flatten(1).sum(1))
    return torch.stack(columns, dim=1)


@dataclass(frozen=True, eq=False)
class CodeLength:
    """A variational bound on -log p(x0) in nats, a sample, in the order in which a message would be sent."""

    prior: Float[Tensor, "B"]
    """KL of the noisiest x_t from the prior that the receiver knows."""
    steps: Float[Tensor, "B K"]
    """KL of each cleaner x_s given x_t, from noise to data."""
    reconstruction: Float[Tensor, "B"]
    """-log p(x0 | cleanest x_t): a density, so negative where the data is finer than the unit."""

    @property
    def nats(self) -> Float[Tensor, "B"]:
        """The whole bound."""
        return self.prior + self.steps.sum(1) + self.reconstruction


def staircase(
    snr: Float[Tensor, "N"], power: Float[Tensor, "B"], errors: Float[Tensor, "B N"], *, dims: int
) -> CodeLength:
    """Return the bound of a sample with `power` = |x0|^2 whose denoiser errs by `errors` at N rising `snr`.

    `prior = snr_1 |x0|^2 / 2` (from N(0, sigma_1^2), where sampling starts), `step = (snr_s - snr_t) error_t / 2`, and
    a Gaussian decoder around x0_hat with the variance 1 / snr_N of the cleanest level.

    **Source:** Kingma et al. 2021 (VDM), Eq. 11, 13 and appendix E; Ho et al. 2020, Eq. 5.
    """
    snr, errors = snr.to(torch.float64), errors.to(torch.float64)
    decoder = dims / 2 * (math.log(2 * math.pi) - snr[-1].log())
    return CodeLength(
        prior=power.to(torch.float64) * (snr[0] / 2),
        steps=errors[:, :-1] * (snr.diff() / 2),
        reconstruction=decoder + errors[:, -1] * (snr[-1] / 2),
    )


def code_length(
    denoise: Denoiser, path: Path, x0: Noisy, *, times: Float[Tensor, "N"], generator: torch.Generator
) -> CodeLength:
    """Return the discrete variational bound of each x0 over falling `times`, from the noisy end to above 0.

    One draw of the noise a time; `PathError` where the times do not get cleaner, or reach t = 0, whose SNR is infinite.

    **Source:** Kingma et al. 2021 (VDM), Eq. 11-13; Ho et al. 2020, Eq. 5.
    """
    levels = snr(path, times.to(torch.float64))
    if not bool(levels.isfinite().all() and (levels.diff() > 0).all()):
        raise PathError(
            f"expected times of rising, finite SNR, got {times.tolist()}: leave out t = 0, and order them noise first"
        )
    errors = squared_errors(denoise, path, x0, times, generator=generator)
    return staircase(levels, (x0 * x0).flatten(1).sum(1), errors, dims=x0[0].numel())


def continuous_code_length(
    denoise: Denoiser,
    path: Path,
    x0: Noisy,
    *,
    low: float,
    high: float,
    draws: int,
    generator: torch.Generator,
) -> CodeLength:
    """Return an unbiased estimate of the bound with infinitely many steps between half-log-SNRs `low` and `high`.

    The steps become `int snr error d lambda`, from `draws` times a sample, one in each of `draws` equal parts of
    [low, high]. With the exact denoiser of the data its expectation is -log p(x0) itself, up to the two ends.

    **Source:** Kingma et al. 2021 (VDM), Eq. 14-17 and appendix I.1.
    """
    if not low < high:
        raise PathError(f"expected low < high, got {low} and {high}")
    ends = path.time_at(torch.tensor([low, high], dtype=torch.float64))
    low, high = path.half_log_snr(ends).tolist()  # a path may end inside the interval
    width = (high - low) / draws
    columns: list[Tensor] = []
    for k in range(draws):
        u = torch.rand(len(x0), generator=generator, dtype=torch.float64, device=x0.device)
        t = path.time_at(low + (k + u) * width)
        error = ((x0 - denoise(_noised(path, x0, t, generator), t.to(x0.dtype))) ** 2).flatten(1).sum(1)
        columns.append(width * snr(path, t) * error.to(torch.float64))
    outer = code_length(denoise, path, x0, times=ends, generator=generator)
    return CodeLength(outer.prior, torch.stack(columns, dim=1), outer.reconstruction)


def bits_per_dim(nats: Tensor, dims: int, *, precision: float = 1.0) -> Tensor:
    """Return nats a sample as bits a dimension, for data stored to `precision` (the width of a bin, in x0's unit).

    A density p gives a bin the probability p * precision^dims, where it varies little within a bin.
    """
    return nats / (dims * math.log(2)) - math.log2(precision)


def _noised(path: Path, x0: Tensor, t: Tensor, generator: torch.Generator) -> Tensor:
    # Scales in float64, cast once: float32 would lose the small ends of the path.
    column = broadcast(t, x0)
    alpha, sigma = path.alpha(column).to(x0.dtype), path.sigma(column).to(x0.dtype)
    return alpha * x0 + sigma * randn_like(x0, generator)
