"""`n2a sample MODEL`: samples of a trained model of points or images, by any solver."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..data.digits import Images, digits
from ..data.points import Modes, PointSet, source
from ..errors import ConfigError, DataError, MissingExtraError
from ..evaluate.quality import Trial, quality
from ..generative import AnyModel, Guidance, store
from ..generative.obstacles import Disc, avoid
from ..storage import atomic_write
from .drawing import NFE, Drawing, draw
from .interpolate import How, interpolate
from .runs import note, one_thread, say
from .samples import check_file, write_samples
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
    rtol: float | None = None
    """Tolerance of adaptive, relative and absolute."""
    guidance: tuple[float, ...] = (0.0,)
    """Weight w of classifier-free guidance: -1 unconditional, 0 conditional, more is sharper; or one a label."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Times between which guidance acts."""
    guidance_rescale: float = 0.0
    """Share of the guided estimate that is scaled back to the conditional's spread, 0 to 1."""
    label: tuple[int, ...] = ()
    """Class to sample, or several that every sample is to be of at once; by default all classes in turn."""
    avoid: tuple[float, float, float] | None = None
    """X Y RADIUS of a disc, in the units of the data, to keep points out of."""
    avoid_scale: float = 3.0
    """Weight of the disc's cost; above what is needed it also moves samples that are far away."""
    interpolate: str | None = None
    """spherical or linear: decode the latents between pairs of held-out points or images instead."""
    seed: int = 0
    """Seed of the noise."""


@one_thread()
def main(args: Sample) -> int:
    """Run `n2a sample`."""
    model, about = store.load(args.model), store.about(args.model)
    if args.n < 1 or args.seed < 0:
        raise ConfigError(f"expected --n >= 1 and --seed >= 0, got {args.n} and {args.seed}")
    if args.out is not None:
        check_file(args.out, model)
    if args.interpolate is not None:
        return _interpolate(args, model, about)
    disc = None if args.avoid is None else Disc(*args.avoid)
    labels = _labels(args, model)
    drawing = _drawing(args, about)
    if disc is not None:
        drawing = replace(drawing, guide=avoid(model, disc, scale=args.avoid_scale))
    drawn = draw(model, drawing, args.n, labels=labels, seed=args.seed)
    say(
        f"{args.n} samples: {drawn.nfe} network evaluations, {1e3 * drawn.seconds:.1f} ms, "
        f"{1e6 * drawn.seconds / args.n:.3g} us a sample"
    )
    held_out = _held_out(args, model, about)
    if held_out is not None:
        held, data, modes = held_out
        if disc is not None:
            shares = [100 * float(disc.holds(x).double().mean()) for x in (drawn.x, held.x)]
            say(f"in the disc: {shares[0]:.2f} % of the samples, {shares[1]:.2f} % of the data")
            held, data = (points.rows(~disc.holds(points.x)) for points in (held, data))
            note("note: compared with the data outside the disc")
        _report(args, drawn.x, held.rows(slice(args.n)), data.rows(slice(args.n)), modes)
    if args.out is not None:
        told = labels if labels is not None and labels.ndim == 1 else None
        write_samples(args.out, drawn.x, {} if told is None else {"labels": told})
        _figure(args, args.out, drawn.x, told, None if held_out is None else held_out[0])
    return 0


def _drawing(args: Sample, about: Mapping[str, Any]) -> Drawing:
    """Return how to sample: what the command line says, else what is kept with the model."""
    kept: Mapping[str, Any] = about.get("sampling", {})
    options: dict[str, Any] = {name: getattr(args, name) for name in ("eta", "order", "switch", "rtol")}
    nfe = args.nfe
    if args.sampler is None:  # options belong to their sampler
        nfe = kept.get("nfe") if nfe is None else nfe
        options = {name: kept.get(name) if value is None else value for name, value in options.items()}
    sampler = resolve(args.sampler or kept.get("sampler", "dpm-solver++-2m"), **options, nfe=args.nfe)
    w = args.guidance[0] if len(args.guidance) == 1 else args.guidance  # one serves every label
    guidance = Guidance(w, args.guidance_interval, args.guidance_rescale)
    grid = grid_named(args.grid or kept.get("grid", "trailing"))
    return Drawing(sampler, grid, NFE if nfe is None else nfe, guidance)


def _labels(args: Sample, model: AnyModel) -> Tensor | None:
    classes = model.config.classes
    if not args.label:
        return torch.arange(args.n) % classes if classes else None
    for label in args.label:
        if not 0 <= label < classes:
            what = f"a class below {classes}" if classes else "no --label for a model without classes"
            raise ConfigError(f"--label: expected {what}, got {label}")
    return torch.tensor(args.label).unsqueeze(1).expand(-1, args.n).squeeze(0)


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


def _report(args: Sample, x: Tensor, held_out: PointSet, data: PointSet, modes: Modes | None) -> None:
    """Print the distances of samples to data that was held out, of the same class."""
    if len(args.label) > 1:
        note("note: no comparison with the data: none is of several classes at once")
        return
    for label in args.label:
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


def _figure(args: Sample, out: Path, x: Tensor, labels: Tensor | None, held_out: PointSet | None) -> None:
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
        figure = panels([cloud], ["samples"], view=View.of(cloud), labels=[classes], disc=args.avoid)
    else:
        known = held_out.x.numpy(), None if held_out.labels is None else held_out.labels.numpy()
        figure = panels(
            [known[0], cloud],
            ["data", "samples"],
            view=View.of(known[0]),
            labels=[known[1], classes],
            disc=args.avoid,
        )
    atomic_write(picture, png(figure))
    say(f"written: {out} and {picture}")


def _interpolate(args: Sample, model: AnyModel, about: Mapping[str, Any]) -> int:
    """Run `n2a sample --interpolate`."""
    if args.interpolate not in get_args(How):
        raise ConfigError(f"--interpolate: expected spherical or linear, got {args.interpolate!r}")
    if len(args.label) > 1:
        raise ConfigError(f"--interpolate: expected one label or none, got {len(args.label)}")
    _labels(args, model)
    label = args.label[0] if args.label else None
    if about.get("data") == "digits":
        found: Images | PointSet = digits(seed=int(about.get("seed", 0)))[1]
    else:
        held_out = _held_out(args, model, about)
        if held_out is None:
            raise ConfigError("--interpolate: expected a model whose data is there, got none")
        found = held_out[0]
    x = found.x if label is None or found.labels is None else found.x[found.labels == label]
    return interpolate(model, x, args.n, how=cast("How", args.interpolate), label=label, out=args.out)
