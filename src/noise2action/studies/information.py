"""Information: the bits that each noise level destroys, and diffusion as a code that is short where prediction is good.

Two data sets: a Gaussian, where all is closed form, and a ring of Gaussians, whose exact denoiser stands beside a
trained network. Bits are a dimension; as codes, of points that are stored to a precision.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
from ..diffusion.objective import Diffusion
from ..diffusion.paths import Cosine
from ..evaluate.figures import FONT, INK, PALETTE
from ..evaluate.statistics import Estimate
from ..seeds import derive, generator
from .dots import dots
from .fits import Budget, fitted, in_units_of
from .plots import level, line, panels, plain_ticks
from .study import Findings, Progress, Settings, difference, mean, verdict

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
COLUMNS = (
    "part",
    "data",
    "denoiser",
    "at",
    "bits a dimension",
    "exact bits a dimension",
    "less exact",
)
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


def run(settings: Settings, progress: Progress) -> Findings:
    """Return bits destroyed by level, and code lengths by number of steps, against entropies and exact densities."""
    budget = Budget(
        steps=settings.pick(6000, quick=700, tiny=10),
        samples=settings.pick(8000, quick=2000, tiny=150),
        seeds=settings.pick(6, quick=4, tiny=2),
    )
    counts = settings.pick((4, 8, 16, 32, 64, 128, 256, 512), quick=(4, 8, 16, 32, 64, 128), tiny=(4, 16))
    closed = [*_gaussian_bands(), *_gaussian_codes(counts)]
    ring = _Ring(counts)
    for k in range(budget.seeds):
        seed = derive(settings.seed, "information", k)
        x = Mixture.ring(PATH).draw(20_000, generator(seed, "training"))[0].float()
        model = fitted(Diffusion(path=PATH), x, budget=budget, seed=seed)
        data = in_units_of(model, Mixture.ring(PATH))
        for name, denoise in (("exact", data.denoise), ("network", model.denoiser())):
            ring.measure(name, denoise, data, budget.samples, seed)
        progress(k + 1, budget.seeds)
    rows = [*closed, *ring.bands.values(), *ring.codes.values(), *ring.others]
    return Findings(COLUMNS, [_row(bits) for bits in rows], _figure(closed, ring, counts), _paragraph(closed, ring))


def _half_log(decibels: float) -> float:
    return decibels * math.log(10) / 20


def _bits(nats: Tensor) -> Tensor:
    return bits_per_dim(nats, DIMS)


def _code_bits(nats: Tensor) -> Tensor:
    return bits_per_dim(nats, DIMS, precision=1 / BINS)


def _band(low: float, high: float) -> str:
    return f"{low:g} to {high:g} dB"


def _gaussian_bands() -> list[Bits]:
    """Return what each band destroys of the Gaussian: the integral of mmse / 2, against the capacity formula."""
    rows: list[Bits] = []
    for low, high in pairwise(LEVELS):
        levels = torch.logspace(low / 10, high / 10, 2001, dtype=torch.float64)
        area = torch.trapezoid(levels * mmse_gaussian(levels, VARIANCES) / 2, levels.log())
        known = mutual_information_gaussian(levels[[0, -1]], VARIANCES).diff()
        row = Bits("destroyed", "Gaussian", "exact", _band(low, high))
        row.add(_bits(area), _bits(known))
        rows.append(row)
    return rows


def _gaussian_codes(counts: Sequence[int]) -> list[Bits]:
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


class _Ring:
    """What is measured on the ring of Gaussians, by denoiser and then by band or number of steps."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = counts
        names = ("exact", "network")
        bands = [_band(low, high) for low, high in pairwise(LEVELS)]
        codes = [*(f"{count} steps" for count in counts), CONTINUOUS]
        self.bands = {(name, at): Bits("destroyed", "ring", name, at) for name in names for at in bands}
        self.codes = {(name, at): Bits("code", "ring", name, at) for name in names for at in codes}
        self.gaussian = Bits("code", "ring", "best Gaussian", "-")
        self.fixed = Bits("code", "ring", "fixed length", "-")
        self.others = (self.gaussian, self.fixed)

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
            spread = x0.to(torch.float64).var(dim=0)
            self.gaussian.add(_code_bits(entropy_gaussian(spread)), exact)
            self.fixed.add(torch.tensor(math.log2(RANGE * BINS)), exact)

    def _bands(self, name: str, code: CodeLength, data: Mixture, seed: int, n: int) -> None:
        """Add what each band costs: the exact denoiser against the entropy, the network against the exact denoiser."""
        parts = [_bits(part.sum(1)) for part in code.steps.split(DRAWS, dim=1)]
        noise = generator(seed, "entropy")
        known = [_information(data, data.draw(n, noise)[0], decibels, noise) for decibels in LEVELS]
        for k, (part, (low, high)) in enumerate(zip(parts, pairwise(LEVELS), strict=True)):
            at = _band(low, high)
            if name == "exact":
                self.bands[name, at].add(part, _bits(known[k + 1] - known[k]))
            else:
                self.bands[name, at].add(part, torch.tensor(self.bands["exact", at].measured[-1]))


