"""Closed forms: Gaussian mixtures, whose denoiser, score and density are known at every time of every path."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import PathError
from .paths import Path


@dataclass(frozen=True, eq=False)
class Mixture:
    """Data from a Gaussian mixture, `x0 ~ sum_k weights_k N(means_k, covariances_k)`, noised along `path`.

    At time t component k is `N(alpha m_k, alpha^2 C_k + sigma^2 I)`, so that everything a network would have to learn
    is a formula. Held in float64, evaluated in the dtype of x_t.
    """

    path: Path
    weights: Float[Tensor, "K"]
    means: Float[Tensor, "K D"]
    covariances: Float[Tensor, "K D D"]

    def __post_init__(self) -> None:
        """Reject weights that are no distribution and covariances that have no density."""
        if not (bool((self.weights > 0).all()) and math.isclose(float(self.weights.sum()), 1.0, rel_tol=1e-6)):
            raise PathError(f"expected positive weights that add up to 1, got {self.weights.tolist()}: normalise them")
        smallest = float(self._values.min())
        if not smallest > 0:
            raise PathError(
                f"expected positive definite covariances, got an eigenvalue of {smallest:.3g}: add a small variance"
            )

    @classmethod
    def around(cls, path: Path, points: Float[Tensor, "K D"], *, std: float) -> "Mixture":
        """Return round Gaussians of equal weight around `points`: a smoothed data set, or a curve of fine points."""
        centres = points.to(torch.float64)
        k, d = centres.shape
        weights = torch.full((k,), 1 / k, dtype=torch.float64)
        return cls(path, weights, centres, std**2 * torch.eye(d, dtype=torch.float64).expand(k, d, d))

    @classmethod
    def ring(cls, path: Path, *, modes: int = 8, radius: float = 1.4, std: float = 0.1) -> "Mixture":
        """Return `modes` round Gaussians on a circle in the plane; by default with about unit variance."""
        angle = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
        return cls.around(path, radius * torch.stack([angle.cos(), angle.sin()], dim=1), std=std)

    @classmethod
    def gaussian(cls, path: Path, mean: Sequence[float], *, std: float = 1.0) -> "Mixture":
        """Return one round Gaussian at `mean`."""
        return cls.around(path, torch.tensor([list(mean)], dtype=torch.float64), std=std)

    def select(self, indices: Sequence[int]) -> "Mixture":
        """Return the mixture of these components, weights renormalised: the data under a label."""
        chosen = self.weights[list(indices)]
        return Mixture(self.path, chosen / chosen.sum(), self.means[list(indices)], self.covariances[list(indices)])

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Float[Tensor, "n D"], Int[Tensor, "n"]]:
        """Return `n` data samples, float64, and the component that each is from."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        values, vectors = self._frame
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        offset = vectors[component] @ (values[component].sqrt() * z).unsqueeze(-1)
        return self.means[component] + offset.squeeze(-1), component

    def denoise(self, x_t: Float[Tensor, "B D"], t: Tensor) -> Float[Tensor, "B D"]:
        """Return E[x0 | x_t], the components' posterior means by their posterior weights; `t` is [] or [B]."""
        parts = self._at(x_t, t)
        shrunk = parts.pulls @ (self._axes.to(x_t.dtype) * self._values.to(x_t.dtype).reshape(-1)).T
        return parts.share @ self.means.to(x_t.dtype) + parts.alpha * shrunk

    def score(self, x_t: Float[Tensor, "B D"], t: Tensor) -> Float[Tensor, "B D"]:
        """Return the gradient of `log_density` at x_t, (alpha x0_hat - x_t) / sigma^2; `t` is [] or [B]."""
        return -self._at(x_t, t).pulls @ self._axes.to(x_t.dtype).T

    def log_density(self, x_t: Float[Tensor, "B D"], t: Tensor) -> Float[Tensor, "B"]:
        """Return log p_t(x_t) in nats; t = 0 is the data's. `t` is [] or [B]."""
        return self._at(x_t, t).log_joint.logsumexp(-1)

    @cached_property
    def _frame(self) -> tuple[Float[Tensor, "K D"], Float[Tensor, "K D D"]]:
        """Variances of each component along its principal axes, and the axes as columns."""
        values, vectors = torch.linalg.eigh(self.covariances)
        return values, vectors

    @cached_property
    def _values(self) -> Float[Tensor, "D K"]:
        return self._frame[0].T.contiguous()

    @cached_property
    def _axes(self) -> Float[Tensor, "D DK"]:
        """All axes side by side, component fastest, so that one product turns x into every frame."""
        return self._frame[1].permute(1, 2, 0).flatten(1)

    @cached_property
    def _centres(self) -> Float[Tensor, "D K"]:
        return torch.einsum("kd,kdj->jk", self.means, self._frame[1])

    def _at(self, x_t: Float[Tensor, "B D"], t: Tensor) -> "_Components":
        t = t.to(x_t.dtype)
        alpha, sigma = self.path.alpha(t).reshape(-1, 1, 1), self.path.sigma(t).reshape(-1, 1, 1)
        variance = alpha**2 * self._values.to(x_t.dtype) + sigma**2
        offset = (x_t @ self._axes.to(x_t.dtype)).unflatten(1, self._values.shape) - alpha * self._centres.to(x_t.dtype)
        pulls = offset / variance
        log_peak = self.weights.log().to(x_t.dtype) - 0.5 * (2 * math.pi * variance).log().sum(1)
        log_joint = log_peak - 0.5 * (offset * pulls).sum(1)
        share = log_joint.softmax(-1)
        return _Components(alpha.squeeze(-1), log_joint, share, (share.unsqueeze(1) * pulls).flatten(1))


@dataclass(frozen=True, eq=False)
class _Components:
    """What the components say at (x_t, t)."""

    alpha: Float[Tensor, "_ 1"]
    log_joint: Float[Tensor, "B K"]
    """log p_t(x_t, k)"""
    share: Float[Tensor, "B K"]
    """p(k | x_t)"""
    pulls: Float[Tensor, "B DK"]
    """(x_t - alpha m_k) / variance along each axis of each component, by its share."""
