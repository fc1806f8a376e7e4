"""From saved episodes to rows with intervals, paired differences and a verdict a task. Nothing is run here."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..envs.tasks import find
from ..evaluate.modes import Modes
from ..evaluate.result import About, Comparison, Evaluation, compare
from ..evaluate.statistics import CONFIDENCE, Estimate, PairedSuccess, bootstrap_mean
from ..recipes.runs import routes_of
from .methods import CONTROL, Method
from .settings import Place, Settings
from .stages import Demonstrated, Timing, demonstrated, episodes, timing


@dataclass(frozen=True)
class Row:
    """One method in one task."""

    task: str
    method: Method
    evaluation: Evaluation
    control: Evaluation | None = None
    """The episodes of the control; None for it, and where episodes are not paired with it."""
    timing: Timing | None = None

    @property
    def learned(self) -> bool:
        """Whether it was trained, and may win."""
        return self.method.training is not None

    @cached_property
    def paired(self) -> Comparison | None:
        """This method against the control, episode by episode."""
        return None if self.control is None else compare(self.evaluation, self.control)

    @property
    def modes(self) -> Modes | None:
        """The routes that were taken against those that were demonstrated."""
        return self.evaluation.modes

    @cached_property
    def time_to_success(self) -> Estimate | None:
        """Seconds of the successful episodes; None without any."""
        task = find(self.task)
        took = [result.steps / task.control_hz for result in self.evaluation.results if result.success]
        return bootstrap_mean(took, 0, bounds=(0.0, task.max_steps / task.control_hz)) if took else None


@dataclass(frozen=True)
class Verdict:
    """Who is ahead in a task."""

    leader: Row
    second: Row | None = None
    """The best that does not run the leader's training; None where all do."""
    lead: Comparison | None = None
    """The leader against the second."""
    others: tuple[Row, ...] = ()
    """Rows that the leader was compared with, the best first; samplers of its own training are among them."""
    tied: tuple[Row, ...] = ()
    """Those from which it is not told apart."""

    @property
    def won(self) -> bool:
        """Whether the leader is told apart from every row of another training."""
        return len(self.siblings) == len(self.tied)

    @property
    def siblings(self) -> tuple[Row, ...]:
        """Those of `tied` that sample the leader's own training."""
        return tuple(row for row in self.tied if row.method.training == self.leader.method.training)


@dataclass(frozen=True)
class TaskRows:
    """All that is known about one task."""

    task: str
    rows: tuple[Row, ...]
    demonstrated: Demonstrated | None

    def row(self, name: str) -> Row | None:
        """Return the row of a method, where there is one."""
        return next((row for row in self.rows if row.method.name == name), None)

    @cached_property
    def verdict(self) -> Verdict | None:
        """Who is ahead; None without a learned policy."""
        return verdict(self.rows)


def apart(success: PairedSuccess) -> bool:
    """Return whether two rates differ: the interval excludes zero, and McNemar's test agrees.

    On few episodes the interval, an approximation, excludes zero where the exact test cannot be below 5 %.
    """
    low, high = success.difference.low, success.difference.high
    return (low > 0 or high < 0) and success.p_value < 1 - CONFIDENCE


def verdict(rows: Sequence[Row]) -> Verdict | None:
    """Return who is ahead of the learned policies, by success, then by score, then by the order of the rows.

    The leader wins where it is told `apart` from each row of another training; else it ties.
    """
    ranked = sorted(
        (row for row in rows if row.learned), key=lambda r: (-r.evaluation.success.value, -r.evaluation.score.value)
    )
    if not ranked:
        return None
    leader, *rest = ranked
    leads = [(row, compare(leader.evaluation, row.evaluation)) for row in rest]
    tied = tuple(row for row, lead in leads if not apart(lead.success))
    others = ((row, lead) for row, lead in leads if row.method.training != leader.method.training)
    second, lead = next(others, (None, None))
    return Verdict(leader, second, lead, tuple(rest), tied)


def task_rows(settings: Settings, place: Place) -> TaskRows | None:
    """Return the rows of the methods whose episodes are all there; None where there is none."""
    task, told = find(place.task), demonstrated(place)
    runs = (place.run(m.training, settings.seed) for m in settings.compared if m.training)
    routes = next(filter(None, map(routes_of, runs)), None) if told is None else told.routes or None
    found: list[tuple[Method, Evaluation, Timing | None]] = []
    for method in settings.compared:
        results = episodes(settings, place, method)
        if results is None:
            continue
        timed = timing(place, method)
        about = About(
            task=task.name,
            policy=method.label,
            weights="ema",
            sampler="-" if timed is None else timed.sampler,
            nfe=0 if timed is None else timed.nfe,
            control_hz=task.control_hz,
            stride=1 if timed is None else timed.stride,
            action_unit=task.schema.action.unit,
            step=0 if timed is None else timed.steps,
            threads=1,
        )
        found.append((method, Evaluation(about, results, reference=routes), timed))
    control = next((evaluation for method, evaluation, _ in found if method.name == CONTROL), None)
    rows = tuple(
        Row(place.task, method, evaluation, _paired(method, evaluation, control), timed)
        for method, evaluation, timed in found
    )
    return TaskRows(place.task, rows, told) if rows else None


def _paired(method: Method, own: Evaluation, control: Evaluation | None) -> Evaluation | None:
    """Return the control where it ran the same episodes.

    What is not trained ran once, beside several trainings.
    """
    if control is None or method.name == CONTROL or own.seeds != control.seeds:
        return None
    return control
