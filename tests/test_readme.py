"""What the README and the docs show runs as it is written."""

import re
import shlex
from pathlib import Path

import pytest

from noise2action.cli import VERBS
from noise2action.commands import overrides
from noise2action.recipes import find

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
        assert words[0] in VERBS or " ".join(words[:2]) in VERBS
        if words[0] == "train":
            rest = [w for k, w in enumerate(words[2:]) if w != "--out" and words[k + 1] != "--out"]
            overrides.apply(find(words[1]), overrides.parse(rest), where=line)


def test_no_page_names_a_figure_without_its_numbers() -> None:
    # Placeholders of unmeasured tables must not survive.
    assert not re.search(r"^[A-Z]+_TABLE$", (ROOT / "README.md").read_text(), re.MULTILINE)
