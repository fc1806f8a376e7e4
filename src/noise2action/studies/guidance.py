"""What classifier-free guidance buys and costs; both denoisers are exact, so that only the weight is at fault."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from ..diffusion.denoisers import Denoiser, cfg
from ..diffusion.exact import Mixture
from ..diffusion.grids import LogSNR
from ..diffusion.paths import Cosine
from ..diffusion.samplers import DPMSolverPP
from ..diffusion.sampling import sample
from ..evaluate.distances import energy_distance
from ..evaluate.figures import PALETTE
from ..evaluate.statistics import Estimate
from ..seeds import generator
from .plots import legend, line, panels
from .study import Cell, Findings, Progress, Settings, difference, listing, mean, paragraphs, verdict

WEIGHTS = (0.0, 1.0, 3.0, 7.0, 15.0)
VARIANTS: Mapping[str, tuple[tuple[float, float], float]] = {
    "plain": ((0.0, 1.0), 0.0),
    "interval 0.2 to 0.7": ((0.2, 0.7), 0.0),
    "rescaled 0.7": ((0.0, 1.0), 0.7),
}
"""Guidance interval in t, and rescale."""
CALLS = 50
STD = 0.25
DIM = 8
"""Coordinates of a sample. The modes lie in a plane among them, turned so that every coordinate takes part: rescaling
compares standard deviations over a sample's coordinates, of which two would be too few."""
OWN = ((-1.6, 0.0), (0.0, 1.2), (0.0, -1.2))
OTHER = ((0.9, 1.2), (0.4, -1.2), (1.7, 0.0))
"""The class that is asked for has a mode far from all others, one beside another class, and one half inside it."""

COLUMNS = (
    "variant",
    "w",
    "own-class share",
    "spread",
    "modes kept",
    "off the data",
    "energy distance x 1000",
    "energy minus w 0, x 1000",
    "own-class share minus plain",
    "off the data minus plain",
)


@dataclass(frozen=True)
class Row:
    """One variant of guidance with one weight."""

    variant: str
    w: float
    own: Estimate
    """Share of samples that the exact classifier gives to the class asked for."""
    spread: Estimate
    """Root mean square distance to the nearest mode of the class, over that of exact draws."""
    modes: Estimate
    """Share of the class's modes that hold at least half of their part of the samples."""
    off: Estimate
    """Share of samples in a region of such low density that 1 % of the data lie in one."""
    energy: Estimate
    energy_over: Estimate
    own_over: Estimate
    off_over: Estimate

    def cells(self) -> tuple[Cell, ...]:
        """Return the row under `COLUMNS`."""
        return tuple(vars(self).values())


