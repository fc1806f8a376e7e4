"""`n2a compare SUITE`: every method on the same demonstrations and episodes, with intervals."""

import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from ..compare.methods import METHODS
from ..compare.run import run
from ..compare.settings import NO_PICTURES, QUICK, Settings
from ..compare.suites import tasks_of
from ..compare.tables import rich_tables
from ..compare.words import paragraph
from ..errors import ConfigError
from .checks import at_least
from .terminal import check_new, note, say


@dataclass(frozen=True)
class CompareArgs:
    """Compare imitation of every kind: demonstrates, trains, evaluates on paired seeds, writes tables and one page.

    An interrupted comparison goes on with the same command and ends in the same table.
    """

    suite: Annotated[str, tyro.conf.Positional]
    """navigation, pusht, manipulation or all."""
    out: Path
    """Folder to write, or to go on in."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Minutes: 50 demonstrations, 1,000 steps a training, 50 episodes."""
    full: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The default, an hour or more a suite: 200 demonstrations, the recipes' steps, 200 episodes."""
    tasks: tuple[str, ...] = ()
    """Tasks of the suite, by default all; a name may be followed by cameras, as in grasp_seen@table:96."""
    methods: tuple[str, ...] = ()
    """Of demonstrator, random, nearest, bc-step, bc, bc-gmm, ddim, dpm-solver++, flow; by default all that apply."""
    demonstrations: int | None = None
    """Successful demonstrations of a task."""
    train_steps: Annotated[int | None, tyro.conf.arg(name="train.steps")] = None
    """Optimiser steps of a training."""
    train_minutes: Annotated[float | None, tyro.conf.arg(name="train.minutes")] = None
    """Minutes of a training, instead of steps; the table then cannot be repeated to the bit."""
    episodes: int | None = None
    """Fresh episodes of a training, the same seeds for every method."""
    seeds: int = 1
    """Trainings of a method."""
    seed: int = 0
    """First seed of trainings, and that of the demonstrations."""
    record: int = 2
    """Episodes whose video is kept, 20 at most; 0 draws no pictures of episodes."""
    data: Path | None = None
    """Demonstrations of people, or generated ones, instead of those that would be simulated, for one task."""
    take: tuple[Path, ...] = ()
    """Runs of `n2a train`, or of another comparison, in place of trainings here: same data, windows, network, steps."""
    workers: int = 0
    """Processes; 0 is one a core. The table does not depend on it."""


def settings_of(args: CompareArgs) -> Settings:
    """Return what is asked for, every default filled in; `ConfigError` that names the flag at fault."""
    if args.quick and args.full:
        raise ConfigError("--full: expected --quick or --full, got both")
    names = ("demonstrations", "train_steps", "train_minutes", "episodes")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    usual: Mapping[str, int] = QUICK if args.quick else {}
    if args.train_minutes is not None:
        usual = {name: value for name, value in usual.items() if name != "train_steps"}
    chosen = Settings(
        args.suite,
        args.tasks or tasks_of(args.suite),
        args.methods or tuple(name for name in METHODS if name != NO_PICTURES),
        seeds=args.seeds,
        seed=args.seed,
        record=args.record,
        data=None if args.data is None else str(args.data.absolute()),
        take=tuple(str(run.absolute()) for run in args.take),
    )
    if not args.methods and not chosen.pictured:
        chosen = replace(chosen, methods=tuple(METHODS))
    return replace(chosen, **{**usual, **given})


def main(args: CompareArgs) -> int:
    """Run `n2a compare`."""
    settings = settings_of(args)
    at_least("--workers", args.workers, 0)
    check_new(args.out)
    if not args.methods and settings.pictured:
        note(f"note: {NO_PICTURES} is left out, as {settings.pictured[0]} observes pictures, which have no distance")
    began = time.monotonic()
    workers = min(args.workers or os.cpu_count() or 1, 256)
    try:
        outcome = run(settings, args.out, workers=workers, command=shlex.join(["n2a", *sys.argv[1:]]))
    except KeyboardInterrupt:
        note(f"interrupted: the same command goes on in {args.out}")
        raise
    console = Console()
    for task in outcome.tasks:
        for built in rich_tables(task, width=console.width):
            console.print(built, "")
    say(paragraph(outcome.tasks))
    for finding in outcome.findings:
        note(f"failed: {finding}")
    minutes = (time.monotonic() - began) / 60
    say(f"{args.out}: compare.html, table.md, table.csv, timings.csv, compare.json  ({minutes:.1f} minutes)")
    return 2 if outcome.findings else 0
