"""The table as CSV, Markdown and JSON. What a clock measured is in columns and files of its own: the rest repeats."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ..config import encode
from ..evaluate.statistics import Estimate
from ..evaluate.tables import compact, decimal, jerk_unit, p_value, percent, points, shares
from .rows import Row, TaskRows
from .settings import Settings
from .words import paragraph, verdict_text

Cell = str | int | float | None


def table_csv(tasks: Sequence[TaskRows]) -> str:
    """Return every row with full precision; an interval fills two columns."""
    rows = [(task, row) for task in tasks for row in task.rows]
    return _csv([{**_named(row), **numbers(task, row)} for task, row in rows])


def timings_csv(tasks: Sequence[TaskRows]) -> str:
    """Return what a clock measured: training and one plan of each trained method."""
    return _csv([{**_named(row), **clocked(row)} for task in tasks for row in task.rows if row.timing is not None])


def _named(row: Row) -> dict[str, Cell]:
    return {"task": row.task, "method": row.method.name}


def _csv(rows: Sequence[Mapping[str, Cell]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
    for row in rows:
        writer.writerow(["" if v is None else repr(v) if isinstance(v, float) else v for v in row.values()])
    return text.getvalue()


def numbers(task: TaskRows, row: Row) -> dict[str, Cell]:
    """Return what the episodes of a method say, by column; None where it does not apply."""
    evaluation, paired, modes = row.evaluation, row.paired, row.modes
    success = paired.success if paired else None
    smooth = evaluation.smoothness
    return {
        "label": row.method.label,
        "sampler": evaluation.about.sampler if row.timing else None,
        "nfe": row.timing.nfe if row.timing else None,
        "stride": row.timing.stride if row.timing else None,
        "episodes": len(evaluation.results),
        **_spread("success", evaluation.success),
        **_spread("success_less_control", success.difference if success else None),
        "p_value": success.p_value if success else None,
        "only_this": success.only_a if success else None,
        "only_control": success.only_b if success else None,
        **_spread("score", evaluation.score),
        **_spread("score_less_control", paired.score if paired else None),
        **_spread("jerk", smooth.get("jerk")),
        **_spread("boundary_jump", smooth.get("boundary_jump")),
        **_spread("within_jump", smooth.get("within_jump")),
        **_spread("time_to_success_s", row.time_to_success),
        "modes_found": modes.coverage if modes else None,
        "entropy_bit": modes.entropy if modes else None,
        "demonstrated_entropy_bit": modes.reference_entropy if modes else None,
        "routes": shares(evaluation.routes) if evaluation.routes else None,
        "verdict": _verdict(task, row),
    }


def _verdict(task: TaskRows, row: Row) -> str | None:
    told = task.verdict
    if told is None or row not in (told.leader, *told.tied):
        return None
    return "ties" if not told.won else "wins" if row is told.leader else "level"


def _by_training(row: Row, episodes: int) -> list[float]:
    """Return the success of each training apart."""
    won = [result.success for result in row.evaluation.results]
    return [sum(won[k : k + episodes]) / episodes for k in range(0, len(won), episodes)]


def _spread(name: str, estimate: Estimate | None) -> dict[str, Cell]:
    ends = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def clocked(row: Row) -> dict[str, Cell]:
    """Return what a clock measured, by column."""
    found = row.timing
    assert found is not None, "asked of trained methods"
    return {
        "train_s": found.train_s,
        "train_steps": found.steps,
        "plan_p50_ms": found.p50_ms,
        "plan_p99_ms": found.p99_ms,
    }


Columns = Mapping[str, Callable[[Row], str]]
"""Columns for people, of one task."""
METHOD: Columns = {"method": lambda row: row.method.label}
OUTCOME: Columns = {
    **METHOD,
    "success": lambda row: percent(row.evaluation.success),
    "less control": lambda row: points(row.paired.success.difference) if row.paired else "-",
    "p": lambda row: p_value(row.paired.success.p_value) if row.paired else "-",
    "score": lambda row: decimal(row.evaluation.score),
    "n": lambda row: str(len(row.evaluation.results)),
}
MOTION: Columns = {
    **METHOD,
    "to success (s)": lambda row: compact(row.time_to_success) if row.time_to_success else "-",
    "jerk": lambda row: _smooth(row, "jerk"),
    "jump between chunks": lambda row: _smooth(row, "boundary_jump"),
    "within": lambda row: _smooth(row, "within_jump"),
}
ROUTES: Columns = {
    **METHOD,
    "routes found": lambda row: f"{100 * row.modes.coverage:.0f} %" if row.modes else "-",
    "entropy (bit)": lambda row: f"{row.modes.entropy:.2f} of {row.modes.reference_entropy:.2f}" if row.modes else "-",
    "routes": lambda row: shares(row.evaluation.routes) if row.evaluation.routes else "-",
}
CLOCKED: Columns = {
    **METHOD,
    "sampler": lambda row: row.evaluation.about.sampler,
    "calls a plan": lambda row: str(row.evaluation.about.nfe),
    "one plan, p50 / p99 (ms)": lambda row: f"{row.timing.p50_ms:.2f} / {row.timing.p99_ms:.2f}" if row.timing else "-",
    "training (s)": lambda row: f"{row.timing.train_s:,.0f}" if row.timing else "-",
    "steps": lambda row: f"{row.timing.steps:,}" if row.timing else "-",
}
TABLES: Mapping[str, Columns] = {
    "Success": OUTCOME,
    "Motion": MOTION,
    "Routes": ROUTES,
    "What a plan and a training cost": CLOCKED,
}
"""The tables of a task by caption, each narrow enough for a screen; the first columns are most worth the width."""
GAP = 3
"""Characters between two columns of a terminal."""


def _smooth(row: Row, name: str) -> str:
    found = row.evaluation.smoothness.get(name)
    return compact(found) if found else "-"


def task_tables(task: TaskRows) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return caption, heads and rows of each table of a task; what says nothing is left out."""
    found = [(caption, *_lines(task, columns)) for caption, columns in TABLES.items()]
    return [(caption, heads, rows) for caption, heads, rows in found if len(heads) > 1]


