"""`n2a sample MODEL`: samples of a trained model of points or images, by any solver."""

import csv
import io
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..data.points import Modes, PointSet, source
from ..diffusion.denoisers import Counted, Denoiser
from ..diffusion.grids import Grid
from ..diffusion.ode import FixedSteps, decode, encode, lerp, slerp
from ..diffusion.sampling import Sampler
from ..diffusion.tableau import OnStep
from ..errors import ConfigError, DataError, MissingExtraError
from ..evaluate.quality import Trial, quality
from ..generative import AnyModel, Guidance, Model, store
from ..seeds import generator
from ..storage import atomic_write
from .runs import note, say
from .sampling import grid_named, resolve

METRICS = (
    "energy_distance",
    "sliced_wasserstein",
    "mmd",
    "precision",
    "recall",
    "mode_coverage",
    "off_mode_fraction",
)
"""What is shown, in this order."""

NFE = 40
"""Network evaluations, where neither the command line nor the model says how many."""

SOLVER = FixedSteps(steps=50)
"""Of encoding and decoding, which are inverse to 1e-4 of the spread of a toy."""


@dataclass(frozen=True)
class Sample:
    """Sample a model that `n2a toy` or `n2a image` trained, with any solver, grid and guidance."""

    model: Annotated[Path, tyro.conf.Positional]
    """Folder of the model."""
    out: Path | None = None
    """.npz or .csv file to write the samples to; a figure is written beside it."""
    n: int = 2000
    """Samples."""
    sampler: str | None = None
    """Solver, such as ddim, dpm-solver++-2m or heun; by default what the model was trained with in mind."""
    nfe: int | None = None
    """Network evaluations."""
    grid: str | None = None
    """trailing, leading, linspace, quadratic, log_snr or karras."""
    eta: float | None = None
    """Stochasticity of ddim, 0 to 1."""
    order: int | None = None
    """Order of the solvers that have one."""
    switch: float | None = None
    """Noise-to-signal ratio at which hybrid changes from its first solver to its second."""
    guidance: float = 0.0
    """Weight w of classifier-free guidance: -1 unconditional, 0 conditional, more is sharper."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Times between which guidance acts."""
    guidance_rescale: float = 0.0
    """Share of the guided estimate that is scaled back to the conditional's spread, 0 to 1."""
    label: int | None = None
    """Class to sample; by default all classes in turn."""
    interpolate: str | None = None
    """spherical or linear: decode the latents between pairs of held-out points instead."""
    seed: int = 0
    """Seed of the noise."""


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn."""

    sampler: Sampler
    grid: Grid
    nfe: int
    guidance: Guidance = field(default_factory=Guidance)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Samples, and what they took."""

    x: Tensor
    nfe: int
    """Network evaluations, counted."""
    seconds: float


def draw(
    model: AnyModel, drawing: Drawing, n: int, *, labels: Tensor | None, seed: int, on_step: OnStep | None = None
) -> Drawn:
    """Return `n` samples in raw units."""
    counts: list[Counted] = []

    def counted(denoise: Denoiser) -> Denoiser:
        counts.append(Counted(denoise))
        return counts[-1]

    began = time.perf_counter()
    x = model.sample(
        n,
        sampler=drawing.sampler,
        grid=drawing.grid,
        nfe=drawing.nfe,
        labels=labels,
        w=drawing.guidance,
        guide=counted,
        generator=generator(seed, "sampling"),
        on_step=on_step,
    )
    return Drawn(x, counts[0].nfe, time.perf_counter() - began)


def main(args: Sample) -> int:
    """Run `n2a sample`."""
    model, about = store.load(args.model), store.about(args.model)
    if args.n < 1 or args.seed < 0:
        raise ConfigError(f"expected --n >= 1 and --seed >= 0, got {args.n} and {args.seed}")
    if args.out is not None:
        check_file(args.out, model)
    if args.interpolate is not None:
        return _interpolate(args, model, about)
    drawing = _drawing(args, about)
    labels = _labels(args, model)
    drawn = draw(model, drawing, args.n, labels=labels, seed=args.seed)
    say(
        f"{args.n} samples: {drawn.nfe} network evaluations, {1e3 * drawn.seconds:.1f} ms, "
        f"{1e6 * drawn.seconds / args.n:.3g} us a sample"
    )
    held_out = _held_out(args, model, about)
    if held_out is not None:
        held, data, modes = held_out
        _report(drawn.x, held.rows(slice(args.n)), data.rows(slice(args.n)), modes, label=args.label)
    if args.out is not None:
        write_samples(args.out, drawn.x, {} if labels is None else {"labels": labels})
        _figure(args.out, drawn.x, labels, None if held_out is None else held_out[0])
    return 0


