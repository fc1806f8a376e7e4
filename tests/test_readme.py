"""What the README and the docs show runs as it is written."""

import ast
import re
import shlex
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


def test_no_page_names_a_figure_without_its_numbers() -> None:
    # Placeholders of unmeasured tables must not survive.
    assert not re.search(r"^[A-Z]+_TABLE$", (ROOT / "README.md").read_text(), re.MULTILINE)


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
