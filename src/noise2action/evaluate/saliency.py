"""Which pixels move a policy's actions: by the gradient, and by covering them."""

from itertools import product
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..errors import ConfigError
from ..seeds import generator
from .explain import BATCH, Subject, moved
from .moments import Moments

GRADIENTS = 4
"""Plans whose gradient is taken at once."""

Cover = Literal["grey", "mean", "background"]
"""What a patch is covered with. grey: mid-grey. mean: the picture's mean colour. background: what that place of the
picture mostly shows, the median over all moments, for cameras that stand still."""


def saliency(
    subject: Subject, moment: Moments, *, probes: int = 48, smooth: float = 0.0, noise: int = 0
) -> dict[str, Float[Tensor, "O H W"]]:
    """Return, by image, how far the executed actions move per unit of a pixel's brightness (0 black, 1 white).

    The Frobenius norm of d action / d pixel over the action's elements and the three colours, root mean square over the
    executed ticks: first order, for small changes. `moment` is a single one, `noise` the number of its sampler noise.
    `smooth` is the standard deviation of noise on the pixels over which gradients are averaged (SmoothGrad).

    One backward pass gives the gradient along one direction of the executed actions; squares are summed over `probes`
    directions from random orthonormal bases. That is exact where `probes` is a multiple of T A and `smooth` is 0.

    **Source:** Simonyan et al. 2014; Smilkov et al. 2017 (SmoothGrad), here in squares.
    """
    draw = generator(subject.seed, "probes", noise)
    images = {name: _brightness(moment.history[name]) for name in subject.cameras}
    totals = {name: torch.zeros_like(image[0]) for name, image in images.items()}
    directions: list[Tensor] = []
    for start in range(0, probes, GRADIENTS):
        size = min(GRADIENTS, probes - start)
        told = {name: x.expand(size, *x.shape[1:]) for name, x in {**moment.history, **images}.items()}
        for name in images:
            shaken = told[name] + smooth * torch.randn(told[name].shape, generator=draw, dtype=told[name].dtype)
            told[name] = shaken.clamp(0, 1).requires_grad_()
        with torch.enable_grad():
            actions = subject.differentiable(told, noise)
            ticks, elements = actions.shape[1], actions[0].numel()
            while len(directions) < start + size:
                directions += _basis(elements, like=actions, draw=draw)
            along = torch.stack(directions[start : start + size]).view_as(actions)
            gradients = torch.autograd.grad((actions * along).sum(), [told[name] for name in images])
        for name, gradient in zip(images, gradients, strict=True):
            totals[name] += gradient.square().sum(0) * (elements / probes / ticks)
    return {
        name: totals[name].sum(1 if part.camera.feature.channels_first else 3).sqrt()
        for name, part in subject.cameras.items()
    }


def _brightness(image: Tensor) -> Tensor:
    """Return an image with values in 0..1."""
    return image if image.is_floating_point() else image.to(torch.get_default_dtype()) / 255


def _basis(size: int, *, like: Tensor, draw: torch.Generator) -> list[Tensor]:
    """Return the vectors of a random orthonormal basis, uniformly distributed."""
    q, r = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=draw))
    return list((q * r.diagonal().sign()).T.to(like))


def occlusion(
    subject: Subject, moment: Moments, camera: str, *, cover: Shaped[Tensor, "a b c"], patch: int, noise: int = 0
) -> Float[Tensor, "H W"]:
    """Return how far the executed actions move (action units) while a patch of an image is covered.

    A square of `patch` pixels slides over the image by a third of its side; in every observed step it shows `cover`, a
    picture of the camera's shape and dtype, instead. A pixel has the mean over the squares that cover it.

    **Source:** Zeiler & Fergus 2014, section 4.2.
    """
    feature = subject.cameras[camera].camera.feature
    size = feature.image_size
    if not 1 <= patch <= min(size):
        raise ConfigError(f"expected a patch of 1 to {min(size)} pixels on {camera!r}, got {patch}")
    step = max(1, patch // 3)
    corners = list(product(*(sorted({*range(0, whole - patch, step), whole - patch}) for whole in size)))
    history = {name: x.expand(BATCH, *x.shape[1:]) for name, x in moment.history.items()}
    base = subject.executed(history, [noise] * BATCH)
    total, count = base.new_zeros(size), base.new_zeros(size)
    for start in range(0, len(corners), BATCH):
        squares = [(slice(y, y + patch), slice(x, x + patch)) for y, x in corners[start : start + BATCH]]
        pictures = history[camera].clone()
        for picture, square in zip(pictures, squares, strict=False):
            pixels = (..., slice(None), *square) if feature.channels_first else (..., *square, slice(None))
            picture[pixels] = cover[pixels]
        found = moved(subject.executed({**history, camera: pictures}, [noise] * BATCH), base)
        for square, distance in zip(squares, found, strict=False):
            total[square] += distance
            count[square] += 1
    return total / count


def covering(
    pictures: Shaped[Tensor, "N a b c"], number: int, kind: Cover, *, channels_first: bool
) -> Shaped[Tensor, "a b c"]:
    """Return what to cover picture `number` with, of its shape and dtype."""
    picture = pictures[number]
    if kind == "background":
        return pictures.median(0).values
    if kind == "mean":
        colour = picture.double().mean((1, 2) if channels_first else (0, 1), keepdim=True)
        return colour.expand(picture.shape).to(picture.dtype)
    return torch.full_like(picture, 0.5 if picture.is_floating_point() else 128)
