"""`n2a report RUN`: one self-contained HTML page of a run."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from ..config import encode
from ..envs.tasks import Task, find
from ..errors import DataError
from ..evaluate.figures import Panel, Scene, denoising_chunks, plane_trajectories
from ..evaluate.report import Drawing, Report, Video, seed_ranges, write_report
from ..evaluate.result import Evaluation
from ..evaluate.rollouts import rollout
from ..evaluate.scenes import denoise_chunks, trajectories, two_routes_scene
from ..evaluate.setting import setting_for
from ..policies import DiffusionPolicy
from ..recipes.experiment import Experiment
from ..recipes.runs import open_policy, read_experiment, run_folder
from ..train.folder import read_metrics
from .terminal import check_file, note, say

DRAWN = 30
"""Rollouts in a picture of trajectories."""
TITLE = 34
"""Characters of a line above it."""
CHUNKS = 24
"""Chunks in a picture of denoising."""


@dataclass(frozen=True)
class ReportArgs:
    """Write one self-contained HTML page: success, curves, videos, latency, every episode."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    compare: Path | None = None
    """Another run of the same task, shown beside it."""
    out: Path | None = None
    """HTML file; by default RUN/report.html."""


def main(args: ReportArgs) -> int:
    """Run `n2a report`."""
    runs = [run_folder(args.run)] + ([] if args.compare is None else [run_folder(args.compare)])
    out = args.out or runs[0] / "report.html"
    check_file(args.out, "an HTML file")
    write(out, runs)
    say(f"report: {out}")
    return 0


def write(out: Path, runs: Sequence[Path]) -> None:
    """Write the report of `runs` to `out`; the first is its subject, the others are compared with it."""
    experiment = read_experiment(runs[0])
    found = {run: _evaluations(run)[: None if run == runs[0] else 1] for run in runs}
    evaluations = [e for run in runs for e in found[run]]
    if not evaluations:
        note(f"note: no evaluations yet: run `n2a eval {runs[0]}` first to see success rates")
    report = Report(
        title=f"{experiment.task}: {runs[0].name}",
        evaluations=evaluations,
        records=read_metrics(runs[0]),
        config={"experiment": encode(experiment, Experiment)},
        drawings=_drawings(found) if experiment.task.startswith("two_routes") else (),
        videos=[video for run in runs for video in _videos(run)],
    )
    write_report(out, report)


def _evaluations(run: Path) -> list[Evaluation]:
    """Return the evaluations of a run, the latest first."""
    found: list[Evaluation] = []
    for path in (run / "evaluations").glob("*.json"):
        try:
            found.append(Evaluation.from_json(path.read_text()))
        except (DataError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: {error}") from error
    return sorted(found, key=lambda e: e.about.created, reverse=True)


def _videos(run: Path, most: int = 4) -> list[Video]:
    """Return the recorded episodes of a run's latest evaluation."""
    recorded = list((run / "evaluations").glob("*-episode*.mp4"))
    if not recorded:
        return []
    stem = max(recorded, key=lambda p: p.stat().st_mtime).name.rpartition("-episode")[0]
    paths = sorted((p for p in recorded if p.name.startswith(f"{stem}-episode")), key=lambda p: int(_seed(p)))[:most]
    return [Video(p.read_bytes(), f"{run.name}, episode of seed {_seed(p)}") for p in paths]


def _seed(video: Path) -> str:
    return video.stem.rpartition("-episode")[2]


def _drawings(found: Mapping[Path, Sequence[Evaluation]]) -> list[Drawing]:
    """Return the picture of rollouts of every run side by side, and of chunks as they are denoised.

    A run whose evaluations were told or hid different things has a picture of each.
    """
    seeds = next((e.seeds[:DRAWN] for evaluations in found.values() for e in evaluations), list(range(DRAWN)))
    panels: list[Panel] = []
    drawings: list[Drawing] = []
    scene = two_routes_scene()
    for run, evaluations in found.items():
        policy, checkpoint = open_policy(run)
        task = find(checkpoint.deployed.task)
        scene = two_routes_scene(one_goal=task.name != "two_routes_goal")
        settings = dict.fromkeys((e.about.told, e.about.hidden) for e in evaluations) or {(None, ()): None}
        for told, hidden in settings:
            results = rollout(task, policy, seeds, setting=replace(setting_for(policy, say=told), hidden=hidden))
            without = [f"without {name}" for name in hidden] or ["nothing hidden"] * any(h for _, h in settings)
            for sentence in dict.fromkeys(result.instruction for result in results):
                title = ", ".join([run.name, *([] if sentence is None else [f'told "{sentence}"']), *without])
                shown = trajectories([r for r in results if r.instruction == sentence])
                panels.append(Panel(textwrap.fill(title, TITLE), shown))
        if isinstance(policy, DiffusionPolicy):
            drawings.append(_denoising(policy, task, seeds[0], name=run.name, scene=scene))
    caption = (
        f"{len(seeds)} rollouts a policy on the same layouts (seeds {seed_ranges(seeds)}), each with its own "
        "sampler. A policy that averages the demonstrations is driven into the post; one that models their "
        "distribution commits to a side."
    )
    return [Drawing("Rollouts", plane_trajectories(scene, panels), caption), *drawings]


def _denoising(policy: DiffusionPolicy, task: Task, seed: int, *, name: str, scene: Scene) -> Drawing:
    """Return the picture of chunks sampled for one observation, at several noise levels."""
    observation, _ = task.make().reset(seed=seed)
    made = denoise_chunks(policy, observation, chunks=CHUNKS)
    paths = made.paths(observation["position"].astype(np.float64), task.control_hz)
    caption = (
        f"{CHUNKS} action chunks of {name} for the first observation of seed {seed}, from noise (t = 1) to the plan "
        "(t = 0), drawn as the way that the commanded velocities lead; the puck, which has inertia, follows with a lag."
    )
    return Drawing("Chunks being denoised", denoising_chunks(scene, made.levels, paths), caption)
