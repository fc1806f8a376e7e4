"""Networks of about the same size on the same demonstrations and steps: what each costs, and regression beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from matplotlib.figure import Figure

from ..evaluate.latency import Latency, measure_latency
from ..machine import hardware
from ..nets import AnyNetConfig, DiTConfig, FusionMLPConfig, TransformerConfig, UNet1dConfig
from ..nets.counts import parameters
from ..policies import DiffusionPolicy, RegressionPolicy
from ..seeds import derive
from .plots import forest, legend, panels, plain_ticks
from .policies import (
    COUNTED,
    DIFFUSION,
    JERK,
    KINDS,
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
    strangeness,
    taught,
    trained,
)
from .study import Findings, Progress, Settings, Spread, bracketed, by_chance, median, paragraphs, points

NETS: Mapping[str, AnyNetConfig] = {
    "mlp": NET,
    "unet1d": UNet1dConfig(widths=(32, 64), time_dim=32),
    "transformer": TransformerConfig(width=64, layers=2, time_dim=64),
    "dit": DiTConfig(width=64, layers=2, time_dim=64),
    "fusion": FusionMLPConfig(widths=(384, 320, 128), time_dim=64),
    "mlp, 8 x steps": NET,
}
BASE, LONGER, SLOWEST = "mlp", "mlp, 8 x steps", "unet1d"
LONGER_BY = 8
"""The slowest network takes about so many times the mlp's time for a step."""
STRANGE = "energy distance to demonstrations"
MEASURES = (SUCCESS, STRANGE, JERK)
RATE = "training samples a processor second"
P50, P99 = "plan p50 (ms)", "plan p99 (ms)"
COLUMNS = (
    "network",
    "policy",
    "parameters",
    "multiply-adds a call",
    *heads(MEASURES, BASE),
    RATE,
    P50,
    P99,
)


@dataclass(frozen=True, eq=False)
class Built:
    """One network with one kind of policy."""

    size: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Parameters, and multiply-adds a call of the network; one a training."""
    arm: Arm = field(default_factory=Arm)
    rate: list[float] = field(default_factory=list[float])
    """Training windows a second of processor time, one thread; one a training."""
    latency: list[Latency] = field(default_factory=list[Latency])
    """Of one plan, batch 1; one a training."""

    @property
    def speed(self) -> Spread:
        """Training windows a second of processor time, over trainings."""
        return median(self.rate)

    def milliseconds(self, measure: str) -> Spread:
        """Return a percentile, `P50` or `P99`, over trainings."""
        return median([found.total.p50 if measure == P50 else found.total.p99 for found in self.latency])


Arms = Mapping[tuple[str, str], Built]


def run(settings: Settings, progress: Progress) -> Findings:
    """Return size, cost and quality of every network, for diffusion and for regression."""
    budget = settings.pick(
        Budget(demonstrations=150, steps=600, episodes=200, seeds=3),
        quick=Budget(demonstrations=60, steps=80, episodes=40, seeds=3),
        tiny=Budget(demonstrations=6, steps=2, episodes=2, seeds=2),
    )
    windows, plans = settings.pick((500, 100), quick=(200, 20), tiny=(10, 1))
    arms: Arms = {(net, kind): Built() for net in NETS for kind in KINDS}
    for k in range(budget.seeds):
        seed = derive(settings.seed, "backbones", k)
        demonstrations = taught(budget, seed).episodes
        for j, ((net, kind), built) in enumerate(arms.items()):
            steps = budget.steps * _times(net)
            config = KINDS[kind](spec=SPEC, net=NETS[net])
            found = trained(config, demonstrations, budget=replace(budget, steps=steps), seed=seed)
            policy = found.policy
            assert isinstance(policy, DiffusionPolicy | RegressionPolicy), "both kinds have one network"
            results = driven(policy, budget.episodes)
            built.arm.add(results, further={STRANGE: strangeness(found, windows=windows)})
            built.size.append((parameters(policy), policy.backbone.multiply_adds()[1]))
            built.rate.append(steps * found.job.training.batch_size / found.seconds)
            built.latency.append(measure_latency(policy, beginning(results), calls=plans))
            progress(k * len(arms) + j + 1, budget.seeds * len(arms))
    return findings(arms)


def _times(net: str) -> int:
    """Return how many times the others' steps it is trained for."""
    return LONGER_BY if net == LONGER else 1