def _information(data: Mixture, x0: Tensor, decibels: float, noise: torch.Generator) -> Tensor:
    """Return I(x0; x_t) in nats from the density of x_t: its entropy less that of the noise alone."""
    t = PATH.time_at(torch.tensor(_half_log(decibels), dtype=torch.float64))
    x_t = PATH.noised(x0, t, torch.randn(x0.shape, generator=noise, dtype=x0.dtype))
    return -data.log_density(x_t, t).mean() - entropy_gaussian(PATH.variance(t).expand(DIMS))


def _row(bits: Bits) -> tuple[str | float | Estimate, ...]:
    label = (bits.part, bits.data, bits.denoiser, bits.at)
    if len(bits.measured) == 1:  # closed form: nothing was drawn
        return *label, bits.measured[0], bits.exact[0], bits.measured[0] - bits.exact[0]
    return *label, mean(bits.measured), mean(bits.exact), bits.gap


def _paragraph(closed: Sequence[Bits], ring: _Ring) -> str:
    bands = [bits for bits in closed if bits.part == "destroyed"]
    worst = max(abs(bits.measured[0] - bits.exact[0]) for bits in bands)
    total, whole = sum(bits.measured[0] for bits in bands), sum(bits.exact[0] for bits in bands)
    exact = {at: bits for (name, at), bits in ring.bands.items() if name == "exact"}
    held = sum(bits.gap.low <= 0 <= bits.gap.high for bits in exact.values())
    most = max(exact.values(), key=lambda bits: mean(bits.measured).value)
    integral = (
        f"Half the mmse, integrated over SNR, gives the Gaussian's mutual information to {worst:.1g} bits in every "
        f"band of 10 dB; the bands add up to {total:.4f} of {whole:.4f} bits a dimension."
    )
    entropy = (
        f"On the ring the exact denoiser's squared errors give the same bits as the entropy of x_t in {held} of "
        f"{len(exact)} bands, within the 95 % interval; the largest part, {mean(most.measured).value:.2f} bits a "
        f"dimension, is destroyed from {most.at}."
    )
    waste = {at: ring.bands["network", at].gap for at in exact}
    top = max(waste, key=lambda at: waste[at].value)
    told = verdict(waste[top], below="less than nothing", above="more than nothing", tie="not told from nothing")
    wasted = (
        f"On the same noise the network wastes most from {top}: {waste[top].value:.3f} [{waste[top].low:.3f}, "
        f"{waste[top].high:.3f}] bits a dimension, {told}."
    )
    return " ".join([integral, entropy, _convergence(closed, ring), _compression(ring), wasted])


def _convergence(closed: Sequence[Bits], ring: _Ring) -> str:
    codes = [bits for bits in closed if bits.part == "code"]
    gaps = [bits.measured[0] - bits.exact[0] for bits in codes]
    falls = all(fine < coarse for coarse, fine in pairwise(gaps))
    limit = ring.codes["exact", CONTINUOUS].gap
    told = verdict(limit, below="below it", above="above it", tie="not told from it")
    return (
        f"The bound of the Gaussian exceeds its entropy by {gaps[0]:.3f} bits a dimension in {codes[0].at} and by "
        f"{gaps[-1]:.3f} in {codes[-1].at}" + (", falling all the way" if falls else ", not falling all the way") + "; "
        f"with {CONTINUOUS} and the exact denoiser the ring's is {limit.value:+.3f} [{limit.low:+.3f}, "
        f"{limit.high:+.3f}] from -log p, {told}."
    )


def _compression(ring: _Ring) -> str:
    network, exact = ring.codes["network", CONTINUOUS], ring.codes["exact", CONTINUOUS]
    lengths = {name: mean(bits.measured).value for name, bits in (("network", network), ("exact", exact))}
    saved = difference(network.measured, ring.gaussian.measured)
    told = verdict(saved, below="shorter than", above="longer than", tie="not told from")
    excess = network.gap
    worth = verdict(excess, below="less than", above="more than", tie="not told from")
    return (
        f"As a code for points stored to 1/{BINS}, a fixed length takes {ring.fixed.measured[0]:.2f} bits a dimension, "
        f"the best Gaussian {mean(ring.gaussian.measured).value:.2f}, the network {lengths['network']:.2f} and the "
        f"exact denoiser {lengths['exact']:.2f}: the network's code is {told} the Gaussian's, and what it does not "
        f"predict costs {excess.value:.3f} [{excess.low:.3f}, {excess.high:.3f}] bits, {worth} nothing."
    )


