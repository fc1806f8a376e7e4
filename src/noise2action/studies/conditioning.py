"""How a network is told about the observation: further inputs, FiLM, adaLN or attention, on one backbone at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from matplotlib.figure import Figure

from ..encoders.fuse import EncoderConfig
from ..encoders.text import HashedNGramsConfig
from ..envs.two_routes_text import ROUTES
from ..evaluate.latency import Latency, measure_latency
from ..evaluate.statistics import Estimate
from ..machine import hardware
from ..nets import AnyNetConfig, TransformerConfig, UNet1dConfig
from ..nets.conditioning import Conditioning
from ..nets.counts import parameters
from ..policies import DiffusionConfig
from ..seeds import derive
from .plots import forest, legend, panels, plain_ticks
from .policies import (
    COUNTED,
    NET,
    OVERALL,
    SPEC,
    SUCCESS,
    Arm,
    Budget,
    against,
    beginning,
    deviation,
    driven,
    taught,
    trained,
)
from .study import Findings, Progress, Settings, Spread, bracketed, by_chance, listing, median, paragraphs, points

TASK = "two_routes_text"
BASE: Conditioning = "concat"
WAYS: Mapping[str, tuple[AnyNetConfig, tuple[Conditioning, ...]]] = {
    "mlp": (NET, ("concat", "film", "adaln")),
    "unet1d": (UNet1dConfig(widths=(32, 64), time_dim=32), ("concat", "film", "cross_attention")),
    "transformer": (TransformerConfig(width=64, layers=2, time_dim=64), ("concat", "cross_attention", "adaln")),
}
"""Each backbone, and what it offers."""
TOKENS = 32
"""Width of the tokens of a network that attends; all others are given the same as one vector."""
FOLLOWED, ERROR = "told route taken (%)", "action error (m/s)"
MEASURES = (SUCCESS, FOLLOWED, ERROR)
DIGITS = {SUCCESS: 1, FOLLOWED: 1, ERROR: 4}
P50 = "plan p50 (ms)"
COLUMNS = (
    "network",
    "conditioning",
    "parameters",
    OVERALL,
    *MEASURES,
    *(f"{name}, less that of {BASE}" for name in MEASURES),
    P50,
)


@dataclass(frozen=True, eq=False)
class Told:
    """One backbone with one way of being told."""

    config: DiffusionConfig
    arm: Arm = field(default_factory=Arm)
    size: list[int] = field(default_factory=list[int])
    """Parameters, encoder included; one a training."""
    latency: list[Latency] = field(default_factory=list[Latency])
    """Of one plan, batch 1; one a training."""

    @property
    def p50(self) -> Spread:
        """Median time of a plan (ms), over trainings."""
        return median([found.total.p50 for found in self.latency])


Arms = Mapping[str, Mapping[Conditioning, Told]]
"""By backbone and conditioning."""


def policy(net: AnyNetConfig, conditioning: Conditioning) -> DiffusionConfig:
    """Return the policy of `net` with another way of being told."""
    attends = conditioning == "cross_attention" or (isinstance(net, TransformerConfig) and conditioning == "concat")
    encoder = EncoderConfig(text=HashedNGramsConfig(), token_dim=TOKENS if attends else None)
    # Every network of WAYS has the field.
    told = replace(net, conditioning=conditioning)  # pyright: ignore[reportCallIssue]
    return DiffusionConfig(spec=SPEC, net=told, encoder=encoder)


def run(settings: Settings, progress: Progress) -> Findings:
    """Return success, obedience, error, size and time of a plan for each backbone and conditioning."""
    budget = settings.pick(
        Budget(demonstrations=300, steps=2000, episodes=300, seeds=3),
        quick=Budget(demonstrations=60, steps=60, episodes=20, seeds=3),
        tiny=Budget(demonstrations=6, steps=2, episodes=1, seeds=2),
    )
    windows, plans = settings.pick((500, 100), quick=(100, 10), tiny=(10, 1))
    arms: Arms = {name: {way: Told(policy(net, way)) for way in ways} for name, (net, ways) in WAYS.items()}
    every = [told for ways in arms.values() for told in ways.values()]
    for k in range(budget.seeds):
        seed = derive(settings.seed, "conditioning", k)
        demonstrations = taught(budget, seed, task=TASK).episodes
        for j, told in enumerate(every):
            found = trained(told.config, demonstrations, budget=budget, seed=seed, task=TASK)
            results = driven(found.policy, budget.episodes, task=TASK)
            # What leaves the side open says nothing about obedience.
            sided = [result for result in results if ROUTES[result.instruction or ""] is not None]
            followed = sum(result.route == ROUTES[result.instruction or ""] for result in sided)
            further = {
                FOLLOWED: 100 * followed / max(1, len(sided)),
                ERROR: deviation(found, windows=windows),
            }
            told.arm.add(results, further=further)
            told.size.append(parameters(found.policy))
            told.latency.append(measure_latency(found.policy, beginning(results), calls=plans))
            progress(k * len(every) + j + 1, budget.seeds * len(every))
    return findings(arms)


def findings(arms: Arms) -> Findings:
    """Return table, figure and paragraph."""
    rows = [
        (
            name,
            way,
            told.size[0],
            told.arm.success,
            *(told.arm.mean(m) for m in MEASURES),
            *(None if way == BASE else told.arm.less(ways[BASE].arm, m) for m in MEASURES),
            told.p50,
        )
        for name, ways in arms.items()
        for way, told in ways.items()
    ]
    return Findings(COLUMNS, rows, _figure(arms), paragraph(arms), COUNTED)


def paragraph(arms: Arms) -> str:
    """Return what the numbers show."""
    every = {f"{name} by {way}": told for name, ways in arms.items() for way, told in ways.items()}
    best = max(every, key=lambda name: every[name].arm.success.value)
    ties = [n for n, told in every.items() if n != best and told.arm.success.high >= every[best].arm.success.low]
    top = every[best].arm.success
    tied = f"; the intervals of {listing(ties)} meet its" if ties else ""
    first = (
        f"{best} succeeds most often over all trainings, in {top.value:.1f} % [{top.low:.1f}, {top.high:.1f}] of "
        f"{top.n} episodes{tied}."
    )
    compared = [_compared(name, ways) for name, ways in arms.items()]
    cost = [f"{name} {told.size[0]:,} and {bracketed(told.p50)} ms" for name, told in every.items()]
    last = points(
        f"Parameters, and the median time of a plan on one thread of {hardware()}, over trainings [least, most]:", cost
    )
    verdicts = sum(len(ways) - 1 for ways in arms.values()) * len(MEASURES)
    return paragraphs(first, *compared, last, by_chance(verdicts))


def _compared(name: str, ways: Mapping[Conditioning, Told]) -> str:
    """Return what one backbone gains by each conditioning."""
    named: Mapping[str, Arm] = {way: told.arm for way, told in ways.items()}
    level = named[BASE].success
    claims = [against(named, BASE, measure=m, digits=DIGITS[m]) for m in MEASURES]
    return points(
        f"On {name}, {BASE} succeeds in {level.value:.1f} % [{level.low:.1f}, {level.high:.1f}] of the episodes. "
        "Against it:",
        claims,
    )


def _figure(arms: Arms) -> Figure:
    figure, axes = panels([*MEASURES, P50], columns=4, width=3.2, height=3.0)
    order: list[Conditioning] = list(dict.fromkeys(way for ways in arms.values() for way in ways))
    axes[-1].set_xscale("log")
    unknown = Estimate(float("nan"), float("nan"), float("nan"), 0)
    for index, way in enumerate(order):
        mine = [ways.get(way) for ways in arms.values()]
        for place, measure in zip(axes, MEASURES, strict=False):
            shown = [unknown if told is None else told.arm.mean(measure) for told in mine]
            forest(place, list(arms), shown, label=way, index=index, of=len(order))
        times = [unknown if told is None else told.p50 for told in mine]
        forest(axes[-1], list(arms), times, label=way, index=index, of=len(order))
    for place in axes[1:]:
        place.tick_params(labelleft=False)
    plain_ticks(axes[-1:])
    legend(figure, axes)
    return figure
