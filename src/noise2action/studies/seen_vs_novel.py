"""What a policy makes of objects of other shapes than those it was shown, with and without a description of them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..envs.grasp_novel import HELD_OUT, SHAPE, TRAINED
from ..evaluate.rollouts import EpisodeResult
from ..evaluate.setting import Setting
from ..seeds import derive
from .plots import forest, legend, panels
from .policies import (
    COUNTED,
    DIFFUSION,
    SUCCESS,
    Arm,
    Budget,
    against,
    blanked,
    cells,
    driven,
    heads,
    learnt,
    reached,
    taught,
)
from .study import Findings, Progress, Settings, by_chance, paragraphs, points

TASK = "grasp_novel"
SEEN, NOVEL = "demonstrated shapes", "held-out shapes"
SETS: Mapping[str, Sequence[str]] = {SEEN: tuple(TRAINED), NOVEL: tuple(HELD_OUT)}
OBSERVED: Mapping[str, Mapping[str, np.ndarray]] = {
    "with the shape": {},
    "without the shape": {SHAPE.name: np.zeros(SHAPE.shape, np.float32)},
}
"""What is observed instead of the description: a constant, which says nothing. Networks are the same."""
MEASURES = (SUCCESS,)

Arms = Mapping[tuple[str, str], Arm]
"""By what is observed, and shape or set of shapes."""


def run(settings: Settings, progress: Progress) -> Findings:
    """Return success by shape in the same fresh layouts, of the same policies."""
    budget = settings.pick(
        Budget(demonstrations=300, steps=2400, episodes=50, seeds=5),
        quick=Budget(demonstrations=120, steps=1000, episodes=15, seeds=3),
        tiny=Budget(demonstrations=3, steps=2, episodes=1, seeds=2),
    )
    shapes = settings.pick(SETS, quick=SETS, tiny={name: those[:1] for name, those in SETS.items()})
    keys = [name for those, single in shapes.items() for name in (those, *single)]
    arms: Arms = {(observed, name): Arm() for observed in OBSERVED for name in keys}
    for k in range(budget.seeds):
        seed = derive(settings.seed, "seen-vs-novel", k)
        shown = taught(budget, seed, task=TASK).episodes
        for j, (observed, given) in enumerate(OBSERVED.items()):
            policy = learnt(TASK, DIFFUSION, blanked(shown, given), budget=budget, seed=seed)
            for those, single in shapes.items():
                together: list[EpisodeResult] = []
                for name in single:
                    setting = Setting(options={"shape": name}, given=given)
                    results = driven(policy, budget.episodes, task=TASK, setting=setting)
                    arms[observed, name].add(results)
                    together.extend(results)
                arms[observed, those].add(together)
            progress(k * len(OBSERVED) + j + 1, budget.seeds * len(OBSERVED))
    return findings(arms)


def findings(arms: Arms) -> Findings:
    """Return table, figure and paragraph."""
    columns = ("observed", "shapes", *heads(MEASURES, SEEN))
    rows = [(*key, *cells(arm, arms[key[0], SEEN], MEASURES)) for key, arm in arms.items()]
    return Findings(columns, rows, _figure(arms), paragraph(arms), COUNTED)


def paragraph(arms: Arms) -> str:
    """Return what the numbers show."""
    names = list(dict.fromkeys(name for _, name in arms))
    sentences: list[str] = []
    for observed in OBSERVED:
        sets = {name: arms[observed, name] for name in SETS}
        single = {name: arms[observed, name] for name in names if name not in SETS}
        lead = (
            f"Observed {observed}, policies succeed {reached(sets[SEEN])} with {SEEN} and {reached(sets[NOVEL])} with "
            f"{NOVEL}, in the same layouts. Against {SEEN}:"
        )
        every = against({SEEN: sets[SEEN], **single}, SEEN, measure=SUCCESS)
        sentences.append(points(lead, [against(sets, SEEN, measure=SUCCESS), every]))
    first = next(iter(OBSERVED))
    pairs = {name: {observed: arms[observed, name] for observed in OBSERVED} for name in SETS}
    claims = [f"{name}: {against(pair, first, measure=SUCCESS)}" for name, pair in pairs.items()]
    sentences.append(points(f"Against policies that observe {first}:", claims))
    verdicts = len(OBSERVED) * (len(names) - 1) + len(SETS)
    return paragraphs(*sentences, by_chance(verdicts))


def _figure(arms: Arms) -> Figure:
    names = list(dict.fromkeys(name for _, name in arms))
    figure, axes = panels([SUCCESS], width=5.4, height=0.8 + 0.4 * len(names))
    for index, observed in enumerate(OBSERVED):
        estimates = [arms[observed, name].mean(SUCCESS) for name in names]
        forest(axes[0], names, estimates, label=f"observed {observed}", index=index, of=len(OBSERVED))
    legend(figure, axes)
    return figure
