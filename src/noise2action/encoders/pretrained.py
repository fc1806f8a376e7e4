"""ImageNet weights from a local safetensors file, in torchvision's key naming."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import CheckpointError
from .resnet import ResNet

_HEAD = {"fc.weight", "fc.bias"}
_COUNT = "num_batches_tracked"


def torchvision_state(net: ResNet) -> dict[str, Tensor]:
    """Return the backbone's weights under torchvision's names: conv1, bn1, layer1.0.conv1, ..."""
    return {_published(key): value for key, value in net.backbone.state_dict().items()}


def load_torchvision(net: ResNet, path: Path) -> None:
    """Fill the backbone of `net` with the weights in `path`; the classifier (`fc`) is left out.

    Raises `CheckpointError`, and changes nothing, where a tensor is missing, unexpected, misshapen or not finite.
    """
    if path.is_dir():
        raise CheckpointError(f"expected a safetensors file of ImageNet weights, got a folder: {path}: name a file")
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"expected a safetensors file of ImageNet weights, got {path}: {error}") from error
    wanted = torchvision_state(net)
    given = {key: value for key, value in found.items() if key not in _HEAD}
    # Some files leave the count of batches out: it has no effect on what is computed.
    counts = {key: value for key, value in wanted.items() if key.endswith(_COUNT)}
    problem = _problem(wanted, {**counts, **given})
    if problem:
        raise CheckpointError(f"{path}: {problem}: choose the ResNet (widths, blocks) that the file was trained as")
    with torch.no_grad():
        for key, target in net.backbone.state_dict(keep_vars=True).items():
            target.copy_(given.get(_published(key), target))


def _problem(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """Return why `given` does not fill `wanted`, None where it does."""
    missing, unexpected = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or unexpected:
        return f"expected the keys of this network, got {_some(missing)} missing and {_some(unexpected)} unexpected"
    for key, value in given.items():
        if value.shape != wanted[key].shape:
            return f"expected {key} {tuple(wanted[key].shape)}, got {tuple(value.shape)}"
        if not bool(value.isfinite().all()):
            return f"expected finite weights, got NaN or infinity in {key}"
    return None


def _some(keys: list[str]) -> str:
    return f"{len(keys)} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else "none"


def _published(key: str) -> str:
    """Return torchvision's name of a tensor of the backbone: children 0, 1 and 4.. are conv1, bn1 and layer1.."""
    child, _, rest = key.partition(".")
    name = {"0": "conv1", "1": "bn1"}.get(child) or f"layer{int(child) - 3}"
    return f"{name}.{rest}"
