"""`n2a explain RUN`: what a policy looks at, and what its actions depend on; figures and numbers."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..config import kind
from ..data.split import split
from ..diffusion.samplers import Adaptive
from ..envs.tasks import Task
from ..errors import ConfigError
from ..evaluate.attention import attended
from ..evaluate.explain import EVERYTHING, NOISE, OLDER, Influence, Subject, influences, share_text
from ..evaluate.explain_figures import attention_bars, influence_bars, keypoint_maps, looks
from ..evaluate.figures import png
from ..evaluate.moments import Moments, of_demonstrations, of_rollouts, spread
from ..evaluate.saliency import Cover
from ..evaluate.statistics import Estimate, bootstrap_mean
from ..evaluate.views import Looking, View, views
from ..policies import AnyPolicy, SampledPolicy
from ..policies.checkpoint import Checkpoint
from ..recipes.prepare import load_episodes
from ..recipes.runs import check_run, open_policy, read_experiment, run_folder, task_of
from ..storage import atomic_write
from ..train.folder import write_json
from .checks import at_least
from .sampling import resolve
from .terminal import check_new, console, counter, note, one_thread, say

UNSEEN = 0.05
"""Below this share of everything, an observation is said to be hardly used."""


@dataclass(frozen=True)
class Explain:
    """Show what a policy looks at (keypoints, gradients, covering) and how far each observation moves its actions."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder (its newest intact checkpoint), or one checkpoint folder."""
    out: Path | None = None
    """Folder for figures and explain.json; by default RUN/explain."""
    data: Path | None = None
    """Demonstrations to look at instead of rollouts; of the run's own data only the held-out episodes are used."""
    episodes: int = 6
    """Episodes: rollouts on as many seeds, or demonstrations."""
    seed: int = 0
    """First seed of the rollouts; seed of all that is drawn at random."""
    moments: int = 36
    """Moments, spread over the episodes, at which influence is measured."""
    frames: int = 6
    """Moments of the first episode that are drawn."""
    cover: Cover = "mean"
    """What patches are covered with: grey, the picture's mean colour, or the background that all moments share."""
    patch: int | None = None
    """Side of a patch in pixels; by default an eighth of the picture's shorter side."""
    smooth: float = 0.05
    """Noise on the pixels over which gradients are averaged (SmoothGrad), as a share of black to white; 0 for none."""
    probes: int = 48
    """Gradients a picture."""
    sampler: str | None = None
    """Solver by name; by default the run's."""
    nfe: int | None = None
    """Network evaluations a plan."""
    weights: str = "ema"
    """ema, or model for the weights that are not averaged."""


@one_thread()
def main(args: Explain) -> int:
    """Run `n2a explain`."""
    check_run(args.run)
    out = args.out or run_folder(args.run) / "explain"
    _check(args, out)
    policy, checkpoint = open_policy(args.run, weights=args.weights)
    task = task_of(args.run, checkpoint)
    policy = _resampled(policy, args)
    subject, looking = Subject(policy, args.seed), Looking(args.cover, args.patch, args.smooth, args.probes)
    _check_pictures(subject, looking)
    if not subject.cameras:
        note("note: this policy observes no images: no pictures are drawn, its influences are measured all the same")
    moments = _moments(args, policy, task)
    found, seen = _measured(args, subject, moments, looking)
    estimates = {i.name: _estimate(i.moved, moments, args.seed) for i in found if i.changed}
    asked = attended(subject, moments)
    shares = {} if asked is None else {n: _estimate(x, moments, args.seed) for n, x in asked.shares.items()}
    unit = policy.schema.action.unit
    findings = _findings(estimates, list(subject.cameras), unit)
    figures = _figures(seen, estimates, policy) | ({"attention": png(attention_bars(shares))} if shares else {})
    for name, figure in figures.items():
        atomic_write(out / f"{name}.png", figure)
    body = {
        **_about(args, policy, checkpoint, moments),
        "influence": [_row(i, estimates) for i in found],
        "cross_attention": {name: e.value for name, e in shares.items()} or None,
        "cameras": {view.camera: view.numbers() for view in seen},
        "findings": findings,
    }
    write_json(out / "explain.json", body)
    Console().print(_table(found, estimates, unit))
    for line in findings:
        say(line)
    say(f"figures and explain.json: {out}")
    return 0


