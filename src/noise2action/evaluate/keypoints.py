"""Where the keypoints of a spatial softmax look, and how much the actions depend on each."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..encoders.image import Camera, centre_crop
from ..encoders.pooling import SpatialSoftmax, coordinates
from .explain import OnPiece, Subject, moved, padded, unheard
from .moments import Moments


@dataclass(frozen=True, eq=False)
class Keypoints:
    """What a camera's keypoints look at, in the newest step of N moments."""

    weights: Float[Tensor, "N K h w"]
    """Spatial softmax: >= 0, sums to 1 over the window."""
    places: Float[Tensor, "N K 2"]
    """Expected position (x, y) in pixels of the image, 0 the centre of the first."""
    spread: Float[Tensor, "K"]
    """Standard deviation of the place over the moments, px: a keypoint that never moves tells nothing."""
    influence: Float[Tensor, "K"]
    """How far the executed actions move, on average, when it is held at its mean place; action units."""

    def at(self, rows: Sequence[int]) -> "Keypoints":
        """Return them at some of the moments."""
        return replace(self, weights=self.weights[list(rows)], places=self.places[list(rows)])

    def foremost(self, count: int) -> list[int]:
        """Return the `count` keypoints that the actions depend on most, most first."""
        return self.influence.argsort(descending=True)[:count].tolist()


def keypoints(
    subject: Subject, moments: Moments, *, held: int = 24, on_progress: OnPiece = unheard
) -> dict[str, Keypoints]:
    """Return the keypoints of every image that goes through a spatial softmax.

    Their influence is measured at `held` of the moments. Images that share a network are held together, so each has the
    influence of all.
    """
    encoder, history = subject.encoder, moments.history
    looks = [encoder.attention({n: x[rows] for n, x in history.items()}) for rows in padded(len(moments))]
    found: dict[str, Keypoints] = {}
    influence: dict[int, Tensor] = {}
    for name, part in subject.cameras.items():
        if name not in looks[0]:
            continue
        if part.position not in influence:
            vision = encoder.visions[part.position]
            pool = next(module for module in vision.modules() if isinstance(module, SpatialSoftmax))
            influence[part.position] = _influence(subject, moments.evenly(held), pool, on_progress)
        weights = torch.cat([look[name][:, -1] for look in looks])[: len(moments)]
        places = _pixels(weights, part.camera)
        spread = places.var(0, correction=0).sum(-1).sqrt()
        found[name] = Keypoints(weights, places, spread, influence[part.position])
    return found


def _influence(subject: Subject, moments: Moments, pool: SpatialSoftmax, on_progress: OnPiece) -> Float[Tensor, "K"]:
    """Return how far the executed actions move when each keypoint is held at its mean place."""
    noises, outputs = range(len(moments)), list[Tensor]()
    with torch.no_grad(), _changed(pool, lambda output: outputs.append(output) or output):
        subject.backbone.condition(moments.history)
    mean, base = torch.cat(outputs).mean(0), subject.executed(moments.history, noises)

    def held(keypoint: int) -> Tensor:
        on_progress("keypoints", keypoint, len(mean) // 2)
        columns = torch.arange(len(mean)) // 2 == keypoint
        with _changed(pool, lambda output: torch.where(columns, mean, output)):
            return moved(subject.executed(moments.history, noises), base).mean()

    return torch.stack([held(k) for k in range(len(mean) // 2)])


@contextmanager
def _changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Generator[None]:
    """Let `module` return `change` of what it returns."""

    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class Window(NamedTuple):
    """Part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int


def window(camera: Camera) -> Window:
    """Return the part of its image that a policy sees when it acts."""
    height, width = camera.feature.image_size
    numbers = torch.arange(height * width).view(1, 1, height, width, 1).expand(-1, -1, -1, -1, 3)
    first = int(centre_crop(numbers, camera.size)[0, 0, 0, 0, 0])
    return Window(first % width, first // width, camera.size[1], camera.size[0])


def _pixels(weights: Float[Tensor, "N K h w"], camera: Camera) -> Float[Tensor, "N K 2"]:
    """Return the expected position under `weights` in pixels of the whole image; cells share its window evenly."""
    left, top, width, height = window(camera)
    cells = torch.tensor([weights.shape[3], weights.shape[2]])
    expected = weights.flatten(2) @ coordinates((weights.shape[2], weights.shape[3])).to(weights)
    index = (expected + 1) / 2 * (cells - 1)
    return torch.tensor([left, top]) + (index + 0.5) * torch.tensor([width, height]) / cells - 0.5
