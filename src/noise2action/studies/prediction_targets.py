"""What a network should predict: the same path, network and budget for every target, and where each is singular."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from ..data.points import POINTS
from ..diffusion.objective import Diffusion
from ..diffusion.paths import Straight
from ..diffusion.targets import EDM, AnyTarget, Clean, Epsilon, Score, V, Velocity
from ..errors import PathError
from ..evaluate.statistics import Estimate
from ..seeds import derive
from .dots import dots
from .fits import Budget, fitted, quality, sampled, spiral
from .plots import panels, plain_ticks
from .study import Findings, Progress, Settings, difference, mean, paragraphs, verdict

FEW, MANY = 5, 50
SPAN = (0.01, 0.98)
"""Times that every target can be trained and sampled on."""
WHOLE = (0.0, 1.0)
BASE = "epsilon"
TARGETS: Mapping[str, AnyTarget] = {
    BASE: Epsilon(),
    "clean": Clean(),
    "v": V(),
    "score": Score(),
    "velocity": Velocity(),
    "EDM": EDM(data_std=1.0),
}
COLUMNS = (
    "target",
    "times",
    f"energy distance, {FEW} calls",
    f"energy distance, {MANY} calls",
    f"off the support (%), {FEW} calls",
    f"off the support (%), {MANY} calls",
    f"off the support less {BASE}'s (%), {FEW} calls",
    f"off the support less {BASE}'s (%), {MANY} calls",
    f"off the support, {FEW} less {MANY} calls (%)",
    "error",
)


@dataclass(frozen=True, eq=False)
class Arm:
    """One target: a value a seed, at few and at many calls."""

    energy: Mapping[int, list[float]] = field(default_factory=lambda: {FEW: [], MANY: []})
    off: Mapping[int, list[float]] = field(default_factory=lambda: {FEW: [], MANY: []})


def run(settings: Settings, progress: Progress) -> Findings:
    """Return sample quality at few and many DDIM calls for every target, and the error of those that are singular."""
    budget = Budget(
        steps=settings.pick(2000, quick=220, tiny=6),
        samples=settings.pick(4000, quick=1500, tiny=150),
        seeds=settings.pick(8, quick=4, tiny=2),
    )
    arms = {name: Arm() for name in TARGETS}
    for k in range(budget.seeds):
        seed = derive(settings.seed, "prediction-targets", k)
        x = spiral(seed)
        for j, (name, arm) in enumerate(arms.items()):
            model = fitted(_objective(name, SPAN), x, budget=budget, seed=seed)
            for nfe in (FEW, MANY):
                found = quality(sampled(model, budget, nfe=nfe, seed=seed), POINTS["swiss_roll"], seed=seed)
                arm.energy[nfe].append(found.energy)
                arm.off[nfe].append(found.off)
            progress(k * len(TARGETS) + j + 1, budget.seeds * len(TARGETS))
    refused = {name: error for name in TARGETS if (error := _refusal(name))}
    rows = [(name, _times(SPAN), *_cells(arm, arms[BASE]), None) for name, arm in arms.items()]
    rows += [(name, _times(WHOLE), *[None] * 7, error) for name, error in refused.items()]
    return Findings(COLUMNS, rows, _figure(arms, list(refused)), _paragraph(arms, refused))


def _objective(name: str, span: tuple[float, float]) -> Diffusion:
    return Diffusion(path=Straight(), target=TARGETS[name], span=span)


def _refusal(name: str) -> str | None:
    """Return what is wrong with this target on all times from data to noise; None where nothing is."""
    try:
        _objective(name, WHOLE)
    except PathError as error:
        return str(error)
    return None


def _times(span: tuple[float, float]) -> str:
    return f"{span[0]:g} to {span[1]:g}"


def _cells(arm: Arm, base: Arm) -> tuple[Estimate | None, ...]:
    return (
        *(mean(values[nfe]) for values in (arm.energy, arm.off) for nfe in (FEW, MANY)),
        *(None if arm is base else difference(arm.off[nfe], base.off[nfe]) for nfe in (FEW, MANY)),
        difference(arm.off[FEW], arm.off[MANY]),
    )


def _paragraph(arms: Mapping[str, Arm], refused: Mapping[str, str]) -> str:
    sentences: list[str] = []
    for nfe in (FEW, MANY):
        level = {name: mean(arm.off[nfe]).value for name, arm in arms.items()}
        best, worst = (choose(level, key=lambda name: level[name]) for choose in (min, max))
        ties = [n for n, arm in arms.items() if n != best and not difference(arm.off[nfe], arms[best].off[nfe]).low > 0]
        sentences.append(
            f"At {nfe} calls {best} has the fewest samples off the support ({level[best]:.1f} %; the most: {worst}, "
            f"{level[worst]:.1f} %)"
            + (f", not told apart from {', '.join(ties)}." if ties else ", apart from every other target.")
        )
    changes = {name: difference(arm.off[FEW], arm.off[MANY]) for name, arm in arms.items()}
    words = {name: verdict(gap, below="fewer", above="more", tie="neither") for name, gap in changes.items()}
    better = [name for name, word in words.items() if word == "more"]
    sentences.append(
        f"More calls put more samples on the support for {', '.join(better)}."
        if better
        else "For no target do more calls put more samples on the support, by its interval."
    )
    fine = [name for name in arms if name not in refused]
    sentences.append(
        f"On all times from data to noise, {', '.join(refused) or 'no target'} cannot be trained; "
        f"{', '.join(fine) or 'none'} can."
    )
    return paragraphs(*sentences)


def _figure(arms: Mapping[str, Arm], refused: Sequence[str]) -> Figure:
    titles = [f"{what}, {nfe} calls" for what in ("energy distance", "off the support (%)") for nfe in (FEW, MANY)]
    figure, axes = panels(titles, columns=4, width=3.0, height=0.9 + 0.34 * (len(arms) + len(refused)))
    values = [(pick, nfe) for pick in ("energy", "off") for nfe in (FEW, MANY)]
    for place, (pick, nfe) in zip(axes, values, strict=True):
        if pick == "energy":
            place.set_xscale("log")
        shown: dict[str, Estimate | None] = {name: mean(getattr(arm, pick)[nfe]) for name, arm in arms.items()}
        shown |= {f"{name}, times {_times(WHOLE)}: error": None for name in refused}
        dots(place, shown, base=BASE)
    plain_ticks(axes[:2])
    for place in axes[1:]:
        place.tick_params(labelleft=False)
    return figure
