"""Information: the bits that each noise level destroys, and diffusion as a code that is short where prediction is good.

Two data sets: a Gaussian, where all is closed form, and a ring of Gaussians, whose exact denoiser stands beside a
trained network. Bits are a dimension; as codes, of points that are stored to a precision.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..diffusion.exact import Mixture
from ..diffusion.information import entropy_gaussian, mmse_gaussian, mutual_information_gaussian
from ..diffusion.objective import Diffusion
from ..evaluate.figures import FONT, INK, PALETTE
from ..evaluate.statistics import Estimate
from ..seeds import derive, generator
from .bits import BINS, CONTINUOUS, LEVELS, PATH, VARIANCES, Bits, Ring, as_bits, gaussian_bands, gaussian_codes
from .dots import dots
from .fits import Budget, fitted, in_units_of
from .plots import level, line, panels, plain_ticks
from .study import Findings, Progress, Settings, difference, mean, paragraphs, verdict

COLUMNS = (
    "part",
    "data",
    "denoiser",
    "at",
    "bits a dimension",
    "exact bits a dimension",
    "less exact",
)


def run(settings: Settings, progress: Progress) -> Findings:
    """Return bits destroyed by level, and code lengths by number of steps, against entropies and exact densities."""
    budget = Budget(
        steps=settings.pick(6000, quick=700, tiny=10),
        samples=settings.pick(8000, quick=2000, tiny=150),
        seeds=settings.pick(6, quick=4, tiny=2),
    )
    counts = settings.pick((4, 8, 16, 32, 64, 128, 256, 512), quick=(4, 8, 16, 32, 64, 128), tiny=(4, 16))
    closed = [*gaussian_bands(), *gaussian_codes(counts)]
    ring = Ring(counts, table=settings.pick(1000, quick=100, tiny=20))
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


def _row(bits: Bits) -> tuple[str | float | Estimate, ...]:
    label = (bits.part, bits.data, bits.denoiser, bits.at)
    if len(bits.measured) == 1:  # closed form: nothing was drawn
        return *label, bits.measured[0], bits.exact[0], bits.measured[0] - bits.exact[0]
    return *label, mean(bits.measured), mean(bits.exact), bits.gap


def _paragraph(closed: Sequence[Bits], ring: Ring) -> str:
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
    return paragraphs(integral, entropy, _convergence(closed, ring), _compression(ring), wasted)


def _convergence(closed: Sequence[Bits], ring: Ring) -> str:
    codes = [bits for bits in closed if bits.part == "code"]
    gaps = [bits.measured[0] - bits.exact[0] for bits in codes]
    falls = all(fine < coarse for coarse, fine in pairwise(gaps))
    limit, ddpm = ring.codes["exact", CONTINUOUS].gap, ring.ddpm.gap
    told = verdict(limit, below="below it", above="above it", tie="not told from it")
    return (
        f"The bound of the Gaussian exceeds its entropy by {gaps[0]:.3f} bits a dimension in {codes[0].at} and by "
        f"{gaps[-1]:.3f} in {codes[-1].at}" + (", falling all the way" if falls else ", not falling all the way") + "; "
        f"with {CONTINUOUS} and the exact denoiser the ring's is {limit.value:+.3f} [{limit.low:+.3f}, "
        f"{limit.high:+.3f}] from -log p, {told}, and in the {ring.ddpm.at} with linear betas {ddpm.value:+.3f} "
        f"[{ddpm.low:+.3f}, {ddpm.high:+.3f}]."
    )


def _compression(ring: Ring) -> str:
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


def _figure(closed: Sequence[Bits], ring: Ring, counts: Sequence[int]) -> Figure:
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
    known = as_bits(mutual_information_gaussian(levels, VARIANCES))
    t = PATH.time_at(levels.log() / 2)
    noisy = PATH.alpha(t).unsqueeze(-1) ** 2 * VARIANCES + PATH.variance(t).unsqueeze(-1)
    information.plot(decibels, known, color=PALETTE[0], label="I(x0; x_t)")
    information.plot(
        decibels, as_bits(entropy_gaussian(noisy)), color=PALETTE[1], linestyle="--", label="entropy of x_t"
    )
    information.set(xlabel="SNR (dB)", ylabel="bits a dimension")
    slope.plot(decibels, mmse_gaussian(levels, VARIANCES) / 2, color=PALETTE[0], label="mmse / 2")
    rise = mutual_information_gaussian(levels, VARIANCES).diff() / levels.diff()
    between = (decibels[1:] + decibels[:-1]) / 2
    slope.plot(between[::8], rise[::8], "s", color=PALETTE[1], markersize=4, label="dI / dsnr, by differences")
    slope.set(xlabel="SNR (dB)", ylabel="nats", yscale="log")
    _legend(information)
    _legend(slope)


def _destroyed(axes: Axes, closed: Sequence[Bits], ring: Ring) -> None:
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
