"""`n2a sample MODEL`: samples of a trained model of points or images, by any solver."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..data.digits import digits
from ..data.points import Modes, PointSet, source
from ..diffusion.paths import Path as DiffusionPath
from ..errors import ConfigError, DataError, MissingExtraError
from ..evaluate.quality import FEWEST, Trial, quality
from ..evaluate.tables import network_evaluations
from ..generative import AnyModel, Guidance, store
from ..generative.obstacles import Disc, avoid
from ..storage import atomic_write
from .checks import at_least, between
from .drawing import IMAGE_NFE, NFE, Drawing, draw, usual_grid
from .encode import read, round_trip
from .interpolate import SOLVER, How, interpolate
from .samples import check_file, write_samples
from .sampling import grid_named, resolve
from .terminal import note, one_thread, say

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
COORDINATES = 8
"""Coordinates below which a sample's own standard deviation is no measure of its spread."""


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
    """Network evaluations; by default the model's, or 37 for points and 20 for images."""
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
    avoid_scale: float = 10.0
    """Weight of the disc's cost; too small a one leaves samples inside."""
    interpolate: str | None = None
    """spherical or linear: decode the latents between pairs of held-out points or images instead."""
    encode: tuple[Path, ...] | None = None
    """Encode the samples in a .npz, .npy or .csv file, or held-out ones if none is named, to noise and back instead."""
    seed: int = 0
    """Seed of the noise."""


@one_thread()
def main(args: Sample) -> int:
    """Run `n2a sample`."""
    model, about = store.load(args.model), store.about(args.model)
    at_least("--n", args.n, 1)
    at_least("--seed", args.seed, 0)
    at_least("--nfe", args.nfe, 1)
    between("--guidance-rescale", args.guidance_rescale, 0.0, 1.0)
    if args.out is not None:
        check_file(args.out, model)
    if names := about.get("classes"):
        note(named(names))
    if args.interpolate is not None and args.encode is not None:
        raise ConfigError("--encode: expected it without --interpolate, got both: leave one out")
    _check_applies(args)
    if args.interpolate is not None:
        return _interpolate(args, model, about)
    if args.encode is not None:
        return _encode(args, model, about)
    disc = None if args.avoid is None else Disc(*args.avoid)
    labels = _labels(args, model)
    drawing = _drawing(args, model.config.objective.path, about, images=len(model.config.shape) > 1)
    if args.out is None:
        note("note: nothing is written: add --out samples.npz to keep the samples and a figure of them")
    if args.guidance_rescale and (coordinates := math.prod(model.config.shape)) < COORDINATES:
        note(
            f"note: --guidance-rescale goes by the spread over a sample's coordinates, which says little for "
            f"{coordinates}: expect samples off the data"
        )
    if disc is not None:
        drawing = replace(drawing, guide=avoid(model, disc, scale=args.avoid_scale))
    drawn = draw(model, drawing, args.n, labels=labels, seed=args.seed)
    say(
        f"{args.n} samples: {network_evaluations(drawn.nfe)}, {1e3 * drawn.seconds:.1f} ms, "
        f"{1e6 * drawn.seconds / args.n:.3g} us a sample"
    )
    held_out = _held_out(args, model, about)
    if held_out is not None:
        _report(args, drawn.x, *held_out, disc=disc)
    if args.out is not None:
        told = labels if labels is not None and labels.ndim == 1 else None
        write_samples(args.out, drawn.x, {} if told is None else {"labels": told})
        _figure(args, args.out, drawn.x, told, None if held_out is None else held_out[0])
    return 0


SAMPLING = (
    "sampler",
    "nfe",
    "grid",
    "eta",
    "order",
    "switch",
    "rtol",
    "guidance",
    "guidance_interval",
    "guidance_rescale",
    "avoid",
)
"""Options of sampling from noise."""


