"""What a study is, what it returns, and how that is written: table, figure, and a paragraph computed from both."""

import csv
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from scipy import stats

from ..diffusion.paths import TerminalSNRWarning
from ..diffusion.sampling import CoarseGridWarning
from ..errors import ConfigError, MissingExtraError, did_you_mean
from ..evaluate.statistics import CONFIDENCE, Estimate
from ..evaluate.tables import compact
from ..storage import atomic_write
from . import STUDIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Size = Literal["full", "quick", "tiny"]
"""full: minutes. quick: under a minute on 2 cores, a few where tasks are simulated. tiny: seconds, for tests; too few
samples to conclude from."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Settings:
    """How much a study computes, and from which seed."""

    size: Size = "full"
    """full, quick or tiny."""
    seed: int = 0
    """Every random number of the study follows from it."""

    @property
    def quick(self) -> bool:
        """Whether less than the full study was asked for."""
        return self.size != "full"

    def pick(self, full: Value, *, quick: Value, tiny: Value) -> Value:
        """Return the value for this size."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.size]


Progress = Callable[[int, int], None]
"""Called with the units of work done and their total."""

Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Findings:
    """What a study found. A column of `Estimate`s carries its 95 % interval and its number of seeds.

    One of `Spread`s carries least and most instead.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    figure: "Figure"
    paragraph: str
    """What the rows show, the answer first; every claim was chosen by comparing numbers with their intervals."""
    counted: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the n of an interval counts, where it does not count seeds alone; by how the column's name begins."""


Run = Callable[[Settings, Progress], Findings]


@dataclass(frozen=True)
class Study:
    """A question and the experiment that answers it."""

    name: str
    question: str
    run: Run


def find(name: str) -> Study:
    """Return the study `name`, importing its module; `ConfigError` for an unknown one."""
    if name not in STUDIES:
        raise ConfigError(f"expected a study, got {name!r}; {did_you_mean(name, STUDIES)}")
    entry = STUDIES[name]
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "report")
    run: Callable[[Settings, Progress], Findings] = import_module(f"{__package__}.{entry.module}").run

    def quietly(settings: Settings, progress: Progress) -> Findings:
        with warnings.catch_warnings():
            # Grids that start with signal or leap are among what is measured; the findings tell what they cost.
            warnings.simplefilter("ignore", TerminalSNRWarning)
            warnings.simplefilter("ignore", CoarseGridWarning)
            return run(settings, progress)

    return Study(name, entry.question, quietly)


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean over seeds with its 95 % interval by Student's t: exact for few, about normal repeats.

    One value has an infinite interval: it says nothing about the next seed. `ValueError` for none, or one not finite.
    """
    sample = _sample(values)
    n, middle = len(sample), float(sample.mean())
    if n == 1:
        return Estimate(middle, -math.inf, math.inf, 1)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * sample.std(ddof=1) / math.sqrt(n))
    return Estimate(middle, middle - half, middle + half, n)


@dataclass(frozen=True)
class Spread(Estimate):
    """The median of `n` values between the least (`low`) and the most (`high`) of them: no interval of a mean."""


def median(values: Sequence[float]) -> Spread:
    """Return the median with the least and the most: for what a clock measured, whose rare delays are not normal.

    `ValueError` for no values, or one that is not finite.
    """
    sample = _sample(values)
    return Spread(float(np.median(sample)), float(sample.min()), float(sample.max()), len(sample))


def _sample(values: Sequence[float]) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"expected a list of at least one finite number, got {values!r}: leave out missing values")
    return sample


def difference(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Return the mean of a - b over the same seeds in the same order, with its 95 % interval (paired)."""
    return mean([x - y for x, y in zip(a, b, strict=True)])


def verdict(difference: Estimate, *, below: str, above: str, tie: str) -> str:
    """Return the words that an interval of a difference allows: `tie` where it holds zero."""
    if difference.high < 0:
        return below
    return above if difference.low > 0 else tie


def by_chance(verdicts: int) -> str:
    """Return a sentence on how many of so many 95 % intervals are expected to miss what they estimate."""
    misses = (1 - CONFIDENCE) * verdicts
    return (
        f"These are {verdicts} verdicts by {100 * CONFIDENCE:.0f} % intervals, of which about {misses:.1f} are "
        "expected to miss by chance."
    )