def _check(args: Explain, out: Path) -> None:
    """Raise `ConfigError` for numbers out of range, before anything runs."""
    if args.weights not in ("ema", "model"):
        raise ConfigError(f"--weights: expected ema or model, got {args.weights!r}")
    check_new(out)
    lowest = {"episodes": 1, "seed": 0, "moments": 2, "frames": 1, "probes": 1, "patch": 1, "nfe": 1}
    for name, low in lowest.items():
        at_least(f"--{name}", getattr(args, name), low)
    if not 0 <= args.smooth <= 1:
        raise ConfigError(f"--smooth: expected a share from 0 to 1, got {args.smooth:g}")


def _check_pictures(subject: Subject, looking: Looking) -> None:
    """Raise `ConfigError` where pictures cannot be asked about, before anything runs."""
    for name, part in subject.cameras.items():
        looking.side(name, part.camera.feature.image_size)
    policy = subject.policy
    if subject.cameras and isinstance(policy, SampledPolicy) and isinstance(policy.config.sampling.sampler, Adaptive):
        raise ConfigError("--sampler: expected one on a fixed grid to take gradients of, got adaptive: use ddim")


def _resampled(policy: AnyPolicy, args: Explain) -> AnyPolicy:
    if args.sampler is None and args.nfe is None:
        return policy
    if not isinstance(policy, SampledPolicy):
        note(f"note: a {kind(type(policy.config))} policy makes one network call a plan; sampler options do not apply")
        return policy
    own = policy.config.sampling
    sampler = resolve(args.sampler or own.sampler, nfe=args.nfe)
    return policy.resampled(replace(own, sampler=sampler, nfe=own.nfe if args.nfe is None else args.nfe))


def _moments(args: Explain, policy: AnyPolicy, task: Task) -> Moments:
    each = max(math.ceil(args.moments / args.episodes), args.frames)
    if args.data is None:
        seeds = range(args.seed, args.seed + args.episodes)
        with counter() as progress:
            bar = progress.add_task("rollouts", total=args.episodes)
            return of_rollouts(task, policy, seeds, each=each, on_progress=lambda n: progress.update(bar, completed=n))
    experiment = read_experiment(run_folder(args.run))
    with console.status(f"reading {escape(str(args.data))}"):
        episodes = load_episodes(task, replace(experiment.data, path=str(args.data)))
    own = experiment.data.path
    if own is not None and Path(own).resolve() == args.data.resolve():
        episodes = split(episodes, held_out=experiment.data.held_out, seed=experiment.seed)[1]
        note(f"note: the policy was trained on this data: only its {len(episodes)} held-out episodes are used")
    return of_demonstrations(episodes, policy, count=args.episodes, each=each)


def _measured(
    args: Explain, subject: Subject, moments: Moments, looking: Looking
) -> tuple[list[Influence], list[View]]:
    own = [k for k, episode in enumerate(moments.episodes) if episode == moments.episodes[0]]
    rows = [own[k] for k in spread(len(own), args.frames)]
    with counter() as progress:
        bar = progress.add_task("influence", total=None)

        def begin(what: str, done: int, total: int) -> None:
            if done == 0:
                progress.reset(bar, total=total, description=escape(what))
                if not console.is_terminal:  # where a bar is not seen before its end
                    note(f"{what}: {total} pieces of work")
            progress.update(bar, completed=done)

        found = influences(subject, moments, on_progress=begin)
        seen = views(subject, moments, rows, looking, on_progress=begin) if subject.cameras else []
        progress.update(bar, completed=progress.tasks[0].total)
        return found, seen


def _figures(seen: Sequence[View], estimates: Mapping[str, Estimate], policy: AnyPolicy) -> dict[str, bytes]:
    """Return PNG figures by name: the influences, and of each image what is looked at."""
    unit, hz = policy.schema.action.unit, policy.spec.control_hz
    found = {"influence": png(influence_bars(estimates, unit=unit, whole=EVERYTHING, noise=NOISE))}
    for view in seen:
        stem = "camera-" + re.sub(r"[^\w.-]", "_", view.camera)
        found[stem] = png(looks(view, unit=unit, control_hz=hz))
        if view.keypoints is not None:
            found[f"{stem}-keypoints"] = png(keypoint_maps(view, view.keypoints, unit=unit, control_hz=hz))
    return found


