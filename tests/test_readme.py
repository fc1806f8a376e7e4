"""What the README and the docs show runs as it is written."""

import ast
import csv
import re
import shlex
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import pytest
import tyro

from noise2action.cli import VERBS
from noise2action.commands import overrides
from noise2action.config import members
from noise2action.diffusion.grids import AnyGrid
from noise2action.diffusion.objective import AnyWeight
from noise2action.diffusion.paths import SCHEDULES, AnyPath
from noise2action.diffusion.samplers import NAMED
from noise2action.diffusion.targets import AnyTarget
from noise2action.diffusion.times import AnyTimeLaw
from noise2action.recipes import find
from noise2action.studies import STUDIES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.unchecked  # as for a reader
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_examples_run_and_print_what_they_say(page: Path, capsys) -> None:
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), {})
        said = re.findall(r"print\(.*\)  # (.*)", code)
        assert capsys.readouterr().out.split("\n")[: len(said)] == said


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_name_verbs_recipes_and_fields_that_exist(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    for line in re.findall(r"^n2a (.*?)(?:  +#.*)?$", text, re.MULTILINE):
        words = shlex.split(line)
        name = words[0] if words[0] in VERBS else " ".join(words[:2])
        verb = VERBS[name]
        options = getattr(import_module(f"noise2action.commands.{verb.module}"), verb.arguments)
        _, rest = tyro.cli(options, args=words[len(name.split()) :], return_unknown_args=True)
        assert verb.overrides or rest == [], line
        if words[0] == "study" and words[1] != "--list":
            assert words[1] in STUDIES
        if words[0] == "train":
            overrides.apply(find(words[1]), overrides.parse(rest), where=line)


SUITES = ("manipulation", "navigation", "pusht")
HEADS = {
    "BC one step": "BC single step",
    "diffusion (DPM-Solver++)": "diffusion (DPM-Solver++ 2M)",
    "diffusion less control": "diffusion (DDIM) less control",
}
"""Heads of the tables on the pages that say otherwise what the comparison calls a method."""


def measured(suite: str) -> dict[tuple[str, str], str]:
    """Return what a comparison found, as pages print it, by task and label; differences by `LABEL less control`."""
    found: dict[tuple[str, str], str] = {}
    with (ROOT / "docs" / "comparisons" / suite / "table.csv").open(newline="") as file:
        for row in csv.DictReader(file):

            def told(name: str, sign: str = "", row: Mapping[str, str] = row) -> str:
                ends = (100 * float(row[name + end]) for end in ("", "_low", "_high"))
                value, low, high = (f"{end:{sign}.1f}" for end in ends)
                return f"{value} [{low}, {high}]"

            found[row["task"], row["label"]] = told("success")
            if row["success_less_control"]:
                found[row["task"], f"{row['label']} less control"] = told("success_less_control", "+")
    return found


def test_tables_of_comparisons_are_those_that_were_measured() -> None:
    known = {key: value for suite in SUITES for key, value in measured(suite).items()}
    compared = 0
    for page in PAGES:
        head: list[str] = []
        for line in page.read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
            if cells and cells[0] == "task":
                head = [HEADS.get(cell, cell) for cell in cells]
            elif not cells:
                head = []
            elif head and (task := cells[0].strip("`")) in {name for name, _ in known}:
                for label, cell in zip(head[1:], cells[1:], strict=True):
                    if (task, label) in known:
                        assert cell == known[task, label], (page.name, task, label)
                        compared += 1
    # Six columns of eight tasks on two pages, and eight of the three of navigation on one.
    assert compared == 2 * 8 * 6 + 3 * 8


THEORY = (ROOT / "docs" / "theory.md").read_text()
UNIONS = {"path": AnyPath, "target": AnyTarget, "weight": AnyWeight, "time law": AnyTimeLaw, "grid": AnyGrid}
NAMES = {what: list(members(union)) for what, union in UNIONS.items()}
NAMES |= {"sampler": list(NAMED), "schedule": list(SCHEDULES)}


@pytest.mark.parametrize("what", NAMES)
def test_the_theory_names_every(what: str) -> None:
    assert [name for name in NAMES[what] if f"`{name}`" not in THEORY] == []


def test_the_theory_has_the_command_of_every_study() -> None:
    assert [name for name in STUDIES if f"n2a study {name} " not in THEORY] == []


def test_every_section_of_the_theory_runs_from_python_and_from_the_shell() -> None:
    sections = re.split(r"^## ", THEORY, flags=re.MULTILINE)[1:]
    assert [part.split("\n")[0] for part in sections if "```python" not in part or "\nn2a " not in part] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_tests_that_are_named_exist(page: Path) -> None:
    for file, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", page.read_text()):
        tree = ast.parse((ROOT / file).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"
