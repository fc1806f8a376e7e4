"""Training-time laws: how t is drawn while training."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import PathError
from .paths import Path


class TimeLaw(ABC):
    """A density over diffusion times."""

    @abstractmethod
    def draw(self, n: int, *, path: Path, generator: torch.Generator) -> Float[Tensor, "n"]:
        """Return `n` times in [0, 1], float64, on the generator's device."""


def _check_spread(std: float) -> None:
    if not std > 0:
        raise PathError(f"expected std > 0, got {std}")


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)


def _normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, generator=generator, dtype=torch.float64, device=generator.device)


@dataclass(frozen=True)
class Uniform(TimeLaw):
    """Independent and uniform."""

    def draw(self, n: int, *, path: Path, generator: torch.Generator) -> Float[Tensor, "n"]:
        """Return uniform times."""
        return _uniform(n, generator)


@dataclass(frozen=True)
class Stratified(TimeLaw):
    """Uniform, one time in each of n equal strata, in random order: the loss has less variance, no bias.

    **Source:** Kingma et al. 2021, appendix I.1 (low-discrepancy sampler).
    """

    def draw(self, n: int, *, path: Path, generator: torch.Generator) -> Float[Tensor, "n"]:
        """Return one time a stratum, shuffled."""
        strata = torch.randperm(n, generator=generator, device=generator.device)
        return (strata + _uniform(n, generator)) / n


@dataclass(frozen=True)
class LogitNormal(TimeLaw):
    """Logit of t is normal: more weight on the middle of the schedule. **Source:** Esser et al. 2024, Eq. 19."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        """Reject a spread that is not positive."""
        _check_spread(self.std)

    def draw(self, n: int, *, path: Path, generator: torch.Generator) -> Float[Tensor, "n"]:
        """Return logit-normal times."""
        return torch.sigmoid(self.mean + self.std * _normal(n, generator))


@dataclass(frozen=True)
class LogNormal(TimeLaw):
    """Log of sigma / alpha is normal, on any path. **Source:** Karras et al. 2022, table 1 (P_mean, P_std)."""

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        """Reject a spread that is not positive."""
        _check_spread(self.std)

    def draw(self, n: int, *, path: Path, generator: torch.Generator) -> Float[Tensor, "n"]:
        """Return times whose noise-to-signal ratio is log-normal."""
        return path.time_at(-(self.mean + self.std * _normal(n, generator)))


AnyTimeLaw = Uniform | Stratified | LogitNormal | LogNormal


def buckets(t: Float[Tensor, "n"], values: Float[Tensor, "n"], *, count: int = 10) -> list[float | None]:
    """Return the mean of `values` in each of `count` equal buckets of t; None where a bucket is empty."""
    index = (t * count).long().clamp(0, count - 1)
    zeros = torch.zeros(count, dtype=torch.float64, device=values.device)
    total = zeros.index_add(0, index, values.to(torch.float64)).tolist()
    number = zeros.index_add(0, index, torch.ones_like(values, dtype=torch.float64)).tolist()
    return [s / n if n else None for s, n in zip(total, number, strict=True)]
