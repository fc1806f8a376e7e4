"""How many demonstrations a policy needs: diffusion, and regression on the same network, after as many steps."""

from collections.abc import Mapping
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from ..seeds import derive
from .plots import legend, line, panels
from .policies import (
    COUNTED,
    DIFFUSION,
    KINDS,
    NAVIGATION,
    REGRESSION,
    SUCCESS,
    Arm,
    Budget,
    against,
    apart,
    cells,
    driven,
    heads,
    learnt,
    rate,
    taught,
)
from .study import Findings, Progress, Settings, by_chance, listing, paragraphs, points

TASKS = ("two_routes", "grasp_seen")
COUNTS = (25, 50, 100, 200, 300)
MEASURES = (SUCCESS,)

Arms = Mapping[tuple[str, str, int], Arm]
"""By task, kind of policy and demonstrations."""


def run(settings: Settings, progress: Progress) -> Findings:
    """Return success by the number of demonstrations; the few are the first of the many."""
    tasks = settings.pick(TASKS, quick=TASKS[:1], tiny=TASKS[:1])
    compared = settings.pick(COUNTS, quick=COUNTS, tiny=(3, 5))
    budget = settings.pick(
        Budget(demonstrations=max(COUNTS) + 1, steps=2000, episodes=100, seeds=3, longer=NAVIGATION),
        quick=Budget(demonstrations=max(COUNTS) + 1, steps=800, episodes=100, seeds=3),
        tiny=Budget(demonstrations=6, steps=2, episodes=2, seeds=2),
    )
    arms: Arms = {key: Arm() for key in product(tasks, KINDS, compared)}
    for k in range(budget.seeds):
        shown = {task: taught(budget, derive(settings.seed, "demonstrations", task, k), task=task) for task in tasks}
        for j, ((task, kind, count), arm) in enumerate(arms.items()):
            seed = derive(settings.seed, "demonstrations", task, k)
            # One more, which is held out.
            episodes = shown[task].episodes.select(np.arange(count + 1))
            arm.add(driven(learnt(task, kind, episodes, budget=budget, seed=seed), budget.episodes, task=task))
            progress(k * len(arms) + j + 1, budget.seeds * len(arms))
    return findings(arms)


def findings(arms: Arms) -> Findings:
    """Return table, figure and paragraph."""
    most = max(counts(arms))
    columns = ("task", "policy", "demonstrations", *heads(MEASURES, f"{most} demonstrations"))
    rows = [(*key, *cells(arm, arms[*key[:2], most], MEASURES)) for key, arm in arms.items()]
    return Findings(columns, rows, _figure(arms), paragraph(arms), COUNTED)


def counts(arms: Arms) -> list[int]:
    """Return the numbers of demonstrations that were compared."""
    return list(dict.fromkeys(count for *_, count in arms))


def paragraph(arms: Arms) -> str:
    """Return what the numbers show."""
    compared = counts(arms)
    most = max(compared)
    tasks = list(dict.fromkeys(task for task, *_ in arms))
    sentences: list[str] = []
    for task in tasks:
        ends = " and ".join(f"{kind} {rate(arms[task, kind, most])}" for kind in KINDS)
        claims: list[str] = []
        for kind in KINDS:
            mine = {f"{count}": arms[task, kind, count] for count in compared}
            claims.append(f"{kind}: {against(mine, str(most), measure=SUCCESS)}")
        pairs = {f"{n}": (arms[task, DIFFUSION, n], arms[task, REGRESSION, n]) for n in compared}
        claims.append(f"{DIFFUSION} against {REGRESSION} from as many: {apart(pairs, measure=SUCCESS)}")
        lead = f"In {task}, {enough(arms, task)}. From {most} succeed {ends} of the episodes. Against {most}:"
        sentences.append(points(lead, claims))
    verdicts = len(tasks) * (len(KINDS) * (len(compared) - 1) + len(compared))
    return paragraphs(*sentences, by_chance(verdicts))


def enough(arms: Arms, task: str) -> str:
    """Return the fewest demonstrations from which on success is not told to be below that with the most, by kind.

    And those with which it is told to be above: policies that average need not gain from more.
    """
    compared = counts(arms)
    found: list[str] = []
    better: list[str] = []
    for kind in KINDS:
        last = arms[task, kind, max(compared)]
        gaps = {count: arms[task, kind, count].less(last, SUCCESS) for count in compared[:-1]}
        worse = [count for count, gap in gaps.items() if gap.high < 0]
        higher = [str(count) for count, gap in gaps.items() if gap.low > 0]
        least = compared[compared.index(max(worse)) + 1] if worse else compared[0]
        found.append(f"{least} for {kind}")
        if higher:
            better.append(f"; {kind} succeeds significantly more often with {listing(higher)}")
    return (
        f"the fewest demonstrations from which on success is not significantly below that with {max(compared)} are "
        f"{listing(found)}{''.join(better)}"
    )


def _figure(arms: Arms) -> Figure:
    compared = counts(arms)
    tasks = list(dict.fromkeys(task for task, *_ in arms))
    figure, axes = panels([f"{task}: {SUCCESS}" for task in tasks])
    for place, task in zip(axes, tasks, strict=True):
        place.set_xscale("log")
        place.set_xlabel("demonstrations")
        for index, kind in enumerate(KINDS):
            estimates = [arms[task, kind, count].mean(SUCCESS) for count in compared]
            line(place, compared, estimates, label=kind, index=index)
        place.set_xticks(compared, [str(count) for count in compared])
        place.minorticks_off()
    legend(figure, axes)
    return figure
