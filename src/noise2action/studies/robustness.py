"""How much policies bear of what no demonstration had: noisy sensors and motors, a push, other friction and mass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from ..data.normalize import Normalizer
from ..envs.disturbed import Noise, noisy
from ..envs.task import Task
from ..envs.tasks import find
from ..evaluate.setting import AS_DRAWN, Setting
from ..policies import AnyPolicy, backbone_of
from ..seeds import derive
from .plots import legend, line, panels
from .policies import (
    COUNTED,
    DIFFUSION,
    KINDS,
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
    reached,
    taught,
)
from .study import Findings, Progress, Settings, by_chance, paragraphs, points

TASKS = ("grasp_seen", "push_block")


@dataclass(frozen=True)
class Trouble:
    """One kind of disturbance."""

    unit: str
    strengths: Sequence[float]
    """In order; where it does nothing, `none`, is one of them."""
    none: float = 0.0


OBSERVATION, ACTION = "observation noise", "action noise"
TROUBLES: Mapping[str, Trouble] = {
    OBSERVATION: Trouble("of half the demonstrated range", (0.0, 0.01, 0.02, 0.05, 0.1)),
    ACTION: Trouble("of the range", (0.0, 0.05, 0.1, 0.2, 0.4)),
    "push": Trouble("N for 0.1 s", (0.0, 50.0, 100.0, 200.0, 400.0)),
    "friction": Trouble("of the usual", (0.1, 0.3, 1.0, 3.0), none=1.0),
    "mass": Trouble("of the usual", (0.1, 1.0, 3.0, 10.0), none=1.0),
}
"""Noise is normal; its strength is the standard deviation, fresh at every step. The others last an episode."""
NOISES = (OBSERVATION, ACTION)
UNDISTURBED = "undisturbed"
MEASURES = (SUCCESS,)

Arms = Mapping[tuple[str, str, str, float], Arm]
"""By task, kind of policy, kind of trouble and strength."""


def run(settings: Settings, progress: Progress) -> Findings:
    """Return success by the strength of every trouble; every policy meets the same troubles in the same episodes."""
    tasks = settings.pick(TASKS, quick=TASKS[:1], tiny=("two_routes",))
    troubles = settings.pick(list(TROUBLES), quick=list(TROUBLES), tiny=list(NOISES))
    budget = settings.pick(
        Budget(demonstrations=200, steps=2000, episodes=40, seeds=4),
        quick=Budget(demonstrations=100, steps=1000, episodes=15, seeds=3),
        tiny=Budget(demonstrations=6, steps=2, episodes=2, seeds=2),
    )
    keys = [(name, strength) for name in troubles for strength in TROUBLES[name].strengths]
    arms: Arms = {(task, kind, *key): Arm() for task in tasks for kind in KINDS for key in keys}
    jobs = list(product(range(budget.seeds), tasks, KINDS))
    for done, (k, task, kind) in enumerate(jobs):
        seed = derive(settings.seed, "robustness", task, k)
        policy = learnt(task, kind, taught(budget, seed, task=task).episodes, budget=budget, seed=seed)
        plain = driven(policy, budget.episodes, task=task)
        for j, (name, strength) in enumerate(keys):
            if strength == TROUBLES[name].none:
                results = plain
            else:
                troubled, setting = disturbed(find(task), policy, name, strength)
                results = driven(policy, budget.episodes, task=troubled, setting=setting)
            arms[task, kind, name, strength].add(results)
            progress(done * len(keys) + j + 1, len(jobs) * len(keys))
    return findings(arms)


def disturbed(task: Task, policy: AnyPolicy, name: str, strength: float) -> tuple[Task, Setting]:
    """Return the task, and the setting of its episodes, in which `policy` meets the trouble `name`."""
    if name == OBSERVATION:
        return noisy(task, Noise(observation=spread(task, backbone_of(policy).normalizer, strength))), AS_DRAWN
    if name == ACTION:
        return noisy(task, Noise(action=strength)), AS_DRAWN
    return task, Setting(options={name: strength})


def spread(task: Task, normalizer: Normalizer, strength: float) -> dict[str, np.ndarray]:
    """Return `strength` of the normaliser's units in those of every state feature; 0 for what never varied."""
    found: dict[str, np.ndarray] = {}
    for feature in task.schema.observations:
        if feature.is_state:
            scale = normalizer.affines[feature.name].scale.numpy()
            # A constant has the scale 1, and is no longer one if it is disturbed.
            found[feature.name] = np.where(scale == 1.0, 0.0, strength / scale)
    return found


def findings(arms: Arms) -> Findings:
    """Return table, figure and paragraph."""
    columns = ("task", "policy", "disturbed by", "strength", "unit", *heads(MEASURES, UNDISTURBED))
    rows = [
        (*key, TROUBLES[key[2]].unit, *cells(arm, arms[*key[:3], TROUBLES[key[2]].none], MEASURES))
        for key, arm in arms.items()
    ]
    return Findings(columns, rows, _figure(arms), paragraph(arms), COUNTED)


def named(arms: Arms) -> tuple[list[str], list[str]]:
    """Return the tasks and the troubles that were compared."""
    return list(dict.fromkeys(task for task, *_ in arms)), list(dict.fromkeys(name for *_, name, _ in arms))


def paragraph(arms: Arms) -> str:
    """Return what the numbers show."""
    tasks, troubles = named(arms)
    sentences: list[str] = []
    verdicts = 0
    for task in tasks:
        for kind in KINDS:
            claims: list[str] = []
            for name in troubles:
                trouble = TROUBLES[name]
                mine = {_words(name, s): arms[task, kind, name, s] for s in trouble.strengths}
                claims.append(f"{name}: {against(mine, _words(name, trouble.none), measure=SUCCESS)}")
                verdicts += len(mine) - 1
            plain = arms[task, kind, troubles[0], TROUBLES[troubles[0]].none]
            lead = f"In {task}, {kind}, which succeeds {reached(plain)} undisturbed. Against that:"
            sentences.append(points(lead, claims))
        claims = []
        for name in troubles:
            strong = [s for s in TROUBLES[name].strengths if s != TROUBLES[name].none]
            pairs = {_words(name, s): (arms[task, DIFFUSION, name, s], arms[task, REGRESSION, name, s]) for s in strong}
            claims.append(f"{name}: {apart(pairs, measure=SUCCESS)}")
            verdicts += len(pairs)
        sentences.append(points(f"In {task}, {DIFFUSION} against {REGRESSION} in the same trouble:", claims))
    return paragraphs(*sentences, by_chance(verdicts))


def _words(name: str, strength: float) -> str:
    return f"{strength:g} {TROUBLES[name].unit}"


def _figure(arms: Arms) -> Figure:
    tasks, troubles = named(arms)
    figure, axes = panels([f"{name}: {SUCCESS}" for name in troubles])
    for place, name in zip(axes, troubles, strict=True):
        strengths = TROUBLES[name].strengths
        place.set_xlabel(f"{name} ({TROUBLES[name].unit})")
        # Strengths double or so: one apart each.
        places = range(len(strengths))
        place.set_xticks(places, [f"{strength:g}" for strength in strengths])
        for index, (task, kind) in enumerate(product(tasks, KINDS)):
            estimates = [arms[task, kind, name, strength].mean(SUCCESS) for strength in strengths]
            dashed = kind == REGRESSION
            line(place, places, estimates, label=f"{task}, {kind}", index=index, dashed=dashed)
    legend(figure, axes)
    return figure
