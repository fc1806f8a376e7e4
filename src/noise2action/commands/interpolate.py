"""`n2a sample --interpolate`: held-out pairs encoded to noise, the noises interpolated, and decoded."""

import time
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.denoisers import Counted
from ..diffusion.ode import FixedSteps, cleanest_time, decode, encode, lerp, slerp
from ..errors import ConfigError, MissingExtraError
from ..evaluate.tables import network_evaluations
from ..generative import AnyModel
from ..storage import atomic_write
from .samples import write_samples
from .terminal import note, say

How = Literal["spherical", "linear"]
"""Ways between two noises."""

SOLVER = FixedSteps(steps=50)
"""Of encoding and decoding, which are inverse to 1e-4 of the spread of a toy."""
PAIRS = 8
"""Pairs at most."""
POINTS, IMAGES = 33, 11
"""Weights, the ends included, on the way between two points and between two images."""


def interpolate(model: AnyModel, held_out: Tensor, pairs: int, *, how: How, label: int | None, out: Path | None) -> int:
    """Decode the latents between pairs of `held_out` [n, *shape], at most 8 pairs, and write them to `out`."""
    pairs = min(pairs, len(held_out) // 2, PAIRS)
    if pairs < 1:
        raise ConfigError(f"--interpolate: expected at least 2 held-out samples, got {len(held_out)}")
    weights = torch.linspace(0, 1, POINTS if held_out.ndim == 2 else IMAGES)
    began = time.perf_counter()
    between, nfe = _between(model, held_out[: 2 * pairs], weights, how=how, label=label)
    lines = between.unflatten(0, (len(weights), pairs)).transpose(0, 1)
    say(
        f"{pairs} pairs, {len(weights)} samples each: {network_evaluations(nfe)}, "
        f"{1e3 * (time.perf_counter() - began):.1f} ms"
    )
    if out is not None:
        columns = {"pair": torch.arange(pairs).repeat_interleave(len(weights)), "weight": weights.repeat(pairs)}
        write_samples(out, lines.flatten(0, 1), columns)
        _figure(out, lines, held_out, f"{how} between latents")
    return 0


def _between(
    model: AnyModel, ends: Tensor, weights: Float[Tensor, "W"], *, how: How, label: int | None
) -> tuple[Float[Tensor, "n ..."], int]:
    """Return the decoded latents between the halves of `ends`, weight by weight, and the network evaluations."""
    objective = model.config.objective
    path, start, cleanest = objective.path, objective.span[1], cleanest_time(objective.path, low=objective.span[0])

    def denoiser(n: int) -> Counted:
        return Counted(model.denoiser(None if label is None else torch.full((n,), label)))

    forth = denoiser(len(ends))
    latents = encode(forth, path, model.normalised(ends), solver=SOLVER, start=start, cleanest=cleanest)
    a, b = latents.chunk(2)
    # All weights in one batch: a call costs nearly the same for more rows.
    mixed = (slerp if how == "spherical" else lerp)(a, b, weights).flatten(0, 1)
    back = denoiser(len(mixed))
    decoded = decode(back, path, mixed, solver=SOLVER, start=start, cleanest=cleanest)
    return model.raw(decoded), forth.nfe + back.nfe


def _figure(out: Path, lines: Float[Tensor, "n W ..."], held_out: Tensor, title: str) -> None:
    try:
        from ..evaluate.figures import png  # noqa: PLC0415
        from ..evaluate.image_figures import tables  # noqa: PLC0415
        from ..evaluate.point_figures import View, curves  # noqa: PLC0415
    except MissingExtraError as error:
        note(f"note: no figure: {error}")
        return
    if lines.ndim == 3:
        view = View.of(held_out.numpy(), lines.flatten(0, 1).numpy())
        figure = curves(lines.numpy(), held_out.numpy(), title, view=view)
    else:
        figure = tables([lines[:, :, 0].numpy()], [title])
    picture = out.with_suffix(".png")
    atomic_write(picture, png(figure))
    say(f"written: {out} and {picture}")
