"""The stages of a comparison: demonstrations, trainings, episodes, timing. Each is done once, whole or not at all."""

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..config import decode, encode
from ..data.formats import write
from ..envs.tasks import find
from ..errors import DataError
from ..evaluate.latency import Latency, measured
from ..evaluate.result import ENTRY, TOLD, sampler_name
from ..evaluate.rollouts import EpisodeResult, rollout
from ..evaluate.video import write_mp4
from ..policies import SampledPolicy
from ..recipes.demonstrations import demonstrate
from ..recipes.prepare import job
from ..recipes.runs import open_policy, write_experiment
from ..storage import atomic_write
from ..train.folder import locked, read_json, write_json
from ..train.loop import Status, fit
from .actors import LastFrame, Picture, demonstration, policy_of
from .methods import METHODS, Method
from .pool import Job, Tell
from .settings import Place, Settings
from .training import ended, take, taken, training_experiment, wanted


@dataclass(frozen=True)
class Demonstrated:
    """How the demonstrations of a task came about."""

    kept: int
    attempts: int
    steps: int
    routes: dict[str, float]
    """Share of the kept ones by route; empty for a task without routes."""


@dataclass(frozen=True)
class Work:
    """A part of a comparison that is done in one piece."""

    task: str
    name: str
    size: int
    """In units of its stage: demonstrations, trainings, episodes, or methods that are timed."""
    result: Path
    """There when the work is done."""
    job: Job
    needs: tuple[Path, ...] = ()
    """Results of earlier stages."""

    @property
    def ready(self) -> bool:
        """Whether it is to be done, and can be."""
        return not self.result.exists() and all(path.exists() for path in self.needs)


def demonstrations(settings: Settings, place: Place) -> list[Work]:
    """Return the work of demonstrating a task; none where demonstrations are given."""
    if settings.data is not None:
        return []
    job = partial(_demonstrate, settings, place)
    return [Work(place.task, f"{place.task}: demonstrations", settings.demonstrations, place.demonstrated, job)]


def _demonstrate(settings: Settings, place: Place, tell: Tell) -> None:
    count = settings.demonstrations
    parts = place.folder / "parts"
    made = demonstrate(find(place.task), count, seed=settings.seed, parts=parts, on_progress=lambda n: tell(n / count))
    place.folder.mkdir(parents=True, exist_ok=True)
    write(place.demonstrations, made.episodes, overwrite=True)
    told = Demonstrated(len(made.episodes), made.attempts, made.episodes.total, made.routes)
    write_json(place.demonstrated, encode(told))
    shutil.rmtree(parts, ignore_errors=True)


def demonstrated(place: Place) -> Demonstrated | None:
    """Return how the demonstrations came about; None for given ones."""
    if not place.demonstrated.exists():
        return None
    return decode(Demonstrated, read_json(place.demonstrated), where=str(place.demonstrated))


def trainings(settings: Settings, place: Place) -> list[Work]:
    """Return the trainings of a task; a run that is taken is one that is copied."""
    runs = taken(settings)

    def job_of(training: str, seed: int) -> Job:
        run = runs.get((place.task, training, seed))
        if run is None:
            return partial(_train, settings, place, training, seed)
        return partial(take, settings, place, training, seed, run)

    return [
        Work(
            place.task,
            f"{place.task}: training of {training}, seed {seed}",
            1,
            place.trained(training, seed),
            job_of(training, seed),
            () if settings.data else (place.demonstrated,),
        )
        for seed in settings.training_seeds
        for training in wanted(settings)
    ]


def _train(settings: Settings, place: Place, training: str, seed: int, tell: Tell) -> None:
    run = place.run(training, seed)
    with locked(run):
        made = training_experiment(settings, place, training, seed)
        prepared, summary = job(made)
        told = demonstrated(place)
        write_experiment(run, made, summary if told is None else replace(summary, routes=told.routes))

        def status(now: Status) -> None:
            tell(now.progress)

        if not fit(prepared, run, resume=True, on_status=status):
            raise KeyboardInterrupt
        ended(place, training, seed, open_policy(run)[1])


def evaluations(settings: Settings, place: Place) -> list[Work]:
    """Return the blocks of episodes of a task."""
    return [
        Work(
            place.task,
            f"{place.task}: episodes of {method.label}",
            len(block),
            place.block(method.name, seed, block[0]),
            partial(_evaluate, settings, place, method.name, seed, block),
            _needed(settings, place, method, [seed]),
        )
        for method in settings.compared
        for seed in seeds_of(settings, method)
        for block in settings.blocks
    ]


