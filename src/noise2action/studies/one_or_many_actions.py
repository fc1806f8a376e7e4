"""How many actions of a chunk are worth executing before the next plan: success, smoothness, and plans a second."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from matplotlib.figure import Figure

from ..envs.tasks import find
from ..evaluate.latency import measure_latency
from ..evaluate.rollouts import EpisodeResult
from ..machine import hardware
from ..policies import DiffusionPolicy
from ..seeds import derive
from .plots import legend, line, panels, plain_ticks
from .policies import (
    COUNTED,
    DIFFUSION,
    DIGITS,
    JERKS,
    JUMPS,
    NAVIGATION,
    SPEC,
    SPLIT,
    SUCCESS,
    Arm,
    Budget,
    against,
    beginning,
    cells,
    check_tasks,
    driven,
    heads,
    learnt,
    reached,
    routed,
    smooth,
    taught,
)
from .study import Findings, Progress, Settings, Spread, bracketed, by_chance, listing, mean, median, paragraphs, points

TASKS = ("two_routes", "obstacles", "grasp_seen")
STRIDES = (1, 2, 4, 8)
BASE = 8
MEASURES = (SUCCESS, SPLIT, JERKS, JUMPS)
PLANS, BUSY = "plans a second", "a processor's time (%)"
"""Of the robot's time; how much of it the median plan takes on one thread."""


@dataclass(frozen=True, eq=False)
class Executed:
    """One task with so many actions executed of each chunk."""

    arm: Arm = field(default_factory=Arm)
    plans: list[float] = field(default_factory=list[float])
    """Plans a second, one a training."""
    milliseconds: list[float] = field(default_factory=list[float])
    """Median of one plan, batch 1; one a training."""

    @property
    def busy(self) -> Spread:
        """Share (%) of a processor's time that planning takes, over trainings."""
        return median([rate * ms / 10 for rate, ms in zip(self.plans, self.milliseconds, strict=True)])


Arms = Mapping[tuple[str, int], Executed]
"""By task and stride."""


def run(settings: Settings, progress: Progress) -> Findings:
    """Return what the same policies do when they plan more or less often."""
    tasks = settings.pick(TASKS, quick=TASKS[1:], tiny=TASKS[:1])
    budget = settings.pick(
        Budget(demonstrations=200, steps=3000, episodes=100, seeds=3, longer=NAVIGATION),
        quick=Budget(demonstrations=100, steps=800, episodes=40, seeds=3),
        tiny=Budget(demonstrations=6, steps=2, episodes=2, seeds=2),
    )
    plans = settings.pick(100, quick=20, tiny=1)
    check_tasks(tasks)
    arms: Arms = {(task, stride): Executed() for task in tasks for stride in STRIDES}
    done = 0
    for k in range(budget.seeds):
        for task in tasks:
            seed = derive(settings.seed, "one-or-many-actions", task, k)
            shown = taught(budget, seed, task=task)
            policy = learnt(task, DIFFUSION, shown.episodes, budget=budget, seed=seed)
            assert isinstance(policy, DiffusionPolicy), "the configuration is of one"
            rate = policy.spec.control_hz
            for stride in STRIDES:
                policy.spec = replace(policy.spec, stride=stride)
                results = driven(policy, budget.episodes, task=task)
                found, further = arms[task, stride], smooth(results, shown.episodes, rate)
                found.arm.add(results, further={**routed(results, shown.routes), **further})
                found.plans.append(rate * planned(results))
                found.milliseconds.append(measure_latency(policy, beginning(results), calls=plans).total.p50)
                done += 1
                progress(done, budget.seeds * len(arms))
    return findings(arms)


def planned(run: Sequence[EpisodeResult]) -> float:
    """Return how many plans were made an action."""
    traces = [result.trace for result in run if result.trace is not None]
    return sum(int(trace.planned.sum()) for trace in traces) / sum(len(trace.planned) for trace in traces)


def findings(arms: Arms) -> Findings:
    """Return table, figure and paragraph."""
    columns = ("task", "actions between plans", *heads(MEASURES, f"{BASE} actions"), PLANS, BUSY)
    rows = [
        (task, stride, *cells(found.arm, arms[task, BASE].arm, MEASURES), mean(found.plans), found.busy)
        for (task, stride), found in arms.items()
    ]
    return Findings(columns, rows, _figure(arms), paragraph(arms), COUNTED)


def paragraph(arms: Arms) -> str:
    """Return what the numbers show."""
    tasks = list(dict.fromkeys(task for task, _ in arms))
    sentences = [f"One policy a training, of chunks of {SPEC.horizon} actions; only how many are executed differs."]
    for task in tasks:
        mine = {_words(stride): arms[task, stride].arm for stride in STRIDES}
        base = _words(BASE)
        claims = [against(mine, base, measure=m, digits=DIGITS.get(m, 1)) for m in MEASURES]
        sentences.append(points(f"In {task}, executing {base} succeeds {reached(mine[base])}. Against it:", claims))
    rates = [f"{task} ({find(task).control_hz:g} Hz): {_rates(arms, task)}" for task in tasks]
    lead = (
        f"Plans a second, and the share of one processor of {hardware()} that they take, over trainings [least, most]:"
    )
    sentences.append(points(lead, rates))
    return paragraphs(*sentences, by_chance(len(tasks) * (len(STRIDES) - 1) * len(MEASURES)))


def _rates(arms: Arms, task: str) -> str:
    found = [(stride, arms[task, stride]) for stride in STRIDES]
    return listing([f"{_words(s)} {mean(x.plans).value:.1f} ({bracketed(x.busy)} %)" for s, x in found])


def _words(stride: int) -> str:
    return f"{stride} action{'s' if stride > 1 else ''}"


def _figure(arms: Arms) -> Figure:
    figure, axes = panels([*MEASURES, PLANS], columns=5, width=3.0)
    tasks = list(dict.fromkeys(task for task, _ in arms))
    for place in axes:
        place.set_xscale("log", base=2)
        place.set_xlabel("actions between plans")
    axes[-1].set_yscale("log")
    for index, task in enumerate(tasks):
        mine = [arms[task, stride] for stride in STRIDES]
        for place, measure in zip(axes, MEASURES, strict=False):
            line(place, STRIDES, [found.arm.mean(measure) for found in mine], label=task, index=index)
        line(axes[-1], STRIDES, [mean(found.plans) for found in mine], label=task, index=index)
    plain_ticks(axes[-1:])
    for place in axes:
        place.set_xticks(STRIDES, [str(stride) for stride in STRIDES])
    legend(figure, axes)
    return figure
