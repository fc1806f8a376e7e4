"""Checkpoints: verified folders of safetensors and JSON, written atomically, never with pickle.

    run/checkpoints/step-00005000/  model.safetensors ema.safetensors optim.safetensors rng-rank0.safetensors
                                    normalizer.safetensors state.json config.json MANIFEST.json
    run/checkpoints/LATEST          name of the newest

A folder is complete when it has its name: it is written as `.tmp-...`, flushed to the disk, then renamed. The manifest
holds the size and SHA-256 of every file, and its own; it is compared byte for byte.
"""

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from ..config import decode, encode
from ..data.normalize import Normalizer
from ..errors import CheckpointError, StorageError
from ..schema import Schema
from ..storage import flush, replace_file, write_durable
from . import AnyPolicy, AnyPolicyConfig

FORMAT = 1
"""Version of the layout; another one is refused."""
MANIFEST = "MANIFEST.json"
TENSORS = ("model", "ema", "optim", "rng-rank0", "normalizer")
KEEP = 2
"""Verified checkpoints that are always there."""

Tensors = Mapping[str, Tensor]


class DamagedCheckpointWarning(UserWarning):
    """A checkpoint failed its verification; an older one is used."""


@dataclass(frozen=True)
class Deployed:
    """What config.json of a checkpoint holds: all that is needed to build the policy, but its weights."""

    task: str
    """Name of the task or data set that it was trained for."""
    policy: AnyPolicyConfig
    """How to build the policy."""
    schema: Schema
    """What it observes and commands."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything that a training run needs to go on, bit for bit."""

    step: int
    deployed: Deployed
    tensors: Mapping[str, Tensors]
    """The tensors of each file in `TENSORS`."""
    state: Mapping[str, Any]
    """Numbers of the trainer (JSON)."""
    folder: Path | None = None
    """Where it was read from."""


def name_of(step: int) -> str:
    """Return the folder name of a step."""
    return f"step-{step:08d}"


def save(run: Path, checkpoint: Checkpoint) -> Path:
    """Write `checkpoint` below `run`, durable when this returns, and prune older ones; return its folder.

    Raises `StorageError` where the disk is full or fails: then everything saved before is as it was.
    """
    root = run / "checkpoints"
    final, temporary = root / name_of(checkpoint.step), root / f".tmp-{name_of(checkpoint.step)}-{os.getpid()}"
    if final.exists() and _intact(final):
        return final
    files = _files(checkpoint)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(root)
        _check_space(root, sum(map(len, files.values())))
        temporary.mkdir()
        for name, body in files.items():
            write_durable(temporary / name, body)
        write_durable(temporary / MANIFEST, _manifest(files))
        flush(temporary)
        if final.exists():
            _discard(final)  # the same step, damaged since
        temporary.rename(final)
        flush(root)
        replace_file(root / "LATEST", f"{final.name}\n".encode())
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(
            f"expected to save {final}, got {error.strerror or error}: free disk space; what was saved before is intact"
        ) from error
    _prune(root)
    return final


def load(run: Path) -> Checkpoint:
    """Return the newest checkpoint below `run` (a run folder, or one checkpoint's folder) that verifies.

    A damaged one is reported by a `DamagedCheckpointWarning` and the one before is used; `CheckpointError` where none
    is left or the format version is another.
    """
    if (run / MANIFEST).exists():
        return _read(run)
    if run.is_file():
        raise CheckpointError(f"expected a run folder, got a file: {run}: name the folder that was trained into")
    folders = complete(run)
    if not folders:
        raise CheckpointError(
            f"expected a run folder with checkpoints, got none in {run}: train first, or check the path"
        )
    problems: list[str] = []
    for folder in folders:
        try:
            found = _read(folder)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem}; using {folder.name} instead", DamagedCheckpointWarning, stacklevel=2)
        return found
    raise CheckpointError(f"expected an intact checkpoint in {run}, got only damaged ones: {'; '.join(problems)}")


def complete(run: Path) -> list[Path]:
    """Return the checkpoint folders of a run, newest first; unfinished ones do not count."""
    root = run / "checkpoints"
    return sorted(root.glob("step-*"), reverse=True) if root.is_dir() else []