def _needed(settings: Settings, place: Place, method: Method, seeds: Sequence[int]) -> tuple[Path, ...]:
    """Return what must be there before a method can run."""
    if method.training is not None:
        return tuple(place.trained(method.training, seed) for seed in seeds)
    return () if settings.data else (place.demonstrated,)


def seeds_of(settings: Settings, method: Method) -> range:
    """Return the training seeds of a method: what is not trained stands beside all of them, once."""
    return settings.training_seeds if method.training else settings.training_seeds[:1]


def _evaluate(settings: Settings, place: Place, name: str, seed: int, block: range, tell: Tell) -> None:
    task, method = find(place.task), METHODS[name]
    path = place.block(name, seed, block[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    failures: dict[int, Picture] = {}
    if name == "demonstrator":
        results = [demonstration(task, settings.seed, episode) for episode in block]
    else:
        watched = replace(task, make=lambda: LastFrame(task.make(), failures)) if settings.record else task
        filmed = settings.record if seed == settings.seed and block == settings.blocks[0] else 0
        results = rollout(
            watched,
            policy_of(place, method, seed),
            block,
            sampler_seed=seed,
            record=filmed,
            on_progress=lambda n: tell(n / len(block)),
        )
    for result in results:
        if result.trace is not None and result.trace.frames is not None:
            write_mp4(place.film(name, result.seed), result.trace.frames, task.control_hz)
    if failures:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **{str(seed): frame for seed, frame in failures.items()})
        atomic_write(path.with_suffix(".npz"), buffer.getvalue())
    entries = [{key: getattr(r, key) for key in (*ENTRY, TOLD)} for r in results]
    atomic_write(path, (json.dumps(entries, indent=1, allow_nan=False) + "\n").encode())


def episodes(settings: Settings, place: Place, method: Method) -> tuple[EpisodeResult, ...] | None:
    """Return the episodes of a method, of all its trainings; None where some are missing."""
    blocks = [
        (place.block(method.name, seed, block[0]), block)
        for seed in seeds_of(settings, method)
        for block in settings.blocks
    ]
    if not all(path.exists() for path, _ in blocks):
        return None
    found: list[EpisodeResult] = []
    for path, block in blocks:
        entries, remedy = read_json(path), "delete the file and run the same command again"
        if not isinstance(entries, list):
            raise DataError(f"{path}: expected a list of episodes: {remedy}")
        results = [decode(EpisodeResult, entry, where=str(path)) for entry in entries]
        if [result.seed for result in results] != list(block):
            raise DataError(f"{path}: expected the episodes {block[0]} to {block[-1]}, got others: {remedy}")
        found.extend(results)
    return tuple(found)


@dataclass(frozen=True)
class Timing:
    """What one plan of a method costs here, and how its policy was trained."""

    nfe: int
    """Network evaluations of one plan, counted."""
    sampler: str
    stride: int
    steps: int
    """Optimiser steps of a training."""
    train_s: float
    """Seconds of a training, the mean over seeds."""
    p50_ms: float
    p99_ms: float
    calls: int


def timings(settings: Settings, place: Place) -> list[Work]:
    """Return the timing of each trained method; to be done alone, one after the other."""
    return [
        Work(
            place.task,
            f"{place.task}: timing of {method.label}",
            1,
            place.timing(method.name),
            partial(_time, settings, place, method.name),
            _needed(settings, place, method, settings.training_seeds),
        )
        for method in settings.compared
        if method.training is not None
    ]


def _time(settings: Settings, place: Place, name: str, tell: Tell) -> None:
    task, method = find(place.task), METHODS[name]
    assert method.training is not None, "what is not trained is not timed"
    policy: Any = policy_of(place, method, settings.seed)
    env = task.make()
    try:
        seen, _ = env.reset(seed=settings.blocks[0][0])
    finally:
        env.close()
    latency: Latency
    latency, nfe = measured(policy, seen)
    spent: Sequence[Mapping[str, Any]] = [
        read_json(place.trained(method.training, seed)) for seed in settings.training_seeds
    ]
    sampler = sampler_name(policy.config.sampling) if isinstance(policy, SampledPolicy) else "-"
    train_s = sum(each["elapsed_s"] for each in spent) / len(spent)
    found = Timing(
        nfe,
        sampler,
        policy.spec.stride,
        spent[0]["steps"],
        train_s,
        latency.total.p50,
        latency.total.p99,
        latency.calls,
    )
    write_json(place.timing(name), encode(found))
    tell(1.0)


def timing(place: Place, method: Method) -> Timing | None:
    """Return what was timed; None for what is not trained."""
    path = place.timing(method.name)
    return decode(Timing, read_json(path), where=str(path)) if path.exists() else None