def _drawing(args: Sample, about: Mapping[str, Any]) -> Drawing:
    """Return how to sample: what the command line says, else what is kept with the model."""
    kept: Mapping[str, Any] = about.get("sampling", {})
    options: dict[str, Any] = {name: getattr(args, name) for name in ("eta", "order", "switch")}
    if args.sampler is None:  # options belong to their sampler
        options = {name: kept.get(name) if value is None else value for name, value in options.items()}
    sampler = resolve(args.sampler or kept.get("sampler", "dpm-solver++-2m"), **options, nfe=args.nfe)
    guidance = Guidance(args.guidance, args.guidance_interval, args.guidance_rescale)
    return Drawing(
        sampler, grid_named(args.grid or kept.get("grid", "trailing")), args.nfe or kept.get("nfe") or NFE, guidance
    )


def _labels(args: Sample, model: AnyModel) -> Tensor | None:
    classes = model.config.classes
    if args.label is None:
        return torch.arange(args.n) % classes if classes else None
    if not 0 <= args.label < classes:
        what = f"a class below {classes}" if classes else "no --label for a model without classes"
        raise ConfigError(f"--label: expected {what}, got {args.label}")
    return torch.full((args.n,), args.label)


def _held_out(
    args: Sample, model: AnyModel, about: Mapping[str, Any]
) -> tuple[PointSet, PointSet, Modes | None] | None:
    """Return two sets of the data that a model of points was not trained on, and its modes; None where unknown."""
    name = about.get("data")
    if len(model.config.shape) != 1 or not isinstance(name, str):
        return None
    try:
        found = source(name, training=1, size=max(args.n, 2000), trials=1, seed=int(about.get("seed", 0)))
    except DataError as error:
        note(f"note: no comparison with the data: {error}")
        return None
    return found.held_out[0], found.data[0], found.modes


def _report(x: Tensor, held_out: PointSet, data: PointSet, modes: Modes | None, *, label: int | None) -> None:
    """Print the distances of samples to data that was held out, of the same class."""
    if label is not None:
        assert held_out.labels is not None
        assert data.labels is not None
        held_out, data = held_out.rows(held_out.labels == label), data.rows(data.labels == label)
    show(quality([Trial(x, held_out.x, data.x)], modes=modes))


def show(metrics: Mapping[str, Any]) -> None:
    """Print each metric beside what it is between two sets of the data."""
    table = Table("metric", "samples", "data and data")
    for name in METRICS:
        if name in metrics:
            table.add_row(name.replace("_", " "), f"{metrics[name]:.4g}", f"{metrics[f'{name}_data']:.4g}")
    Console().print(table)


def check_file(out: Path, model: AnyModel) -> None:
    """Raise `ConfigError` unless samples of `model` can be written to `out`."""
    vectors = len(model.config.shape) == 1
    if out.suffix not in ((".npz", ".csv") if vectors else (".npz",)) or out.is_dir():
        raise ConfigError(f"--out: expected a .npz{' or .csv' if vectors else ''} file to write, got {out}")


def write_samples(out: Path, x: Tensor, columns: Mapping[str, Tensor]) -> None:
    """Write `x` [n, ...] and one number a row for each of `columns`: arrays of those names, or columns of a table."""
    arrays = {"x": x.numpy(), **{name: column.numpy() for name, column in columns.items()}}
    if out.suffix == ".npz":
        binary = io.BytesIO()
        np.savez(binary, allow_pickle=False, **arrays)
        atomic_write(out, binary.getvalue())
        return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    # What `n2a toy FILE` reads as classes is called label there.
    rows.writerow([*(f"x{k}" for k in range(x.shape[1])), *(n.replace("labels", "label") for n in columns)])
    for k, row in enumerate(x.tolist()):
        rows.writerow([*(f"{v:.7g}" for v in row), *(f"{c[k].item():g}" for c in columns.values())])
    atomic_write(out, text.getvalue().encode())


