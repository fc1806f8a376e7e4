"""`n2a eval RUN`: rollouts on fresh seeds, with intervals."""

import hashlib
import math
import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from ..config import kind
from ..control.ensemble import TemporalEnsemble
from ..control.executor import Executor
from ..diffusion.samplers import Adaptive
from ..envs.tasks import Task
from ..errors import ConfigError, MissingExtraError
from ..evaluate.latency import measured
from ..evaluate.result import About, Evaluation, compare, sampler_name
from ..evaluate.rollouts import EpisodeResult, rollout
from ..evaluate.setting import AS_DRAWN, Setting, setting_for
from ..evaluate.tables import comparison_table, table, told_table
from ..evaluate.video import write_mp4
from ..evaluate.workers import rollout_in_processes
from ..policies import AnyPolicy, Guided, SampledPolicy, Sampling
from ..recipes.experiment import EvaluateConfig
from ..recipes.runs import load_policy, open_policy, read_experiment, routes_of, run_folder, task_of
from .checks import at_least
from .sampling import grid_named, resolve
from .terminal import check_file, counter, note, one_thread


@dataclass(frozen=True)
class Eval:
    """Evaluate a run in simulation: success with Wilson intervals, score, smoothness, routes, latency."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder (its newest intact checkpoint), or one checkpoint folder."""
    episodes: int | None = None
    """Episodes, one seed each; by default what the run was configured with."""
    seed: int | None = None
    """First seed of the episodes; the others follow."""
    sampler: str | None = None
    """Solver by name, such as ddim, dpm-solver++-2m, heun or adaptive; by default the run's."""
    nfe: int | None = None
    """Network evaluations a plan."""
    grid: str | None = None
    """trailing, leading, linspace, quadratic, log_snr or karras."""
    eta: float | None = None
    """Stochasticity of ddim, 0 to 1."""
    order: int | None = None
    """Order of dpm-solver, dpm-solver++, unipc and adams."""
    switch: float | None = None
    """Noise level sigma / alpha at which hybrid changes from its first sampler to its second."""
    rtol: float | None = None
    """Tolerance of adaptive, relative and absolute."""
    guidance: float | None = None
    """Weight w of classifier-free guidance; needs a policy trained with p_uncond, or guided by single modalities."""
    guide: tuple[str, ...] = ()
    """Guidance by single modalities that the policy was trained to miss, each NAME=W, separated by spaces."""
    say: str | None = None
    """Sentence that every episode is told, such as "go left"; any words will do."""
    hide: tuple[str, ...] = ()
    """Modalities that the policy does not get to see, of those that it was trained to miss, separated by spaces."""
    stride: int | None = None
    """Actions executed before the next plan."""
    ensemble: float | None = None
    """Temporal ensemble with this decay m (0.01 is usual): plan every tick and average the chunks, oldest first."""
    weights: str = "ema"
    """ema, or model for the weights that are not averaged."""
    workers: int | None = None
    """Processes that share the episodes; 0 is one a core."""
    record: int | None = None
    """Episodes whose video is kept."""
    compare: Path | None = None
    """Another run: evaluated on the same seeds and compared, paired."""
    out: Path | None = None
    """Write the result to this JSON file too (always in RUN/evaluations)."""


def main(args: Eval) -> int:
    """Run `n2a eval`."""
    if args.weights not in ("ema", "model"):
        raise ConfigError(f"--weights: expected ema or model, got {args.weights!r}")
    # Everything that can be wrong is found before the first rollout.
    check_file(args.out, "a JSON file")
    at_least("--nfe", args.nfe, 1)
    at_least("--episodes", args.episodes, 1)
    if args.guidance is not None and not -1 <= args.guidance < math.inf:
        raise ConfigError(
            f"--guidance: expected a weight w >= -1 (-1 ignores the condition, 0 follows it, more follows it harder), "
            f"got {args.guidance:g}"
        )
    if args.guidance is not None and args.guide:
        raise ConfigError(
            f"--guide: expected none with --guidance (it is one weight for all), got {' '.join(args.guide)}: "
            "leave one of the two out"
        )
    plans = [_plan(args, run) for run in (args.run, args.compare) if run is not None]
    if len({plan.task.name for plan in plans}) > 1:
        raise ConfigError(f"--compare: expected a run of {plans[0].task.name}, got one of {plans[1].task.name}")
    if args.ensemble is not None and args.stride is not None:
        raise ConfigError(f"--stride: expected none with --ensemble (it plans every tick), got {args.stride}")
    evaluations: list[Evaluation] = []
    for plan in plans:
        evaluations.append(evaluate(plan))
        if args.out is not None and len(evaluations) == 1:
            evaluations[0].write(args.out)
    results = Console()
    results.print(table(evaluations))
    for evaluation in evaluations:
        if evaluation.told:
            results.print(told_table(evaluation))
    if len(evaluations) > 1:
        results.print(comparison_table([compare(*evaluations)]))
    return 0


