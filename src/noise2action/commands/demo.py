"""`n2a demo`: the whole way through, in minutes: demonstrations, diffusion, regression, comparison, report."""

import time
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from rich.console import Console

from ..envs.tasks import find
from ..errors import ConfigError
from ..evaluate.result import Evaluation, compare
from ..evaluate.tables import comparison_table, table
from ..policies import DiffusionConfig, RegressionConfig
from ..policies.checkpoint import load
from ..recipes import two_routes
from . import report
from .evaluate import Plan, evaluate
from .terminal import check_new, console, say
from .train import train


@dataclass(frozen=True)
class Demo:
    """Train diffusion and regression on the same backbone and data, evaluate both on the same fresh seeds, compare."""

    out: Path | None = None
    """Folder for both runs and the report; by default demo, or demo-2 and so on where that exists."""
    episodes: int = 200
    """Evaluation episodes of each policy."""
    seed: int = 0
    """Seed of demonstrations, training and first evaluation episode."""


def main(args: Demo) -> int:
    """Run `n2a demo`."""
    began = time.monotonic()
    out = args.out or _free("demo")
    check_new(out)
    if (out / "diffusion").exists() or (out / "regression").exists():
        raise ConfigError(f"--out: expected a folder without runs, got {out}: remove it, or choose another --out")
    recipe = replace(two_routes(), seed=args.seed)
    assert isinstance(recipe.policy, DiffusionConfig), "the recipe's"
    regression = RegressionConfig(spec=recipe.policy.spec, net=recipe.policy.net)
    runs = {"diffusion": recipe, "regression": replace(recipe, policy=regression)}
    evaluations: list[Evaluation] = []
    for name, experiment in runs.items():
        console.rule(name)
        if not train(experiment, out / name):
            return 130
        settings = replace(experiment.evaluate, episodes=args.episodes, seed=args.seed)
        checkpoint = load(out / name).folder
        assert checkpoint is not None
        evaluations.append(evaluate(Plan(checkpoint, find(recipe.task), settings)))
    path = out / "report.html"
    report.write(path, [out / name for name in runs])
    results = Console()
    results.print(table(evaluations))
    results.print(comparison_table([compare(*evaluations)]))
    say(f"report: {path}  ({(time.monotonic() - began) / 60:.1f} minutes)")
    return 0


def _free(name: str) -> Path:
    """Return the folder `name`, or the first of name-2, name-3, ... that does not exist."""
    return next(p for p in (Path(name if k == 1 else f"{name}-{k}") for k in count(1)) if not p.exists())
