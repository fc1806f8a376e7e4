"""Runs on disk: start one, open one, and the policy inside."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..config import decode, encode
from ..data.episodes import check_sentences, vocabulary
from ..diffusion.paths import TerminalSNRWarning
from ..diffusion.sampling import CoarseGridWarning
from ..envs.tasks import Task, find
from ..errors import CheckpointError, ConfigError, TaskError
from ..generative import store
from ..policies import AnyPolicy, SampledPolicy, Sampling
from ..policies.checkpoint import FORMAT, MANIFEST, Checkpoint, build, load
from ..recipes.experiment import Experiment
from ..recipes.prepare import DataSummary
from ..storage import check_place
from ..train.folder import read_json, write_json

console = Console(stderr=True, highlight=False)
"""Progress and notes go to standard error; results to standard output."""


def note(text: str) -> None:
    """Print a note to standard error, as it is: a path may hold brackets."""
    console.print(text, markup=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a result to standard output, as it is."""
    Console().print(text, markup=False, soft_wrap=True, highlight=False)


class Counter(Progress):
    """Bars that count and estimate the time left; off a terminal, where no bar moves, a line for each tenth."""

    def __init__(self) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        super().__init__(TextColumn("{task.description}"), *columns, console=console, disable=not console.is_terminal)
        self._tenths: dict[TaskID, int] = {}

    def update(
        self,
        task_id: TaskID,
        *,
        total: int | float | None = None,
        completed: int | float | None = None,
        advance: int | float | None = None,
        description: str | None = None,
        visible: bool | None = None,
        refresh: bool = False,
        **fields: Any,  # noqa: ANN401 - as rich has it
    ) -> None:
        """Set what is given of a bar; see `Progress.update`."""
        super().update(
            task_id,
            total=total,
            completed=completed,
            advance=advance,
            description=description,
            visible=visible,
            refresh=refresh,
            **fields,
        )
        now = next(task for task in self.tasks if task.id == task_id)
        tenth = int(10 * now.completed / now.total) if now.total else 0
        if self.disable and tenth not in (0, self._tenths.get(task_id)):
            note(f"{now.description}: {now.completed:,.0f} of {now.total:,.0f} ({now.elapsed or 0:.0f} s)")
        self._tenths[task_id] = tenth


def counter() -> Progress:
    """Return progress bars that count and estimate the time left."""
    return Counter()


@contextmanager
def training_bar() -> Generator[Callable[[float, str | None], None]]:
    """Yield what shows the fraction of a training's budget that is spent, and a note (None to keep the last)."""
    with Progress(
        BarColumn(bar_width=12),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as progress:
        bar = progress.add_task("training", total=1.0, note="")

        def show(done: float, note: str | None) -> None:
            progress.update(bar, completed=done)
            if note is not None:
                progress.update(bar, note=note)

        yield show


@contextmanager
def one_thread() -> Generator[None]:
    """Run torch on one thread: small batches gain nothing from more, and lose much where cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def given_grid() -> Generator[None]:
    """Keep back warnings on a sampler's grid: other code bases have one only; `n2a eval` can change it, and tells."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoarseGridWarning)
        warnings.simplefilter("ignore", TerminalSNRWarning)
        yield


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


def check_new(out: Path, *, name: str = "--out") -> None:
    """Raise `ConfigError`, which begins with `name`, unless `out` is a folder that can be written, or become one."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{name}: expected a folder, got a file: {out}: choose another")
    check_place(out, flag=name)


def check_file(out: Path | None, what: str) -> None:
    """Raise `ConfigError` unless `out` is None or a file that can be written, `what` it is to be."""
    if out is None:
        return
    if out.is_dir():
        raise ConfigError(f"--out: expected {what} to write, got a folder: {out}: name a file in it")
    check_place(out, flag="--out")


def _check_policy(run: Path) -> None:
    """Raise `CheckpointError` where `run` holds no policy but a model of points or images."""
    if store.holds(run):
        raise CheckpointError(
            f"{run}: expected the run of a policy, got a model of points or images: use `n2a sample {run}`"
        )
