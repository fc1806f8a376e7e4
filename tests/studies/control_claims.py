"""What the studies of control say, taken apart: which arm is lower, higher or not told apart, and by how much."""

import math
import re
from functools import lru_cache, partial
from importlib import import_module

import pytest

from noise2action.evaluate.latency import measure_latency
from noise2action.evaluate.statistics import Estimate
from noise2action.studies import STUDIES
from noise2action.studies.study import Findings, Settings, Spread, find

Row = dict[str, object]


@lru_cache
def findings(name: str) -> Findings:
    """Return a study of the least size; plans are timed without any to warm up."""
    study = find(name)
    with pytest.MonkeyPatch.context() as patch:
        module = import_module(f"noise2action.studies.{STUDIES[name].module}")
        patch.setattr(module, "measure_latency", partial(measure_latency, warmup=0), raising=False)
        return study.run(Settings("tiny", seed=3), lambda done, total: None)


def rows(name: str) -> list[Row]:
    """Return its table, checked: finite numbers inside their intervals, and a figure."""
    found = findings(name)
    table = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    for estimate in (cell for row in table for cell in row.values() if isinstance(cell, Estimate)):
        assert math.isfinite(estimate.value)
        assert estimate.low - 1e-9 <= estimate.value <= estimate.high + 1e-9
    assert found.figure.get_axes()
    assert "nan" not in found.paragraph
    return table


def at(row: Row, column: str) -> Estimate:
    value = row[column]
    assert isinstance(value, Estimate), column
    return value


def clocked(row: Row, column: str, *, digits: int = 1) -> str:
    """Return a median over trainings, with least and most, as texts tell it; checked to be one, and positive."""
    found = row[column]
    assert isinstance(found, Spread), column
    assert 0 < found.low <= found.value <= found.high
    value, low, high = (f"{x:,.{digits}f}" for x in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


WORDS = ("lower for", "higher for", "not told apart for")


def clauses(text: str, measure: str) -> list[dict[str, str]]:
    """Return, for each time that the text speaks of `measure`, the words after each verdict."""
    found: list[dict[str, str]] = []
    for rest in text.split(f"{measure} is ")[1:]:
        clause = re.split(r"; |\.(?:\s|$)", rest)[0]
        parts = re.split(f"({'|'.join(WORDS)})", clause)
        found.append(dict(zip(parts[1::2], parts[2::2], strict=True)))
    return found


def verdict(gap: Estimate) -> str:
    if gap.high - gap.low < 1e-9:  # trainings that differ by equally much are no verdict
        return WORDS[2]
    return WORDS[0] if gap.high < 0 else WORDS[1] if gap.low > 0 else WORDS[2]


def told(gap: Estimate, digits: int) -> str:
    numbers = [f"{value:+.{digits}f}" for value in (gap.value, gap.low, gap.high)]
    return f"({numbers[0]} [{numbers[1]}, {numbers[2]}])"
