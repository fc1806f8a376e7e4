"""`n2a train RECIPE`: demonstrations in, a trained policy out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..config import encode
from ..errors import ConfigError
from ..recipes import find
from ..recipes.experiment import Experiment
from ..recipes.prepare import job
from ..train.folder import locked
from ..train.loop import Status, fit
from . import overrides
from .runs import check_new, console, read_experiment, write_experiment


@dataclass(frozen=True)
class Train:
    """Train a policy. Every field of the recipe can be overridden: --train.minutes 15, --policy regression, ..."""

    recipe: Annotated[str, tyro.conf.Positional]
    """two_routes or pusht_state."""
    out: Path | None = None
    """Run folder to write."""
    config: Path | None = None
    """JSON file with fields to override."""
    print_config: bool = False
    """Print the configuration as JSON and stop."""
    resume: bool = False
    """Go on with the run in --out."""


def main(args: Train, rest: list[str]) -> int:
    """Run `n2a train`."""
    experiment = find(args.recipe)
    if args.config is not None:
        experiment = overrides.apply(experiment, overrides.read_config(args.config), where=str(args.config))
    experiment = overrides.apply(experiment, overrides.parse(rest), where="option")
    if args.print_config:
        print(json.dumps(encode(experiment, Experiment), indent=1))  # noqa: T201
        return 0
    if args.out is None:
        raise ConfigError("expected --out RUN, the folder to write the run to, got none")
    check_new(args.out)
    return 0 if train(experiment, args.out, resume=args.resume) else 130


def train(experiment: Experiment, out: Path, *, resume: bool = False) -> bool:
    """Train `experiment` in the run folder `out`; return False where an interrupt ended it, its state saved."""
    with locked(out):
        if resume and _budgetless(read_experiment(out)) != _budgetless(experiment):
            raise ConfigError(
                f"expected the configuration that {out} was started with, got another: use the same command"
            )
        with _bar("demonstrations", total=experiment.data.demonstrations) as (progress, task):
            prepared, summary = job(experiment, on_progress=lambda n: progress.update(task, completed=n, visible=True))
        write_experiment(out, experiment, summary)
        console.print(
            f"{summary.episodes} episodes ({summary.held_out} held out), {summary.steps} steps from {summary.source}; "
            f"{len(prepared.training.windows)} training windows"
        )
        with _training_bar() as progress:
            bar = progress.add_task("training", total=1.0, note="")
            finished = fit(prepared, out, resume=resume, on_status=lambda s: _show(progress, bar, s))
            progress.update(bar, completed=1.0 if finished else None)
    again = "" if finished else "; go on with the same command and --resume"
    console.print(f"{'trained' if finished else 'interrupted, saved'}: {out}{again}")
    return finished


def _budgetless(experiment: Experiment) -> Any:  # noqa: ANN401
    """Return the configuration without the fields that a resumed run may change."""
    body = encode(experiment, Experiment)
    for name in ("threads", "log_every", "validate_minutes", "save_minutes", "save_steps", "tensorboard"):
        del body["train"][name]
    del body["evaluate"]
    return body


class _bar:  # noqa: N801 - reads as a function
    """A progress bar that appears with its first update."""

    def __init__(self, name: str, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console)
        self.task = self.progress.add_task(name, total=total, visible=False)

    def __enter__(self) -> tuple[Progress, Any]:
        return self.progress.__enter__(), self.task

    def __exit__(self, *exception: Any) -> None:  # noqa: ANN401
        self.progress.__exit__(*exception)


def _training_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _show(progress: Progress, bar: Any, status: Status) -> None:  # noqa: ANN401
    note = f"step {status.step}  loss {status.loss:.4f}  {status.samples_per_s:,.0f} samples/s"
    if status.validation is not None:
        found = status.validation
        note += f"  held-out loss {found.loss:.4f}, action error {found.action_error:.3g} {found.action_error_unit}"
    progress.update(bar, completed=status.progress, note=note)
