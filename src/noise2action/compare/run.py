"""Running a comparison from wherever it was left: stage by stage, the tables written anew after each task."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..commands.terminal import console, note
from ..envs.tasks import find
from ..errors import MissingExtraError, TaskError
from ..recipes.prepare import load_episodes
from ..train.folder import locked, write_env
from . import stages
from .outputs import write_page, write_tables
from .pool import OnProgress, Pool
from .rows import TaskRows, task_rows
from .settings import Place, Settings, settle
from .stages import Work
from .suites import experiment
from .training import taken

STAGES = {
    "demonstrations": stages.demonstrations,
    "trainings": stages.trainings,
    "episodes": stages.evaluations,
    "timings": stages.timings,
}
"""What is done, in this order; the unit of each is its name."""


def check_tasks(settings: Settings) -> None:
    """Raise an error, before anything is done, for tasks, data or runs that cannot be used.

    A task that cannot be made or drawn, given `data` of another task, a run to `take` that is no training of this
    comparison.
    """
    if settings.record and find_spec("av") is None:
        raise MissingExtraError("PyAV", "report")
    for name in settings.tasks:
        with closing(find(name).make()) as env:
            try:
                env.reset(seed=settings.blocks[0][0])
                if settings.record:
                    env.render()
            except TaskError as error:
                remedy = "" if name in settings.pictured else "; or --record 0, without pictures of episodes"
                raise TaskError(f"{name}: {error}{remedy}") from error
        if settings.data is not None:
            load_episodes(find(name), replace(experiment(name).data, path=settings.data))
    taken(settings)


@dataclass(frozen=True)
class Outcome:
    """What a comparison ended with."""

    tasks: tuple[TaskRows, ...]
    findings: tuple[str, ...]
    """What failed of a task or a method, and the remedy; the others were compared."""


def run(settings: Settings, out: Path, *, workers: int, command: str) -> Outcome:
    """Return the outcome of the comparison in `out`, begun or gone on with; tables are written after each task.

    Raises `ConfigError` where `out` was begun with other settings, `MissingExtraError` where a simulator is not
    installed, and `SchemaError` for given demonstrations of another task.
    """
    check_tasks(settings)
    with ExitStack() as stack:
        stack.enter_context(locked(out))
        settle(out, settings)
        write_env(out, threads=1, precision="auto")
        places = [Place(out, name) for name in settings.tasks]
        shown = stack.enter_context(Shown(settings, places))
        pool = stack.enter_context(Pool(workers))
        failed: list[str] = []

        def written() -> list[TaskRows]:
            tasks = [rows for place in places if (rows := task_rows(settings, place)) is not None]
            write_tables(settings, out, tasks, findings=failed, command=command)
            return tasks

        # A worker that has nothing left to do in one task begins with the next.
        works = [Planned("demonstrations", w) for p in places for w in stages.demonstrations(settings, p)]
        for place in places:
            works += [Planned("trainings", work) for work in stages.trainings(settings, place)]
            works += [Planned("episodes", work) for work in stages.evaluations(settings, place)]
        failed += _do(works, pool, shown, on_task=written)
        # In this process, while the others wait: what runs beside a plan would be measured with it.
        timed = [Planned("timings", work) for place in places for work in stages.timings(settings, place)]
        failed += _do(timed, Pool(1), shown)
        tasks = written()
        write_page(settings, out, tasks, findings=failed, command=command)
    return Outcome(tuple(tasks), tuple(failed))


@dataclass(frozen=True)
class Planned:
    """A piece of work and the stage that it belongs to."""

    stage: str
    work: Work


def _do(
    planned: Sequence[Planned], pool: Pool, shown: "Shown", *, on_task: Callable[[], object] = lambda: None
) -> list[str]:
    """Do what is left; return what failed, and why. `on_task` is called after the last episodes of a task."""
    left = [each for each in planned if not each.work.result.exists()]
    follow = shown.follow(left)

    def on_progress(position: int, share: float) -> None:
        follow(position, share)
        stage, work = left[position].stage, left[position].work
        if (
            stage == "episodes"
            and work.result.exists()
            and all(each.work.result.exists() for each in left if each.stage == stage and each.work.task == work.task)
        ):
            on_task()

    jobs = [each.work.job for each in left]
    errors = pool.run(jobs, on_progress, ready=lambda position: left[position].work.ready)
    return [f"{left[position].work.name}: {error}" for position, error in sorted(errors.items())]


class Shown:
    """A bar a stage, over all tasks: what is done, and what is left; off a terminal, a line for what has ended."""

    def __init__(self, settings: Settings, places: Sequence[Place]) -> None:
        self._progress = Progress(
            TextColumn("{task.description:14}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._bars: dict[str, TaskID] = {}
        self._done: dict[str, float] = {}
        self._totals: dict[str, int] = {}
        for stage, works_of in STAGES.items():
            works = [work for place in places for work in works_of(settings, place)]
            before = sum(work.size for work in works if work.result.exists())
            self._done[stage] = float(before)
            self._totals[stage] = total = sum(work.size for work in works)
            if total:
                self._bars[stage] = self._progress.add_task(stage, total=total, completed=before, start=False, now="")

    def __enter__(self) -> "Shown":
        """Return the bars, shown."""
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def follow(self, planned: Sequence[Planned]) -> OnProgress:
        """Return what moves the bars while what is `planned` is done."""
        shares = [0.0] * len(planned)
        began: dict[int, float] = {}
        told: set[int] = set()

        def on_progress(position: int, share: float) -> None:
            stage, work = planned[position].stage, planned[position].work
            began.setdefault(position, time.monotonic())
            self._progress.start_task(self._bars[stage])
            self._done[stage] += (share - shares[position]) * work.size
            shares[position] = share
            now = "" if share >= 1 else work.name
            self._progress.update(self._bars[stage], completed=self._done[stage], now=now)
            if share < 1 or position in told or not work.result.exists() or console.is_terminal:
                return
            told.add(position)
            left = sum(e.work.size for e in planned if e.stage == stage and not e.work.result.exists())
            total, took_s = self._totals[stage], time.monotonic() - began[position]
            note(f"{stage} {total - left:,} of {total:,}: {work.name} ({took_s:.0f} s)")

        return on_progress
