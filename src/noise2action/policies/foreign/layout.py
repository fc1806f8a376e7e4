"""What every importer reads out of a foreign checkpoint, and the checkpoint of ours that is made of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.normalize import Affine, Normalizer
from ...encoders.image import Camera
from ...errors import CheckpointError
from ...schema import Feature, Schema
from ..checkpoint import Checkpoint, Deployed
from ..diffusion import DiffusionConfig
from .statistics import part

CONDITIONED = ".cond_encoder.1.weight"
"""End of the names of the U-Net's weights whose columns are time embedding, then condition."""
MOST_NAMED = 5
"""Weights that an error names."""


@dataclass(frozen=True, eq=False)
class Source:
    """One array that a foreign policy observes or commands."""

    name: str
    shape: tuple[int, ...]
    """(D,) of a state, (3, height, width) of an image."""
    affine: Affine
    """How it is normalised, a column an element; a channel a column for an image of values in 0..1."""

    @property
    def is_image(self) -> bool:
        """Whether it is a camera."""
        return len(self.shape) == 3

    @property
    def feature(self) -> Feature:
        """The feature under its foreign name."""
        if self.is_image:
            return Feature(self.name, self.shape, kind="image", dtype="uint8")
        return Feature(self.name, self.shape)


@dataclass(frozen=True, eq=False)
class Foreign:
    """A foreign diffusion policy: a 1-D U-Net over actions, told by states and images."""

    what: str
    """Where it comes from, for errors and for the run's state."""
    config: DiffusionConfig
    """Our configuration of the same policy."""
    sources: tuple[Source, ...]
    """What it observes, in the order in which every observed step lies in its condition."""
    action: Source
    tensors: Mapping[str, Tensor]
    """Its weights under their own names."""
    name_of: Callable[[str], str]
    """Their name of one of our weights, without `backbone.`."""
    file: Path
    """File that holds its weights."""
    about: Mapping[str, Any]
    """What the run's state remembers (JSON)."""


Places = Mapping[str, tuple[Feature, ...]]
"""By foreign name: the features that an array is made of, in order; more than one for states only."""


def own_names(foreign: Foreign) -> Places:
    """Return the features as the checkpoint itself names them."""
    return {s.name: (s.feature,) for s in (*foreign.sources, foreign.action)}


def checkpoint_of(foreign: Foreign, places: Places, *, task: str, control_hz: float) -> Checkpoint:
    """Return our checkpoint of `foreign`, before its first training step; `CheckpointError` that names what is wrong.

    The features of `places` are its schema: states first, then cameras. Every weight must have its name, shape and
    dtype, and none may be left over.
    """
    states = [s for s in foreign.sources if not s.is_image]
    cameras = [s for s in foreign.sources if s.is_image]
    observed = tuple(feature for s in (*states, *cameras) for feature in places[s.name])
    (action,) = places[foreign.action.name]
    schema = Schema(observed, action)
    normalizer = _normalizer(foreign, places)
    config = replace(foreign.config, spec=replace(foreign.config.spec, control_hz=control_hz))
    with torch.device("meta"):  # nothing is allocated before the file's own shapes were seen to agree
        policy = config.build(schema, normalizer)
    colours = {s.name: _colours(s.affine) for s in cameras}
    made: dict[str, Tensor] = {}
    for name, module in policy.named_modules():
        if isinstance(module, Camera):
            source = next(s for s in cameras if places[s.name] == (module.feature,))
            made[f"{name}.mean"], made[f"{name}.std"] = colours[source.name]
    wanted = {key: like for key, like in policy.state_dict().items() if key not in made}
    made |= _taken(foreign, wanted)
    columns = _columns(foreign, [*states, *cameras])
    steps, width = config.spec.obs_steps, len(columns)
    if columns != list(range(width)):
        for key in wanted:
            if key.endswith(CONDITIONED):
                time, told = made[key].split([made[key].shape[1] - steps * width, steps * width], dim=1)
                told = told.unflatten(1, (steps, width))[:, :, columns].flatten(1)
                made[key] = torch.cat([time, told], dim=1)
    tensors = {
        "model": made,
        "ema": made,
        "optim": {},
        "rng-rank0": {"global": torch.get_rng_state(), "noise": torch.Generator().get_state()},
        "normalizer": normalizer.state(),
    }
    state = {"elapsed_s": 0.0, "seed": 0, "origin": {"what": foreign.what, **foreign.about}}
    return Checkpoint(0, Deployed(task, config, schema), tensors, state)


def _normalizer(foreign: Foreign, places: Places) -> Normalizer:
    affines: dict[str, Affine] = {}
    for source in (*foreign.sources, foreign.action):
        start = 0
        for feature in places[source.name]:
            if not source.is_image:
                affines[feature.name] = part(source.affine, start, start + feature.size)
            start += feature.size
    return Normalizer(affines)


def _colours(affine: Affine) -> tuple[Tensor, Tensor]:
    """Return what is subtracted from red, green and blue in 0..1, and what they are divided by."""
    return (-affine.offset / affine.scale).float(), (1 / affine.scale).float()


def _taken(foreign: Foreign, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the foreign weights under our names, all of them and no others, like `wanted` and finite."""
    theirs = {key: foreign.name_of(key.removeprefix("backbone.")) for key in wanted}
    missing = sorted(set(theirs.values()) - foreign.tensors.keys())
    unexpected = sorted(foreign.tensors.keys() - set(theirs.values()))
    if missing or unexpected:
        raise CheckpointError(
            f"{foreign.file}: expected exactly the weights of its configuration, got {len(missing)} missing "
            f"({_some(missing)}) and {len(unexpected)} unexpected ({_some(unexpected)}): save the policy again, both "
            "from one training"
        )
    for key, name in theirs.items():
        got, like = foreign.tensors[name], wanted[key]
        if got.shape != like.shape or got.dtype != like.dtype:
            raise CheckpointError(
                f"{foreign.file}: expected {name!r} as {like.dtype} {tuple(like.shape)}, "
                f"got {got.dtype} {tuple(got.shape)}"
            )
        if got.is_floating_point() and not bool(got.isfinite().all()):
            raise CheckpointError(f"{foreign.file}: expected finite weights, got NaN or infinity in {name!r}")
    # A copy each: files may hold one memory under two names.
    return {key: foreign.tensors[name].clone() for key, name in theirs.items()}


def _columns(foreign: Foreign, ours: list[Source]) -> list[int]:
    """Return, for every column of an observed step in our order, its place in theirs."""
    dim = foreign.config.encoder.vision.dim
    starts: dict[str, int] = {}
    start = 0
    for source in foreign.sources:
        starts[source.name] = start
        start += dim if source.is_image else source.shape[0]
    sizes = {s.name: dim if s.is_image else s.shape[0] for s in ours}
    return [starts[s.name] + k for s in ours for k in range(sizes[s.name])]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return shown + (", ..." if len(names) > MOST_NAMED else "") if names else "none"