def _lines(task: TaskRows, columns: Columns) -> tuple[list[str], list[list[str]]]:
    rows = [row for row in task.rows if columns is not CLOCKED or row.timing is not None]
    cells = {name: [write(row) for row in rows] for name, write in columns.items()}
    kept = [name for name, column in cells.items() if any(text != "-" for text in column)]
    heads = [name if name != "jerk" else f"jerk ({jerk_unit(_unit(task))})" for name in kept]
    heads = [f"{name} ({_unit(task)})" if name in ("jump between chunks", "within") else name for name in heads]
    return heads, [[cells[name][k] for name in kept] for k in range(len(rows))]


def _unit(task: TaskRows) -> str:
    return task.rows[0].evaluation.about.action_unit or "action units"


def rich_tables(task: TaskRows, *, width: int) -> list[Table]:
    """Return a task's tables for a terminal, each with as many of its columns as `width` characters hold unbroken."""
    found: list[Table] = []
    for caption, heads, rows in task_tables(task):
        needed = [max(map(len, [*head.split(), *cells])) for head, *cells in zip(heads, *rows, strict=True)]
        kept = [k for k in range(len(heads)) if sum(needed[: k + 1]) + GAP * k <= width]
        title = f"{task.task}: {verdict_text(task.verdict)}" if caption == "Success" else None
        built = Table(
            title=escape(title) if title else None,
            title_justify="left",
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
        )
        whole = [max(needed[k], len(heads[k])) for k in kept]
        fits = sum(whole) + GAP * (len(kept) - 1) <= width
        for k, wide in zip(kept, whole, strict=True):
            built.add_column(escape(heads[k]), width=wide if fits else needed[k])
        for row in rows:
            built.add_row(*(escape(row[k]) for k in kept))
        if title or len(kept) > 1:
            found.append(built)
    return found


def table_markdown(tasks: Sequence[TaskRows], *, protocol: str) -> str:
    """Return the page for people: what was found, how, and the tables of each task."""
    parts = ["# Comparison", paragraph(tasks), protocol]
    for task in tasks:
        parts += [f"## {task.task}", f"{verdict_text(task.verdict)}."]
        for caption, heads, rows in task_tables(task):
            parts += [f"### {caption}", _markdown(heads, rows)]
    return "\n\n".join(parts) + "\n"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in table)


def document(
    settings: Settings,
    tasks: Sequence[TaskRows],
    *,
    environment: Mapping[str, Any],
    findings: Sequence[str],
) -> dict[str, Any]:
    """Return everything as JSON: settings, numbers, verdicts, what a clock measured, and the machine."""
    return {
        "settings": encode(settings),
        "methods": {method.name: method.label for method in settings.compared},
        "findings": list(findings),
        "summary": paragraph(tasks) if tasks else "",
        "tasks": {
            task.task: {
                "demonstrations": None if task.demonstrated is None else asdict(task.demonstrated),
                "verdict": verdict_text(task.verdict),
                "methods": {row.method.name: numbers(task, row) for row in task.rows},
                "trainings": {row.method.name: _by_training(row, settings.episodes) for row in task.rows},
                "clock": {row.method.name: clocked(row) for row in task.rows if row.timing is not None},
            }
            for task in tasks
        },
        "environment": dict(environment),
    }
