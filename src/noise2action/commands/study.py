"""`n2a study NAME`: run one of the studies that teach the theory; `n2a study --list`."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import ConfigError, did_you_mean
from ..studies import STUDIES


@dataclass(frozen=True)
class StudyArgs:
    """Run a study: a question, an experiment, and a folder with table, figure and what was found."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """Which study; see --list."""
    show: Annotated[bool, tyro.conf.arg(name="list"), tyro.conf.FlagCreatePairsOff] = False
    """List the studies and their questions."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Fewer seeds, samples and steps: under a minute on 2 cores, a few where tasks are simulated."""
    seed: int = 0
    """Every random number of the study follows from it."""
    out: Path | None = None
    """Folder to write; by default studies/NAME here."""


def main(args: StudyArgs) -> int:
    """Run `n2a study`."""
    if args.show:
        width = max(map(len, STUDIES))
        print("\n".join(f"{name:{width}}  {entry.question}" for name, entry in STUDIES.items()))  # noqa: T201
        return 0
    if args.name is None:
        raise ConfigError("expected a study, got no name: n2a study NAME, or --list")
    if args.name not in STUDIES:
        raise ConfigError(f"expected a study, got {args.name!r}; {did_you_mean(args.name, STUDIES)}")
    if args.seed < 0:
        raise ConfigError(f"expected --seed >= 0, got {args.seed}")
    return _run(args, args.name)


def _run(args: StudyArgs, name: str) -> int:
    # Here, so that --list and a wrong name answer at once: studies import torch and matplotlib.
    from ..studies.study import Settings, find, write  # noqa: PLC0415
    from .terminal import check_new, counter, one_thread, say  # noqa: PLC0415

    out = args.out or Path("studies") / name
    check_new(out)
    began = time.monotonic()
    study, settings = find(name), Settings("quick" if args.quick else "full", args.seed)
    with one_thread(), counter() as progress:
        bar = progress.add_task(name)
        findings = study.run(settings, lambda done, total: progress.update(bar, completed=done, total=total))
    write(out, study, settings, findings)
    say(findings.paragraph)
    say(f"{out}: findings.md, table.csv, table.md, figure.png, figure.svg  ({time.monotonic() - began:.0f} s)")
    return 0
