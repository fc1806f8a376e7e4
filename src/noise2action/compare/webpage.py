"""One HTML page of a comparison, which loads nothing."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..evaluate import page as html
from ..evaluate.figures import Figure, svg
from ..evaluate.tables import percent
from .rows import TaskRows
from .settings import Settings
from .tables import task_tables
from .words import paragraph, verdict_text

CAPTIONS: Mapping[str, str] = {
    "success": "Success by method; bar: rate, whisker: 95 % Wilson interval.",
    "differences": (
        "Success less that of the control, regression of chunks on the same network, on the same episodes; whisker: "
        "Newcombe's 95 % interval. Right of the line is better than the control."
    ),
    "score": "Score by method, where it says more than success; bar: mean, whisker: 95 % bootstrap interval.",
    "time_to_success": "Time of the successful episodes; dot: mean, whisker: 95 % bootstrap interval.",
    "routes": (
        "Which of the possible ways the demonstrations and the episodes took, failed episodes included. Right, where "
        "that of the demonstrations is known: the entropy of the ways taken, and the share of the demonstrated ones "
        "that were."
    ),
    "jerk": "Jerk of the commanded actions; dot: mean over episodes, whisker: 95 % bootstrap interval.",
    "jumps": (
        "Mean distance of consecutive actions, within chunks (open) and where a new chunk begins (filled): where they "
        "are far apart, chunks do not join."
    ),
    "latency": (
        "One plan at batch 1 on one thread, nothing else of this comparison running. Right: network calls of one plan."
    ),
    "training": "One training on one thread, others beside it; samplers of one training share it.",
}
"""What is seen in the figures, by name."""


@dataclass(frozen=True)
class Shown:
    """Pictures of a task's episodes."""

    task: str
    videos: Mapping[int, bytes]
    """mp4 of the methods side by side, by seed."""
    failures: bytes | None
    """Last frames of failed episodes, as a PNG."""


def page(
    settings: Settings,
    tasks: Sequence[TaskRows],
    *,
    figures: Mapping[str, Figure],
    shown: Sequence[Shown],
    findings: Sequence[str],
    protocol: str,
) -> str:
    """Return the page: what was found, tables, figures by name, videos, failures, and how."""
    sections = [("Result", _result(tasks, findings))]
    if "success" in figures:
        sections.append(("Success", _drawn(figures, "success", "differences", "score", "time_to_success")))
    sections += [(task.task, _tables(task)) for task in tasks]
    for heading, names in (
        ("Routes", ["routes"]),
        ("Smoothness", ["jerk", "jumps"]),
        ("Cost", ["latency", "training"]),
    ):
        if any(name in figures for name in names):
            sections.append((heading, _drawn(figures, *names)))
    videos = [
        (mp4, f"{s.task}, seed {episode}: methods side by side") for s in shown for episode, mp4 in s.videos.items()
    ]
    if videos:
        sections.append(("Videos", "".join(html.video(mp4, caption) for mp4, caption in videos)))
    if any(s.failures for s in shown):
        sections.append(("Failures", "".join(_failures(s) for s in shown)))
    sections.append(("How", html.paragraph(protocol)))
    footer = (
        "Brackets are 95 % intervals. Episodes are paired by seed: the same seed is the same layout for every method."
    )
    return html.document(f"Comparison: {settings.suite}", lead=_lead(tasks), sections=sections, footer=footer)


def _lead(tasks: Sequence[TaskRows]) -> str:
    """Return a tile a task: who is ahead."""
    tiles: list[tuple[str, str, str, str]] = []
    for task in tasks:
        verdict = task.verdict
        if verdict is not None:
            name = verdict.leader.method.label if verdict.won else "tie"
            note = percent(verdict.leader.evaluation.success)
            tiles.append((task.task, name, note if verdict.won else f"{verdict.leader.method.label} {note}", ""))
    return html.tiles(tiles)


def _result(tasks: Sequence[TaskRows], findings: Sequence[str]) -> str:
    parts = [html.paragraph(part) for part in paragraph(tasks).split("\n\n") if part]
    if findings:
        parts.append(html.heading("What failed"))
        parts += [html.paragraph(finding) for finding in findings]
    return "".join(parts)


def _tables(task: TaskRows) -> str:
    parts = [html.paragraph(f"{verdict_text(task.verdict)}.")]
    for caption, heads, rows in task_tables(task):
        parts.append(html.table(heads, rows, caption=caption, texts=2 if "sampler" in heads else 1))
    return "".join(parts)


def _drawn(figures: Mapping[str, Figure], *names: str) -> str:
    found = [(name, CAPTIONS[name]) for name in names if name in figures]
    return "".join(html.figure(svg(figures[name], name, caption), caption) for name, caption in found)


def _failures(shown: Shown) -> str:
    if shown.failures is None:
        return ""
    data = base64.b64encode(shown.failures).decode()
    image = f'<img alt="last frames" style="max-width:100%" src="data:image/png;base64,{data}"/>'
    return html.figure(image, f"{shown.task}: the last frames of the failed episodes with the lowest seeds")
