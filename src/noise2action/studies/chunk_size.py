"""How long a chunk should be: half of each chunk is executed, or always four actions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from ..evaluate.statistics import Estimate
from ..policies import DiffusionConfig
from ..seeds import derive
from .plots import legend, line, panels
from .policies import (
    BOUNDARY,
    COUNTED,
    JERK,
    NET,
    SPEC,
    SUCCESS,
    WITHIN,
    Arm,
    Budget,
    against,
    cells,
    driven,
    heads,
    reached,
    taught,
    trained,
)
from .study import Findings, Progress, Settings, by_chance, difference, listing, paragraphs, points

HORIZONS = (4, 8, 16, 32)
BASE = 16
FIXED = 4
HALF, SAME = "half of the chunk", f"{FIXED} actions"
EXECUTED = (HALF, SAME)
REPLANNED = tuple(horizon for horizon in HORIZONS if horizon // 2 != FIXED)
"""Lengths for which the two differ."""
MEASURES = (SUCCESS, JERK, BOUNDARY, WITHIN)
COLUMNS = (
    "executed",
    "H",
    "actions between plans",
    *heads(MEASURES, f"H = {BASE}"),
)

Arms = Mapping[tuple[str, int], Arm]


def run(settings: Settings, progress: Progress) -> Findings:
    """Return success and smoothness for every chunk length."""
    budget = settings.pick(
        Budget(demonstrations=150, steps=2000, episodes=300, seeds=5),
        quick=Budget(demonstrations=90, steps=600, episodes=100, seeds=3),
        tiny=Budget(demonstrations=6, steps=3, episodes=3, seeds=2),
    )
    arms: Arms = {(executed, horizon): Arm() for executed in EXECUTED for horizon in HORIZONS}
    for k in range(budget.seeds):
        seed = derive(settings.seed, "chunk-size", k)
        demonstrations = taught(budget, seed).episodes
        for j, horizon in enumerate(HORIZONS):
            config = DiffusionConfig(spec=replace(SPEC, horizon=horizon, stride=horizon // 2), net=NET)
            policy = trained(config, demonstrations, budget=budget, seed=seed).policy
            for executed in EXECUTED:
                policy.spec = replace(policy.spec, stride=stride(executed, horizon))
                arms[executed, horizon].add(driven(policy, budget.episodes))
            progress(k * len(HORIZONS) + j + 1, budget.seeds * len(HORIZONS))
    return findings(arms)


def stride(executed: str, horizon: int) -> int:
    """Return the actions between two plans."""
    return horizon // 2 if executed == HALF else FIXED


def findings(arms: Arms) -> Findings:
    """Return table, figure and paragraph."""
    rows = [
        (
            executed,
            horizon,
            stride(executed, horizon),
            *cells(arm, arms[executed, BASE], MEASURES),
        )
        for (executed, horizon), arm in arms.items()
    ]
    return Findings(COLUMNS, rows, _figure(arms), paragraph(arms), COUNTED)


def paragraph(arms: Arms) -> str:
    """Return what the numbers show."""
    sentences = ["Policies of every length were trained on the same demonstrations for as many steps."]
    for executed in EXECUTED:
        mine = {f"H = {horizon}": arms[executed, horizon] for horizon in HORIZONS}
        base = f"H = {BASE}"
        claims = [
            against(mine, base, measure=SUCCESS),
            against(mine, base, measure=JERK),
            against(mine, base, measure=BOUNDARY, digits=4),
            against(mine, base, measure=WITHIN, digits=4),
        ]
        verb = "is" if executed == HALF else "are"
        lead = f"Where {executed} {verb} executed, {base} succeeds {reached(mine[base])}. Against it:"
        sentences.append(points(lead, claims))
        jumps = [name for name, arm in mine.items() if seam(arm).low > 0]
        sentences.append(f"The action jumps more between chunks than within them for {listing(jumps) or 'no length'}.")
    often = {f"H = {horizon}": {e: arms[e, horizon] for e in EXECUTED} for horizon in REPLANNED}
    claims = [f"{name}: {against(both, HALF, measure=SUCCESS)}" for name, both in often.items()]
    sentences.append(points("Against executing half:", claims))
    verdicts = len(EXECUTED) * ((len(HORIZONS) - 1) * len(MEASURES) + len(HORIZONS)) + len(REPLANNED)
    return paragraphs(*sentences, by_chance(verdicts))


def seam(arm: Arm) -> Estimate:
    """Return how much farther the action jumps between chunks than within them, m/s, over trainings."""
    return difference(arm.values[BOUNDARY], arm.values[WITHIN])


def _figure(arms: Arms) -> Figure:
    figure, axes = panels(list(MEASURES), columns=4, width=3.2)
    for place, measure in zip(axes, MEASURES, strict=True):
        place.set_xscale("log", base=2)
        place.set_xlabel("H, actions in a chunk")
        for index, executed in enumerate(EXECUTED):
            shown: Sequence[Arm] = [arms[executed, horizon] for horizon in HORIZONS]
            line(place, HORIZONS, [arm.mean(measure) for arm in shown], label=f"{executed} executed", index=index)
        place.set_xticks(HORIZONS, [str(h) for h in HORIZONS])
    legend(figure, axes)
    return figure