@dataclass(frozen=True, eq=False)
class Labelled:
    """A mixture whose first `own_modes` components are the class that is asked for."""

    data: Mixture
    own_modes: int
    plane: Float[Tensor, "2 D"]
    """Orthonormal directions of the plane that the modes lie in."""

    @classmethod
    def usual(cls) -> "Labelled":
        """Return the mixture of this study."""
        turned = torch.randn(DIM, 2, generator=generator(0, "plane"), dtype=torch.float64)
        plane = torch.linalg.qr(turned).Q.T
        centres = torch.tensor([*OWN, *OTHER], dtype=torch.float64) @ plane
        return cls(Mixture.around(Cosine(), centres, std=STD), len(OWN), plane)

    @cached_property
    def own(self) -> Mixture:
        """The data of the class."""
        return self.data.select(range(self.own_modes))

    @cached_property
    def others(self) -> Mixture:
        """The data of all other classes."""
        return self.data.select(range(self.own_modes, len(self.data.means)))

    def many(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return x0_hat of two stacked blocks: under the class, and unconditional; exact."""
        conditional, unconditional = x_t.chunk(2)
        return torch.cat([self.own.denoise(conditional, t), self.data.denoise(unconditional, t)])

    def own_share(self, x: Float[Tensor, "n D"]) -> float:
        """Return the share that the classifier p(class | x) of the clean data gives to the class."""
        zero = torch.zeros((), dtype=torch.float64)
        part = float(self.data.weights[: self.own_modes].sum())
        odds = self.own.log_density(x, zero) - self.others.log_density(x, zero)
        return float((odds > torch.tensor((1 - part) / part).log()).double().mean())

    def spread(self, x: Float[Tensor, "n D"]) -> float:
        """Return the root mean square distance to the nearest mode of the class."""
        return float(torch.cdist(x, self.own.means).min(dim=1).values.square().mean().sqrt())

    def modes(self, x: Float[Tensor, "n D"]) -> float:
        """Return the share of the class's modes that are nearest to at least half of their part of `x`."""
        counts = torch.bincount(torch.cdist(x, self.own.means).argmin(dim=1), minlength=self.own_modes)
        return float((counts >= 0.5 * len(x) * self.own.weights).double().mean())

    @cached_property
    def rare(self) -> float:
        """The log-density that 1 % of the data lie below."""
        x, _ = self.data.draw(20_000, generator(0, "rare"))
        return float(self.data.log_density(x, torch.zeros((), dtype=torch.float64)).quantile(0.01))

    def off(self, x: Float[Tensor, "n D"]) -> float:
        """Return the share of `x` where the data are rarer than that."""
        density = self.data.log_density(x, torch.zeros((), dtype=torch.float64))
        return float((density < self.rare).double().mean())


@dataclass(frozen=True)
class Scores:
    """Metrics of one setting, a list over seeds each."""

    own: list[float]
    spread: list[float]
    modes: list[float]
    off: list[float]
    energy: list[float]


def run(settings: Settings, progress: Progress) -> Findings:
    """Return fidelity, diversity and distance to the class by weight and variant."""
    n, seeds = settings.pick((1000, 16), quick=(400, 8), tiny=(80, 3))
    weights = settings.pick(WEIGHTS, quick=WEIGHTS, tiny=(0.0, 3.0))
    task = Labelled.usual()
    references = task.own.draw(n * seeds, generator(settings.seed, "reference"))[0].chunk(seeds)
    scored: dict[tuple[str, float], Scores] = {}
    shown: dict[float, Tensor] = {}
    jobs = [(variant, w) for variant in VARIANTS for w in weights]
    for done, (variant, w) in enumerate(jobs):
        interval, rescale = VARIANTS[variant]
        x = samples(task, cfg(task.many, w, interval=interval, rescale=rescale), n * seeds, seed=settings.seed)
        scored[variant, w] = _scores(task, x.chunk(seeds), references)
        if variant == "plain":
            shown[w] = x[:400] @ task.plane.T
        progress(done + 1, len(jobs))
    rows = [_row(variant, w, scored) for variant, w in jobs]
    return Findings(COLUMNS, [row.cells() for row in rows], _figure(rows, shown), paragraph(rows))


def samples(task: Labelled, denoise: Denoiser, n: int, *, seed: int) -> Float[Tensor, "n D"]:
    """Return `n` samples by DPM-Solver++ 2M, float64: so many calls that the solver's error is small."""
    return sample(
        denoise,
        task.data.path,
        torch.empty(n, DIM, dtype=torch.float64),
        sampler=DPMSolverPP(order=2),
        grid=LogSNR(low=-3.0, high=4.0),
        nfe=CALLS,
        generator=generator(seed, "noise"),
    )


def _scores(task: Labelled, sets: Sequence[Tensor], references: Sequence[Tensor]) -> Scores:
    pairs = list(zip(sets, references, strict=True))
    return Scores(
        own=[task.own_share(x) for x in sets],
        spread=[task.spread(x) / task.spread(reference) for x, reference in pairs],
        modes=[task.modes(x) for x in sets],
        off=[task.off(x) for x in sets],
        energy=[1e3 * energy_distance(x, reference) for x, reference in pairs],
    )


def _row(variant: str, w: float, scored: Mapping[tuple[str, float], Scores]) -> Row:
    found, unguided, plain = scored[variant, w], scored["plain", 0.0], scored["plain", w]
    return Row(
        variant,
        w,
        mean(found.own),
        mean(found.spread),
        mean(found.modes),
        mean(found.off),
        mean(found.energy),
        difference(found.energy, unguided.energy),
        difference(found.own, plain.own),
        difference(found.off, plain.off),
    )


def paragraph(rows: Sequence[Row]) -> str:
    """Return what the rows show."""
    plain = [row for row in rows if row.variant == "plain"]
    return paragraphs(_fidelity(plain), _closeness(plain), *(_variant(rows, v) for v in VARIANTS if v != "plain"))


def _fidelity(plain: Sequence[Row]) -> str:
    """Return what the largest weight does to fidelity and diversity."""
    low, high = plain[0], plain[-1]
    words = [
        f"{name} {_moved(before, after)} from {_share(before)} to {_share(after)}"
        for name, before, after in (
            ("the own-class share", low.own, high.own),
            ("the share of modes kept", low.modes, high.modes),
            ("the share of samples off the data", low.off, high.off),
        )
    ]
    words.append(
        f"the spread within modes {_moved(low.spread, high.spread)} from {low.spread.value:.2f} to "
        f"{high.spread.value:.2f} times the data's"
    )
    return f"From w = {low.w:g} to w = {high.w:g}, {listing(words)}."


def _moved(before: Estimate, after: Estimate) -> str:
    """Return whether two intervals are apart."""
    return (
        "rises" if after.low > before.high else "falls" if after.high < before.low else "stays, within its intervals,"
    )


def _share(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _closeness(plain: Sequence[Row]) -> str:
    """Return for which weights samples are closer to the class's data than unguided ones."""
    told = {row.w: verdict(row.energy_over, below="closer", above="farther", tie="tied") for row in plain if row.w != 0}
    kinds = [kind for kind in ("closer", "tied", "farther") if kind in told.values()]
    each = [f"{kind} at w = {listing([f'{w:g}' for w, v in told.items() if v == kind])}" for kind in kinds]
    return f"By energy distance to the class's own data, guided samples against unguided ones are {'; '.join(each)}."


def _variant(rows: Sequence[Row], variant: str) -> str:
    """Return what a variant changes against plain guidance with the same weight, by the intervals."""
    mine = [row for row in rows if row.variant == variant and row.w > 0]
    own = [verdict(row.own_over, below="lower", above="higher", tie="tied") for row in mine]
    off = [verdict(row.off_over, below="fewer", above="more", tie="as many") for row in mine]
    each = [f"w = {row.w:g}: {a} own-class share, {b} off the data" for row, a, b in zip(mine, own, off, strict=True)]
    return f"Guidance {variant} against plain: {'; '.join(each)}."


def _figure(rows: Sequence[Row], shown: Mapping[float, Tensor]) -> Figure:
    kinds = {
        "own": "own-class share",
        "modes": "share of modes kept",
        "spread": "spread over the data's",
        "off": "share off the data",
        "energy": "energy distance x 1000",
    }
    titles = [*kinds.values(), *(f"samples in the plane, w = {w:g}" for w in shown)]
    figure, axes = panels(titles, columns=5, width=2.9, height=2.8)
    weights = list(shown)
    for place, column in zip(axes, kinds, strict=False):
        place.set_xlabel("w")
        # Weights double or so: one apart each.
        place.set_xticks(range(len(weights)), [f"{w:g}" for w in weights])
        if column == "energy":
            place.set_yscale("log")
        for index, variant in enumerate(VARIANTS):
            mine = [getattr(row, column) for row in rows if row.variant == variant]
            line(place, range(len(mine)), mine, label=variant, index=index)
    for place, x in zip(axes[len(kinds) :], shown.values(), strict=True):
        for centres, colour, name in ((OTHER, PALETTE[6], "other classes"), (OWN, PALETTE[2], "the class asked for")):
            for k, (a, b) in enumerate(centres):
                circle = torch.linspace(0, 2 * torch.pi, 60)
                place.plot(
                    a + 2 * STD * circle.cos(),
                    b + 2 * STD * circle.sin(),
                    color=colour,
                    label="" if k else f"2 std of {name}",
                )
        place.plot(*x.T, ".", color=PALETTE[0], markersize=1.5, alpha=0.6)
        place.set(xlim=(-3.6, 2.6), ylim=(-3.1, 3.1), aspect="equal")
    legend(figure, axes, columns=5)
    return figure
