"""`n2a import lerobot DIR OUT` and `n2a import stanford FILE OUT`: a run out of a policy that was trained elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..envs.tasks import find
from ..errors import CheckpointError, ConfigError
from ..policies.checkpoint import Checkpoint, complete, save
from ..policies.foreign import features, lerobot, stanford
from ..policies.foreign.layout import Foreign, checkpoint_of, own_names
from ..policies.policy import PolicySpec
from ..recipes.experiment import Experiment
from ..train.folder import locked
from .runs import check_new, note, write_config


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
    check_new(args.out)
    if complete(args.out):
        raise ConfigError(f"expected a new run folder, got {args.out} with checkpoints: choose another")
    if isinstance(args, ImportLeRobot):
        if not args.dir.is_dir():
            raise CheckpointError(f"expected a folder with LeRobot's files, got no such folder: {args.dir}")
        foreign = lerobot.read(args.dir)
    else:
        foreign = stanford.read(args.file)
    checkpoint = _checkpoint(args, foreign)
    deployed = checkpoint.deployed
    experiment = Experiment(task=deployed.task, policy=deployed.policy)
    with locked(args.out):
        save(args.out, checkpoint)
        write_config(args.out, experiment)
    spec, sampling = foreign.config.spec, foreign.config.sampling
    note(f"{foreign.what}, {', '.join(f'{name}: {value}' for name, value in foreign.about.items())}")
    for source in (*foreign.sources, foreign.action):
        note(f"{source.name} {source.shape}")
    note(
        f"{sum(x.numel() for x in foreign.tensors.values()):,} numbers; {spec.obs_steps} observed, {spec.horizon} "
        f"planned, {spec.stride} executed; {sampling.nfe} network calls\nimported: {args.out}"
    )
    return 0


def _checkpoint(args: ImportLeRobot | ImportStanford, foreign: Foreign) -> Checkpoint:
    if args.task is None:
        if args.feature:
            raise ConfigError("--feature: expected --task as well, whose features are named, got none")
        rate = PolicySpec.control_hz if args.control_hz is None else args.control_hz
        return checkpoint_of(foreign, own_names(foreign), task=foreign.what.lower(), control_hz=rate)
    task = find(args.task)
    if args.control_hz not in (None, task.control_hz):
        raise ConfigError(f"--control-hz: expected that of {task.name}, {task.control_hz:g}, got {args.control_hz:g}")
    places = features.placed(foreign, task.schema, features.parse(args.feature))
    for name, found in places.items():
        note(f"{name} is {', '.join(f.name for f in found)}")
    return checkpoint_of(foreign, places, task=task.name, control_hz=task.control_hz)