def verify(folder: Path) -> dict[str, bytes]:
    """Return the files of a checkpoint by name, or raise `CheckpointError` naming the first that is damaged."""
    raw = _bytes(folder / MANIFEST)
    try:
        manifest = json.loads(raw)
        version, listed = manifest["format"], cast("dict[str, dict[str, Any]]", manifest["files"])
        names = sorted(listed)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: expected a manifest, got {len(raw)} damaged bytes") from error
    if version != FORMAT:
        raise CheckpointError(
            f"{folder}: expected checkpoint format {FORMAT}, got {version}: use the noise2action version that wrote it"
        )
    expected = {f"{n}.safetensors" for n in TENSORS} | {"state.json", "config.json"}
    if set(names) != expected:
        raise CheckpointError(f"{folder / MANIFEST}: expected the files {sorted(expected)}, got {names}")
    files = {name: _bytes(folder / name) for name in names}
    for name, body in files.items():
        if _entry(body) != listed[name]:
            raise CheckpointError(f"{folder / name}: expected {listed[name]}, got {_entry(body)}: the file is damaged")
    if raw != _manifest(files):
        raise CheckpointError(f"{folder / MANIFEST}: expected canonical bytes, got others: the file is damaged")
    return files


def build(checkpoint: Checkpoint, *, weights: str = "ema") -> AnyPolicy:
    """Return the policy of a checkpoint with its `ema` or `model` weights, loaded strictly, ready to plan."""
    deployed = checkpoint.deployed
    normalizer = Normalizer.from_state(checkpoint.tensors["normalizer"], deployed.schema.normalised)
    with torch.device("meta"):  # nothing is allocated before the file's own shapes were seen to agree
        _check_weights(
            deployed.policy.build(deployed.schema, normalizer), checkpoint.tensors[weights], f"{weights}.safetensors"
        )
    policy = deployed.policy.build(deployed.schema, normalizer)
    load_weights(policy, checkpoint.tensors[weights], where=f"{weights}.safetensors")
    return policy.eval().requires_grad_(requires_grad=False)


def load_weights(module: nn.Module, tensors: Tensors, *, where: str) -> None:
    """Load `tensors` into `module`: names, shapes and dtypes must match exactly and all values be finite."""
    _check_weights(module, tensors, where)
    module.load_state_dict(dict(tensors))


def _check_weights(module: nn.Module, tensors: Tensors, where: str) -> None:
    own = module.state_dict()
    if own.keys() != tensors.keys():
        missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
        raise CheckpointError(f"{where}: expected the policy's weights, got {missing=} and unexpected={extra}")
    for name, value in tensors.items():
        if value.shape != own[name].shape or value.dtype != own[name].dtype:
            raise CheckpointError(
                f"{where}: expected {name!r} as {own[name].dtype} {tuple(own[name].shape)}, "
                f"got {value.dtype} {tuple(value.shape)}"
            )
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise CheckpointError(f"{where}: expected finite weights, got NaN or infinity in {name!r}")


def _files(checkpoint: Checkpoint) -> dict[str, bytes]:
    files = {f"{name}.safetensors": save_tensors(_plain(checkpoint.tensors[name])) for name in TENSORS}
    files["state.json"] = _json({"step": checkpoint.step, **checkpoint.state})
    files["config.json"] = _json(encode(checkpoint.deployed, Deployed))
    return files


def _plain(tensors: Tensors) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _read(folder: Path) -> Checkpoint:
    files = verify(folder)
    config = json.loads(files["config.json"])
    state = json.loads(files["state.json"])
    try:
        tensors = {name: load_tensors(files[f"{name}.safetensors"]) for name in TENSORS}
    except SafetensorError as error:
        raise CheckpointError(f"{folder}: expected safetensors files, got {error}") from error
    return Checkpoint(
        state.pop("step"), decode(Deployed, config, where=f"{folder.name}/config.json"), tensors, state, folder
    )


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _entry(body: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}


def _manifest(files: Mapping[str, bytes]) -> bytes:
    return _json({"format": FORMAT, "files": {name: _entry(body) for name, body in files.items()}})


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: expected a readable file, got {error.strerror}") from error


def _check_space(root: Path, size: int) -> None:
    free = shutil.disk_usage(root).free
    if free < size + (1 << 20):
        raise OSError(28, f"{free >> 20} MiB free where {(size >> 20) + 1} MiB are needed")


def _remove_leftovers(root: Path) -> None:
    for path in root.glob(".tmp-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _prune(root: Path) -> None:
    """Delete all but the newest `KEEP` checkpoints that verify; damaged ones never count as kept."""
    kept = 0
    for folder in sorted(root.glob("step-*"), reverse=True):
        if kept >= KEEP:
            with contextlib.suppress(OSError):  # the new checkpoint is safe; this one is tried again next time
                _discard(folder)
        elif _intact(folder):
            kept += 1


def _discard(folder: Path) -> None:
    """Delete a checkpoint so that a kill in between leaves no partial folder under its name."""
    hidden = folder.with_name(f".tmp-old-{folder.name}-{os.getpid()}")
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _intact(folder: Path) -> bool:
    try:
        verify(folder)
    except CheckpointError:
        return False
    return True
