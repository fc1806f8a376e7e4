"""`n2a check env MODULE:CLASS` and `n2a check policy RUN`: does it keep the contract, and if not, what to do."""

import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import tyro

from ..envs.tasks import find
from ..errors import ConfigError, Noise2ActionError, TaskError
from ..evaluate.check_env import STEPS, check_env
from ..evaluate.check_policy import check_policy
from ..evaluate.findings import Finding, told
from ..recipes.runs import open_policy
from .checks import at_least
from .terminal import say

FOUND = 1
"""Exit status where something was found."""


@dataclass(frozen=True)
class CheckEnv:
    """Check whether an environment keeps the contract; the exit status is 0 where it does, 1 where it does not.

    The environment's code is run: check only what you would run.
    """

    env: Annotated[str, tyro.conf.Positional]
    """MODULE:CLASS, FILE.py:CLASS, or a task by name."""
    seeds: int = 5
    """Episodes that are looked at, seeds 0, 1, ..."""
    steps: int | None = None
    """Steps within which an episode must end; by default 1000, of a task its own limit."""
    json: bool = False
    """Print JSON instead of a line a check."""


@dataclass(frozen=True)
class CheckPolicy:
    """Check whether the policy of a run keeps the contract; the exit status is 0 where it does, 1 where it does not."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, or checkpoint folder."""
    seeds: int = 4
    """Seeds that plans are made with."""
    json: bool = False
    """Print JSON instead of a line a check."""


def main(args: CheckEnv | CheckPolicy) -> int:
    """Run `n2a check`."""
    at_least("--seeds", args.seeds, 2)
    seeds = range(args.seeds)
    seen = list[Finding]()

    def note(finding: Finding) -> None:
        seen.append(finding)
        if not args.json:
            say(line(finding))

    if isinstance(args, CheckEnv):
        at_least("--steps", args.steps, 1)
        make, limit = environment(args.env)
        found = check_env(make, seeds=seeds, steps=args.steps or limit, on_check=note)
        subject = args.env
    else:
        policy, _ = open_policy(args.run)
        found = check_policy(policy, seeds=seeds, on_check=note)
        subject = str(args.run)
    skipped = sum(finding.level == "skipped" for finding in seen)
    if args.json:
        body = {"subject": subject, "clean": not found, "checks": [asdict(finding) for finding in seen]}
        say(json.dumps(body, indent=1))
    else:
        rest = f", {skipped} skipped" if skipped else ""
        say(f"{subject}: {len(found)} of {len(seen)} checks found something{rest}" if found else f"{subject}: clean")
    return FOUND if found else 0


def line(finding: Finding) -> str:
    """Return a check in one line."""
    remedy = f"; remedy: {finding.remedy}" if finding.remedy else ""
    return f"{finding.level:8} {finding.check:18} {finding.message}{remedy}".rstrip()


def environment(name: str) -> tuple[Callable[[], Any], int]:
    """Return what makes the environment `name`, and the number of steps within which it must end.

    `name` is MODULE:CLASS, FILE.py:CLASS or a task. `ConfigError` where there is none that needs no arguments.
    """
    place, colon, attribute = name.rpartition(":")
    if name.endswith(".py") or (colon and not (place and attribute)):
        raise ConfigError(f"expected MODULE:CLASS, FILE.py:CLASS or a task, got {name!r}: name both sides of the colon")
    if not colon or ("@" in name and not place.endswith(".py")):  # the cameras of a task: grasp_seen@table:96
        try:
            task = find(name)
        except TaskError as error:
            raise ConfigError(f"expected MODULE:CLASS, FILE.py:CLASS or a task, got {name!r}: {error}") from error
        return task.make, task.max_steps
    module = _module(place)
    made = getattr(module, attribute, None)
    if not callable(made):
        classes = sorted(key for key, value in vars(module).items() if isinstance(value, type))
        raise ConfigError(f"expected a class of {place}, got {attribute!r}: there are {', '.join(classes) or 'none'}")
    try:
        needed = [p.name for p in inspect.signature(made).parameters.values() if _needed(p)]
    except ValueError:  # of some built-in callables nothing is known
        needed = []
    if needed:
        raise ConfigError(
            f"expected a class that is made without arguments, got {attribute} which needs {', '.join(needed)}: "
            "give them defaults, or name a function that passes them"
        )
    return made, STEPS


def _needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def _module(place: str) -> ModuleType:
    """Return the module of this name, or of this file; what it imports may lie beside it."""
    file = Path(place) if place.endswith(".py") else None
    if file is not None and not file.is_file():
        raise ConfigError(f"expected a file of Python, got no such file: {file}")
    folder = str(Path.cwd() if file is None else file.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(place) if file is None else _executed(file)
    except Noise2ActionError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"expected a module that can be imported, got {told(error)}: correct {place}, or install what it needs"
        ) from error


def _executed(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None, "a name that ends in .py is a Python file"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module
