"""Where over time the training loss is made, target by target, beside the part that no network can remove.

Data are a Gaussian mixture, so that the variance of x0 given x_t is known: `y = p x0 + q eps` with eps a function of x0
and x_t has the variance `(det / sigma)^2 Var(x0 | x_t)`, the loss of a perfect network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..diffusion.exact import Mixture
from ..diffusion.objective import Diffusion
from ..diffusion.paths import Straight
from ..diffusion.targets import EDM, AnyTarget, Clean, Epsilon, Score, V, Velocity
from ..evaluate.figures import FONT, INK
from ..evaluate.statistics import Estimate
from ..seeds import derive, generator
from .fits import Budget, fitted, in_units_of
from .plots import legend, line, panels, plain_ticks
from .study import Findings, Progress, Settings, mean, paragraphs

PATH = Straight()
"""On variance-preserving paths v, velocity and EDM are one target up to its scale; here they differ."""
SPAN = (0.02, 0.98)
"""Times at which every target is finite."""
EDGES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)
TARGETS: Mapping[str, AnyTarget] = {
    "epsilon": Epsilon(),
    "clean": Clean(),
    "v": V(),
    "score": Score(),
    "velocity": Velocity(),
    "EDM": EDM(data_std=1.0),
}
COLUMNS = (
    "target",
    "t from",
    "t to",
    "loss",
    "loss of a perfect network",
    "excess",
    "loss less both",
    "share of the loss (%)",
    "share of the excess (%)",
)


@dataclass(frozen=True, eq=False)
class Bucket:
    """Losses of one target in one bucket of time, a seed each."""

    target: str
    low: float
    high: float
    loss: list[float]
    perfect: list[float]
    excess: list[float]

    @property
    def middle(self) -> float:
        """Middle of the bucket."""
        return (self.low + self.high) / 2


def run(settings: Settings, progress: Progress) -> Findings:
    """Return loss, irreducible loss and excess by bucket of time for every target, after equal trainings."""
    budget = Budget(
        steps=settings.pick(4000, quick=250, tiny=6),
        samples=settings.pick(8000, quick=2000, tiny=200),
        seeds=settings.pick(5, quick=3, tiny=2),
    )
    found = {name: [Bucket(name, low, high, [], [], []) for low, high in pairwise(EDGES)] for name in TARGETS}
    for k in range(budget.seeds):
        seed = derive(settings.seed, "loss-by-time", k)
        x = Mixture.ring(PATH).draw(20_000, generator(seed, "training"))[0].float()
        for j, (name, target) in enumerate(TARGETS.items()):
            _measure(found[name], target, x, budget, seed)
            progress(k * len(TARGETS) + j + 1, budget.seeds * len(TARGETS))
    rows = [_row(bucket, buckets) for buckets in found.values() for bucket in buckets]
    return Findings(COLUMNS, rows, _figure(found), _paragraph(found))


def _measure(buckets: Sequence[Bucket], target: AnyTarget, x: Tensor, budget: Budget, seed: int) -> None:
    objective = Diffusion(path=PATH, target=target, span=SPAN)
    model = fitted(objective, x, budget=budget, seed=seed)
    denoise = model.denoiser()
    # In the network's units the data are another mixture.
    data = in_units_of(model, Mixture.ring(PATH))
    for bucket in buckets:
        noise = generator(seed, "held out", str(bucket.low))
        x0 = data.draw(budget.samples, noise)[0]
        t = bucket.low + (bucket.high - bucket.low) * torch.rand(len(x0), generator=noise, dtype=torch.float64)
        x_t = PATH.noised(x0, t, torch.randn(x0.shape, generator=noise, dtype=x0.dtype))
        scale = (target.determinant(PATH, t) / PATH.sigma(t)) ** 2
        x0_hat = denoise(x_t.float(), t.float()).to(x0.dtype)
        variance = _posterior_variance(data, x_t, t)
        excess = (x0_hat - data.denoise(x_t, t)).square().mean(1)
        # The error splits into posterior variance and distance to the posterior mean: their cross term has mean 0.
        bucket.loss.append(float((scale * (x0_hat - x0).square().mean(1)).mean()))
        bucket.perfect.append(float((scale * variance).mean()))
        bucket.excess.append(float((scale * excess).mean()))


def _posterior_variance(data: Mixture, x_t: Tensor, t: Tensor) -> Tensor:
    """Return the variance of x0 given x_t, the mean over coordinates: `sigma^2 / alpha` times d x0_hat / d x_t.

    **Source:** Efron 2011 (Tweedie's formula), Eq. 2.8.
    """

    def posterior_mean(x: Tensor) -> Tensor:
        return data.denoise(x, t)

    slopes: list[Tensor] = []
    for k in range(x_t.shape[1]):
        direction = torch.zeros_like(x_t)
        direction[:, k] = 1
        slope = torch.func.jvp(posterior_mean, (x_t,), (direction,))[1]
        slopes.append(slope[:, k])
    return torch.stack(slopes).mean(0) * PATH.variance(t) / PATH.alpha(t)


def _share(bucket: Bucket, buckets: Sequence[Bucket], *, excess: bool) -> list[float]:
    """Return the percentage of the whole loss (or excess) over uniform times that this bucket makes, a seed each."""

    def part(one: Bucket) -> list[float]:
        return [(one.high - one.low) * value for value in (one.excess if excess else one.loss)]

    total = [sum(values) for values in zip(*(part(one) for one in buckets), strict=True)]
    return [100 * value / whole for value, whole in zip(part(bucket), total, strict=True)]


def _row(bucket: Bucket, buckets: Sequence[Bucket]) -> tuple[str | float | Estimate, ...]:
    return (
        bucket.target,
        bucket.low,
        bucket.high,
        mean(bucket.loss),
        mean(bucket.perfect),
        mean(bucket.excess),
        _rest(bucket),
        mean(_share(bucket, buckets, excess=False)),
        mean(_share(bucket, buckets, excess=True)),
    )


def _paragraph(found: Mapping[str, Sequence[Bucket]]) -> str:
    peaks: dict[str, tuple[Bucket, Estimate]] = {}
    for name, buckets in found.items():
        top = max(buckets, key=lambda bucket: mean(_share(bucket, buckets, excess=False)).value)
        peaks[name] = top, mean(_share(top, buckets, excess=False))
    listed = "; ".join(
        f"{name} t = {top.low:g} to {top.high:g} ({share.value:.0f} %)" for name, (top, share) in peaks.items()
    )
    sentences = [f"Over uniform times the largest part of the loss is made at: {listed}."]
    narrow, wide = (choose(peaks, key=lambda name: peaks[name][1].value) for choose in (max, min))
    apart = peaks[narrow][1].low > peaks[wide][1].high
    sentences.append(
        f"The loss of {narrow} is the most concentrated, that of {wide} the most even"
        + (", and the intervals of their peaks are apart." if apart else ", but the intervals of their peaks overlap.")
    )
    fixed = {name: _irreducible(buckets) for name, buckets in found.items()}
    most, least = (choose(fixed, key=lambda name: fixed[name].value) for choose in (max, min))
    sentences.append(
        f"A perfect network would keep {fixed[least].value:.0f} % ({least}) to {fixed[most].value:.0f} % ({most}) of "
        "these losses: the loss by itself does not say how good the network is."
    )
    gaps = {
        name: max(buckets, key=lambda bucket: mean(_share(bucket, buckets, excess=True)).value)
        for name, buckets in found.items()
    }
    listed = "; ".join(f"{name} t = {gap.low:g} to {gap.high:g}" for name, gap in gaps.items())
    sentences.append(f"What is left to learn is largest at: {listed}.")
    rows = [bucket for buckets in found.values() for bucket in buckets]
    held = sum(rest.low <= 0 <= rest.high for rest in map(_rest, rows))
    sentences.append(
        f"Posterior variance plus squared distance to the exact denoiser make the measured loss in {held} of "
        f"{len(rows)} rows, within the 95 % interval."
    )
    return paragraphs(*sentences)


def _irreducible(buckets: Sequence[Bucket]) -> Estimate:
    """Return the percentage of the loss over uniform times that the posterior variance makes."""
    shares: list[float] = []
    for k in range(len(buckets[0].loss)):
        whole, part = (
            sum((bucket.high - bucket.low) * values[k] for bucket, values in pairs)
            for pairs in ([(b, b.loss) for b in buckets], [(b, b.perfect) for b in buckets])
        )
        shares.append(100 * part / whole)
    return mean(shares)


def _rest(bucket: Bucket) -> Estimate:
    parts = zip(bucket.loss, bucket.perfect, bucket.excess, strict=True)
    return mean([loss - perfect - excess for loss, perfect, excess in parts])


def _figure(found: Mapping[str, Sequence[Bucket]]) -> Figure:
    figure, axes = panels(list(found), columns=3, width=3.6, height=2.7)
    for place, buckets in zip(axes, found.values(), strict=True):
        place.set_yscale("log")
        middles = [bucket.middle for bucket in buckets]
        line(place, middles, [mean(bucket.loss) for bucket in buckets], label="trained network", index=0)
        line(
            place, middles, [mean(bucket.perfect) for bucket in buckets], label="perfect network", index=1, dashed=True
        )
        line(place, middles, [mean(bucket.excess) for bucket in buckets], label="excess", index=2)
        place.set_xlim(0, 1)
    for place in axes[-3:]:
        place.set_xlabel("diffusion time t (0 data, 1 noise)", fontsize=FONT, color=INK)
    for place in axes[::3]:
        place.set_ylabel("loss in the target's unit", fontsize=FONT, color=INK)
    plain_ticks(axes)
    legend(figure, axes)
    return figure
