"""`n2a export lerobot RUN OUT`: a policy as a folder that LeRobot loads."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..config import kind
from ..diffusion.grids import Leading
from ..diffusion.paths import Table
from ..diffusion.samplers import Scheduler
from ..errors import ConfigError
from ..policies import DiffusionPolicy
from ..policies.foreign.lerobot_export import write
from ..recipes.runs import open_policy
from .terminal import check_new, given_grid, note


@dataclass(frozen=True)
class Export:
    """Write a diffusion policy with a 1-D U-Net as LeRobot's files; what LeRobot cannot express is an error."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder (its newest intact checkpoint), or one checkpoint folder."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to write."""
    sampler: Literal["ddpm", "ddim"] | None = None
    """What LeRobot samples with, on its own grid; by default the run's, where it is one of these."""
    nfe: int | None = None
    """Network evaluations a plan."""
    weights: Literal["ema", "model"] = "ema"
    """ema, or model for the weights that are not averaged."""


def main(args: Export) -> int:
    """Run `n2a export`."""
    check_new(args.out, name="OUT")
    if args.out.exists():
        raise ConfigError(f"OUT: expected a new folder, got one that exists: {args.out}: choose another name")
    with given_grid():
        _write(args)
    note(f"written: {args.out}")
    return 0


def _write(args: Export) -> None:
    policy, _ = open_policy(args.run, weights=args.weights)
    if not isinstance(policy, DiffusionPolicy):
        raise ConfigError(f"expected a diffusion policy to export to LeRobot, got {kind(type(policy.config))}")
    sampling, path = policy.config.sampling, policy.config.objective.path
    if args.nfe is not None:
        sampling = replace(sampling, nfe=args.nfe)
    if args.sampler is not None and isinstance(path, Table):
        sampling = replace(sampling, sampler=Scheduler(args.sampler), grid=Leading(path.steps))
    write(policy.resampled(sampling), args.out)
