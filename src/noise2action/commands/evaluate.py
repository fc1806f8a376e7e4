"""`n2a eval RUN`: rollouts on fresh seeds, with intervals."""

import os
import re
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..config import decode, kind
from ..envs.tasks import Task, find
from ..errors import ConfigError, MissingExtraError
from ..evaluate.latency import measure_latency
from ..evaluate.result import About, Evaluation, compare
from ..evaluate.rollouts import EpisodeResult, rollout
from ..evaluate.tables import comparison_table, table
from ..evaluate.video import write_mp4
from ..evaluate.workers import rollout_in_processes
from ..policies import AnyPolicy, DiffusionPolicy, Sampling
from ..recipes.experiment import EvaluateConfig
from .runs import console, load_policy, open_policy, read_experiment, routes_of, run_folder


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
    """ddim, ddpm, adams or heun; by default the run's."""
    nfe: int | None = None
    """Network evaluations a plan."""
    grid: str | None = None
    """trailing, leading, linspace, quadratic, log_snr or karras."""
    eta: float | None = None
    """Stochasticity of ddim, 0 to 1."""
    order: int | None = None
    """Order of adams, 1 to 4."""
    stride: int | None = None
    """Actions executed before the next plan."""
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
    evaluation = _evaluate(args, args.run)
    evaluations = [evaluation]
    if args.compare is not None:
        evaluations.append(_evaluate(args, args.compare))
    if args.out is not None:
        evaluation.write(args.out)
    results = Console()
    results.print(table(evaluations))
    if len(evaluations) > 1:
        results.print(comparison_table([compare(evaluation, evaluations[1])]))
    return 0


def _evaluate(args: Eval, run: Path) -> Evaluation:
    if args.weights not in ("ema", "model"):
        raise ConfigError(f"--weights: expected ema or model, got {args.weights!r}")
    policy, checkpoint = open_policy(run, weights=args.weights)
    given = {"episodes": args.episodes, "seed": args.seed, "workers": args.workers, "record": args.record}
    config = replace(
        read_experiment(run_folder(run)).evaluate, **{name: value for name, value in given.items() if value is not None}
    )
    return evaluate(
        run,
        find(checkpoint.deployed.task),
        config,
        sampling=_sampling(args, policy),
        stride=args.stride,
        weights=args.weights,
    )


def _sampling(args: Eval, policy: AnyPolicy) -> Sampling | None:
    """Return the run's sampling with the overrides of the command line; None for a policy that does not sample."""
    given = {"nfe": args.nfe, "sampler": args.sampler, "grid": args.grid, "eta": args.eta, "order": args.order}
    given = {name: value for name, value in given.items() if value is not None}
    if not isinstance(policy, DiffusionPolicy):
        if given:
            console.print("note: a regression policy makes one network call a plan; sampler options do not apply")
        return None
    sampler: dict[str, Any] = {"kind": given.pop("sampler")} if "sampler" in given else {}
    sampler |= {name: given.pop(name) for name in ("eta", "order") if name in given}
    edits = {**given, **({"sampler": sampler} if sampler else {})}
    return decode(Sampling, edits, where="option", default=policy.config.sampling)


def evaluate(
    run: Path,
    task: Task,
    config: EvaluateConfig,
    *,
    sampling: Sampling | None = None,
    stride: int | None = None,
    weights: str = "ema",
) -> Evaluation:
    """Return the evaluation of a run's policy in `task`; it and its videos are written to the run's `evaluations`."""
    folder = run_folder(run)
    seeds = range(config.seed, config.seed + config.episodes)
    workers = min(config.workers or os.cpu_count() or 1, config.episodes)
    load = partial(load_policy, run, weights, sampling, stride)
    policy = load()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(f"episodes of {folder.name}", total=config.episodes)

        def done(count: int) -> None:
            progress.update(bar, completed=count)

        if workers > 1:
            results = rollout_in_processes(task, load, seeds, workers=workers, record=config.record, on_progress=done)
        else:
            results = rollout(task, policy, seeds, record=config.record, on_progress=done)
    first = results[0].trace
    assert first is not None
    latency = measure_latency(policy, {name: x[0] for name, x in first.observations.items()})
    evaluation = Evaluation(_about(task, policy, weights), results, latency, routes_of(folder))
    _write(folder / "evaluations", evaluation, results, task)
    return evaluation


def _about(task: Task, policy: AnyPolicy, weights: str) -> About:
    if isinstance(policy, DiffusionPolicy):
        sampling = policy.config.sampling
        name, sampler, nfe = "diffusion", sampler_name(sampling), sampling.nfe
    else:
        name, sampler, nfe = "regression", "regression", 1
    return About(
        task=task.name,
        policy=name,
        weights="ema" if weights == "ema" else "raw",
        sampler=sampler,
        nfe=nfe,
        control_hz=task.control_hz,
        stride=policy.spec.stride,
        action_unit=policy.schema.action.unit,
        threads=1,
    )


def sampler_name(sampling: Sampling) -> str:
    """Return the sampler with the options that differ from its defaults, such as `ddim` or `adams(order=3)`."""
    sampler = sampling.sampler
    fresh = type(sampler)()
    options = [f"{f.name}={getattr(sampler, f.name)}" for f in fields(sampler)]
    changed = [
        o for o, f in zip(options, fields(sampler), strict=True) if getattr(sampler, f.name) != getattr(fresh, f.name)
    ]
    name = kind(type(sampler)) + (f"({', '.join(changed)})" if changed else "")
    grid = kind(type(sampling.grid))
    return name if grid == "trailing" else f"{name} on {grid}"


def _write(folder: Path, evaluation: Evaluation, results: tuple[EpisodeResult, ...], task: Task) -> None:
    """Write the evaluation, named after what was run, and the videos of its recorded episodes."""
    about = evaluation.about
    name = f"{about.weights}-{about.sampler}-{about.nfe}-stride{about.stride}-seed{results[0].seed}-n{len(results)}"
    stem = re.sub(r"[^a-z0-9_.-]+", "_", name)
    evaluation.write(folder / f"{stem}.json")
    for result in results:
        if result.trace is None or result.trace.frames is None:
            continue
        try:
            write_mp4(folder / f"{stem}-episode{result.seed}.mp4", result.trace.frames, task.control_hz)
        except MissingExtraError as error:
            console.print(f"note: no videos: {error}")
            return