@dataclass(frozen=True)
class Plan:
    """What is rolled out, on what."""

    checkpoint: Path
    """Checkpoint folder, fixed once: a run that is still training gets newer ones."""
    task: Task
    config: EvaluateConfig
    sampling: Sampling | None = None
    """None for the run's own."""
    stride: int | None = None
    weights: str = "ema"
    setting: Setting = AS_DRAWN


def _plan(args: Eval, run: Path) -> Plan:
    policy, checkpoint = open_policy(run, weights=args.weights, stride=args.stride)
    given = {
        "episodes": args.episodes,
        "seed": args.seed,
        "workers": args.workers,
        "record": args.record,
        "ensemble": args.ensemble,
    }
    config = replace(
        read_experiment(run_folder(run)).evaluate, **{name: value for name, value in given.items() if value is not None}
    )
    sampling = _sampling(args, policy)
    vain = [told.modality for told in _guided(args.guide) if told.modality in args.hide]
    if vain:
        raise ConfigError(
            f"--guide: expected modalities that the policy gets to see, got {vain[0]!r}, which --hide takes away: "
            "leave it out of one of them"
        )
    if sampling is not None and isinstance(policy, SampledPolicy):
        policy.resampled(sampling)  # refuses what does not fit the policy's path
    setting = setting_for(policy, say=args.say, hide=args.hide)
    task = task_of(run, checkpoint)
    assert checkpoint.folder is not None
    return Plan(checkpoint.folder, task, config, sampling, args.stride, args.weights, setting)


def _sampling(args: Eval, policy: AnyPolicy) -> Sampling | None:
    """Return the run's sampling with the overrides of the command line; None for a policy that does not sample."""
    given = (args.sampler, args.nfe, args.grid, args.eta, args.order, args.switch, args.rtol, args.guidance)
    guide = _guided(args.guide)
    if not isinstance(policy, SampledPolicy):
        if guide or any(value is not None for value in given):
            name = kind(type(policy.config))
            note(f"note: a {name} policy makes one network call a plan; sampler options do not apply")
        return None
    own = policy.config.sampling
    guided = guide or own.guided
    if args.guidance is not None:
        guided = tuple(replace(told, weight=args.guidance) for told in guided)
    whole = own.guidance if args.guidance is None else args.guidance
    return replace(
        own,
        sampler=resolve(
            args.sampler or own.sampler,
            eta=args.eta,
            order=args.order,
            switch=args.switch,
            rtol=args.rtol,
            nfe=args.nfe,
        ),
        grid=own.grid if args.grid is None else grid_named(args.grid),
        nfe=own.nfe if args.nfe is None else args.nfe,
        # A policy that single modalities guide is guided by them alone, not by the whole observation.
        guidance=0.0 if guided else whole,
        guided=guided,
    )


def _guided(words: tuple[str, ...]) -> tuple[Guided, ...]:
    """Return the guidance that `--guide NAME=W ...` asks for; `ConfigError` for other words and a name told twice."""
    weights: dict[str, float] = {}
    for word in words:
        name, _, number = word.partition("=")
        with suppress(ValueError):
            if name and name not in weights and -1 <= float(number) < math.inf:
                weights[name] = float(number)
                continue
        raise ConfigError(
            f"--guide: expected NAME=W with a weight W >= -1, each name once, got {word!r}: separate several by "
            "spaces, such as --guide goal=2 goal_image=1"
        )
    return tuple(Guided(name, weight) for name, weight in weights.items())


