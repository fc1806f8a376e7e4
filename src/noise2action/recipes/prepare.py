"""From an experiment to a training job: demonstrations, split, normaliser, windows, loaders."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from ..data.actions import check_action_space, learnt_actions
from ..data.augment import mirrored, retargeted
from ..data.doctor import check_finite, pictures, scaling
from ..data.episodes import ACTION, Episodes, check_sentences, vocabulary
from ..data.formats import Stored, describe, locate, read
from ..data.loader import Loader
from ..data.normalize import Normalizer, NormalizerKind
from ..data.pixels import pixels
from ..data.split import split
from ..data.windows import Windows
from ..envs.tasks import Task, find
from ..errors import ConfigError, DataError, SchemaError, TaskError
from ..policies.checkpoint import Checkpoint, Deployed
from ..schema import Feature, Schema
from ..train.loop import Job
from .demonstrations import Progress, demonstrate, routes_at
from .experiment import Column, DataConfig, Experiment


def load_episodes(task: Task, config: DataConfig) -> Episodes:
    """Return the data set at `config.path` with the task's features, checked against its schema and for NaN."""
    assert config.path is not None
    path = locate(config.path)
    features = describe(path).features
    stored = set(features)
    wanted = list(task.schema.features)
    sources = {c.feature: c for c in config.columns if c.feature not in stored}
    missing = [name for name in wanted if name not in stored and name not in sources]
    absent = sorted({c.source for c in sources.values()} - stored)
    if missing or absent:
        raise SchemaError(
            f"{path}: expected the features {wanted} of {task.name}, got the arrays {sorted(stored)}: "
            f"{_seen_by(task, features)}use a recipe that matches this data set, or say where they lie with "
            "data.columns"
        )
    direct = [name for name in wanted if name in stored]
    raw = read(path, sorted({*direct, *(c.source for c in sources.values())}))
    origins = {name: name if name in direct else sources[name].source for name in wanted}
    said = {name: raw.sentences[source] for name, source in origins.items() if source in raw.sentences}
    check_sentences(vocabulary(task.schema), said, where=str(path))
    for feature in task.schema.observations:
        if feature.kind == "image":
            source = origins[feature.name]
            _check_colours(feature, raw.arrays[source].shape[1:], where=f"{path}: {source!r}")
    arrays = {name: raw.arrays[name] if name in direct else _column(raw, sources[name]) for name in wanted}
    for feature in task.schema.observations:
        if feature.kind == "image":
            arrays[feature.name] = pixels(feature.name, arrays[feature.name])
    task.schema.check({name: array.shape[1:] for name, array in arrays.items()}, where=str(path))
    episodes = Episodes(arrays, raw.ends, task.schema)
    check_finite(episodes)
    for feature in task.schema.observations:
        _check_told(feature, episodes)
    return episodes


def _seen_by(task: Task, stored: Mapping[str, Stored]) -> str:
    """Return the advice to see `task` through the cameras whose pictures are stored; nothing if it has none of them."""
    sizes = {name: a.shape[0] for name, a in stored.items() if len(a.shape) == 3 and a.shape[0] == a.shape[1]}
    for size in sorted(set(sizes.values())):
        cameras = "+".join(name for name in sizes if sizes[name] == size)
        with suppress(TaskError):
            seen = find(f"{task.name.partition('@')[0]}@{cameras}:{size}")
            if stored.keys() >= seen.schema.features.keys():
                return f"add --task {seen.name}, "
    return ""


def _check_colours(feature: Feature, stored: tuple[int, ...], *, where: str) -> None:
    """Raise `SchemaError` for images whose axes are in another order than the feature's, or with a fourth channel."""
    size = feature.image_size
    last, first = (*size, 3), (3, *size)
    if stored in ((*size, 4), (4, *size)):
        raise SchemaError(
            f"{where}: expected images of red, green and blue, {feature.shape}, got a fourth channel, {stored}: blend "
            "alpha with a background, or store depth as an array of its own, and write three channels"
        )
    if stored != feature.shape and stored in (last, first):
        axes = (-1, 1) if feature.channels_first else (1, -1)
        raise SchemaError(
            f"{where}: expected images with the channels {'first' if feature.channels_first else 'last'}, "
            f"{feature.shape}, got {stored}: write the array as np.moveaxis(images, {axes[0]}, {axes[1]})"
        )


def _check_told(feature: Feature, episodes: Episodes) -> None:
    """Raise `DataError` for sentences that there are none of, and for goals outside their declared range."""
    values = episodes.arrays[feature.name]
    # In the precision of the values: a bound of 0.7 is met by 0.7 in float32.
    low, high = (end.astype(np.result_type(values, 0.0)) for end in feature.bounds)
    if feature.kind == "text":
        low, high = np.zeros(1, int), np.array([len(feature.sentences) - 1])
        if values.dtype.kind not in "iu":
            raise DataError(f"{feature.name!r}: expected positions of sentences, integers, got {values.dtype}")
    elif not feature.goal or not feature.is_state:
        return
    outside = (values < low) | (values > high)
    steps = np.flatnonzero(outside.any(axis=tuple(range(1, values.ndim))))
    if len(steps):
        episode, frame = episodes.locate(int(steps[0]))
        raise DataError(
            f"{feature.name!r}: expected values in {low.tolist()}..{high.tolist()}, got {values[steps[0]].tolist()} "
            f"in episode {episode}, frame {frame}: correct the data set, or leave the episode out"
        )


def _column(episodes: Episodes, column: Column) -> np.ndarray:
    array = episodes.arrays[column.source]
    if array.ndim < 2 or not 0 <= column.start < column.stop <= array.shape[-1]:
        raise DataError(
            f"expected {column.source!r} with at least {column.stop} elements on its last axis, got shape "
            f"{array.shape[1:]} a step: correct the column of {column.feature!r}"
        )
    return array[..., column.start : column.stop]


