"""Imports go to the same package or to a lower floor, and the front door opens without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "noise2action"
NAME = "noise2action"
FLOORS = (
    {"shapes", "schema", "errors", "seeds", "config", "timing", "condition", "storage", "machine"},
    {"diffusion", "nets", "encoders", "data", "envs", "robots"},
    {"policies", "control", "generative"},
    {"train", "evaluate", "compile", "serve", "finetune"},
    {"recipes", "cli", "commands", "studies", "compare", "playground"},
)
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts} | {"": 0, "__main__": 4}
# The vocabulary and the front door are one package each: the command line lists the recipes.
ONE_PACKAGE = {0, 4}
# An executor runs any policy: it sees the protocol, and nothing else of its own floor.
PROTOCOLS = {("control", "noise2action.policies.policy")}


def imported(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Return the package's own modules that `source` imports anywhere, functions and type checking included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the package that holds the module; for __init__.py that is the module itself.
            above = node.level - is_package
            parents = module.split(".")[: len(module.split(".")) - above] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            # `from .. import data` names a module; `from ..data import x` does as well, one level up.
            yield from (f"{base}.{a.name}" for a in node.names)


def part_of(module: str) -> str | None:
    """Return the first name below the package, "" for the package itself, None for foreign modules."""
    head, *rest = module.split(".")
    if head != NAME:
        return None
    # A capital or dunder is something defined in noise2action/__init__.py, not a module.
    return rest[0] if rest and (rest[0] in FLOOR_OF or (ROOT / rest[0]).exists()) else ""


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Return the imports of `source` that do not go to the same package or a lower floor."""
    here = part_of(module)
    assert here is not None
    if here not in FLOOR_OF:
        return [f"{module} stands on no floor"]
    bad: list[str] = []
    for target in imported(source, module, is_package=is_package):
        there = part_of(target)
        if there is None or there == here:
            continue
        if there not in FLOOR_OF:
            bad.append(f"{module} imports {target}, which stands on no floor")
            continue
        up, level = FLOOR_OF[there], FLOOR_OF[here]
        if (here, target.rsplit(".", 1)[0]) in PROTOCOLS:
            continue
        if up > level or (up == level and level not in ONE_PACKAGE):
            bad.append(f"{module} (floor {level}) imports {target} (floor {up})")
    return bad


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_down(file: Path) -> None:
    assert violations(file.read_text(), module_of(file), is_package=file.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("source", "module", "is_package"),
    [
        ("from ..nets.mlp import MLP", "noise2action.diffusion.paths", False),
        ("from .. import nets", "noise2action.diffusion.paths", False),
        ("from ..policies import spec", "noise2action.data.windows", False),
        ("from ..nets import mlp", "noise2action.diffusion", True),
        ("from ...nets import mlp", "noise2action.data.formats.zarr", False),
        ("from ...nets import mlp", "noise2action.data.formats", True),
        ("import noise2action.train.loop", "noise2action.policies.spec", False),
        ("def f():\n    from noise2action.cli import main", "noise2action.train.loop", False),
        ("from ..evaluate import result", "noise2action.train.loop", False),
        ("from ..policies.diffusion import DiffusionPolicy", "noise2action.control.executor", False),
        ("from .diffusion import paths", "noise2action.errors", False),
        ("x = 1", "noise2action.utils", False),
    ],
)
def test_a_violation_is_found(source: str, module: str, is_package: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if module.endswith("utils"):
        monkeypatch.setattr(f"{__name__}.part_of", lambda _: "utils")
    assert len(violations(source, module, is_package=is_package)) == 1


@pytest.mark.parametrize(
    ("source", "module", "is_package"),
    [
        ("from .grids import Grid", "noise2action.diffusion.paths", False),
        ("from ..errors import PathError", "noise2action.diffusion.paths", False),
        ("from .. import __version__", "noise2action.diffusion.paths", False),
        ("from ..diffusion.paths import Path", "noise2action.policies.spec", False),
        ("from .paths import Path", "noise2action.diffusion", True),
        ("from ..errors import DataError", "noise2action.data", True),
        ("from ...errors import DataError", "noise2action.data.formats.zarr", False),
        ("from ..episodes import Episodes", "noise2action.data.formats.zarr", False),
        ("from .errors import ConfigError\nimport torch", "noise2action.config", False),
        ("from .recipes import toy", "noise2action.cli", False),
        ("from ..policies.policy import Policy", "noise2action.control.executor", False),
    ],
)
def test_what_is_allowed_is_not_a_violation(source: str, module: str, is_package: bool) -> None:
    assert violations(source, module, is_package=is_package) == []


@pytest.mark.parametrize("module", ["noise2action", "noise2action.cli"])
def test_the_front_door_opens_without_torch(module: str) -> None:
    if find_spec(module) is None:
        pytest.skip(f"{module} does not exist")
    # The import hook of the tests lives in this process only: a new one sees what users see.
    code = f"import sys, {module}; print(','.join(m for m in ('torch', 'zarr', 'gymnasium') if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
