"""How many observed steps a policy should plan from: with the velocity observed, and with positions alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from ..evaluate.setting import Setting
from ..policies import DiffusionConfig
from ..seeds import derive
from .plots import legend, line, panels
from .policies import (
    COUNTED,
    JERK,
    NET,
    SPEC,
    SUCCESS,
    Arm,
    Budget,
    against,
    blanked,
    cells,
    deviation,
    driven,
    heads,
    reached,
    taught,
    trained,
)
from .study import Findings, Progress, Settings, by_chance, listing, paragraphs, points

STEPS = (1, 2, 4, 8)
BASE = 2
HIDDEN = "velocity"
SHOWN: Mapping[str, Setting] = {
    "position and velocity": Setting(),
    "position alone": Setting(given={HIDDEN: np.zeros(2, dtype=np.float32)}),
}
"""What is observed; a hidden velocity reads zero, in the demonstrations as in the episodes.

The normaliser maps a constant to 0, so a velocity that always reads zero says nothing, and both networks are alike.
"""
ERROR = "held-out action error (m/s)"
MEASURES = (SUCCESS, ERROR, JERK)
COLUMNS = (
    "observed",
    "steps",
    *heads(MEASURES, f"{BASE} steps"),
)

Arms = Mapping[tuple[str, int], Arm]


def run(settings: Settings, progress: Progress) -> Findings:
    """Return success, smoothness and held-out error for every number of observed steps."""
    budget = settings.pick(
        Budget(demonstrations=150, steps=2000, episodes=200, seeds=5),
        quick=Budget(demonstrations=90, steps=400, episodes=100, seeds=3),
        tiny=Budget(demonstrations=6, steps=3, episodes=3, seeds=2),
    )
    arms: Arms = {(name, steps): Arm() for name in SHOWN for steps in STEPS}
    for k in range(budget.seeds):
        seed = derive(settings.seed, "history", k)
        demonstrations = taught(budget, seed).episodes
        for j, ((name, steps), arm) in enumerate(arms.items()):
            config = DiffusionConfig(spec=replace(SPEC, obs_steps=steps), net=NET)
            found = trained(config, blanked(demonstrations, SHOWN[name].given), budget=budget, seed=seed)
            results = driven(found.policy, budget.episodes, setting=SHOWN[name])
            arm.add(results, further={ERROR: deviation(found)})
            progress(k * len(arms) + j + 1, budget.seeds * len(arms))
    return findings(arms)


def findings(arms: Arms) -> Findings:
    """Return table, figure and paragraph."""
    rows = [
        (
            name,
            steps,
            *cells(arm, arms[name, BASE], MEASURES),
        )
        for (name, steps), arm in arms.items()
    ]
    return Findings(COLUMNS, rows, _figure(arms), paragraph(arms), COUNTED)


def paragraph(arms: Arms) -> str:
    """Return what the numbers show."""
    sentences: list[str] = []
    for name in SHOWN:
        mine = {_words(steps): arms[name, steps] for steps in STEPS}
        base = _words(BASE)
        claims = [
            against(mine, base, measure=SUCCESS),
            against(mine, base, measure=ERROR, digits=4),
            against(mine, base, measure=JERK),
        ]
        lead = f"With {name} observed, policies of {base} succeed {reached(mine[base])}. Against them:"
        sentences.append(points(lead, claims))
    seen = next(iter(SHOWN))
    hidden = {_words(steps): {name: arms[name, steps] for name in SHOWN} for steps in STEPS}
    claims = [
        f"{words}: {against(both, seen, measure=SUCCESS)}; {against(both, seen, measure=ERROR, digits=4)}"
        for words, both in hidden.items()
    ]
    sentences.append(points("Hiding the velocity, by observed steps:", claims))
    contrary = [words for words, both in hidden.items() if _contrary(list(both.values()))]
    if contrary:
        sentences.append(
            f"With {listing(contrary)}, those that err more on demonstrated states are those that succeed more often."
        )
    verdicts = len(SHOWN) * (len(STEPS) - 1) * len(MEASURES) + 2 * len(STEPS)
    return paragraphs(*sentences, by_chance(verdicts))


def _contrary(pair: Sequence[Arm]) -> bool:
    """Return whether of two arms the one with the larger error surely succeeds more often."""
    one, other = pair
    error, success = (one.less(other, measure) for measure in (ERROR, SUCCESS))
    return (error.low > 0 and success.low > 0) or (error.high < 0 and success.high < 0)


def _words(steps: int) -> str:
    return f"{steps} step{'s' if steps > 1 else ''}"


def _figure(arms: Arms) -> Figure:
    figure, axes = panels(list(MEASURES))
    for place, measure in zip(axes, MEASURES, strict=True):
        place.set_xscale("log", base=2)
        place.set_xlabel("observed steps")
        for index, name in enumerate(SHOWN):
            shown: Sequence[Arm] = [arms[name, steps] for steps in STEPS]
            line(place, STEPS, [arm.mean(measure) for arm in shown], label=name, index=index)
        place.set_xticks(STEPS, [str(s) for s in STEPS])
    legend(figure, axes)
    return figure