def _check_applies(args: Sample) -> None:
    """Raise `ConfigError` for an option of sampling where data is carried to noise by the flow instead."""
    if args.interpolate is None and args.encode is None:
        return
    mode = "--interpolate" if args.encode is None else "--encode"
    usual = {f.name: f.default for f in fields(args)}
    for name in SAMPLING:
        if getattr(args, name) != usual[name]:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{flag}: expected none with {mode}, which follows the flow in {SOLVER.steps} steps, "
                f"got {getattr(args, name)}: leave it out"
            )


def _drawing(args: Sample, path: DiffusionPath, about: Mapping[str, Any], *, images: bool) -> Drawing:
    """Return how to sample: what the command line says, else what is kept with the model."""
    kept: Mapping[str, Any] = about.get("sampling", {})
    options: dict[str, Any] = {name: getattr(args, name) for name in ("eta", "order", "switch", "rtol")}
    nfe = args.nfe
    usual = NFE
    if args.sampler is None:  # options belong to their sampler
        usual = IMAGE_NFE if images else NFE
        nfe = kept.get("nfe") if nfe is None else nfe
        options = {name: kept.get(name) if value is None else value for name, value in options.items()}
    sampler = resolve(args.sampler or kept.get("sampler", "dpm-solver++-2m"), **options, nfe=args.nfe)
    w = args.guidance[0] if len(args.guidance) == 1 else args.guidance  # one serves every label
    guidance = Guidance(w, args.guidance_interval, args.guidance_rescale)
    grid = grid_named(args.grid or kept.get("grid") or usual_grid(path))
    return Drawing(sampler, grid, usual if nfe is None else nfe, guidance)


def _labels(args: Sample, model: AnyModel) -> Tensor | None:
    classes = model.config.classes
    if not args.label:
        return torch.arange(args.n) % classes if classes else None
    for label in args.label:
        if not 0 <= label < classes:
            what = f"a class from 0 to {classes - 1}" if classes else "no --label for a model without classes"
            raise ConfigError(f"--label: expected {what}, got {label}")
    return torch.tensor(args.label).unsqueeze(1).expand(-1, args.n).squeeze(0)


def _held_out(
    args: Sample, model: AnyModel, about: Mapping[str, Any]
) -> tuple[PointSet, PointSet, Modes | None] | None:
    """Return two sets of the data that a model of points was not trained on, and its modes; None where unknown."""
    name = about.get("data")
    if len(model.config.shape) != 1 or not isinstance(name, str):
        return None
    # Of one class, and outside a disc, enough points are to be left.
    size = max(args.n, 2000) * (2 * max(1, model.config.classes) if args.label or args.avoid else 1)
    try:
        found = source(name, training=1, size=size, trials=1, seed=int(about.get("seed", 0)))
    except DataError as error:
        note(f"note: no comparison with the data: {error}")
        return None
    return found.held_out[0], found.data[0], found.modes


def _report(
    args: Sample, x: Tensor, held_out: PointSet, data: PointSet, modes: Modes | None, *, disc: Disc | None
) -> None:
    """Print the distances of samples to data that was held out, of the same class and outside the disc."""
    if disc is not None:
        shares = [100 * float(disc.holds(points).double().mean()) for points in (x, held_out.x)]
        say(f"in the disc: {shares[0]:.2f} % of the samples, {shares[1]:.2f} % of the data")
        held_out, data = (points.rows(~disc.holds(points.x)) for points in (held_out, data))
        note("note: compared with the data outside the disc")
    if len(args.label) > 1:
        note("note: no comparison with the data: none is of several classes at once")
        return
    for label in args.label:
        assert held_out.labels is not None
        assert data.labels is not None
        held_out, data = held_out.rows(held_out.labels == label), data.rows(data.labels == label)
    trial = Trial.of(x, held_out.x, data.x)
    if trial is None:
        sizes = f"{len(x)} samples and {len(held_out)} and {len(data)} held-out points"
        note(f"note: no comparison with the data: expected at least {FEWEST} of each, got {sizes}")
        return
    if len(trial.generated) < len(x):
        note(f"note: compared {len(trial.generated)} samples: there are no more such points of the data")
    show(quality([trial], modes=modes))


