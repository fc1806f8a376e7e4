"""Runs on disk: write what one is, open one, and the policy inside."""

from dataclasses import replace
from pathlib import Path

from ..config import decode, encode
from ..data.episodes import check_sentences, vocabulary
from ..envs.tasks import Task, find
from ..errors import CheckpointError, TaskError
from ..generative import store
from ..policies import AnyPolicy, SampledPolicy, Sampling
from ..policies.checkpoint import FORMAT, MANIFEST, Checkpoint, build, load
from ..train.folder import read_json, write_json
from .experiment import Experiment
from .prepare import DataSummary


def write_experiment(run: Path, experiment: Experiment, summary: DataSummary) -> None:
    """Write config.json and data.json of a run."""
    write_config(run, experiment)
    write_json(run / "data.json", encode(summary))


def write_config(run: Path, experiment: Experiment) -> None:
    """Write config.json of a run, all that one has whose data is not known."""
    write_json(run / "config.json", {"format": FORMAT, "experiment": encode(experiment, Experiment)})


def read_experiment(run: Path) -> Experiment:
    """Return the experiment of a run folder."""
    if not (run / "config.json").exists():
        raise CheckpointError(
            f"expected a run folder with config.json, got none in {run}: train first, or check the path"
        )
    _check_policy(run)
    body = read_json(run / "config.json")
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise CheckpointError(f"{run}: expected run format {FORMAT}: use the noise2action version that wrote it")
    return decode(Experiment, body.get("experiment"), where=f"{run}/config.json")


def routes_of(run: Path) -> dict[str, float] | None:
    """Return the share of the demonstrations by route that a run was trained on, where it is known."""
    if not (run / "data.json").exists():
        return None
    return decode(DataSummary, read_json(run / "data.json"), where=f"{run}/data.json").routes or None


def open_policy(
    run: Path, *, weights: str = "ema", sampling: Sampling | None = None, stride: int | None = None
) -> tuple[AnyPolicy, Checkpoint]:
    """Return the newest intact policy of a run (or of one checkpoint folder), changed to `sampling` and `stride`."""
    check_run(run)
    _check_policy(run)
    checkpoint = load(run)
    policy = build(checkpoint, weights=weights)
    if sampling is not None and isinstance(policy, SampledPolicy):
        policy = policy.resampled(sampling)
    if stride is not None:
        policy.spec = replace(policy.spec, stride=stride)
    return policy, checkpoint


def task_of(run: Path, checkpoint: Checkpoint) -> Task:
    """Return the task that a policy acts in.

    `TaskError` for one that was imported without, `DataError` where the task's sentences are not those of its training.
    """
    deployed = checkpoint.deployed
    try:
        task = find(deployed.task)
    except TaskError as error:
        if checkpoint.state.get("origin") is None:
            raise
        raise TaskError(
            f"{run}: expected a policy with a task, got one imported without: import it again with --task, and "
            "--feature for what it observes"
        ) from error
    check_sentences(vocabulary(deployed.schema), vocabulary(task.schema), where=f"{run}: {task.name}")
    return task


def load_policy(run: Path, weights: str, sampling: Sampling | None, stride: int | None) -> AnyPolicy:
    """Return the policy of a run; a plain function, so that worker processes can call it."""
    return open_policy(run, weights=weights, sampling=sampling, stride=stride)[0]


def check_run(run: Path) -> None:
    """Raise `CheckpointError` unless `run` is a folder."""
    if not run.is_dir():
        what = "a file" if run.exists() else "no such path"
        raise CheckpointError(f"expected a run folder, got {what}: {run}")


def run_folder(checkpoint_or_run: Path) -> Path:
    """Return the run folder that a path names or lies in."""
    inside = (checkpoint_or_run / MANIFEST).exists()
    return checkpoint_or_run.resolve().parents[1] if inside else checkpoint_or_run


def _check_policy(run: Path) -> None:
    """Raise `CheckpointError` where `run` holds no policy but a model of points or images."""
    if store.holds(run):
        raise CheckpointError(
            f"{run}: expected the run of a policy, got a model of points or images: use `n2a sample {run}`"
        )
