"""`n2a data generate ENV`: demonstrations from a task's scripted demonstrator."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..data.formats import check_suffix, write
from ..envs.tasks import find
from ..errors import ConfigError, DataError
from ..recipes.demonstrations import demonstrate
from ..storage import check_place
from .terminal import counter, say


@dataclass(frozen=True)
class Generate:
    """Simulate successful demonstrations of a task and write them as a data set."""

    env: Annotated[str, tyro.conf.Positional]
    """two_routes, two_routes_goal, two_routes_text, gentle_firm, maze, obstacles, pusht, pusht_image, grasp_seen,
    grasp_novel, push_block, insert_peg, open_drawer, assembly, grasp_seen_post or push_block_post; the last eight also
    through cameras: grasp_seen@table:96, grasp_seen@table+gripperPOV:224; and from above: two_routes@top:96,
    maze@top:96, obstacles@top:96, pusht@image:224."""
    out: Path
    """Data set to write; the suffix chooses the format: .zarr, .zarr.zip, .npz or .episodes."""
    episodes: int = 200
    """Successful episodes."""
    seed: int = 0
    """Seed of layouts and demonstrator."""
    workers: int = 1
    """Processes that demonstrate; the data are the same."""
    overwrite: bool = False
    """Replace an existing data set."""


def main(args: Generate) -> int:
    """Run `n2a data generate`."""
    if args.episodes < 1 or args.seed < 0 or args.workers < 1:
        raise ConfigError(
            "expected --episodes >= 1, --seed >= 0 and --workers >= 1, "
            f"got {args.episodes}, {args.seed} and {args.workers}"
        )
    task = find(args.env)
    if args.out.exists() and not args.overwrite:
        raise DataError(f"--out: expected a new data set, got an existing one: {args.out}: add --overwrite")
    check_suffix(args.out)
    check_place(args.out, flag="--out")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    # Kept until the data set is whole: the same command goes on where an interrupted one stopped.
    parts = args.out.with_name(f".{args.out.name}.{task.name}.{args.seed}.parts")
    with counter() as progress:
        bar = progress.add_task("demonstrations", total=args.episodes)
        made = demonstrate(
            task,
            args.episodes,
            seed=args.seed,
            workers=args.workers,
            parts=parts,
            on_progress=lambda n: progress.update(bar, completed=n),
        )
    write(args.out, made.with_routes(), overwrite=args.overwrite)
    shutil.rmtree(parts, ignore_errors=True)
    routes = "".join(f", {share:.0%} {name}" for name, share in made.routes.items())
    say(
        f"{args.out}: {len(made.episodes)} episodes, {made.episodes.total} steps; "
        f"the demonstrator succeeded in {len(made.episodes)} of {made.attempts}{routes}"
    )
    return 0
