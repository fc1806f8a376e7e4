"""Regression averages the demonstrated ways, diffusion draws one: where that decides over success, and where not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

from matplotlib.figure import Figure
from scipy import stats

from ..evaluate.statistics import Estimate
from ..seeds import derive
from .plots import forest, legend, panels
from .policies import (
    COUNTED,
    COVERED,
    DIFFUSION,
    DIGITS,
    ENTROPY,
    KINDS,
    NAVIGATION,
    REGRESSION,
    SPLIT,
    SUCCESS,
    Arm,
    Budget,
    against,
    cells,
    check_tasks,
    driven,
    heads,
    learnt,
    rate,
    routed,
    taught,
)
from .study import Findings, Progress, Settings, by_chance, listing, mean, paragraphs, points, verdict

SEVERAL = ("two_routes", "maze", "obstacles", "grasp_seen_post", "push_block_post")
"""Tasks whose ways have an average that leads nowhere."""
PLAIN = "grasp_seen"
"""The task in which the average of the approaches is itself an approach."""
MEASURES = (SUCCESS, COVERED, ENTROPY, SPLIT)
PAIRED = f"{SUCCESS}, less that of {REGRESSION} in the same episodes"
SHOWN = "entropy of demonstrated routes (bits)"


@dataclass(frozen=True, eq=False)
class Compared:
    """One task: what its demonstrations did, and both policies that learnt from them."""

    shown: list[float] = field(default_factory=list[float])
    """Entropy (bits) of the demonstrated routes, one a training."""
    arms: Mapping[str, Arm] = field(default_factory=lambda: {kind: Arm() for kind in KINDS})

    @property
    def paired(self) -> Estimate:
        """Success (%) of diffusion less that of regression in the same episodes."""
        return self.arms[DIFFUSION].pooled(self.arms[REGRESSION])


Tasks = Mapping[str, Compared]


def run(settings: Settings, progress: Progress) -> Findings:
    """Return success and routes of both policies in every task."""
    names = settings.pick((*SEVERAL, PLAIN), quick=(*SEVERAL[:3], PLAIN), tiny=SEVERAL[:1])
    budget = settings.pick(
        Budget(demonstrations=200, steps=3000, episodes=100, seeds=3, longer=NAVIGATION),
        quick=Budget(demonstrations=100, steps=800, episodes=50, seeds=3),
        tiny=Budget(demonstrations=6, steps=2, episodes=2, seeds=2),
    )
    check_tasks(names)
    tasks: Tasks = {name: Compared() for name in names}
    jobs = list(product(range(budget.seeds), names))
    for done, (k, name) in enumerate(jobs):
        seed = derive(settings.seed, "bc-vs-diffusion", name, k)
        shown = taught(budget, seed, task=name)
        tasks[name].shown.append(float(stats.entropy(list(shown.routes.values()), base=2)))
        for j, (kind, arm) in enumerate(tasks[name].arms.items()):
            policy = learnt(name, kind, shown.episodes, budget=budget, seed=seed)
            results = driven(policy, budget.episodes, task=name)
            arm.add(results, further=routed(results, shown.routes))
            progress(len(KINDS) * done + j + 1, len(KINDS) * len(jobs))
    return findings(tasks)


def findings(tasks: Tasks) -> Findings:
    """Return table, figure and paragraph."""
    columns = ("task", "policy", SHOWN, *heads(MEASURES, REGRESSION), PAIRED)
    rows = [
        (
            name,
            kind,
            mean(found.shown),
            *cells(arm, found.arms[REGRESSION], MEASURES),
            found.paired if kind == DIFFUSION else None,
        )
        for name, found in tasks.items()
        for kind, arm in found.arms.items()
    ]
    return Findings(columns, rows, _figure(tasks), paragraph(tasks), {**COUNTED, PAIRED: "episodes"})


def paragraph(tasks: Tasks) -> str:
    """Return what the numbers show."""
    several = {name: found for name, found in tasks.items() if name != PLAIN}
    sentences = [f"Where the average of the demonstrated ways leads nowhere, diffusion succeeds {decided(several)}."]
    if PLAIN in tasks:
        word = _decided(tasks[PLAIN])
        sentences.append(
            f"In {PLAIN}, where the average of the approaches is itself an approach, it succeeds {word} regression."
        )
    for name, found in tasks.items():
        ends = " and ".join(f"{kind} in {rate(found.arms[kind])}" for kind in KINDS)
        gap = found.paired
        claims = [against(found.arms, REGRESSION, measure=m, digits=DIGITS.get(m, 1)) for m in MEASURES]
        claims.append(f"paired by episode, {SUCCESS} differs by {gap.value:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]")
        shown = mean(found.shown).value
        lead = (
            f"In {name} (demonstrated routes: {shown:.2f} bits) succeed {ends} of the episodes. Against {REGRESSION}:"
        )
        sentences.append(points(lead, claims))
    return paragraphs(*sentences, by_chance(len(tasks) * len(MEASURES)))


def decided(tasks: Tasks) -> str:
    """Return in which tasks diffusion succeeds how often compared with regression, by intervals over trainings."""
    found: dict[str, list[str]] = {}
    for name, compared in tasks.items():
        found.setdefault(_decided(compared), []).append(name)
    return ", ".join(f"{word} regression in {listing(names)}" for word, names in found.items())


def _decided(found: Compared) -> str:
    gap = found.arms[DIFFUSION].less(found.arms[REGRESSION], SUCCESS)
    return verdict(gap, below="less often than", above="more often than", tie="as far as is told as often as")


def _figure(tasks: Tasks) -> Figure:
    figure, axes = panels(MEASURES, columns=2, width=4.6, height=0.8 + 0.42 * len(tasks))
    for place, measure in zip(axes, MEASURES, strict=True):
        for index, kind in enumerate(KINDS):
            estimates = [found.arms[kind].mean(measure) for found in tasks.values()]
            forest(place, list(tasks), estimates, label=kind, index=index, of=len(KINDS))
    legend(figure, axes)
    return figure
