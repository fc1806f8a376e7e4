"""How strongly a policy follows what it is told, by the weight of guidance, when a fifth of its data is mislabelled."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from ..data.episodes import ACTION, Episodes
from ..encoders.fuse import EncoderConfig
from ..encoders.text import HashedNGramsConfig
from ..envs.two_routes import GOAL, GOAL_RADIUS
from ..envs.two_routes_text import INSTRUCTION, ROUTES
from ..evaluate.figures import INK
from ..evaluate.rollouts import EpisodeResult
from ..evaluate.setting import setting_for
from ..evaluate.statistics import Estimate
from ..policies import DiffusionConfig, DiffusionPolicy, Sampling
from ..policies.diffusion import Guided
from ..seeds import derive
from .plots import legend, line, panels
from .policies import NET, SPEC, Arm, Budget, against, driven, taught, trained
from .study import Findings, Progress, Settings, by_chance, listing, paragraphs, points

TASK = "two_routes_text"
WEIGHTS = (0.0, 1.0, 3.0, 7.0, 15.0)
CLIPS: Mapping[str, float | None] = {"clipped": 1.0, "not clipped": None}
"""Bound on the estimated actions, in units of the demonstrated range."""
WRONG = 0.2
"""Share of the demonstrations told one side that went the other."""
EITHER = "either way"
TOLD = [sentence for sentence, route in ROUTES.items() if route is not None]
ENOUGH = 98.0
"""Share of told routes (%) that counts as obedience."""
FOLLOWED = "told route taken (%)"
BOTH = f'entropy of routes, "{EITHER}" (bits)'
REACHED = "goal reached (%)"
OUTSIDE = "speed out of range (cm/s)"
"""By how much the commanded speeds lie outside the range of 99 % of the demonstrated ones, in the mean."""
MEASURES = (FOLLOWED, BOTH, REACHED, OUTSIDE)
DIGITS = {FOLLOWED: 1, BOTH: 2, REACHED: 1, OUTSIDE: 2}
COLUMNS = (
    "actions",
    "w",
    "told route by sharpened odds (%)",
    *(f'told route taken, "{sentence}" (%)' for sentence in TOLD),
    *MEASURES,
    *(f"{name}, less that of w = 0" for name in MEASURES),
)
Arms = Mapping[str, Mapping[float, Arm]]
"""By clipping and weight."""


def run(settings: Settings, progress: Progress) -> Findings:
    """Return obedience, diversity, success and strangeness by weight, with and without clipping."""
    budget = settings.pick(
        Budget(demonstrations=300, steps=3000, episodes=100, seeds=5),
        quick=Budget(demonstrations=150, steps=1800, episodes=25, seeds=3),
        tiny=Budget(demonstrations=9, steps=2, episodes=1, seeds=2),
    )
    config = DiffusionConfig(
        spec=SPEC,
        net=NET,
        encoder=EncoderConfig(text=HashedNGramsConfig(), modality_dropout=0.1, droppable=(INSTRUCTION.name,)),
    )
    arms: Arms = {clip: {w: Arm() for w in WEIGHTS} for clip in CLIPS}
    jobs = [(clip, w) for clip in CLIPS for w in WEIGHTS]
    for k in range(budget.seeds):
        seed = derive(settings.seed, "guidance-control", k)
        episodes = mislabelled(taught(budget, seed, task=TASK).episodes, WRONG, seed=seed)
        policy = trained(config, episodes, budget=budget, seed=seed, task=TASK).policy
        assert isinstance(policy, DiffusionPolicy), "a diffusion policy was trained"
        speeds = np.linalg.norm(episodes.arrays[ACTION], axis=1)
        for j, (clip, w) in enumerate(jobs):
            guided = policy.resampled(guiding(config.sampling, w, clip=CLIPS[clip]))
            said = {s: driven(guided, budget.episodes, task=TASK, setting=setting_for(guided, say=s)) for s in ROUTES}
            results = [result for part in said.values() for result in part]
            arms[clip][w].add(results, further=measured(said, speeds))
            progress(k * len(jobs) + j + 1, budget.seeds * len(jobs))
    return findings(arms)


def guiding(sampling: Sampling, w: float, *, clip: float | None) -> Sampling:
    """Return `sampling` guided by the instruction with the weight `w`."""
    return replace(sampling, clip=clip, guided=(Guided(INSTRUCTION.name, w),))


def mislabelled(episodes: Episodes, share: float, *, seed: int) -> Episodes:
    """Return `episodes` in which a `share` of those told a side are said to have been told the other one."""
    rng = np.random.default_rng(derive(seed, "mislabelled"))
    told = episodes.arrays[INSTRUCTION.name].copy()
    sides = [INSTRUCTION.sentences.index(sentence) for sentence in TOLD]
    for k in range(len(episodes)):
        start, end = episodes.bounds(k)
        if int(told[start, 0]) in sides and rng.random() < share:
            told[start:end] = sum(sides) - told[start:end]
    return Episodes({**episodes.arrays, INSTRUCTION.name: told}, episodes.ends, episodes.schema)


def sharpened(w: float, *, wrong: float = WRONG) -> float:
    """Return the share of the told route if guidance raised its odds to the power 1 + w.

    The guided density is p(a | told)^(1 + w) / p(a)^w, and without words both routes are alike.
    """
    odds = ((1 - wrong) / wrong) ** (1 + w)
    return odds / (1 + odds)


def measured(said: Mapping[str, Sequence[EpisodeResult]], speeds: np.ndarray) -> dict[str, float]:
    """Return the measures of one policy: its episodes by what they were told, against demonstrated speeds (m/s)."""
    followed = {s: 100 * float(np.mean([r.route == ROUTES[s] for r in said[s]])) for s in TOLD}
    either = [sum(r.route == side for r in said[EITHER]) for side in ("left", "right")]
    everything = [result for part in said.values() for result in part]
    usual = float(np.quantile(speeds, 0.005)), float(np.quantile(speeds, 0.995))
    return {
        **{_of(sentence): share for sentence, share in followed.items()},
        FOLLOWED: float(np.mean(list(followed.values()))),
        BOTH: float(stats.entropy(either, base=2)) if sum(either) else 0.0,
        REACHED: 100 * float(np.mean([_at_goal(result) for result in everything])),
        OUTSIDE: 100 * float(np.mean([_outside(result, *usual) for result in everything])),
    }


def _of(sentence: str) -> str:
    """Return the name of the measure of one sentence."""
    return f'told route taken, "{sentence}" (%)'


def _at_goal(result: EpisodeResult) -> bool:
    """Return whether an episode ended at the goal, by whatever route."""
    assert result.trace is not None, "a rollout keeps its trace"
    way = result.trace.observations["position"][-1] - GOAL
    return float(np.linalg.norm(way)) <= GOAL_RADIUS * (1 + 1e-4)


def _outside(result: EpisodeResult, low: float, high: float) -> float:
    """Return by how much (m/s) the commanded speeds of an episode lie outside a range, in the mean."""
    assert result.trace is not None, "a rollout keeps its trace"
    speeds = np.linalg.norm(result.trace.actions, axis=1)
    return float(np.mean(np.maximum(low - speeds, 0) + np.maximum(speeds - high, 0)))


def findings(arms: Arms) -> Findings:
    """Return table, figure and paragraph."""
    rows = [
        (
            clip,
            w,
            100 * sharpened(w),
            *(arm.mean(_of(sentence)) for sentence in TOLD),
            *(arm.mean(m) for m in MEASURES),
            *(None if w == WEIGHTS[0] else arm.less(mine[WEIGHTS[0]], m) for m in MEASURES),
        )
        for clip, mine in arms.items()
        for w, arm in mine.items()
    ]
    return Findings(COLUMNS, rows, _figure(arms), paragraph(arms))


def paragraph(arms: Arms) -> str:
    """Return what the numbers show."""
    usual = next(iter(CLIPS))
    mine = arms[usual]
    first = mine[WEIGHTS[0]].mean(FOLLOWED)
    agree = [w for w, arm in mine.items() if _holds(arm.mean(FOLLOWED), 100 * sharpened(w))]
    unguided = (
        f"Without guidance it takes the told route in {first.value:.1f} % [{first.low:.1f}, {first.high:.1f}] of the "
        f"episodes. {100 * WRONG:.0f} % of the demonstrations that were told a side went the other way."
    )
    predicted = (
        "Were guidance to raise the odds of the told route to the power 1 + w, the share would be that of the table: "
        f"the interval holds it at {len(agree)} of {len(WEIGHTS)} weights"
    )
    at = f" (w = {listing([f'{w:g}' for w in agree])})" if agree else ""
    ranged = "A speed is out of range by as much as it lies outside that of 99 % of the demonstrated ones."
    sentences = [f"{_enough(mine)} {unguided}", f"{predicted}{at}. {ranged}"]
    for clip, by_weight in arms.items():
        named = {f"w = {w:g}": arm for w, arm in by_weight.items()}
        claims = [against(named, f"w = {WEIGHTS[0]:g}", measure=m, digits=DIGITS[m]) for m in MEASURES]
        sentences.append(points(f"Against w = {WEIGHTS[0]:g}, actions {clip}:", claims))
    last = {clip: by_weight[WEIGHTS[-1]] for clip, by_weight in arms.items()}
    claims = [against(last, usual, measure=m, digits=DIGITS[m]) for m in (REACHED, OUTSIDE)]
    sentences.append(points(f"At w = {WEIGHTS[-1]:g}, against actions {usual}:", claims))
    verdicts = len(CLIPS) * (len(WEIGHTS) - 1) * len(MEASURES) + len(claims)
    return paragraphs(*sentences, by_chance(verdicts))


def _enough(mine: Mapping[float, Arm]) -> str:
    """Return from which weight on the told route is taken almost always."""
    means = {w: arm.mean(FOLLOWED).value for w, arm in mine.items()}
    enough = [w for w, share in means.items() if share >= ENOUGH]
    if not enough:
        best = max(means, key=lambda w: means[w])
        return (
            f"With every weight the policy takes the told route in less than {ENOUGH:g} % of the episodes; the most is "
            f"{means[best]:.1f} % at w = {best:g}."
        )
    return (
        f"The smallest weight with which the policy takes the told route in at least {ENOUGH:g} % of the episodes is "
        f"w = {enough[0]:g} ({means[enough[0]]:.1f} %)."
    )


def _holds(estimate: Estimate, value: float) -> bool:
    return estimate.low <= value <= estimate.high


def _figure(arms: Arms) -> Figure:
    figure, axes = panels(MEASURES, columns=4, width=3.4, height=3.0)
    # Weights double or so: one apart each.
    places = range(len(WEIGHTS))
    axes[0].plot(places, [100 * sharpened(w) for w in WEIGHTS], color=INK, linestyle=":", label="sharpened odds")
    for place, measure in zip(axes, MEASURES, strict=True):
        place.set_xlabel("w")
        place.set_xticks(places, [f"{w:g}" for w in WEIGHTS])
        for index, (clip, mine) in enumerate(arms.items()):
            estimates = [arm.mean(measure) for arm in mine.values()]
            line(place, places, estimates, label=f"actions {clip}", index=index, dashed=index > 0)
    legend(figure, axes)
    return figure
