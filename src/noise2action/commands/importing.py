"""`n2a import lerobot DIR OUT` and `n2a import stanford FILE OUT`: a run out of a policy that was trained elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..envs.tasks import find
from ..errors import CheckpointError, ConfigError
from ..policies.checkpoint import Checkpoint, complete, save
from ..policies.foreign import features, lerobot, stanford
from ..policies.foreign.layout import Foreign, Places, checkpoint_of, own_names
from ..policies.policy import FASTEST, PolicySpec
from ..recipes.experiment import Experiment
from ..recipes.runs import write_config
from ..train.folder import locked
from .terminal import check_new, given_grid, note


@dataclass(frozen=True)
class ImportLeRobot:
    """Import a diffusion policy of LeRobot, with its weights, normaliser and conventions."""

    dir: Annotated[Path, tyro.conf.Positional]
    """Folder with config.json, model.safetensors and the files of the normaliser (`pretrained_model`)."""
    out: Annotated[Path, tyro.conf.Positional]
    """Run folder to write."""
    task: str | None = None
    """Task that it acts in, so that it can be evaluated and trained; without, features keep their foreign names."""
    feature: tuple[str, ...] = ()
    """NAME=FEATURE: which feature of the task a foreign one is (several, with commas, for a state that joins them)."""
    control_hz: float | None = None
    """Control rate, which the checkpoint does not say; by default the task's, or 10 Hz."""


@dataclass(frozen=True)
class ImportStanford:
    """Import a checkpoint of the original diffusion-policy code; no pickle is executed."""

    file: Annotated[Path, tyro.conf.Positional]
    """File (.ckpt)."""
    out: Annotated[Path, tyro.conf.Positional]
    """Run folder to write."""
    task: str | None = None
    """Task that it acts in, so that it can be evaluated and trained; without, features keep their foreign names."""
    feature: tuple[str, ...] = ()
    """NAME=FEATURE: which feature of the task a foreign one is (several, with commas, for a state that joins them)."""
    control_hz: float | None = None
    """Control rate, which the checkpoint does not say; by default the task's, or 10 Hz."""


def main(args: ImportLeRobot | ImportStanford) -> int:
    """Run `n2a import`."""
    check_new(args.out, name="OUT")
    if complete(args.out):
        raise ConfigError(f"OUT: expected a new run folder, got {args.out} with checkpoints: choose another")
    if args.control_hz is not None and not 0 < args.control_hz <= FASTEST:
        raise ConfigError(f"--control-hz: expected a number in (0, {FASTEST}], got {args.control_hz:g}")
    if isinstance(args, ImportLeRobot):
        if not args.dir.is_dir():
            got = "a file" if args.dir.exists() else "no such folder"
            raise CheckpointError(f"expected a folder with LeRobot's files, got {got}: {args.dir}")
        foreign = lerobot.read(args.dir)
    else:
        foreign = stanford.read(args.file)
    with given_grid():
        checkpoint, placed = _checkpoint(args, foreign)
    deployed = checkpoint.deployed
    experiment = Experiment(task=deployed.task, policy=deployed.policy)
    with locked(args.out):
        save(args.out, checkpoint)
        write_config(args.out, experiment)
    spec, sampling = foreign.config.spec, foreign.config.sampling
    note(f"{foreign.what}, {', '.join(f'{name}: {value}' for name, value in foreign.about.items())}")
    for source in (*foreign.sources, foreign.action):
        note(f"{source.name} {source.shape}")
    for name, features_of_task in placed.items() if args.task else ():
        note(f"{name} is {', '.join(f.name for f in features_of_task)}")
    note(
        f"{sum(x.numel() for x in foreign.tensors.values()):,} numbers; {spec.obs_steps} observed, {spec.horizon} "
        f"planned, {spec.stride} executed; {sampling.nfe} network calls\nimported: {args.out}"
    )
    return 0


def _checkpoint(args: ImportLeRobot | ImportStanford, foreign: Foreign) -> tuple[Checkpoint, Places]:
    """Return the checkpoint, and which features the foreign arrays are in it."""
    if args.task is None:
        if args.feature:
            raise ConfigError("--feature: expected --task as well, whose features are named, got none")
        rate = PolicySpec.control_hz if args.control_hz is None else args.control_hz
        places = own_names(foreign)
        return checkpoint_of(foreign, places, task=foreign.what.lower(), control_hz=rate), places
    task = find(args.task)
    if args.control_hz not in (None, task.control_hz):
        raise ConfigError(f"--control-hz: expected that of {task.name}, {task.control_hz:g}, got {args.control_hz:g}")
    places = features.placed(foreign, task.schema, features.parse(args.feature))
    return checkpoint_of(foreign, places, task=task.name, control_hz=task.control_hz), places
