"""How training times are drawn, and how losses are weighted over time: the same network and a short budget for each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..data.points import POINTS
from ..diffusion.objective import SNR, AnyWeight, Diffusion, Likelihood, MinSNR
from ..diffusion.objective import Uniform as SameWeight
from ..diffusion.paths import Straight
from ..diffusion.targets import Velocity
from ..diffusion.times import AnyTimeLaw, LogitNormal, LogNormal, LossSecondMoment, Stratified, Uniform
from ..evaluate.statistics import Estimate
from ..generative.model import Model
from ..seeds import derive, generator
from .dots import dots
from .fits import Budget, fitted, quality, sampled, spiral
from .plots import panels
from .study import Findings, Progress, Settings, by_chance, difference, mean, paragraphs, verdict

NFE = 20
BASE = "uniform"
LAWS: Mapping[str, tuple[AnyTimeLaw, AnyWeight]] = {
    BASE: (Uniform(), SameWeight()),
    "stratified": (Stratified(), SameWeight()),
    "logit-normal": (LogitNormal(), SameWeight()),
    "log-normal": (LogNormal(), SameWeight()),
    "loss second moment": (LossSecondMoment(), SameWeight()),
    "SNR weight": (Stratified(), SNR()),
    "min-SNR weight": (Stratified(), MinSNR()),
    "likelihood weight": (Stratified(), Likelihood()),
}
SAME = (BASE, "stratified", "loss second moment")
"""Laws under which a batch's loss has the same mean, so that its spread can be compared."""
COLUMNS = (
    "times and weight",
    "energy distance",
    "off the support (%)",
    f"energy distance, less {BASE}'s",
    f"off the support, less {BASE}'s (%)",
    "loss spread (%)",
    "gradient spread (%)",
    f"loss spread, less {BASE}'s (%)",
    f"gradient spread, less {BASE}'s (%)",
)


@dataclass(frozen=True, eq=False)
class Arm:
    """One law and weight: a value a seed."""

    energy: list[float] = field(default_factory=list[float])
    off: list[float] = field(default_factory=list[float])
    loss_spread: list[float] = field(default_factory=list[float])
    """Standard deviation of a batch's loss, as a percentage of its mean."""
    gradient_spread: list[float] = field(default_factory=list[float])
    """The same of the gradient: the noise's norm over the mean's."""


def run(settings: Settings, progress: Progress) -> Findings:
    """Return sample quality and the spread of loss and gradient for every law of times and weight."""
    budget = Budget(
        steps=settings.pick(1500, quick=160, tiny=6),
        samples=settings.pick(4000, quick=1500, tiny=150),
        seeds=settings.pick(8, quick=4, tiny=2),
    )
    # The first third is for the law of times to learn from; then spreads are measured.
    batches = settings.pick(96, quick=36, tiny=6)
    arms = {name: Arm() for name in LAWS}
    for k in range(budget.seeds):
        seed = derive(settings.seed, "time-sampling", k)
        x = spiral(seed)
        # Spreads are compared on one network, in the middle of learning.
        probe = fitted(_objective(BASE), x, budget=replace(budget, steps=max(4, budget.steps // 10)), seed=seed)
        for j, (name, arm) in enumerate(arms.items()):
            model = fitted(_objective(name), x, budget=budget, seed=seed)
            found = quality(sampled(model, budget, nfe=NFE, seed=seed), POINTS["swiss_roll"], seed=seed)
            loss, gradient = _spread(_objective(name), probe, x, batches=batches, seed=seed)
            values = (found.energy, found.off, loss, gradient)
            for column, value in zip((arm.energy, arm.off, arm.loss_spread, arm.gradient_spread), values, strict=True):
                column.append(value)
            progress(k * len(LAWS) + j + 1, budget.seeds * len(LAWS))
    rows = [(name, *_cells(arm, arms[BASE])) for name, arm in arms.items()]
    return Findings(COLUMNS, rows, _figure(arms), _paragraph(arms))


def _objective(name: str) -> Diffusion:
    times, weight = LAWS[name]
    # The likelihood weight needs a first noise level; all share the span, so that only the law differs.
    return Diffusion(path=Straight(), target=Velocity(), times=times, weight=weight, span=(0.01, 0.99))


def _spread(objective: Diffusion, probe: Model, x: Tensor, *, batches: int, seed: int) -> tuple[float, float]:
    """Return the relative standard deviation of loss and gradient over batches of 256, in %, at a fixed network."""
    draws, noise = (generator(seed, name) for name in ("probe batches", "probe noise"))
    memory = objective.times.memory()
    weights = list(probe.requires_grad_().parameters())
    labels = torch.zeros(256, dtype=torch.long)
    losses: list[float] = []
    gradients: list[Tensor] = []
    for k in range(batches):
        x0 = probe.normalised(x[torch.randint(len(x), (256,), generator=draws)])
        loss = objective.loss(lambda x_t, t: probe.net(x_t, t, labels), x0, generator=noise, memory=memory).value.mean()
        if k >= batches // 3:
            losses.append(float(loss.detach()))
            gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]))
    probe.requires_grad_(requires_grad=False)
    stack = torch.stack(gradients)
    noise_power, kept = float(stack.var(dim=0).sum()), len(losses)
    # The mean of few gradients is longer than their expectation, by their noise.
    signal = max(float(stack.mean(0).square().sum()) - noise_power / kept, noise_power / kept)
    values = torch.tensor(losses, dtype=torch.float64)
    return 100 * float(values.std() / values.mean()), 100 * math.sqrt(noise_power / signal)


