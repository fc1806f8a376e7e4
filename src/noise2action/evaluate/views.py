"""What a policy looks at in the pictures of its cameras: everything that is measured of a picture, together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..errors import ConfigError
from .attention import attended
from .explain import OnPiece, Subject, unheard
from .keypoints import Keypoints, Window, keypoints, window
from .moments import Moments
from .saliency import Cover, covering, occlusion, saliency


@dataclass(frozen=True)
class Looking:
    """How pictures are asked about."""

    cover: Cover = "mean"
    """What patches are covered with."""
    patch: int | None = None
    """Side of a patch in pixels; None for an eighth of the picture's shorter side."""
    smooth: float = 0.05
    """Noise on the pixels over which gradients are averaged, as a share of black to white."""
    probes: int = 48
    """Gradients a picture."""

    def side(self, camera: str, size: tuple[int, int]) -> int:
        """Return the side of a patch on pictures of `size`; `ConfigError` where it is larger than they are."""
        if self.patch is not None and self.patch > min(size):
            raise ConfigError(f"expected a patch of at most the {min(size)} pixels of {camera!r}, got {self.patch}")
        return max(1, min(size) // 8) if self.patch is None else self.patch


@dataclass(frozen=True, eq=False)
class View:
    """Pictures of one camera, or goal images, at F moments, and what the policy sees in them."""

    camera: str
    moments: Moments
    pictures: UInt8[Tensor, "F H W 3"]
    """Of the newest observed step."""
    window: Window
    """The part that the policy sees."""
    keypoints: Keypoints | None
    """At the same moments; None without a spatial softmax."""
    attention: Float[Tensor, "F h w"] | None
    """Share of the trajectory's attention at each place, over all observed steps; None without a token a place."""
    gradient: Float[Tensor, "F O H W"]
    """Of every observed step, action units per unit of brightness."""
    covered: Float[Tensor, "F H W"]
    """How far the executed actions move when the place is covered, action units."""
    patch: int
    cover: Cover

    def numbers(self) -> dict[str, Any]:
        """Return all but the arrays, as JSON."""
        found: list[dict[str, Any]] = []
        for k, (episode, tick) in enumerate(zip(self.moments.episodes, self.moments.ticks, strict=True)):
            steps = self.gradient[k].double().square().sum((1, 2))
            whole = float(steps.sum())
            place = divmod(int(self.covered[k].argmax()), self.covered.shape[2])
            found.append(
                {
                    "episode": episode,
                    "tick": tick,
                    "gradient": {
                        "unit": "action units per unit of brightness",
                        "largest": float(self.gradient[k].max()),
                        # A policy that does not look has no gradient to share.
                        "share_of_steps": (steps / whole if whole else steps).tolist(),
                    },
                    "attention": None if self.attention is None else float(self.attention[k].sum()),
                    "covered": {"largest": float(self.covered[k].max()), "at": [place[1], place[0]]},
                    "keypoints": None if self.keypoints is None else self.keypoints.places[k].tolist(),
                }
            )
        keys = self.keypoints
        return {
            "window": self.window._asdict(),
            "patch": self.patch,
            "cover": self.cover,
            "keypoints": None
            if keys is None
            else [
                {"keypoint": k, "influence": float(keys.influence[k]), "spread_px": float(keys.spread[k])}
                for k in keys.foremost(len(keys.influence))
            ],
            "frames": found,
        }


def views(
    subject: Subject,
    moments: Moments,
    rows: Sequence[int],
    looking: Looking,
    *,
    on_progress: OnPiece = unheard,
) -> list[View]:
    """Return a view of every image at the moments `rows`; the others say what is usual."""
    keys = keypoints(subject, moments, on_progress=on_progress)
    asked = attended(subject, moments.take(rows))
    gradients: list[dict[str, Tensor]] = []
    for done, row in enumerate(rows):
        on_progress("gradients", done, len(rows))
        one = moments.take([row])
        gradients.append(saliency(subject, one, probes=looking.probes, smooth=looking.smooth, noise=row))
    found: list[View] = []
    for name, part in subject.cameras.items():
        feature = part.camera.feature
        pictures = moments.history[name][:, -1]
        side = looking.side(name, feature.image_size)
        covered: list[Tensor] = []
        for done, row in enumerate(rows):
            on_progress(f"covering {name}", done, len(rows))
            hidden = covering(pictures, row, looking.cover, channels_first=feature.channels_first)
            covered.append(occlusion(subject, moments.take([row]), name, cover=hidden, patch=side, noise=row))
        found.append(
            View(
                name,
                moments.take(rows),
                _shown(pictures[list(rows)], channels_first=feature.channels_first),
                window(part.camera),
                keys[name].at(rows) if name in keys else None,
                asked.places[name].sum(1) if asked is not None and name in asked.places else None,
                torch.stack([gradient[name] for gradient in gradients]),
                torch.stack(covered),
                side,
                looking.cover,
            )
        )
    return found


def _shown(pictures: Tensor, *, channels_first: bool) -> UInt8[Tensor, "F H W 3"]:
    pictures = pictures.movedim(1, 3) if channels_first else pictures
    return (255 * pictures).round().to(torch.uint8) if pictures.is_floating_point() else pictures
