"""How many denoising steps a policy needs: success, smoothness and likeness to demonstrations against the time."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from matplotlib.figure import Figure

from ..diffusion.samplers import DDIM, DDPM, AnySampler
from ..evaluate.latency import Latency, measure_latency
from ..evaluate.statistics import Estimate
from ..machine import hardware
from ..policies import DiffusionConfig, DiffusionPolicy, Sampling
from ..seeds import derive
from .plots import legend, line, panels, plain_ticks
from .policies import (
    COUNTED,
    JERK,
    NET,
    OVERALL,
    SPEC,
    SUCCESS,
    Arm,
    Budget,
    against,
    beginning,
    driven,
    strangeness,
    taught,
    trained,
)
from .study import Findings, Progress, Settings, by_chance, mean, paragraphs, points

CALLS = (5, 10, 20, 50, 100)
SAMPLERS: Mapping[str, AnySampler] = {"ddim": DDIM(), "ddpm": DDPM()}
STRANGE = "energy distance to demonstrations"
MEASURES = (SUCCESS, STRANGE, JERK)
P50, P99 = "p50 (ms)", "p99 (ms)"
COLUMNS = (
    "sampler",
    "denoising steps",
    OVERALL,
    *MEASURES,
    *(f"{name}, less that of the most steps" for name in MEASURES),
    P50,
    P99,
)


@dataclass(frozen=True, eq=False)
class Steps:
    """One sampler with so many network calls."""

    arm: Arm = field(default_factory=Arm)
    latency: list[Latency] = field(default_factory=list[Latency])
    """Of one plan, batch 1; one a training."""

    def milliseconds(self, measure: str) -> Estimate:
        """Return the mean over trainings of a percentile, `P50` or `P99`."""
        return mean([found.total.p50 if measure == P50 else found.total.p99 for found in self.latency])


Arms = Mapping[tuple[str, int], Steps]


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
    most = max(counts(arms))
    rows = [
        (
            name,
            calls,
            steps.arm.success,
            *(steps.arm.mean(m) for m in MEASURES),
            *(None if calls == most else steps.arm.less(arms[name, most].arm, m) for m in MEASURES),
            *(steps.milliseconds(p) for p in (P50, P99)),
        )
        for (name, calls), steps in arms.items()
    ]
    return Findings(COLUMNS, rows, _figure(arms), paragraph(arms), COUNTED)


def counts(arms: Arms) -> list[int]:
    """Return the numbers of denoising steps that were compared."""
    return list(dict.fromkeys(calls for _, calls in arms))


def paragraph(arms: Arms) -> str:
    """Return what the numbers show."""
    sentences: list[str] = []
    base = f"{max(counts(arms))} steps"
    for name in SAMPLERS:
        mine = {f"{calls} steps": arms[name, calls].arm for calls in counts(arms)}
        level = mine[base].success
        claims = [
            against(mine, base, measure=SUCCESS),
            against(mine, base, measure=STRANGE, digits=4),
            against(mine, base, measure=JERK),
        ]
        reached = (
            f"With {base} of {name} the policies succeed in {level.value:.1f} % [{level.low:.1f}, {level.high:.1f}] of "
            "the episodes. Against them:"
        )
        sentences.append(points(reached, claims))
    first, second = SAMPLERS
    both = {f"{calls} steps": {name: arms[name, calls].arm for name in SAMPLERS} for calls in counts(arms)}
    claims = [f"{words}: {against(pair, first, measure=SUCCESS)}" for words, pair in both.items()]
    sentences.append(points(f"{second} against {first}:", claims))
    times = [f"{calls} steps {_milliseconds(arms[first, calls])}" for calls in counts(arms)]
    sentences.append(f"On {hardware()}, one thread, batch 1, a plan by {first} takes (p50 / p99) {', '.join(times)}.")
    verdicts = len(SAMPLERS) * (len(counts(arms)) - 1) * len(MEASURES) + len(counts(arms))
    return paragraphs(*sentences, by_chance(verdicts))


def _milliseconds(steps: Steps) -> str:
    return f"{steps.milliseconds(P50).value:.1f} / {steps.milliseconds(P99).value:.1f} ms"


def _figure(arms: Arms) -> Figure:
    compared = counts(arms)
    figure, axes = panels([*MEASURES, "time of a plan (ms)"], columns=4, width=3.2)
    for place in axes:
        place.set_xscale("log")
        place.set_xlabel("denoising steps")
    axes[-1].set_yscale("log")
    for index, name in enumerate(SAMPLERS):
        mine = [arms[name, calls] for calls in compared]
        for place, measure in zip(axes, MEASURES, strict=False):
            line(place, compared, [steps.arm.mean(measure) for steps in mine], label=name, index=index)
        for percentile, label in ((P50, name), (P99, f"{name}, 99th percentile")):
            times = [steps.milliseconds(percentile) for steps in mine]
            line(axes[-1], compared, times, label=label, index=index, dashed=percentile == P99)
    plain_ticks(axes)
    for place in axes:
        place.set_xticks(compared, [str(c) for c in compared])
    legend(figure, axes)
    return figure
