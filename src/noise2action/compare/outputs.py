"""What a comparison leaves: tables, figures, videos and one page, all drawn from saved episodes."""

import io
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from ..envs.tasks import find
from ..evaluate.figures import Figure, png
from ..evaluate.video import encode_mp4
from ..machine import hardware
from ..storage import atomic_write
from ..train.folder import write_json
from . import drawings, tables, webpage
from .films import failures, side_by_side
from .films import films as found_films
from .rows import TaskRows
from .settings import BLOCK, FRESH, Place, Settings

FIGURES: Mapping[str, Callable[[Sequence[TaskRows]], Figure]] = {
    "success": drawings.success,
    "differences": drawings.differences,
    "score": drawings.score,
    "time_to_success": drawings.time_to_success,
    "routes": drawings.routes,
    "jerk": drawings.jerk,
    "jumps": drawings.jumps,
    "latency": drawings.latency,
    "training": drawings.training,
}
"""Figures by file name."""
BESIDE: Mapping[str, str] = {
    "demonstrator": "The demonstrator sees the whole state and cannot win. ",
    "random": "Random actions are uniform in the range that a task allows. ",
}
"""What is said of methods that are not trained, where they are compared."""


def environment(command: str) -> dict[str, Any]:
    """Return where and how the comparison was run."""
    packages = ("torch", "numpy", "mujoco", "metaworld", "pymunk", "gymnasium")
    return {
        "command": command,
        "hardware": hardware(),
        "python": platform.python_version(),
        "noise2action": __version__,
        "packages": {name: found for name in packages if (found := _version(name)) is not None},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:
        return None


def protocol(settings: Settings, *, command: str) -> str:
    """Return a paragraph on how the numbers came about."""
    last = FRESH + settings.episodes - 1
    shown = "given demonstrations" if settings.data else f"{settings.demonstrations} demonstrations a task"
    budget = "the recipe's steps"
    if settings.train_steps is not None:
        budget = f"{settings.train_steps:,} optimiser steps"
    elif settings.train_minutes is not None:
        budget = f"{settings.train_minutes:g} minutes"
    trained = f"{settings.seeds} trainings" if settings.seeds > 1 else "one training"
    earlier = f"{len(settings.take)} of the trainings were taken from earlier runs. " if settings.take else ""
    beside = earlier + "".join(BESIDE[method.name] for method in settings.compared if method.name in BESIDE)
    machine = environment(command)
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    return (
        f"{shown[0].upper()}{shown[1:]}, the same for every method, as are windows, encoder, backbone and budget "
        f"({budget}); {trained} a method, {settings.episodes} fresh episodes a training (seeds {FRESH} to {last}), the "
        f"same for every method, in blocks of {BLOCK}. {beside}"
        "Brackets are 95 % intervals: Wilson's for success, BCa bootstrap over episodes for means, Newcombe's for "
        "paired differences of success; p is McNemar's exact test. A policy wins a task where, "
        "against every policy of another training, the paired interval of its success excludes zero and p < 0.05. "
        f"{machine['hardware']}; Python {machine['python']}, noise2action {machine['noise2action']}, {packages}. "
        f"`{command}`"
    )


def write_tables(
    settings: Settings, out: Path, tasks: Sequence[TaskRows], *, findings: Sequence[str], command: str
) -> None:
    """Write table.csv, timings.csv, table.md and compare.json."""
    bodies = {
        "table.csv": tables.table_csv(tasks),
        "timings.csv": tables.timings_csv(tasks),
        "table.md": tables.table_markdown(tasks, protocol=protocol(settings, command=command)),
    }
    for name, body in bodies.items():
        atomic_write(out / name, body.encode())
    found = tables.document(settings, tasks, environment=environment(command), findings=findings)
    write_json(out / "compare.json", found)


def write_page(
    settings: Settings, out: Path, tasks: Sequence[TaskRows], *, findings: Sequence[str], command: str
) -> None:
    """Write the figures, the videos and compare.html."""
    drawn = {name: draw(tasks) for name, draw in FIGURES.items()} if tasks else {}
    drawn = {name: figure for name, figure in drawn.items() if figure.axes}
    for name, figure in drawn.items():
        atomic_write(out / "figures" / f"{name}.png", png(figure))
        atomic_write(out / "figures" / f"{name}.svg", _svg(figure))
    shown = [_shown(settings, out, task) for task in tasks] if settings.record else []
    page = webpage.page(
        settings,
        tasks,
        figures=drawn,
        shown=shown,
        findings=findings,
        protocol=protocol(settings, command=command),
    )
    atomic_write(out / "compare.html", page.encode())


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _shown(settings: Settings, out: Path, task: TaskRows) -> webpage.Shown:
    """Write a task's videos, methods side by side, and its gallery of failures; return them for the page."""
    place = Place(out, task.task)
    succeeded = {
        row.method.name: {result.seed: result.success for result in reversed(row.evaluation.results)}
        for row in task.rows
    }
    hz = find(task.task).control_hz
    videos: dict[int, bytes] = {}
    for episode, films in found_films(settings, place, succeeded=succeeded):
        videos[episode] = encode_mp4(side_by_side(films, fps=hz), hz)
        atomic_write(out / "videos" / f"{place.name}-seed{episode}.mp4", videos[episode])
    failed = [(row.method.label, failures(settings, place, row.method)) for row in task.rows]
    failed = [(label, frames) for label, frames in failed if frames]
    drawn = png(drawings.gallery(failed), dpi=100.0) if failed else None
    if drawn is not None:
        atomic_write(out / "figures" / f"failures-{place.name}.png", drawn)
    return webpage.Shown(task.task, videos, drawn)