def _about(args: Explain, policy: AnyPolicy, checkpoint: Checkpoint, moments: Moments) -> dict[str, Any]:
    return {
        "run": str(args.run),
        "task": checkpoint.deployed.task,
        "policy": kind(type(policy.config)),
        "step": checkpoint.step,
        "weights": args.weights,
        "action_unit": policy.schema.action.unit,
        "executed_ticks": policy.spec.stride,
        "source": "rollouts" if args.data is None else str(args.data),
        "episodes": sorted(set(moments.episodes)),
        "moments": len(moments),
        "seed": args.seed,
    }


def _estimate(values: Float[torch.Tensor, "N"], moments: Moments, seed: int) -> Estimate:
    """Return the mean over episodes, which do not depend on each other as moments of one do."""
    episodes = torch.tensor(moments.episodes)
    means = [float(values[episodes == k].mean()) for k in sorted(set(moments.episodes))]
    return bootstrap_mean(means, seed, bounds=(0.0, math.inf))


def _row(found: Influence, estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Return an influence as JSON; null for what was the same in all moments, and where one episode has no interval."""
    estimate = estimates.get(found.name)
    numbers = [None] * 3 if estimate is None else [estimate.value, estimate.low, estimate.high]
    value, low, high = (x if x is not None and math.isfinite(x) else None for x in numbers)
    return {
        "name": found.name,
        "changed_to": found.change,
        "share_changed": found.changed,
        "moved": value,
        "low": low if high is not None else None,
        "high": high,
        "share_of_everything": None if estimate is None else _share(estimate, estimates),
    }


def _share(estimate: Estimate, estimates: Mapping[str, Estimate]) -> float | None:
    whole = estimates[EVERYTHING].value
    return estimate.value / whole if whole else None


def _findings(estimates: Mapping[str, Estimate], cameras: Sequence[str], unit: str) -> list[str]:
    """Return what the numbers say in words, the warnings among them."""
    whole = estimates[EVERYTHING]
    if not whole.value:
        return ["The executed actions do not depend on the observation at all."]
    parts = {name: e for name, e in estimates.items() if name not in (EVERYTHING, NOISE, OLDER)}
    found = [
        f"The policy hardly uses {name!r}: exchanging it moves the executed actions by {estimate.value:.3g} {unit}, "
        f"{100 * estimate.value / whole.value:.2g} % of what exchanging everything does."
        for name, estimate in parts.items()
        if estimate.value < UNSEEN * whole.value
    ]
    past = estimates[OLDER].value if OLDER in estimates else 0.0
    found += [
        f"The older steps move the executed actions more than {name!r} does: the policy may continue its own motion "
        "rather than look; compare with policy.spec.obs_steps=1."
        for name in cameras
        if name in parts and past > parts[name].value
    ]
    if estimates[NOISE].value > whole.value:
        found.append("The sampler's noise moves the executed actions more than all that is observed.")
    return found or ["No part of the observation that varies is ignored."]


def _table(found: Sequence[Influence], estimates: Mapping[str, Estimate], unit: str) -> Table:
    table = Table(title="How far the executed actions move", title_justify="left")
    table.add_column("changed")
    table.add_column("to")
    table.add_column(f"moved ({unit or 'action units'}), 95 % interval", justify="right")
    table.add_column("of everything", justify="right")
    for influence in found:
        estimate = estimates.get(influence.name)
        if estimate is None:
            table.add_row(escape(influence.name), influence.change, "the same in all moments", "-")
            continue
        interval = f" [{estimate.low:.3g}, {estimate.high:.3g}]" if math.isfinite(estimate.high) else " (one episode)"
        shown = share_text(estimate.value, estimates[EVERYTHING].value) or "-"
        table.add_row(escape(influence.name), influence.change, f"{estimate.value:.3g}{interval}", shown)
    return table