def _figure(out: Path, x: Tensor, labels: Tensor | None, held_out: PointSet | None) -> None:
    """Write a picture of the samples beside `out`, beside the data where that is known."""
    picture = out.with_suffix(".png")
    try:
        from ..evaluate.figures import png  # noqa: PLC0415
        from ..evaluate.point_figures import View, panels  # noqa: PLC0415
    except MissingExtraError as error:
        note(f"note: no figure: {error}")
        return
    cloud, classes = x.numpy(), None if labels is None else labels.numpy()
    if x.ndim > 2:
        from ..evaluate.image_figures import tables  # noqa: PLC0415

        side = min(10, math.isqrt(len(x)))
        figure = tables([cloud[: side * side, 0].reshape(side, side, *x.shape[2:])], ["samples"])
    elif held_out is None:
        figure = panels([cloud], ["samples"], view=View.of(cloud), labels=[classes])
    else:
        known = held_out.x.numpy(), None if held_out.labels is None else held_out.labels.numpy()
        figure = panels([known[0], cloud], ["data", "samples"], view=View.of(known[0]), labels=[known[1], classes])
    atomic_write(picture, png(figure))
    say(f"written: {out} and {picture}")


def _interpolate(args: Sample, model: AnyModel, about: Mapping[str, Any]) -> int:
    """Decode the latents between pairs of held-out points."""
    if args.interpolate not in ("spherical", "linear"):
        raise ConfigError(f"--interpolate: expected spherical or linear, got {args.interpolate!r}")
    held_out = _held_out(args, model, about)
    if held_out is None or not isinstance(model, Model):
        raise ConfigError("--interpolate: expected a model of points whose data is there, got none")
    points = held_out[0].x if args.label is None else held_out[0].x[held_out[0].labels == args.label]
    pairs, weights = min(args.n, len(points) // 2, 8), torch.linspace(0, 1, 33)
    began = time.perf_counter()
    between, nfe = _between(model, points[: 2 * pairs], weights, how=args.interpolate, label=args.label)
    lines = between.unflatten(0, (len(weights), pairs)).transpose(0, 1)
    say(
        f"{pairs} pairs, {len(weights)} points each: {nfe} network evaluations, "
        f"{1e3 * (time.perf_counter() - began):.1f} ms"
    )
    if args.out is not None:
        columns = {"pair": torch.arange(pairs).repeat_interleave(len(weights)), "weight": weights.repeat(pairs)}
        write_samples(args.out, lines.flatten(0, 1), columns)
        _curves(args.out, lines, held_out[0], args.interpolate)
    return 0


def _between(
    model: Model, ends: Tensor, weights: Tensor, *, how: str, label: int | None
) -> tuple[Float[Tensor, "n D"], int]:
    """Return the decoded latents between the halves of `ends`, weight by weight, and the network evaluations."""
    path, start = model.config.objective.path, model.config.objective.span[1]

    def denoiser(n: int) -> Counted:
        return Counted(model.denoiser(None if label is None else torch.full((n,), label)))

    forth = denoiser(len(ends))
    latents = encode(forth, path, model.normalised(ends), solver=SOLVER, start=start)
    a, b = latents.chunk(2)
    # All weights in one batch: a call costs nearly the same for more rows.
    mixed = (slerp if how == "spherical" else lerp)(a, b, weights).flatten(0, 1)
    back = denoiser(len(mixed))
    return model.raw(decode(back, path, mixed, solver=SOLVER, start=start)), forth.nfe + back.nfe


def _curves(out: Path, lines: Tensor, held_out: PointSet, how: str) -> None:
    try:
        from ..evaluate.figures import png  # noqa: PLC0415
        from ..evaluate.point_figures import View, curves  # noqa: PLC0415
    except MissingExtraError as error:
        note(f"note: no figure: {error}")
        return
    background = held_out.x.numpy()
    view = View.of(background, lines.flatten(0, 1).numpy())
    atomic_write(out.with_suffix(".png"), png(curves(lines.numpy(), background, f"{how} between latents", view=view)))
    say(f"written: {out} and {out.with_suffix('.png')}")
