"""The forward process as a Markov chain: its single steps, and the posterior of one step given data and noise.

Times are float64 and `s < t`, s the cleaner one. On a `Table` the steps are those of DDPM: from (k - 1) / T to k / T
the scale is `sqrt(1 - beta_k)` and the variance `beta_k`. Scales are float64, cast once to the type of the data.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PathError
from ..seeds import Generators, randn_like
from ..shapes import Noisy, broadcast
from .paths import Path


def transition(path: Path, s: Tensor, *, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and variance of `q(x_t | x_s) = N(scale x_s, variance)`: alpha_t / alpha_s, and the noise added.

    Elementwise, float64. Raises `PathError` unless 0 <= s < t <= 1.

    **Source:** Kingma et al. 2021, Eq. 3; on a table `sqrt(1 - beta)` and `beta` of Ho et al. 2020, Eq. 2.
    """
    s, t = s.to(torch.float64), t.to(torch.float64)
    if not bool(((s >= 0) & (s < t) & (t <= 1)).all()):
        raise PathError(f"expected times 0 <= s < t <= 1, got s={s.tolist()} and t={t.tolist()}: noise only grows")
    scale = path.alpha(t) / path.alpha(s)
    return scale, (path.variance(t) - scale**2 * path.variance(s)).clamp(min=0)


def step(path: Path, x_s: Noisy, *, s: Tensor, t: Tensor, generator: Generators | None = None) -> Noisy:
    """Return a draw of q(x_t | x_s); times are [] or [B]."""
    scale, variance = transition(path, broadcast(s, x_s), t=broadcast(t, x_s))
    return scale.to(x_s.dtype) * x_s + variance.sqrt().to(x_s.dtype) * randn_like(x_s, generator)


def forward_chain(
    path: Path, x0: Noisy, *, times: Iterable[float], generator: Generators | None = None
) -> Iterator[Noisy]:
    """Yield x_t at each of the rising `times`, each drawn from the one before and the first from the data `x0`."""
    x, s = x0, torch.zeros((), dtype=torch.float64)
    for time in times:
        t = torch.tensor(time, dtype=torch.float64)
        x, s = step(path, x, s=s, t=t, generator=generator), t
        yield x


@dataclass(frozen=True, eq=False)
class Posterior:
    """q(x_s | x_t, x0), and the two variances that ancestral sampling may use."""

    mean: Tensor
    """[B, ...]"""
    variance: Tensor
    """beta~, that of the posterior: the lower bound, and the choice of DDIM with eta = 1."""
    beta: Tensor
    """The variance of the step q(x_t | x_s): the upper bound."""


def posterior(path: Path, x_t: Noisy, *, x0: Noisy, t: Tensor, s: Tensor) -> Posterior:
    """Return the Gaussian posterior of x_s between noise `x_t` and data `x0`; times are [] or [B].

    `mean = (scale sigma_s^2 x_t + alpha_s beta x0) / sigma_t^2` and `beta~ = beta sigma_s^2 / sigma_t^2`; variances
    broadcast against x_t.

    **Source:** Ho et al. 2020, Eq. 7.
    """
    s, t = broadcast(s.to(torch.float64), x_t), broadcast(t.to(torch.float64), x_t)
    scale, beta = transition(path, s, t=t)
    clean, noisy = path.variance(s), path.variance(t)
    dtype = x_t.dtype
    mean = (scale * clean / noisy).to(dtype) * x_t + (path.alpha(s) * beta / noisy).to(dtype) * x0
    return Posterior(mean, (beta * clean / noisy).to(dtype), beta.to(dtype))