def findings(arms: Arms) -> Findings:
    """Return table, figure and paragraph."""
    rows = [
        (
            net,
            kind,
            *built.size[0],
            *cells(built.arm, arms[BASE, kind].arm, MEASURES),
            built.speed,
            *(built.milliseconds(p) for p in (P50, P99)),
        )
        for (net, kind), built in arms.items()
    ]
    return Findings(COLUMNS, rows, _figure(arms), paragraph(arms), COUNTED)


def paragraph(arms: Arms) -> str:
    """Return what the numbers show."""
    mine = {net: arms[net, DIFFUSION].arm for net in NETS}
    short = {net: arm for net, arm in mine.items() if net != LONGER}
    levels = {net: mine[net].success for net in (BASE, LONGER)}
    level, longer = (f"{x.value:.1f} % [{x.low:.1f}, {x.high:.1f}]" for x in levels.values())
    claims = [
        against(short, BASE, measure=SUCCESS),
        against(short, BASE, measure=STRANGE, digits=4),
        against(short, BASE, measure=JERK),
    ]
    ratio = LONGER_BY * arms[SLOWEST, DIFFUSION].speed.value / arms[LONGER, DIFFUSION].speed.value
    first = f"Diffusion on {BASE} succeeds in {level} of the episodes. Against it, after as many steps:"
    second = (
        f"{LONGER}, {ratio:.1f} times the processor time of {SLOWEST}, succeeds in {longer}; "
        f"against it, {against(mine, LONGER, measure=SUCCESS)}."
    )
    beside = [
        f"on {net}, {against({kind: arms[net, kind].arm for kind in KINDS}, DIFFUSION, measure=SUCCESS)}"
        for net in NETS
    ]
    cost = [
        f"{net} {arms[net, DIFFUSION].size[0][0]:,} parameters, {arms[net, DIFFUSION].size[0][1]:,} multiply-adds a "
        f"call, {bracketed(arms[net, DIFFUSION].speed, digits=0)} samples/s, {_plan(arms[net, DIFFUSION])}"
        for net in NETS
    ]
    third = (
        f"On {hardware()}, one thread, diffusion (training by seconds of processor time; one plan p50 / p99; "
        "median over trainings [least, most]):"
    )
    verdicts = (len(short) - 1) * len(MEASURES) + len(NETS) - 1 + len(NETS)
    regression = points("Regression against diffusion:", beside)
    return paragraphs(points(first, claims), second, regression, points(third, cost), by_chance(verdicts))


def _plan(built: Built) -> str:
    return f"{bracketed(built.milliseconds(P50))} / {bracketed(built.milliseconds(P99))} ms"


def _figure(arms: Arms) -> Figure:
    titles = [SUCCESS, STRANGE, "training samples / processor s", P50]
    figure, axes = panels(titles, columns=4, width=3.2, height=3.2)
    for place in axes[1:]:
        place.set_xscale("log")
    for index, kind in enumerate(KINDS):
        mine = [arms[net, kind] for net in NETS]
        shown = [
            [built.arm.mean(SUCCESS) for built in mine],
            [built.arm.mean(STRANGE) for built in mine],
            [built.speed for built in mine],
            [built.milliseconds(P50) for built in mine],
        ]
        for place, estimates in zip(axes, shown, strict=True):
            forest(place, list(NETS), estimates, label=kind, index=index, of=len(KINDS))
    for place in axes[1:]:
        place.tick_params(labelleft=False)
    plain_ticks(axes[1:])
    legend(figure, axes)
    return figure
