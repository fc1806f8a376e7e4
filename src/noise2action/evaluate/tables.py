"""Evaluations on the terminal; numbers are written the same way in the report."""

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from .latency import Latency
from .result import Comparison, Evaluation
from .statistics import Estimate

COLUMNS = ("Task", "Policy", "Sampler", "NFE", "Success", "Score", "n", "Jerk", "Latency p50 / p99", "Routes")
TOLD = ("Told", "Success", "Routes", "n")
PAIRED = ("Task", "Pair (a against b)", "Success, a - b", "Only a / only b", "McNemar p", "Score, a - b", "n")


def percent(estimate: Estimate) -> str:
    """Return e.g. `95.0 % [88.8, 97.8]`."""
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def decimal(estimate: Estimate) -> str:
    """Return e.g. `0.873 [0.840, 0.902]`."""
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def compact(estimate: Estimate) -> str:
    """Return the value with three significant digits and its interval to the same place, e.g. `41.1 [39.5, 42.0]`."""
    size = math.floor(math.log10(abs(estimate.value))) if estimate.value else 0
    if not -4 < size < 6:
        return f"{estimate.value:.2e} [{estimate.low:.2e}, {estimate.high:.2e}]"
    value, low, high = (f"{x:,.{max(2 - size, 0)}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def jerk_unit(action_unit: str) -> str:
    """Return the unit of jerk for actions in `action_unit`: m/s⁴ for velocities in m/s, m/s³ for positions in m."""
    unit = action_unit or "action units"
    return f"{unit}⁴" if unit.endswith("/s") else f"{unit}/s³"


def network_evaluations(nfe: int) -> str:
    """Return e.g. `20 network evaluations`."""
    return f"{nfe} network evaluation{'' if nfe == 1 else 's'}"


def points(estimate: Estimate) -> str:
    """Return a difference of rates in percentage points, e.g. `+12.0 pp [+3.1, +20.9]`."""
    return f"{100 * estimate.value:+.1f} pp [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def p_value(p: float) -> str:
    """Return a p-value with two significant digits, or `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def milliseconds(latency: Latency | None) -> str:
    """Return `p50 / p99 ms`, or a dash where nothing was measured."""
    return f"{latency.total.p50:.1f} / {latency.total.p99:.1f} ms" if latency else "-"


def shares(routes: dict[str, float] | None) -> str:
    """Return e.g. `left 48 %, right 52 %`, or a dash for a task without routes."""
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in routes.items()) if routes else "-"


def cells(evaluation: Evaluation) -> tuple[str, ...]:
    """Return one row under `COLUMNS`."""
    about = evaluation.about
    jerk = evaluation.smoothness.get("jerk")
    return (
        about.task,
        about.policy,
        about.way,
        str(about.nfe),
        percent(evaluation.success),
        decimal(evaluation.score),
        str(len(evaluation.results)),
        f"{compact(jerk)} {jerk_unit(about.action_unit)}" if jerk else "-",
        milliseconds(evaluation.latency),
        shares(evaluation.routes),
    )


def told_cells(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Return one row under `TOLD` an instruction, and none for a task without."""
    return [
        (sentence, percent(part.success), shares(part.routes), str(len(part.results)))
        for sentence, part in evaluation.told.items()
    ]


def paired_cells(comparison: Comparison) -> tuple[str, ...]:
    """Return one row under `PAIRED`."""
    success = comparison.success
    return (
        comparison.a.task,
        " against ".join(
            ", ".join([about.policy, *(f"without {name}" for name in about.hidden)])
            for about in (comparison.a, comparison.b)
        ),
        points(success.difference),
        f"{success.only_a} / {success.only_b}",
        p_value(success.p_value),
        f"{comparison.score.value:+.3f} [{comparison.score.low:+.3f}, {comparison.score.high:+.3f}]",
        str(success.difference.n),
    )


def table(evaluations: Sequence[Evaluation]) -> Table:
    """Return a table with one column an evaluation, which fits a narrow terminal; brackets are 95 % intervals."""
    return _table("Rollouts, 95 % intervals in brackets", COLUMNS, [cells(e) for e in evaluations])


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Return a table with one column a paired comparison."""
    return _table("Paired by seed, 95 % intervals in brackets", PAIRED, [paired_cells(c) for c in comparisons])


def told_table(evaluation: Evaluation) -> Table:
    """Return a table with one row an instruction."""
    about = evaluation.about
    built = Table(*TOLD, title=f"{about.policy} of {about.task} by what it was told", title_justify="left")
    for row in told_cells(evaluation):
        built.add_row(*map(escape, row))
    return built


def _table(title: str, names: Sequence[str], columns: Sequence[Sequence[str]]) -> Table:
    built = Table(title=title, title_justify="left", show_header=False)
    for name, *values in zip(names, *columns, strict=True):
        if any(value != "-" for value in values):
            built.add_row(name, *map(escape, values))
    return built
