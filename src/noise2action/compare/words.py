"""What the table says, in words: every claim is chosen by comparing intervals, never written beforehand."""

from collections.abc import Sequence

from ..evaluate.statistics import CONFIDENCE
from ..evaluate.tables import p_value, percent, points, shares
from ..studies.study import listing, paragraphs
from .methods import CONTROL, GENERATIVE, METHODS
from .rows import Row, TaskRows, Verdict, apart


def verdict_text(verdict: Verdict | None) -> str:
    """Return e.g. `Ahead: flow matching` or `Tie of BC-GMM and flow matching`."""
    if verdict is None:
        return "No policy was trained"
    names = [row.method.label for row in (verdict.leader, *verdict.tied)]
    if not verdict.won:
        return f"Tie of {listing(names)}"
    return f"Ahead: {names[0]}" + (f", level with {listing(names[1:])} of the same training" if names[1:] else "")


def paragraph(tasks: Sequence[TaskRows]) -> str:
    """Return what was found: what drawing chunks is worth against averaging them, then each task."""
    parts = [_against_control(tasks), *(_task(task) for task in tasks)]
    return paragraphs(*parts, _by_chance(sum(len(_differences(task)) for task in tasks)))


def _differences(task: TaskRows) -> set[frozenset[str]]:
    """Return the pairs of methods whose difference is estimated: with the control, and of the leader with others."""
    pairs = {frozenset((row.method.name, CONTROL)) for row in task.rows if row.paired is not None}
    if task.verdict is not None:
        pairs |= {frozenset((task.verdict.leader.method.name, row.method.name)) for row in task.verdict.others}
    return pairs


def _by_chance(differences: int) -> str:
    if not differences:
        return ""
    misses = (1 - CONFIDENCE) * differences
    return f"95 % intervals of differences: {differences}, of which about {misses:.1f} are expected to miss by chance."


def _against_control(tasks: Sequence[TaskRows]) -> str:
    """Return where each generative method is above its control, below it, or not told apart from it."""
    sentences: list[str] = []
    for name in GENERATIVE:
        found: dict[str, list[str]] = {"above": [], "not told apart from": [], "below": []}
        for task in tasks:
            row = task.row(name)
            if row is None or row.paired is None:
                continue
            gap = row.paired.success.difference
            word = ("above" if gap.value > 0 else "below") if apart(row.paired.success) else "not told apart from"
            found[word].append(f"{task.task} ({points(gap)})")
        said = [f"{word} it in {listing(where)}" for word, where in found.items() if where]
        if said:
            sentences.append(f"{METHODS[name].label} is {listing(said)}")
    if not sentences:
        return ""
    return f"Success, paired by episode with that of {METHODS[CONTROL].label}: {'; '.join(sentences)}."


def _task(task: TaskRows) -> str:
    verdict = task.verdict
    parts = [_demonstrations(task), _demonstrator(task), _lead(verdict), _missing_modes(task)]
    return f"{task.task}: {' '.join(part for part in parts if part)}"


def _demonstrations(task: TaskRows) -> str:
    told = task.demonstrated
    if told is None:
        return ""
    routes = f"; {shares(told.routes)}" if told.routes else ""
    return f"Demonstrations: {told.kept} of {told.attempts} attempts{routes}."


def _demonstrator(task: TaskRows) -> str:
    row = task.row("demonstrator")
    return "" if row is None else f"The demonstrator succeeds in {percent(row.evaluation.success)}."


def _lead(verdict: Verdict | None) -> str:
    if verdict is None:
        return f"{verdict_text(verdict)}."
    leader = f"{verdict.leader.method.label} ({percent(verdict.leader.evaluation.success)})"
    begun = leader[0].upper() + leader[1:]
    level = listing([row.method.label for row in verdict.siblings])
    if verdict.second is None or verdict.lead is None:
        if not verdict.others:
            return f"{begun} is the only policy."
        return f"{begun} is the best of one training{f', not told apart from {level}' if level else ''}."
    success = verdict.lead.success
    second = f"{verdict.second.method.label} ({percent(verdict.second.evaluation.success)})"
    if verdict.won:
        return (
            f"{begun} wins: {points(success.difference)} on {second}, McNemar p {_is(success.p_value)}"
            f"{f'; {level}, of the same training, is not told apart from it' if level else ''}."
        )
    ties = listing([row.method.label for row in verdict.tied])
    return f"A tie: {leader} leads, but {success.difference.n} episodes do not tell it apart from {ties}."


def _is(p: float) -> str:
    found = p_value(p)
    return found if found.startswith("<") else f"= {found}"


def _missing_modes(task: TaskRows) -> str:
    """Return which learned policies never took a demonstrated route."""
    told = [row for row in task.rows if row.learned and row.modes is not None]
    if not told:
        return ""
    missing = [f"{row.method.label} ({_covered(row)})" for row in told if row.modes and row.modes.coverage < 1]
    return (
        f"Not every demonstrated route is taken by {listing(missing)}."
        if missing
        else "Every policy takes every route."
    )


def _covered(row: Row) -> str:
    assert row.modes is not None, "asked of rows with modes"
    return f"{100 * row.modes.coverage:.0f} % of the routes"
