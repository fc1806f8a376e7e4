"""What commands share: notes and progress on the terminal, checks of `--out`, and quiet numerics."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
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

from ..diffusion.paths import TerminalSNRWarning
from ..diffusion.sampling import CoarseGridWarning
from ..errors import ConfigError
from ..storage import check_place

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
