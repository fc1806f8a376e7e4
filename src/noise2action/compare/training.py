"""What the trainings of a comparison are made of, and runs that are taken in their place."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..config import decode, encode
from ..errors import ConfigError, DataError
from ..policies import NearestConfig
from ..policies.checkpoint import Checkpoint
from ..recipes.experiment import DataConfig, Experiment
from ..recipes.prepare import DataSummary, job
from ..recipes.runs import open_policy, read_experiment
from ..train.folder import read_json, write_json
from .methods import TRAININGS
from .pool import Tell
from .settings import Place, Settings
from .suites import base, experiment

LOG_EVERY = 20
Training = tuple[str, str, int]
"""Task, name in `TRAININGS`, and seed."""


def wanted(settings: Settings) -> list[str]:
    """Return what is trained, by name; methods that differ in sampling only share a training."""
    return list(dict.fromkeys(m.training for m in settings.compared if m.training is not None))


def training_experiment(settings: Settings, place: Place, training: str, seed: int) -> Experiment:
    """Return what a training is made of."""
    found = experiment(place.task)
    path = str(place.demonstrations) if settings.data is None else settings.data
    train = replace(found.train, validate_minutes=1e3, save_minutes=1.0, log_every=LOG_EVERY)
    if settings.train_steps is not None:
        train = replace(train, steps=settings.train_steps, warmup_steps=min(200, settings.train_steps // 4))
    train = replace(train, minutes=settings.train_minutes)
    data: DataConfig = replace(found.data, path=path)
    return replace(found, policy=TRAININGS[training](base(place.task)), data=data, train=train, seed=seed)


def ended(place: Place, training: str, seed: int, checkpoint: Checkpoint) -> None:
    """Write what a training took: it is done."""
    told = {"steps": checkpoint.step, "elapsed_s": checkpoint.state["elapsed_s"]}
    write_json(place.trained(training, seed), told)


@cache
def taken(settings: Settings) -> Mapping[Training, Path]:
    """Return the runs that are taken, by the training that each stands for.

    Raises `ConfigError` for a run of another task, seed, window, encoder, network or budget than a training of this
    comparison has, and for two of one training; `CheckpointError` for a folder that is no run.
    """
    found: dict[Training, Path] = {}
    for path in map(Path, settings.take):
        key = _training_of(settings, path)
        if key in found:
            raise ConfigError(f"--take: expected one run a training, got {found[key]} and {path}, both {_told(key)}")
        found[key] = path
    return found


def _training_of(settings: Settings, run: Path) -> Training:
    its, step = read_experiment(run), open_policy(run)[1].step
    if its.task not in settings.tasks:
        raise ConfigError(f"--take: expected a run of {', '.join(settings.tasks)}, got {run} of {its.task}")
    if its.seed not in settings.training_seeds:
        seeds = ", ".join(map(str, settings.training_seeds))
        raise ConfigError(f"--take: expected a run of seed {seeds} (--seed, --seeds), got {run} of seed {its.seed}")
    place = Place(Path(), its.task)
    ours = {name: training_experiment(settings, place, name, its.seed) for name in wanted(settings)}
    apart = {name: list(_differences(_made(made), _made(its))) for name, made in ours.items()}
    name = min(apart, key=lambda name: (type(ours[name].policy) is not type(its.policy), len(apart[name])))
    if apart[name]:
        field, here, there = apart[name][0]
        raise ConfigError(
            f"--take: expected what {name} has here, {field} {here!r}, got {there!r} in {run}: what is compared has "
            "the same windows, encoder, network and data settings"
        )
    learns = not isinstance(its.policy, NearestConfig)
    if learns and settings.train_minutes is None and step != ours[name].train.steps:
        raise ConfigError(
            f"--take: expected {ours[name].train.steps:,} steps, as many as every training here, got {step:,} in "
            f"{run}: --train.steps {step} gives all as many"
        )
    return its.task, name, its.seed


def _told(key: Training) -> str:
    task, training, seed = key
    return f"{training} of {task}, seed {seed}"


def _made(made: Experiment) -> Mapping[str, Any]:
    """Return what of an experiment must be the same, but for data themselves and steps, as plain values."""
    data = replace(made.data, path=None, columns=(), demonstrations=2)
    return encode({"policy": made.policy, "data": data, "batch_size": made.train.batch_size})


def _differences(here: object, there: object, name: str = "") -> Iterator[tuple[str, object, object]]:
    """Return the fields in which two encoded configurations differ: name and both values."""
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for key in {**here, **there}:
            yield from _differences(here.get(key), there.get(key), f"{name}.{key}".removeprefix("."))
    elif here != there:
        yield name, here, there


def take(settings: Settings, place: Place, training: str, seed: int, run: Path, tell: Tell) -> None:
    """Copy a trained run into the comparison; `DataError` where it was trained on other demonstrations."""
    prepared, summary = job(training_experiment(settings, place, training, seed))
    _, checkpoint = open_policy(run)
    here, there = prepared.normalizer.state(), checkpoint.tensors["normalizer"]
    its = decode(DataSummary, read_json(run / "data.json"), where=str(run / "data.json"))
    counts = [(each.episodes, each.held_out, each.steps) for each in (summary, its)]
    same = here.keys() == there.keys() and all(torch.equal(here[key], there[key]) for key in here)
    if not same or counts[0] != counts[1]:
        raise DataError(
            f"{run}: expected a run on the {summary.episodes} demonstrations of this comparison, got one on others, "
            "whose number or ranges differ: give the data that it was trained on as --data, or leave it out of --take"
        )
    target = place.run(training, seed)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(run, part, ignore=shutil.ignore_patterns(".lock", "trained.json", "evaluations", "*.html"))
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    ended(place, training, seed, checkpoint)
    tell(1.0)
