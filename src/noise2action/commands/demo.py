"""`n2a demo`: the whole way through, in minutes: demonstrations, diffusion, regression, comparison, report."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from ..envs.tasks import find
from ..errors import ConfigError
from ..evaluate.result import compare
from ..evaluate.tables import comparison_table, table
from ..policies import RegressionConfig
from ..recipes import two_routes
from . import report
from .evaluate import evaluate
from .runs import check_new, console
from .train import train


@dataclass(frozen=True)
class Demo:
    """Train diffusion and regression on the same backbone and data, evaluate both on the same fresh seeds, compare."""

    out: Path = Path("demo")
    """Folder for both runs and the report; must not hold runs yet."""
    episodes: int = 200
    """Evaluation episodes of each policy."""
    seed: int = 0
    """Seed of demonstrations, training and first evaluation episode."""


def main(args: Demo) -> int:
    """Run `n2a demo`."""
    began = time.monotonic()
    check_new(args.out)
    if (args.out / "diffusion").exists() or (args.out / "regression").exists():
        raise ConfigError(f"--out: expected a folder without runs, got {args.out}: remove it, or choose another --out")
    recipe = replace(two_routes(), seed=args.seed)
    regression = RegressionConfig(spec=recipe.policy.spec, net=recipe.policy.net)
    runs = {"diffusion": recipe, "regression": replace(recipe, policy=regression)}
    task, evaluations = find(recipe.task), []
    for name, experiment in runs.items():
        console.rule(name)
        if not train(experiment, args.out / name):
            return 130
        settings = replace(experiment.evaluate, episodes=args.episodes, seed=args.seed)
        evaluations.append(evaluate(args.out / name, task, settings))
    path = args.out / "report.html"
    report.write(path, [args.out / name for name in runs])
    results = Console()
    results.print(table(evaluations))
    results.print(comparison_table([compare(*evaluations)]))
    results.print(f"report: {path}  ({(time.monotonic() - began) / 60:.1f} minutes)")
    return 0
