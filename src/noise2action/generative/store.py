"""Generative models on disk: config.json and model.safetensors in one folder, written atomically, never with pickle."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ..config import decode, encode
from ..errors import CheckpointError
from ..storage import atomic_write
from . import AnyModel, AnyModelConfig

FORMAT = 1
"""Version of the layout; another one is refused."""
CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class Stored:
    """What is built before the weights are loaded."""

    model: AnyModelConfig


def save(folder: Path, model: AnyModel, about: Mapping[str, Any]) -> None:
    """Write `model` to `folder`; `about` is kept beside its configuration, anything that JSON holds.

    The weights are written before the configuration that names their fingerprint: a crash in between is noticed.
    """
    weights = save_tensors({name: v.detach().cpu().contiguous() for name, v in model.state_dict().items()})
    body = {
        "format": FORMAT,
        **encode(Stored(model.config)),
        "weights": hashlib.sha256(weights).hexdigest(),
        "about": about,
    }
    atomic_write(folder / WEIGHTS, weights)
    atomic_write(folder / CONFIG, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())


def load(folder: Path) -> AnyModel:
    """Return the model in `folder`, ready to sample; `CheckpointError` where there is none or it is damaged."""
    body = _config(folder)
    config = decode(Stored, {"model": body["model"]}, where=f"{folder / CONFIG}").model
    raw = _bytes(folder / WEIGHTS)
    if hashlib.sha256(raw).hexdigest() != body.get("weights"):
        raise CheckpointError(f"{folder / WEIGHTS}: expected the weights that {CONFIG} names, got others: save again")
    try:
        tensors = load_tensors(raw)
    except SafetensorError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: expected safetensors, got {error}") from error
    with torch.device("meta"):  # nothing is allocated before the file's own shapes were seen to agree
        wanted = config.build().state_dict()
    if {n: (v.shape, v.dtype) for n, v in wanted.items()} != {n: (v.shape, v.dtype) for n, v in tensors.items()}:
        raise CheckpointError(f"{folder / WEIGHTS}: expected the weights of its configuration, got others")
    model = config.build()
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(requires_grad=False)


def holds(folder: Path) -> bool:
    """Return whether `folder` holds a generative model, whole or damaged, rather than something else."""
    try:
        body = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(body, dict) and "model" in body


def about(folder: Path) -> dict[str, Any]:
    """Return what `save` was told about the model in `folder`."""
    found = _config(folder).get("about")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"expected a folder with a model, got no {CONFIG} in {folder}: train one with `n2a toy`, or check the path"
        )
    try:
        body = json.loads(_bytes(folder / CONFIG))
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG}: expected JSON, got {error}") from error
    if isinstance(body, dict) and "experiment" in body:
        raise CheckpointError(
            f"{folder}: expected a model of points or images, got the run of a policy: use `n2a eval {folder}`"
        )
    if not isinstance(body, dict) or body.get("format") != FORMAT or "model" not in body:
        raise CheckpointError(f"{folder}: expected a generative model of format {FORMAT}, got another kind of folder")
    return cast("dict[str, Any]", body)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: expected a readable file, got {error.strerror}") from error