def _cells(arm: Arm, base: Arm) -> tuple[Estimate | None, ...]:
    return (
        mean(arm.energy),
        mean(arm.off),
        None if arm is base else difference(arm.energy, base.energy),
        None if arm is base else difference(arm.off, base.off),
        mean(arm.loss_spread),
        mean(arm.gradient_spread),
        None if arm is base else difference(arm.loss_spread, base.loss_spread),
        None if arm is base else difference(arm.gradient_spread, base.gradient_spread),
    )


def _paragraph(arms: Mapping[str, Arm]) -> str:
    base = arms[BASE]
    sentences: list[str] = []
    verdicts = 0
    for what, pick in (("fraction of samples off the support", "off"), ("energy distance", "energy")):
        gaps = {name: difference(getattr(arm, pick), getattr(base, pick)) for name, arm in arms.items() if name != BASE}
        words = {name: verdict(gap, below="better", above="worse", tie="tie") for name, gap in gaps.items()}
        verdicts += len(words)
        better, worse = ([name for name, word in words.items() if word == wanted] for wanted in ("better", "worse"))
        told = [f"better with {', '.join(better)}"] if better else []
        told += [f"worse with {', '.join(worse)}"] if worse else []
        sentences.append(
            f"By the {what}, paired with {BASE} times over {len(base.off)} seeds, samples are "
            + (f"{' and '.join(told)}; " if told else "neither better nor worse with any law; ")
            + f"{len(gaps) - len(better) - len(worse)} of {len(gaps)} cannot be told from it."
        )
    best = min(arms, key=lambda name: mean(arms[name].off).value)
    gap = difference(arms[best].off, base.off)
    sentences.append(
        f"The fewest samples off the support are those of {best}: {mean(arms[best].off).value:.1f} % against "
        f"{mean(base.off).value:.1f} % with {BASE} times"
        + ("." if best == BASE else f", {verdict(gap, below='fewer', above='more', tie='not told apart')}.")
    )
    for what, pick in (("loss", "loss_spread"), ("gradient", "gradient_spread")):
        gaps = {name: difference(getattr(arms[name], pick), getattr(base, pick)) for name in SAME if name != BASE}
        verdicts += len(gaps)
        listed = " and ".join(
            f"{name} {gap.value:+.2g} [{gap.low:+.2g}, {gap.high:+.2g}], "
            + verdict(gap, below="less", above="more", tie="not told apart")
            for name, gap in gaps.items()
        )
        sentences.append(
            f"With {BASE} times a batch's {what} spreads by {mean(getattr(base, pick)).value:.3g} % of its mean; the "
            f"laws with the same mean change that by, in percentage points: {listed}."
        )
    return paragraphs(*sentences, by_chance(verdicts))


def _figure(arms: Mapping[str, Arm]) -> Figure:
    titles = ("energy distance", "samples off the support (%)", "spread of the loss (%)", "spread of the gradient (%)")
    figure, axes = panels(titles, columns=4, width=3.0, height=0.9 + 0.36 * len(arms))
    for place, pick in zip(axes, ("energy", "off", "loss_spread", "gradient_spread"), strict=True):
        dots(place, {name: mean(getattr(arm, pick)) for name, arm in arms.items()}, base=BASE)
    for place in axes[1:]:
        place.tick_params(labelleft=False)
    return figure
