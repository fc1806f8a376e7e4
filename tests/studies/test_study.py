"""What a study writes, how its numbers get their intervals, and how it is called."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from scipy import stats

from noise2action.commands import study as command
from noise2action.errors import ConfigError
from noise2action.evaluate.statistics import Estimate
from noise2action.studies import STUDIES
from noise2action.studies.study import (
    Findings,
    Settings,
    Spread,
    Study,
    bracketed,
    difference,
    find,
    listing,
    mean,
    median,
    paragraphs,
    points,
    repeats,
    table_csv,
    table_markdown,
    verdict,
    write,
)

FILES = {"findings.md", "table.csv", "table.md", "figure.png", "figure.svg"}


def findings(figure: Figure | None = None) -> Findings:
    rows = [("a|b", 3, Estimate(0.5, 0.25, 0.75, 4), 0.1), ("c", 4, None, 1e-7)]
    return Findings(("name", "calls", "error", "size"), rows, figure or Figure(), "Paragraph of numbers.")


STUDY = Study("toy", "What is it?", lambda settings, progress: findings())


def test_mean_has_students_interval() -> None:
    values = [1.0, 2.0, 4.0, 3.5]
    low, high = stats.t.interval(0.95, 3, loc=2.625, scale=stats.sem(values))
    found = mean(values)
    assert (found.value, found.n) == (2.625, 4)
    assert math.isclose(found.low, low)
    assert math.isclose(found.high, high)


def test_one_value_says_nothing_and_none_is_refused() -> None:
    assert (mean([3.0]).low, mean([3.0]).high) == (-math.inf, math.inf)
    for values in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="finite number"):
            mean(values)


def test_difference_is_paired() -> None:
    shared = [10.0, 200.0, -50.0]
    found = difference([s + d for s, d in zip(shared, (1.0, 1.1, 0.9), strict=True)], shared)
    assert 0.7 < found.low < 1 < found.high < 1.3
    with pytest.raises(ValueError, match="longer"):
        difference([1.0], [1.0, 2.0])


@pytest.mark.parametrize(("low", "high", "word"), [(-2, -1, "below"), (1, 2, "above"), (-1, 1, "tie"), (0, 1, "tie")])
def test_a_verdict_needs_an_interval_without_zero(low: int, high: int, word: str) -> None:
    assert verdict(Estimate(0.0, float(low), float(high), 3), below="below", above="above", tie="tie") == word


def test_listing() -> None:
    assert [listing(names) for names in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]


def test_parts_are_apart_and_items_on_lines_of_their_own() -> None:
    assert paragraphs("One.", "", points("Two:", ["a", "b"]), "Three.") == "One.\n\nTwo:\n\n- a.\n- b.\n\nThree."


def test_the_page_says_how_many_of_what_the_intervals_are_over() -> None:
    assert repeats(findings()) == "Brackets and bars are 95 % intervals over 4 seeds."
    one, two, many = (Estimate(0.5, 0.25, 0.75, n) for n in (3, 6, 1500))
    mixed = Findings(
        ("name", "a", "b", "c"), [("x", one, one, many), ("y", two, two, None)], Figure(), "", {"c": "episodes"}
    )
    assert repeats(mixed) == "Brackets and bars are 95 % intervals over 3 or 6 seeds; over 1,500 episodes in 'c'."


def test_the_median_lies_between_least_and_most_whatever_was_delayed() -> None:
    assert median([7.0, 1.0, 2.0]) == Spread(2.0, 1.0, 7.0, 3)
    assert median([0.25, 90.0]) == Spread(45.125, 0.25, 90.0, 2)  # whose interval of the mean starts below zero
    assert mean([0.25, 90.0]).low < 0
    assert bracketed(median([2.0, 1024.0, 3.25])) == "3.2 [2.0, 1,024.0]"
    for bad in ([], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="at least one finite number"):
            median(bad)


def test_the_page_tells_least_and_most_from_intervals() -> None:
    one, times = Estimate(0.5, 0.25, 0.75, 3), median([1.0, 2.0, 4.0])
    mixed = Findings(("a", "ms", "p99 (ms)"), [(one, times, times)], Figure(), "")
    assert repeats(mixed) == (
        "Brackets and bars are 95 % intervals over 3 seeds; least and most around the median of 3 seeds in 'ms' and "
        "'p99 (ms)'."
    )


def test_the_table_comes_back_from_csv_to_the_last_bit() -> None:
    head, *body = csv.reader(table_csv(findings()).splitlines())
    assert head == ["name", "calls", "error", "error low", "error high", "error n", "size"]
    assert body == [["a|b", "3", "0.5", "0.25", "0.75", "4", "0.1"], ["c", "4", "", "", "", "", "1e-07"]]
    assert [float(body[1][-1]), float(body[0][2])] == [1e-7, 0.5]


def test_markdown_has_a_cell_a_column() -> None:
    lines = table_markdown(findings()).splitlines()
    assert lines[2] == "| a\\|b | 3 | 0.500 [0.250, 0.750] | 0.1 |"
    assert lines[3] == "| c | 4 | - | 1e-07 |"


def test_write_makes_every_file_and_again(tmp_path: Path) -> None:
    out = tmp_path / "new" / "toy"
    for seed in (1, 2):
        write(out, STUDY, Settings("quick", seed), findings())
        page = (out / "findings.md").read_text()
        assert {p.name for p in out.iterdir()} == FILES
        assert "Paragraph of numbers." in page
        assert f"n2a study toy --quick --seed {seed}" in page
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "figure.svg").read_text()
    assert (out / "table.csv").read_text() == table_csv(findings())


def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path) -> None:
    class Interrupted(Figure):
        def savefig(self, *args: object, **kwargs: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "toy", STUDY, Settings(), findings(Interrupted()))
    assert not (tmp_path / "toy").exists()


@pytest.mark.parametrize("name", STUDIES)
def test_every_listed_study_exists(name: str) -> None:
    found = find(name)
    assert (found.name, found.question) == (name, STUDIES[name].question)
    assert found.question.endswith("?")
    assert callable(found.run)


def test_the_command_writes_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("noise2action.studies.study.find", lambda name: STUDY)
    monkeypatch.chdir(tmp_path)
    assert command.main(command.StudyArgs("steps", quick=True)) == 0
    assert {p.name for p in (tmp_path / "studies" / "steps").iterdir()} == FILES
    assert "Paragraph of numbers." in capsys.readouterr().out


def test_the_list_needs_no_torch() -> None:
    code = (
        "import sys; from noise2action.commands.study import StudyArgs, main; main(StudyArgs(show=True));"
        "print([m for m in ('torch', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"
    for name, entry in STUDIES.items():
        assert any(line.startswith(name) and line.endswith(entry.question) for line in shown.splitlines())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (command.StudyArgs("step"), "did you mean 'steps'"),
        (command.StudyArgs(), "no name"),
        (command.StudyArgs("steps", seed=-1), "--seed >= 0"),
        (command.StudyArgs("steps", out=Path(__file__)), "got a file"),
    ],
)
def test_bad_arguments(args: command.StudyArgs, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        command.main(args)
    if args.name == "step":
        with pytest.raises(ConfigError, match=message):
            find("step")