def named(names: Sequence[str]) -> str:
    """Return a note on which number stands for which class of a file."""
    listed = ", ".join(f"{k} is {name!r}" for k, name in enumerate(names))
    return f"note: the classes are numbered: {listed}; --label takes the number"


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
    title = _title(args)
    if x.ndim > 2:
        from ..evaluate.image_figures import tables  # noqa: PLC0415

        side = min(10, math.isqrt(len(x)))
        figure = tables([cloud[: side * side, 0].reshape(side, side, *x.shape[2:])], [title])
    elif held_out is None:
        figure = panels([cloud], [title], view=View.of(cloud), labels=[classes], disc=args.avoid)
    else:
        known = held_out.x.numpy(), None if held_out.labels is None else held_out.labels.numpy()
        figure = panels(
            [known[0], cloud],
            ["data", title],
            view=View.of(known[0]),
            labels=[known[1], classes],
            disc=args.avoid,
        )
    atomic_write(picture, png(figure))
    say(f"written: {out} and {picture}")


def _title(args: Sample) -> str:
    """Return what was sampled, e.g. `samples, class 7, w = 2`."""
    asked = [f"class {' and '.join(map(str, args.label))}"] if args.label else []
    by = [f"w = {' and '.join(f'{w:g}' for w in args.guidance)}"] if any(args.guidance) else []
    return ", ".join(["samples", *asked, *by])


def _interpolate(args: Sample, model: AnyModel, about: Mapping[str, Any]) -> int:
    """Run `n2a sample --interpolate`."""
    if args.interpolate not in get_args(How):
        raise ConfigError(f"--interpolate: expected spherical or linear, got {args.interpolate!r}")
    label = _one_label(args, model, "--interpolate")
    x, _ = _of_class(*_ends(args, model, about, "--interpolate"), label)
    return interpolate(model, x, args.n, how=cast("How", args.interpolate), label=label, out=args.out)


def _encode(args: Sample, model: AnyModel, about: Mapping[str, Any]) -> int:
    """Run `n2a sample --encode`: every sample under its own class, or under `--label`."""
    assert args.encode is not None
    if len(args.encode) > 1:
        raise ConfigError(f"--encode: expected one file or none, got {len(args.encode)}")
    label = _one_label(args, model, "--encode")
    found = read(args.encode[0]) if args.encode else _ends(args, model, about, "--encode")
    x, labels = _of_class(*found, label)
    if not len(x):
        raise ConfigError(f"--encode: expected samples of class {label}, got none")
    if label is not None:
        labels = torch.full((len(x),), label)
    told = None if labels is None or not model.config.classes else labels[: args.n]
    return round_trip(model, x[: args.n], told, out=args.out)


def _one_label(args: Sample, model: AnyModel, flag: str) -> int | None:
    if len(args.label) > 1:
        raise ConfigError(f"{flag}: expected one label or none, got {len(args.label)}")
    _labels(args, model)
    return args.label[0] if args.label else None


def _ends(args: Sample, model: AnyModel, about: Mapping[str, Any], flag: str) -> tuple[Tensor, Tensor | None]:
    """Return the held-out points or images of a model, and their classes where they have any."""
    if about.get("data") == "digits":
        images = digits(seed=int(about.get("seed", 0)))[1]
        return images.x, images.labels
    held_out = _held_out(args, model, about)
    if held_out is None:
        raise ConfigError(f"{flag}: expected a model whose data is there, got none")
    return held_out[0].x, held_out[0].labels


def _of_class(x: Tensor, labels: Tensor | None, label: int | None) -> tuple[Tensor, Tensor | None]:
    return (x, labels) if label is None or labels is None else (x[labels == label], labels[labels == label])