def _figure(closed: Sequence[Bits], ring: _Ring, counts: Sequence[int]) -> Figure:
    titles = (
        "Gaussian: bits a dimension",
        "Gaussian: dI/dsnr is mmse/2",
        "bits destroyed by each 10 dB",
        "Gaussian: code, bits above its entropy",
        "ring: code, bits above -log p",
        "ring: codes, bits a dimension",
    )
    figure, axes = panels(titles, columns=3, width=4.0, height=3.0)
    _curves(axes[0], axes[1])
    _destroyed(axes[2], closed, ring)
    _lengths(axes[3], {"exact": [bits for bits in closed if bits.part == "code"]})
    _lengths(axes[4], {name: [ring.codes[name, f"{k} steps"] for k in counts] for name in ("exact", "network")})
    limit = ring.codes["network", CONTINUOUS].gap
    level(axes[4], limit, label=f"network, {CONTINUOUS}")
    axes[4].set_ylim(bottom=max(limit.value, 1e-3) / 2)
    _legend(axes[4])
    shown = {
        "fixed length": ring.fixed,
        "best Gaussian": ring.gaussian,
        f"network, {counts[-1]} steps": ring.codes["network", f"{counts[-1]} steps"],
        "network, continuous": ring.codes["network", CONTINUOUS],
        "exact, continuous": ring.codes["exact", CONTINUOUS],
    }
    estimates: dict[str, Estimate | None] = {name: mean(bits.measured) for name, bits in shown.items()}
    estimates["-log p of the data"] = mean(ring.fixed.exact)
    dots(axes[5], estimates)
    return figure


def _curves(information: Axes, slope: Axes) -> None:
    decibels = torch.linspace(LEVELS[0], LEVELS[-1], 141, dtype=torch.float64)
    levels = 10 ** (decibels / 10)
    known = _bits(mutual_information_gaussian(levels, VARIANCES))
    t = PATH.time_at(levels.log() / 2)
    noisy = PATH.alpha(t).unsqueeze(-1) ** 2 * VARIANCES + PATH.variance(t).unsqueeze(-1)
    information.plot(decibels, known, color=PALETTE[0], label="I(x0; x_t)")
    information.plot(decibels, _bits(entropy_gaussian(noisy)), color=PALETTE[1], linestyle="--", label="entropy of x_t")
    information.set(xlabel="SNR (dB)", ylabel="bits a dimension")
    slope.plot(decibels, mmse_gaussian(levels, VARIANCES) / 2, color=PALETTE[0], label="mmse / 2")
    rise = mutual_information_gaussian(levels, VARIANCES).diff() / levels.diff()
    between = (decibels[1:] + decibels[:-1]) / 2
    slope.plot(between[::8], rise[::8], "s", color=PALETTE[1], markersize=4, label="dI / dsnr, by differences")
    slope.set(xlabel="SNR (dB)", ylabel="nats", yscale="log")
    _legend(information)
    _legend(slope)


def _destroyed(axes: Axes, closed: Sequence[Bits], ring: _Ring) -> None:
    middles = [(low + high) / 2 for low, high in pairwise(LEVELS)]
    series = {
        "Gaussian": [bits for bits in closed if bits.part == "destroyed"],
        "ring, exact": [bits for (name, _), bits in ring.bands.items() if name == "exact"],
        "ring, network": [bits for (name, _), bits in ring.bands.items() if name == "network"],
    }
    for index, (label, rows) in enumerate(series.items()):
        line(axes, middles, [_estimate(bits.measured) for bits in rows], label=label, index=index)
    axes.set(xlabel="SNR (dB)", ylabel="bits a dimension")
    _legend(axes)


def _lengths(axes: Axes, codes: Mapping[str, Sequence[Bits]]) -> None:
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="bits a dimension")
    for index, (name, rows) in enumerate(codes.items()):
        steps = [float(bits.at.split()[0]) for bits in rows]
        line(axes, steps, [_gap(bits) for bits in rows], label=f"{name} denoiser", index=index)
    _legend(axes)
    plain_ticks([axes])


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, labelcolor=INK, fontsize=FONT - 1)


def _gap(bits: Bits) -> Estimate:
    return bits.gap if len(bits.exact) > 1 else _estimate([bits.measured[0] - bits.exact[0]])


def _estimate(values: Sequence[float]) -> Estimate:
    """Return the mean with its interval; a closed form is certain."""
    return mean(values) if len(values) > 1 else Estimate(values[0], values[0], values[0], 1)