@dataclass(frozen=True)
class DataSummary:
    """What a run was trained on; saved beside it as data.json."""

    source: str
    episodes: int
    held_out: int
    steps: int
    routes: dict[str, float]
    """Share of the demonstrations by route, where the task has routes and the demonstrator tells."""
    warnings: tuple[str, ...] = ()
    """Columns that are constant, saturated or scaled by outliers, and dead cameras: to be looked at before training."""


def job(
    experiment: Experiment, *, start: Checkpoint | None = None, on_progress: Progress | None = None
) -> tuple[Job, DataSummary]:
    """Return the training job of `experiment`, with its demonstrations read or simulated, and a summary of those.

    The normaliser is fitted on training episodes only; validation uses whole episodes that are never trained on. With a
    `start`, features, normaliser and first weights (the averaged ones) are those of that checkpoint.
    """
    schema = schema_of(experiment, start)
    task, config, spec = find(experiment.task), experiment.data, experiment.policy.spec
    if config.path is not None:
        episodes, routes = load_episodes(task, config), routes_at(locate(config.path))
    else:
        made = demonstrate(task, config.demonstrations, seed=experiment.seed, on_progress=on_progress)
        episodes, routes = made.episodes, made.routes
    training, held_out = split(episodes, held_out=config.held_out, seed=experiment.seed)
    training = _augmented(training, config)
    kinds = _kinds(schema, config)

    def windows(part: Episodes) -> Windows:
        return Windows(part.ends, spec.obs_steps, spec.horizon, spec.first_action)

    learnt = {**training.arrays, ACTION: learnt_actions(training, windows(training), spec.action_space)}
    if start is None:
        normalizer = Normalizer.fit(learnt, kinds)
    else:
        normalizer = Normalizer.from_state(start.tensors["normalizer"], schema.normalised)

    def loader(part: Episodes) -> Loader:
        return Loader(
            part,
            windows(part),
            normalizer,
            batch_size=experiment.train.batch_size,
            seed=experiment.seed,
            space=spec.action_space,
            augment=config.noise if part is training else None,
            raw=[f.name for f in schema.observations if not f.is_state],
        )

    source = "simulated demonstrator" if config.path is None else config.path
    cameras = (f.name for f in schema.observations if f.kind == "image" and not f.goal)
    found = tuple(f"{f.key}: {f.message}" for f in (*scaling(learnt, kinds), *pictures(learnt, cameras)))
    summary = DataSummary(source, len(episodes), len(held_out), episodes.total, routes, found)
    prepared = Job(
        Deployed(experiment.task, experiment.policy, schema),
        experiment.train,
        normalizer,
        loader(training),
        loader(held_out),
        experiment.seed,
        None if start is None else start.tensors["ema"],
    )
    return prepared, summary


def schema_of(experiment: Experiment, start: Checkpoint | None = None) -> Schema:
    """Return what the policy observes and commands: as its task, or as the checkpoint that it starts from.

    Raises an error that says how rate, action space or features of the policy do not fit the task; nothing is read.
    """
    task, spec = find(experiment.task), experiment.policy.spec
    if spec.control_hz != task.control_hz:
        raise ConfigError(
            f"expected policy.spec.control_hz={task.control_hz:g} of {task.name}, got {spec.control_hz:g}: change it, "
            "or choose a task of that rate"
        )
    check_action_space(spec.action_space, task.schema)
    return task.schema if start is None else _same_features(start.deployed.schema, task)


def begun(experiment: Experiment, start: Checkpoint) -> Experiment:
    """Return `experiment` with the policy of `start`, and the kinds of normalisers that it brings.

    A configuration states one kind for all observations: those of an imported policy may be of several, and are not
    stated then.
    """
    schema = start.deployed.schema
    affines = Normalizer.from_state(start.tensors["normalizer"], schema.normalised).affines
    kinds = {affines[f.name].kind for f in schema.observations if f.is_state and f.kind != "angle"}
    observations = kinds.pop() if len(kinds) == 1 else experiment.data.observations
    data = replace(experiment.data, observations=observations, actions=affines[schema.action.name].kind)
    return replace(experiment, policy=start.deployed.policy, data=data)


def _augmented(training: Episodes, config: DataConfig) -> Episodes:
    """Return the training episodes moved to their goal, then with their reflections, where that is asked for."""
    if config.retarget is not None:
        training = retargeted(training, config.retarget)
    return training if config.mirror is None else mirrored(training, config.mirror)


def _kinds(schema: Schema, config: DataConfig) -> dict[str, NormalizerKind]:
    """Return how every state feature, and the action, is normalised."""
    kinds: dict[str, NormalizerKind] = {
        f.name: "identity" if f.kind == "angle" else config.observations for f in schema.observations if f.is_state
    }
    return {**kinds, schema.action.name: config.actions}


def _same_features(schema: Schema, task: Task) -> Schema:
    """Return `schema`, whose features the task must have: states may be encoded otherwise, and some left out."""
    known = task.schema.features
    check_sentences(vocabulary(schema), vocabulary(task.schema), where="--init")
    for name, feature in schema.features.items():
        other = known.get(name)
        if other is None:
            raise SchemaError(
                f"--init: expected a run on features of {task.name}, got {name!r}: it has {sorted(known)}"
            )
        same_kind = feature.kind == other.kind or (feature.is_state and other.is_state)
        if not same_kind or (feature.shape, feature.goal) != (other.shape, other.goal):
            raise SchemaError(
                f"--init: expected {name!r} as {other.kind} {other.shape} of {task.name}, "
                f"got {feature.kind} {feature.shape}"
            )
    return schema
