"""One HTML file that tells what a run is worth: numbers with intervals, curves, videos, latency, configuration."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..storage import atomic_write
from . import figures, page
from .figures import Figure, Record
from .result import Comparison, Evaluation, compare
from .statistics import wilson
from .tables import PAIRED, TOLD, compact, decimal, jerk_unit, network_evaluations, paired_cells, percent, told_cells

READING = (
    "Brackets are 95 % intervals: Wilson's for rates, a BCa bootstrap over episodes for means, Newcombe's for paired "
    "differences of rates. Episodes are paired by seed: the same seed is the same layout for every policy."
)


@dataclass(frozen=True)
class Drawing:
    """A further figure of a report."""

    heading: str
    figure: Figure
    caption: str
    """What is seen, with n and seeds."""


@dataclass(frozen=True)
class Video:
    """A recorded rollout."""

    mp4: bytes
    caption: str


@dataclass(frozen=True)
class Report:
    """What a report shows; a section without content is left out.

    The first evaluation is the run's own; others of the same task and seeds are compared with it, paired.
    """

    title: str
    evaluations: Sequence[Evaluation] = ()
    records: Sequence[Record] = ()
    """Lines of metrics.jsonl, of kind train and validation."""
    config: Mapping[str, Any] = field(default_factory=dict)
    drawings: Sequence[Drawing] = ()
    videos: Sequence[Video] = ()


def write_report(path: Path, report: Report) -> None:
    """Write the report to `path` as one self-contained HTML file. Raises `StorageError`."""
    atomic_write(path, render(report).encode())


def render(report: Report) -> str:
    """Return the report as HTML."""
    evaluations = report.evaluations
    sections: list[tuple[str, str]] = []
    if evaluations:
        sections.append(("Success", _success(evaluations)))
    if any(e.routes for e in evaluations):
        sections.append(("Routes", _routes([e for e in evaluations if e.routes])))
    if report.drawings:
        sections.append(("Behaviour", "".join(_drawing(k, d) for k, d in enumerate(report.drawings))))
    if report.videos:
        sections.append(("Rollouts", page.videos([(v.mp4, v.caption) for v in report.videos])))
    if any(e.smoothness for e in evaluations):
        sections.append(("Smoothness", _smoothness(evaluations)))
    if any(e.latency for e in evaluations):
        sections.append(("Latency", _latency([e for e in evaluations if e.latency])))
    if any(r["kind"] == "train" for r in report.records):
        sections.append(("Training", _training(report.records)))
    if evaluations:
        sections.append(("Episodes", "".join(_episodes(e, label) for label, e in _labelled(evaluations).items())))
    if report.config:
        text = json.dumps(report.config, indent=2, ensure_ascii=False)
        sections.append(("Configuration", page.details("Show the configuration of this run", page.code(text))))
    lead = _lead(evaluations[0]) if evaluations else ""
    return page.document(report.title, lead=lead, sections=sections, footer=READING)


def _lead(evaluation: Evaluation) -> str:
    about, n = evaluation.about, len(evaluation.results)
    success, score = evaluation.success, evaluation.score
    items = [
        (
            "Success rate",
            f"{100 * success.value:.1f} %",
            f"[{100 * success.low:.1f}, {100 * success.high:.1f}], n = {n}",
            "",
        ),
        ("Mean score", f"{score.value:.3f}", f"[{score.low:.3f}, {score.high:.3f}], n = {n}", ""),
    ]
    if evaluation.modes:
        modes = evaluation.modes
        note = f"{modes.entropy:.2f} bit of {modes.reference_entropy:.2f} in the demonstrations"
        items.append(("Modes found", f"{100 * modes.coverage:.0f} %", note, "good" if modes.coverage == 1 else "bad"))
    if evaluation.latency:
        p99 = evaluation.latency.total.p99
        fits = p99 < about.period_ms
        verdict = f"{'within' if fits else 'longer than'} one tick of {about.period_ms:g} ms"
        items.append(("One plan, p99", f"{p99:.1f} ms", verdict, "good" if fits else "bad"))
    text = (
        f"{about.policy} in {about.task}: {n} episodes (seeds {seed_ranges(evaluation.seeds)}), {about.way}, "
        f"{network_evaluations(about.nfe)} a plan, {about.weights} weights, a new plan every {about.stride} actions at "
        f"{about.control_hz:g} Hz. {about.hardware}; {about.created[:16].replace('T', ' ')} UTC."
    )
    return page.paragraph(text, soft=True) + page.tiles(items)


def _success(evaluations: Sequence[Evaluation]) -> str:
    columns = ("Policy", "Task", "Sampler", "NFE", "Success", "Score", "n")
    rows = [
        (label, e.about.task, e.about.way, str(e.about.nfe), percent(e.success), decimal(e.score), str(e.success.n))
        for label, e in _labelled(evaluations).items()
    ]
    parts = [page.table(columns, rows, caption="95 % intervals in brackets", texts=3)]
    rates = {label: e.success for label, e in _labelled(evaluations).items()}
    caption = f"Success rate with its 95 % Wilson interval; {_sample(evaluations)}."
    parts.append(_figure("success", figures.success_bars(rates), caption))
    comparisons = _comparisons(evaluations)
    if comparisons:
        caption = "Paired by seed; McNemar's exact test on the episodes that only one of the two solved"
        rows = [(f"{a} against {b}", *paired_cells(c)[2:]) for a, b, c in comparisons]
        parts.append(page.table(PAIRED[1:], rows, caption=caption))
        parts.extend(page.paragraph(_verdict(*comparison)) for comparison in comparisons)
    apart = [name for name, e in _alike(evaluations).items() if e.sentences != evaluations[0].sentences]
    if apart:
        reason = "These episodes were told something else, which asks for another success."
        parts.append(page.paragraph(f"Not compared: {'; '.join(apart)}. {reason}"))
    return "".join(parts)


def _comparisons(evaluations: Sequence[Evaluation]) -> list[tuple[str, str, Comparison]]:
    """Return the first evaluation against each other one of the same task, seeds and words, with their labels."""
    label, own = next(iter(_labelled(evaluations).items()))
    same = [(name, e) for name, e in _alike(evaluations).items() if e.sentences == own.sentences]
    return [(label, name, compare(own, e)) for name, e in same]


def _alike(evaluations: Sequence[Evaluation]) -> dict[str, Evaluation]:
    """Return the evaluations of the same task and seeds as the first, by their labels."""
    (_, own), *others = _labelled(evaluations).items()
    return {name: e for name, e in others if (e.about.task, e.seeds) == (own.about.task, own.seeds)}


def _verdict(a: str, b: str, comparison: Comparison) -> str:
    difference = comparison.success.difference
    if difference.low <= 0 <= difference.high:
        return f"{a} against {b}: the interval holds zero, so these {difference.n} episodes do not separate them."
    better, worse = (a, b) if difference.value > 0 else (b, a)
    return f"{better} succeeds more often than {worse} (n = {difference.n} paired episodes)."


def _routes(evaluations: Sequence[Evaluation]) -> str:
    rows: list[tuple[str, ...]] = []
    for label, evaluation in _labelled(evaluations).items():
        taken = [r.route for r in evaluation.results if r.route is not None]
        reference = evaluation.reference or {}
        for route in sorted({*taken, *reference}):
            known = f"{100 * reference[route]:.1f} %" if route in reference else "-"
            rows.append((label, route, percent(wilson(taken.count(route), len(taken))), known, str(len(taken))))
    columns = ("Policy", "Route", "Share", "Demonstrations", "n")
    parts = [page.table(columns, rows, caption="Share of the episodes by route, 95 % Wilson intervals", texts=2)]
    statistics = [
        (
            label,
            f"{100 * m.coverage:.0f} %",
            f"{m.entropy:.2f}",
            f"{m.reference_entropy:.2f}",
            f"{m.total_variation:.2f}",
        )
        for label, e in _labelled(evaluations).items()
        if (m := e.modes)
    ]
    if statistics:
        columns = ("Policy", "Modes found", "Entropy (bit)", "of demonstrations", "Total variation")
        caption = "Entropy over the routes taken; total variation 0 is the demonstrations' split, 1 disjoint"
        parts.append(page.table(columns, statistics, caption=caption))
    told = [(label, *row) for label, e in _labelled(evaluations).items() for row in told_cells(e)]
    if told:
        caption = "By what was told, 95 % Wilson intervals"
        parts.append(page.table(("Policy", *TOLD), told, caption=caption, texts=2))
    return "".join(parts)


def _smoothness(evaluations: Sequence[Evaluation]) -> str:
    rows: list[tuple[str, ...]] = []
    for label, evaluation in _labelled(evaluations).items():
        found = evaluation.smoothness
        joins, within = found.get("boundary_jump"), found.get("within_jump")
        ratio = f"{joins.value / within.value:.2f}" if joins and within and within.value else "-"
        means = (compact(found[name]) if name in found else "-" for name in ("jerk", "boundary_jump", "within_jump"))
        rows.append((label, *means, ratio))
    unit = evaluations[0].about.action_unit or "action units"
    columns = (
        "Policy",
        f"Jerk, RMS ({jerk_unit(unit)})",
        f"Jump between chunks ({unit})",
        f"within chunks ({unit})",
        "Ratio",
    )
    caption = (
        f"Means over episodes, 95 % bootstrap intervals; {_sample(evaluations)}. Ratio 1: no jump where chunks join"
    )
    return page.table(columns, rows, caption=caption)


def _latency(evaluations: Sequence[Evaluation]) -> str:
    about = evaluations[0].about
    measured = {label: e.latency for label, e in _labelled(evaluations).items() if e.latency}
    drawn = figures.latency_bars(measured, period_ms=about.period_ms, stride=about.stride)
    calls = ", ".join(str(n) for n in sorted({latency.calls for latency in measured.values()}))
    caption = (
        f"One plan at batch 1 on one thread: bar p50, whisker p99 of {calls} calls, log scale. A plan fits into the "
        f"control loop left of the dashed line ({about.period_ms:g} ms), and beside it left of the dotted one "
        f"({about.stride} actions). {about.hardware}."
    )
    rows = [
        (label, stage, f"{times.p50:.2f}", f"{times.p99:.2f}", f"{100 * times.p50 / latency.total.p50:.0f} %")
        for label, latency in measured.items()
        for stage, times in (*latency.stages.items(), ("whole plan", latency.total))
    ]
    columns = ("Policy", "Stage", "p50 (ms)", "p99 (ms)", "of the median plan")
    return _figure("latency", drawn, caption) + page.table(columns, rows, caption="Where the time goes", texts=2)


def _training(records: Sequence[Record]) -> str:
    train = [r for r in records if r["kind"] == "train"]
    validation = [r for r in records if r["kind"] == "validation"]
    last = train[-1]
    text = f"{last['step']:,} optimiser steps in {_duration(last['elapsed_s'])}, last training loss {last['loss']:.4g}"
    if last.get("samples_per_s"):
        text += f", {last['samples_per_s']:,.0f} samples/s at the end"
    if validation:
        end = validation[-1]
        text += f"; last validation loss {end['loss']:.4g}"
        if end.get("action_error") is not None:
            text += f", action error {end['action_error']:.4g} {end.get('action_error_unit') or ''}".rstrip()
    caption = (
        f"Left: training loss, {len(train)} records and their moving average, and {len(validation)} validations. "
        "Right: error of planned actions on held-out episodes."
        if validation
        else f"Training loss: {len(train)} records and their moving average."
    )
    parts = [page.paragraph(f"{text}."), _figure("loss", figures.loss_curves(records), caption)]
    if any(r.get("buckets") for r in train):
        caption = (
            "Training loss by noise level, averaged over four equal parts of the run: where the network still learns."
        )
        parts.append(_figure("buckets", figures.bucket_losses(records), caption))
    return "".join(parts)


def _episodes(evaluation: Evaluation, label: str) -> str:
    unit = evaluation.about.action_unit or "action units"
    rows = [
        (
            str(r.seed),
            "yes" if r.success else "no",
            f"{r.score:.3f}",
            str(r.steps),
            r.route or "-",
            "-" if r.jerk is None else f"{r.jerk:.3g}",
            "-" if r.boundary_jump is None else f"{r.boundary_jump:.3g}",
            "-" if r.within_jump is None else f"{r.within_jump:.3g}",
        )
        for r in evaluation.results
    ]
    columns = (
        "Seed",
        "Success",
        "Score",
        "Steps",
        "Route",
        f"Jerk ({jerk_unit(unit)})",
        "Jump between chunks",
        "within",
    )
    failed = [r.seed for r in evaluation.results if not r.success]
    caption = f"Failed seeds: {seed_ranges(failed)}" if failed else "No episode failed"
    return page.details(f"{label}: all {len(rows)} episodes", page.table(columns, rows, caption=caption))


def _drawing(index: int, drawing: Drawing) -> str:
    return page.heading(drawing.heading) + _figure(f"drawing{index}", drawing.figure, drawing.caption)


def _figure(name: str, figure: Figure, caption: str) -> str:
    return page.figure(figures.svg(figure, name, caption), caption)


def _labelled(evaluations: Sequence[Evaluation]) -> dict[str, Evaluation]:
    """Return the evaluations by the shortest labels that tell them apart."""
    labels = [""] * len(evaluations)
    for count in range(1, 8):
        parts = [_parts(e) for e in evaluations]
        # A part that is the same for all tells nothing apart, save the policy's name.
        told = [k for k in range(count) if k == 0 or len({p[k] for p in parts}) > 1]
        labels = [", ".join(p[k] for k in told) for p in parts]
        if len(set(labels)) == len(labels):
            return dict(zip(labels, evaluations, strict=True))
    return {f"{label} ({k + 1})": e for k, (label, e) in enumerate(zip(labels, evaluations, strict=True))}


def _parts(evaluation: Evaluation) -> tuple[str, ...]:
    about = evaluation.about
    return (
        about.policy,
        about.way,
        f"{about.nfe} calls",
        f"{about.stride} executed",
        about.task,
        f"{about.weights} of step {about.step}",
        about.created,
    )


def _sample(evaluations: Sequence[Evaluation]) -> str:
    """Return the number of episodes and their seeds, where they are the same for all."""
    seeds = evaluations[0].seeds
    if all(e.seeds == seeds for e in evaluations):
        return f"n = {len(seeds)} episodes each, seeds {seed_ranges(seeds)}"
    return "n as in the table"


def seed_ranges(seeds: Sequence[int]) -> str:
    """Return e.g. `1000 to 1099, 2000`."""
    ranges: list[list[int]] = []
    for seed in sorted(seeds):
        if ranges and seed == ranges[-1][1] + 1:
            ranges[-1][1] = seed
        else:
            ranges.append([seed, seed])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in ranges)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
