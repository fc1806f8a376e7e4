"""What the study of information measures: bits by band of noise levels, and lengths of codes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from ..diffusion.denoisers import Denoiser
from ..diffusion.exact import Mixture
from ..diffusion.information import (
    CodeLength,
    bits_per_dim,
    code_length,
    continuous_code_length,
    entropy_gaussian,
    mmse_gaussian,
    mutual_information_gaussian,
    staircase,
)
from ..diffusion.paths import Cosine, Schedule
from ..evaluate.statistics import Estimate
from ..seeds import generator
from .study import difference

PATH = Cosine()
VARIANCES = torch.tensor([1.8, 0.2], dtype=torch.float64)
"""Of the Gaussian's two coordinates."""
DIMS = 2
LEVELS = (-30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0, 40.0)
"""dB of signal over noise between which bits are counted."""
DRAWS = 4
"""Times a sample in each band of 10 dB."""
BINS = 128
"""Points are stored to 1 / BINS of the data's standard deviation."""
RANGE = 4.0
"""Width of the interval that a code of fixed length covers, in standard deviations: no point of the ring is outside."""
CONTINUOUS = "infinitely many steps"


@dataclass(frozen=True, eq=False)
class Bits:
    """One quantity in bits a dimension, a value a seed, beside the exact one of the same points."""

    part: str
    data: str
    denoiser: str
    at: str
    measured: list[float] = field(default_factory=list[float])
    exact: list[float] = field(default_factory=list[float])

    def add(self, measured: Tensor, exact: Tensor) -> None:
        """Take the means of one seed."""
        self.measured.append(float(measured.mean()))
        self.exact.append(float(exact.mean()))

    @property
    def gap(self) -> Estimate:
        """Measured less exact, paired by seed."""
        return difference(self.measured, self.exact)


def _half_log(decibels: float) -> float:
    return decibels * math.log(10) / 20


def as_bits(nats: Tensor) -> Tensor:
    """Return nats a point as bits a dimension."""
    return bits_per_dim(nats, DIMS)


def _code_bits(nats: Tensor) -> Tensor:
    return bits_per_dim(nats, DIMS, precision=1 / BINS)


def _band(low: float, high: float) -> str:
    return f"{low:g} to {high:g} dB"


def gaussian_bands() -> list[Bits]:
    """Return what each band destroys of the Gaussian: the integral of mmse / 2, against the capacity formula."""
    rows: list[Bits] = []
    for low, high in pairwise(LEVELS):
        levels = torch.logspace(low / 10, high / 10, 2001, dtype=torch.float64)
        area = torch.trapezoid(levels * mmse_gaussian(levels, VARIANCES) / 2, levels.log())
        known = mutual_information_gaussian(levels[[0, -1]], VARIANCES).diff()
        row = Bits("destroyed", "Gaussian", "exact", _band(low, high))
        row.add(as_bits(area), as_bits(known))
        rows.append(row)
    return rows


def gaussian_codes(counts: Sequence[int]) -> list[Bits]:
    """Return the expected bound of the Gaussian in N steps, uniform in log-SNR, against its entropy."""
    rows: list[Bits] = []
    for count in counts:
        levels = torch.logspace(LEVELS[0] / 10, LEVELS[-1] / 10, count, dtype=torch.float64)
        errors = mmse_gaussian(levels, VARIANCES).unsqueeze(0)
        code = staircase(levels, VARIANCES.sum().reshape(1), errors, dims=DIMS)
        row = Bits("code", "Gaussian", "exact", f"{count} steps")
        row.add(_code_bits(code.nats), _code_bits(entropy_gaussian(VARIANCES)))
        rows.append(row)
    return rows


class Ring:
    """What is measured on the ring of Gaussians, by denoiser and then by band or number of steps."""

    def __init__(self, counts: Sequence[int], *, table: int) -> None:
        self.counts, self.table = counts, Schedule(steps=table, name="linear")
        names = ("exact", "network")
        bands = [_band(low, high) for low, high in pairwise(LEVELS)]
        codes = [*(f"{count} steps" for count in counts), CONTINUOUS]
        self.bands = {(name, at): Bits("destroyed", "ring", name, at) for name in names for at in bands}
        self.codes = {(name, at): Bits("code", "ring", name, at) for name in names for at in codes}
        self.gaussian = Bits("code", "ring", "best Gaussian", "-")
        self.fixed = Bits("code", "ring", "fixed length", "-")
        self.ddpm = Bits("code", "ring", "exact", f"{table} steps of DDPM")
        self.others = (self.ddpm, self.gaussian, self.fixed)

    def measure(self, name: str, denoise: Denoiser, data: Mixture, n: int, seed: int) -> None:
        """Add one seed's held-out points, coded with `denoise`; the same points and noise for every denoiser."""
        x0 = data.draw(n, generator(seed, "held out"))[0].float()
        zero = torch.zeros((), dtype=torch.float64)
        exact = _code_bits(-data.log_density(x0.to(torch.float64), zero))
        low, high = _half_log(LEVELS[0]), _half_log(LEVELS[-1])
        noise = generator(seed, "noise")
        draws = DRAWS * (len(LEVELS) - 1)
        whole = continuous_code_length(denoise, PATH, x0, low=low, high=high, draws=draws, generator=noise)
        self.codes[name, CONTINUOUS].add(_code_bits(whole.nats), exact)
        self._bands(name, whole, data, seed, n)
        for count in self.counts:
            times = PATH.time_at(torch.linspace(low, high, count, dtype=torch.float64))
            code = code_length(denoise, PATH, x0, times=times, generator=noise)
            self.codes[name, f"{count} steps"].add(_code_bits(code.nats), exact)
        if name == "exact":
            times = torch.arange(self.table.steps, 0, -1, dtype=torch.float64) / self.table.steps
            clocked = replace(data, path=self.table)
            code = code_length(clocked.denoise, self.table, x0, times=times, generator=noise)
            self.ddpm.add(_code_bits(code.nats), exact)
            spread = x0.to(torch.float64).var(dim=0)
            self.gaussian.add(_code_bits(entropy_gaussian(spread)), exact)
            self.fixed.add(torch.tensor(math.log2(RANGE * BINS)), exact)

    def _bands(self, name: str, code: CodeLength, data: Mixture, seed: int, n: int) -> None:
        """Add what each band costs: the exact denoiser against the entropy, the network against the exact denoiser."""
        parts = [as_bits(part.sum(1)) for part in code.steps.split(DRAWS, dim=1)]
        noise = generator(seed, "entropy")
        known = [_information(data, data.draw(n, noise)[0], decibels, noise) for decibels in LEVELS]
        for k, (part, (low, high)) in enumerate(zip(parts, pairwise(LEVELS), strict=True)):
            at = _band(low, high)
            if name == "exact":
                self.bands[name, at].add(part, as_bits(known[k + 1] - known[k]))
            else:
                self.bands[name, at].add(part, torch.tensor(self.bands["exact", at].measured[-1]))


def _information(data: Mixture, x0: Tensor, decibels: float, noise: torch.Generator) -> Tensor:
    """Return I(x0; x_t) in nats from the density of x_t: its entropy less that of the noise alone."""
    t = PATH.time_at(torch.tensor(_half_log(decibels), dtype=torch.float64))
    x_t = PATH.noised(x0, t, torch.randn(x0.shape, generator=noise, dtype=x0.dtype))
    return -data.log_density(x_t, t).mean() - entropy_gaussian(PATH.variance(t).expand(DIMS))