def bracketed(estimate: Estimate, *, digits: int = 1) -> str:
    """Return `value [low, high]`."""
    value, low, high = (f"{x:,.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def listing(names: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def paragraphs(*parts: str) -> str:
    """Return the parts that say something, an empty line between."""
    return "\n\n".join(part for part in parts if part)


def points(lead: str, items: Sequence[str]) -> str:
    """Return `lead` and, below it, each of the items on a line of its own."""
    return paragraphs(lead, "\n".join(f"- {item}." for item in items))


def write(out: Path, study: Study, settings: Settings, findings: Findings) -> None:
    """Write table.csv, table.md, figure.png, figure.svg and findings.md into the folder `out`.

    All are made in memory first and each replaces its old file at once: an interrupt leaves nothing half-written.
    """
    check_out(out)
    bodies = {
        "table.csv": table_csv(findings).encode(),
        "table.md": table_markdown(findings).encode(),
        "figure.png": _figure(findings.figure, "png"),
        "figure.svg": _figure(findings.figure, "svg"),
        "findings.md": _page(study, settings, findings).encode(),
    }
    for name, body in bodies.items():
        atomic_write(out / name, body)


def check_out(out: Path) -> None:
    """Raise `ConfigError` unless `out` is a folder or can become one."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: expected a folder, got a file: {out}")


def table_csv(findings: Findings) -> str:
    """Return the table with full precision; an estimate fills four columns: value, low, high, seeds."""
    spread = [_estimated(findings, k) for k in range(len(findings.columns))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = zip(findings.columns, spread, strict=True)
    writer.writerow(
        [
            name
            for head, wide in heads
            for name in ([head, f"{head} low", f"{head} high", f"{head} n"] if wide else [head])
        ]
    )
    for row in findings.rows:
        writer.writerow(
            [cell for value, wide in zip(row, spread, strict=True) for cell in _csv_cells(value, wide=wide)]
        )
    return text.getvalue()


def table_markdown(findings: Findings) -> str:
    """Return the table for people: an estimate as `value [low, high]`."""
    rows = [[_text(cell).replace("|", "\\|") for cell in row] for row in findings.rows]
    lines = [list(findings.columns), ["---"] * len(findings.columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _page(study: Study, settings: Settings, findings: Findings) -> str:
    size = " --quick" if settings.quick else ""
    return (
        f"# {study.name}\n\n{study.question}\n\n{findings.paragraph}\n\n"
        f"![{study.name}](figure.png)\n\n"
        f"{repeats(findings)} Numbers: [table](table.md), [csv](table.csv). "
        f"Made by `n2a study {study.name}{size} --seed {settings.seed}`.\n"
    )


def repeats(findings: Findings) -> str:
    """Return a sentence on what the intervals of the table are over, and how many of it."""
    columns: dict[str, list[str]] = {}
    for k, name in enumerate(findings.columns):
        cells = [row[k] for row in findings.rows]
        counts = sorted({cell.n for cell in cells if isinstance(cell, Estimate)})
        if counts:
            what = "least and most around the median of" if any(isinstance(c, Spread) for c in cells) else "over"
            # The longest beginning that is known: the others are less precise.
            known = max((start for start in findings.counted if name.startswith(start)), key=len, default=None)
            counted = "seeds" if known is None else findings.counted[known]
            over = f"{what} {' or '.join(f'{n:,}' for n in counts)} {counted}"
            columns.setdefault(over, []).append(name)
    intervals = [over for over in columns if over.startswith("over")]
    usual = max(intervals, key=lambda over: len(columns[over]), default="over seeds")
    others = [
        f"{over} in {listing([repr(name) for name in names])}" for over, names in columns.items() if over != usual
    ]
    return f"Brackets and bars are 95 % intervals {usual}{'; '.join(['', *others])}."


def _figure(figure: "Figure", kind: Literal["png", "svg"]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=144, facecolor="white", metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def _estimated(findings: Findings, column: int) -> bool:
    return any(isinstance(row[column], Estimate) for row in findings.rows)


def _csv_cells(cell: Cell, *, wide: bool) -> list[str]:
    if isinstance(cell, Estimate):
        return [repr(cell.value), repr(cell.low), repr(cell.high), str(cell.n)]
    first = "" if cell is None else repr(cell) if isinstance(cell, float) else str(cell)
    return [first, "", "", ""] if wide else [first]


def _text(cell: Cell) -> str:
    if isinstance(cell, Estimate):
        return compact(cell)
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return "-" if cell is None else str(cell)
