"""Running a comparison from wherever it was left: stage by stage, the tables written anew after each task."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..commands.runs import console
from ..envs.tasks import find
from ..errors import MissingExtraError, TaskError
from ..train.folder import locked, write_env
from . import stages
from .outputs import write_page, write_tables
from .pool import OnProgress, Pool
from .rows import TaskRows, task_rows
from .settings import Place, Settings, settle
from .stages import Work

STAGES = {
    "demonstrations": stages.demonstrations,
    "trainings": stages.trainings,
    "episodes": stages.evaluations,
    "timings": stages.timings,
}
"""What is done, in this order; the unit of each is its name."""


def check_tasks(settings: Settings) -> None:
    """Raise an error unless every task can be made here, and drawn where it is to be, before anything is done."""
    if settings.record and find_spec("av") is None:
        raise MissingExtraError("PyAV", "report")
    for name in settings.tasks:
        with closing(find(name).make()) as env:
            if not settings.record:
                continue
            env.reset(seed=settings.blocks[0][0])
            try:
                env.render()
            except TaskError as error:
                raise TaskError(f"{name}: {error}; or --record 0, without pictures of episodes") from error


@dataclass(frozen=True)
class Outcome:
    """What a comparison ended with."""

    tasks: tuple[TaskRows, ...]
    findings: tuple[str, ...]
    """What failed of a task or a method, and the remedy; the others were compared."""


def run(settings: Settings, out: Path, *, workers: int, command: str) -> Outcome:
    """Return the outcome of the comparison in `out`, begun or gone on with; tables are written after each task.

    Raises `ConfigError` where `out` was begun with
    other settings, and `MissingExtraError` where a simulator is not installed.
    """
    check_tasks(settings)
    with ExitStack() as stack:
        stack.enter_context(locked(out))
        settle(out, settings)
        write_env(out, threads=1, precision="auto")
        places = [Place(out, name) for name in settings.tasks]
        shown = stack.enter_context(Shown(settings, places))
        pool = stack.enter_context(Pool(workers))
        failed = _do("demonstrations", [w for p in places for w in stages.demonstrations(settings, p)], pool, shown)
        tasks: list[TaskRows] = []
        for place in places:
            failed += _do("trainings", stages.trainings(settings, place), pool, shown)
            failed += _do("episodes", stages.evaluations(settings, place), pool, shown)
            # In this process, while the others wait: what runs beside a plan would be measured with it.
            failed += _do("timings", stages.timings(settings, place), Pool(1), shown)
            found = task_rows(settings, place)
            tasks += [] if found is None else [found]
            write_tables(settings, out, tasks, findings=failed, command=command)
        write_page(settings, out, tasks, findings=failed, command=command)
    return Outcome(tuple(tasks), tuple(failed))


def _do(stage: str, works: Sequence[Work], pool: Pool, shown: "Shown") -> list[str]:
    """Do what is ready of a stage; return what failed, and why."""
    ready = [work for work in works if work.ready]
    if not ready:
        return []
    errors = pool.run([work.job for work in ready], shown.follow(stage, ready))
    return [f"{ready[position].name}: {error}" for position, error in sorted(errors.items())]


class Shown:
    """A bar a stage, over all tasks: what is done, and what is left."""

    def __init__(self, settings: Settings, places: Sequence[Place]) -> None:
        self._progress = Progress(
            TextColumn("{task.description:14}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}"),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}
        self._done: dict[str, float] = {}
        for stage, works_of in STAGES.items():
            works = [work for place in places for work in works_of(settings, place)]
            before = sum(work.size for work in works if work.result.exists())
            self._done[stage] = float(before)
            total = sum(work.size for work in works)
            if total:
                self._bars[stage] = self._progress.add_task(stage, total=total, completed=before, start=False, now="")

    def __enter__(self) -> "Shown":
        """Return the bars, shown."""
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def follow(self, stage: str, works: Sequence[Work]) -> OnProgress:
        """Return what moves the bar of a stage while `works` are done."""
        bar, shares, before = self._bars[stage], [0.0] * len(works), self._done[stage]
        self._progress.start_task(bar)

        def on_progress(position: int, share: float) -> None:
            shares[position] = share
            self._done[stage] = before + sum(s * work.size for s, work in zip(shares, works, strict=True))
            now = "" if share >= 1 else works[position].name
            self._progress.update(bar, completed=self._done[stage], now=now)

        return on_progress
