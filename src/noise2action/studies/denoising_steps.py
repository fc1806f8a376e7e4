"""How many denoising steps a policy needs: success, smoothness and likeness to demonstrations against the time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from matplotlib.figure import Figure

from ..diffusion.samplers import DDIM, DDPM, AnySampler
from ..evaluate.latency import Latency, measure_latency
from ..machine import hardware
from ..policies import DiffusionConfig, DiffusionPolicy, Sampling
from ..seeds import derive
from .plots import legend, line, panels, plain_ticks
from .policies import (
    COUNTED,
    DIGITS,
    JERK,
    NET,
    SPEC,
    SUCCESS,
    Arm,
    Budget,
    against,
    beginning,
    cells,
    driven,
    heads,
    reached,
    strangeness,
    taught,
    trained,
)
from .study import Cell, Findings, Progress, Settings, Spread, bracketed, by_chance, median, paragraphs, points

CALLS = (5, 10, 20, 50, 100)
SAMPLERS: Mapping[str, AnySampler] = {"ddim": DDIM(), "ddpm": DDPM()}
STRANGE = "energy distance to demonstrations"
MEASURES = (SUCCESS, STRANGE, JERK)
P50, P99 = "p50 (ms)", "p99 (ms)"
TOLD = "p50 / p99, median over trainings [least, most]"


@dataclass(frozen=True, eq=False)
class Steps:
    """One sampler with so many network calls."""

    arm: Arm = field(default_factory=Arm)
    latency: list[Latency] = field(default_factory=list[Latency])
    """Of one plan, batch 1; one a training."""

    def milliseconds(self, measure: str) -> Spread:
        """Return a percentile, `P50` or `P99`, over trainings."""
        return median([found.total.p50 if measure == P50 else found.total.p99 for found in self.latency])


Arms = Mapping[tuple[str, int], Steps]
"""By sampler, or whatever else differs, and number of network calls."""


def run(settings: Settings, progress: Progress) -> Findings:
    """Return quality and latency of the same policies for every number of denoising steps."""
    budget = settings.pick(
        Budget(demonstrations=150, steps=2000, episodes=200, seeds=5),
        quick=Budget(demonstrations=90, steps=800, episodes=100, seeds=3),
        tiny=Budget(demonstrations=6, steps=3, episodes=3, seeds=2),
    )
    windows, plans = settings.pick((500, 100), quick=(300, 20), tiny=(20, 1))
    compared = settings.pick(CALLS, quick=CALLS, tiny=CALLS[:2])
    arms: Arms = {(name, calls): Steps() for name in SAMPLERS for calls in compared}
    for k in range(budget.seeds):
        seed = derive(settings.seed, "denoising-steps", k)
        config = DiffusionConfig(spec=SPEC, net=NET)
        found = trained(config, taught(budget, seed).episodes, budget=budget, seed=seed)
        policy = found.policy
        assert isinstance(policy, DiffusionPolicy), "the configuration is of one"
        for j, ((name, calls), steps) in enumerate(arms.items()):
            sampled = policy.resampled(Sampling(sampler=SAMPLERS[name], nfe=calls))
            results = driven(sampled, budget.episodes)
            strange = strangeness(replace(found, policy=sampled), windows=windows)
            steps.arm.add(results, further={STRANGE: strange})
            steps.latency.append(measure_latency(sampled, beginning(results), calls=plans))
            progress(k * len(arms) + j + 1, budget.seeds * len(arms))
    return findings(arms)


def findings(arms: Arms) -> Findings:
    """Return table, figure and paragraph."""
    columns, rows = table(arms, "sampler", MEASURES)
    return Findings(columns, rows, figure(arms, MEASURES), paragraph(arms), COUNTED)


def counts(arms: Arms) -> list[int]:
    """Return the numbers of denoising steps that were compared."""
    return list(dict.fromkeys(calls for _, calls in arms))


def table(arms: Arms, head: str, measures: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
    """Return columns and rows; differences are to the most steps."""
    most = max(counts(arms))
    rows = [
        (name, calls, *cells(steps.arm, arms[name, most].arm, measures), *(steps.milliseconds(p) for p in (P50, P99)))
        for (name, calls), steps in arms.items()
    ]
    return (head, "denoising steps", *heads(measures, "the most steps"), P50, P99), rows


def fewer(arms: Arms, name: str, measures: Sequence[str]) -> list[str]:
    """Return a claim a measure: what fewer steps than the most change."""
    mine = {_words(calls): arms[name, calls].arm for calls in counts(arms)}
    return [
        against(mine, _words(max(counts(arms))), measure=m, digits=4 if m == STRANGE else DIGITS.get(m, 1))
        for m in measures
    ]


def paragraph(arms: Arms) -> str:
    """Return what the numbers show."""
    sentences: list[str] = []
    most = max(counts(arms))
    for name in SAMPLERS:
        lead = f"With {_words(most)} of {name} the policies succeed {reached(arms[name, most].arm)}. Against them:"
        sentences.append(points(lead, fewer(arms, name, MEASURES)))
    first, second = SAMPLERS
    both = {_words(calls): {name: arms[name, calls].arm for name in SAMPLERS} for calls in counts(arms)}
    claims = [f"{words}: {against(pair, first, measure=SUCCESS)}" for words, pair in both.items()]
    sentences.append(points(f"{second} against {first}:", claims))
    sentences.append(f"On {hardware()}, one thread, batch 1, a plan by {first} takes ({TOLD}) {times(arms, first)}.")
    verdicts = len(SAMPLERS) * (len(counts(arms)) - 1) * len(MEASURES) + len(counts(arms))
    return paragraphs(*sentences, by_chance(verdicts))


def times(arms: Arms, name: str) -> str:
    """Return how long a plan takes, by number of steps, as words."""
    return ", ".join(f"{_words(calls)} {_milliseconds(arms[name, calls])}" for calls in counts(arms))


def _words(calls: int) -> str:
    return f"{calls} steps"


def _milliseconds(steps: Steps) -> str:
    return f"{bracketed(steps.milliseconds(P50))} / {bracketed(steps.milliseconds(P99))} ms"


def figure(arms: Arms, measures: Sequence[str]) -> Figure:
    """Return one panel a measure and one of times, against the number of steps."""
    compared = counts(arms)
    drawn, axes = panels([*measures, "time of a plan (ms)"], columns=4, width=3.2)
    for place in axes:
        place.set_xscale("log")
        place.set_xlabel("denoising steps")
    axes[-1].set_yscale("log")
    for index, name in enumerate(dict.fromkeys(name for name, _ in arms)):
        mine = [arms[name, calls] for calls in compared]
        for place, measure in zip(axes, measures, strict=False):
            line(place, compared, [steps.arm.mean(measure) for steps in mine], label=name, index=index)
        for percentile, label in ((P50, name), (P99, f"{name}, 99th percentile")):
            taken = [steps.milliseconds(percentile) for steps in mine]
            line(axes[-1], compared, taken, label=label, index=index, dashed=percentile == P99)
    plain_ticks(axes)
    for place in axes:
        place.set_xticks(compared, [str(c) for c in compared])
    legend(drawn, axes)
    return drawn