def evaluate(plan: Plan) -> Evaluation:
    """Return the evaluation of a policy; it and its videos are written to the run's `evaluations`."""
    config, folder = plan.config, run_folder(plan.checkpoint)
    seeds = range(config.seed, config.seed + config.episodes)
    workers = min(config.workers or os.cpu_count() or 1, config.episodes)
    load = partial(load_policy, plan.checkpoint, plan.weights, plan.sampling, plan.stride)
    policy, checkpoint = open_policy(plan.checkpoint, weights=plan.weights, sampling=plan.sampling, stride=plan.stride)
    executor = Executor if config.ensemble is None else partial(TemporalEnsemble, decay=config.ensemble)
    with counter() as progress:
        bar = progress.add_task(f"episodes of {folder.name}", total=config.episodes)

        def done(count: int) -> None:
            progress.update(bar, completed=count)

        if workers > 1:
            results = rollout_in_processes(
                plan.task,
                load,
                seeds,
                workers=workers,
                executor=executor,
                record=config.record,
                setting=plan.setting,
                on_progress=done,
            )
        else:
            with one_thread():
                results = rollout(
                    plan.task,
                    policy,
                    seeds,
                    executor=executor,
                    record=config.record,
                    setting=plan.setting,
                    on_progress=done,
                )
    latency, nfe = measured(policy, plan.setting.seen(_first(plan.task, seeds[0])))
    if isinstance(policy, SampledPolicy) and isinstance(policy.config.sampling.sampler, Adaptive):
        note(f"note: adaptive chooses its calls: NFE {nfe} is the mean of the plans whose latency is measured")
    about = _about(plan, policy, step=checkpoint.step, nfe=nfe)
    # Demonstrations of all that can be said are no reference for one sentence.
    evaluation = Evaluation(about, results, latency, None if plan.setting.options else routes_of(folder))
    _write(folder / "evaluations", evaluation, results, plan.task)
    return evaluation


def _first(task: Task, seed: int) -> dict[str, np.ndarray]:
    """Return the first observation of an episode."""
    env = task.make()
    try:
        return env.reset(seed=seed)[0]
    finally:
        env.close()


def _about(plan: Plan, policy: AnyPolicy, *, step: int, nfe: int) -> About:
    name = kind(type(policy.config))
    sampling = policy.config.sampling if isinstance(policy, SampledPolicy) else None
    decay = plan.config.ensemble
    ensemble = "" if decay is None else f", ensemble={decay:g}"
    return About(
        task=plan.task.name,
        policy=name,
        weights=plan.weights,
        sampler=(name if sampling is None else sampler_name(sampling)) + ensemble,
        nfe=nfe,
        control_hz=plan.task.control_hz,
        stride=policy.spec.stride if decay is None else 1,
        step=step,
        action_unit=policy.schema.action.unit,
        told=plan.setting.options.get("instruction"),
        hidden=plan.setting.hidden,
        threads=1,
    )


def _write(folder: Path, evaluation: Evaluation, results: tuple[EpisodeResult, ...], task: Task) -> None:
    """Write the evaluation, named after what was run, and the videos of its recorded episodes."""
    about = evaluation.about
    run = f"step{about.step}-{about.weights}-{_file_name(about.way)}-{about.nfe}-stride{about.stride}"
    stem = f"{run}-seed{results[0].seed}-n{len(results)}"
    evaluation.write(folder / f"{stem}.json")
    for result in results:
        if result.trace is None or result.trace.frames is None:
            continue
        try:
            write_mp4(folder / f"{stem}-episode{result.seed}.mp4", result.trace.frames, task.control_hz)
        except MissingExtraError as error:
            note(f"note: no videos: {error}")
            return


LONGEST_NAME = 80
"""Characters of a sampler, and of what was said and hidden, that a file name holds."""


def _file_name(text: str) -> str:
    """Return `text` for a file name; where that leaves something out, with a hash of all of it."""
    plain = re.sub(r"[^a-z0-9_.-]+", "_", text)
    if len(plain) <= LONGEST_NAME and re.fullmatch(r"[a-z0-9_.,=() '-]*", text):
        return plain
    return f"{plain[:LONGEST_NAME]}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
