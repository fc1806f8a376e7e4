"""Training-time laws: how t is drawn while training."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import PathError, first_wrong
from .paths import Path


class TimeLaw(ABC):
    """A density over diffusion times."""

    @abstractmethod
    def draw(self, n: int, *, path: Path, generator: torch.Generator) -> Float[Tensor, "n"]:
        """Return `n` times in [0, 1], float64, on the generator's device."""

    def memory(self) -> Tensor | None:
        """Return an empty memory of past losses, for who trains to keep; None for a law that does not learn."""
        return None


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


@dataclass(frozen=True)
class LossSecondMoment(TimeLaw):
    """Importance sampling, p(t) ~ sqrt(E[L_t^2]) in equal buckets of t, from the last losses of each.

    Uniform (in strata) until every bucket has its losses. The loss is divided by the density, so that its mean stays
    that of uniform times while its variance falls. The law itself is stateless: `memory` is kept by who trains, with
    the weights, and changed by `remember` alone.

    **Source:** Nichol & Dhariwal 2021, Eq. 18; the share of uniform times is that of their code.
    """

    buckets: int = 100
    """Equal buckets of t."""
    history: int = 10
    """Losses kept a bucket."""
    uniform: float = 0.001
    """Share of times that stay uniform, so that no bucket is forgotten."""

    def __post_init__(self) -> None:
        """Reject numbers out of range."""
        if wrong := first_wrong(
            self,
            buckets=1 <= self.buckets <= 10_000,
            history=1 <= self.history <= 10_000,
            uniform=0 < self.uniform <= 1,
        ):
            raise PathError(f"expected buckets, history in [1, 10000] and uniform in (0, 1], got {wrong}")

    def memory(self) -> Float[Tensor, "buckets columns"]:
        """Return an empty memory: a row a bucket, the number of losses seen and then the last ones; float64."""
        return torch.zeros(self.buckets, 1 + self.history, dtype=torch.float64)

    def draw(self, n: int, *, path: Path, generator: torch.Generator) -> Float[Tensor, "n"]:
        """Return what is drawn while there is no memory: uniform times, one a stratum."""
        return Stratified().draw(n, path=path, generator=generator)

    def density(self, memory: Float[Tensor, "buckets columns"]) -> Float[Tensor, "buckets"]:
        """Return the density of t in each bucket, of mean 1."""
        seen, losses = memory[:, 0], memory[:, 1:]
        moment = losses.square().mean(1).sqrt()
        if bool((seen < self.history).any()) or not float(moment.sum()) > 0:
            return torch.ones_like(seen)
        return moment / moment.mean() * (1 - self.uniform) + self.uniform

    def draw_learnt(
        self, n: int, *, path: Path, memory: Tensor, generator: torch.Generator
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Return `n` times in [0, 1] from the learnt density, and the density at each."""
        density = self.density(memory)
        edges = density.cumsum(0) / len(density)
        quantile = self.draw(n, path=path, generator=generator) * edges[-1]
        bucket = torch.searchsorted(edges, quantile, right=True).clamp(max=len(density) - 1)
        # Uniform inside a bucket: the inverse of a distribution function that is linear there.
        t = (bucket + 1) / len(density) - (edges[bucket] - quantile) / density[bucket]
        return t.clamp(0, 1), density[bucket]

    @torch.no_grad()
    def remember(self, memory: Tensor, t: Float[Tensor, "n"], losses: Float[Tensor, "n"]) -> None:
        """Put the `losses` at `t` into `memory`, each over the oldest of its bucket."""
        bucket = (t * len(memory)).long().clamp(0, len(memory) - 1)
        order = bucket.argsort(stable=True)
        bucket = bucket[order]
        count = bucket.bincount(minlength=len(memory))
        rank = torch.arange(len(bucket), device=bucket.device) - (count.cumsum(0) - count)[bucket]
        slot = (memory[bucket, 0].long() + rank) % self.history
        last = rank >= count[bucket] - self.history  # earlier ones would be overwritten by this very call
        memory[bucket[last], 1 + slot[last]] = losses[order][last].to(memory.dtype)
        memory[:, 0] += count


AnyTimeLaw = Uniform | Stratified | LogitNormal | LogNormal | LossSecondMoment


def buckets(t: Float[Tensor, "n"], values: Float[Tensor, "n"], *, count: int = 10) -> list[float | None]:
    """Return the mean of `values` in each of `count` equal buckets of t; None where a bucket is empty."""
    index = (t * count).long().clamp(0, count - 1)
    zeros = torch.zeros(count, dtype=torch.float64, device=values.device)
    total = zeros.index_add(0, index, values.to(torch.float64)).tolist()
    number = zeros.index_add(0, index, torch.ones_like(values, dtype=torch.float64)).tolist()
    return [s / n if n else None for s, n in zip(total, number, strict=True)]
