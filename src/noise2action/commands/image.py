"""`n2a image digits`: class-conditional diffusion of small real images, from data to samples, metrics and figures."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..data.digits import CLASSES, Images, digits
from ..diffusion.objective import Diffusion
from ..errors import ConfigError, MissingExtraError
from ..evaluate.images import ImageQuality, Judge
from ..generative import AnyModel, AnyModelConfig, Guidance, LatentConfig, LatentModel, ModelConfig, store
from ..nets import UNet2dConfig
from ..storage import atomic_write
from ..train.folder import write_json
from ..train.generative import GenerativeTrain, fit
from .checks import at_least
from .drawing import Drawing, course, draw, usual_grid
from .runs import check_new, note, one_thread, say, training_bar
from .sampling import grid_named, objective_named, resolve

WEIGHTS = (0.0, 1.0, 3.0)
"""Guidance weights that are always compared."""


@dataclass(frozen=True)
class Image:
    """Learn small real images with class-conditional diffusion: train, sample, measure, draw."""

    data: Annotated[Literal["digits"], tyro.conf.Positional]
    """digits: 1797 handwritten digits of 8 x 8 pixels, from scikit-learn."""
    out: Path
    """Folder to write: the model, metrics.json, figures and the animation."""
    latent: bool = False
    """Diffuse the codes of an autoencoder, half as many numbers as pixels, instead of the images."""
    steps: int = 1000
    """Optimiser steps."""
    seconds: float | None = None
    """Budget in seconds of training, instead of steps."""
    path: str = "cosine"
    """Forward process: straight, cosine, linear_vp, sub_vp, ve, edm, table or schedule."""
    target: str = "v"
    """What the network predicts: epsilon, clean, v, score, velocity or edm."""
    times: str = "stratified"
    """Training times: uniform, stratified, logit_normal, log_normal or loss_second_moment."""
    weight: str = "uniform"
    """Weight of the loss: uniform, snr, min_snr or likelihood."""
    span: tuple[float, float] = (0.0, 1.0)
    """Smallest and largest time; some targets are singular at an end."""
    widths: tuple[int, ...] = (32, 64)
    """Channels of the network at each resolution, divisible by 8."""
    batch_size: int = 128
    """Images a step."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    p_uncond: float = 0.1
    """Probability that training hides a label; guidance needs it above 0."""
    sampler: str = "dpm-solver++-2m"
    """Solver, such as ddim, dpm-solver++-2m or heun."""
    nfe: int = 20
    """Network evaluations a sample."""
    grid: str | None = None
    """trailing, leading, linspace, quadratic, log_snr or karras; by default log_snr, on discrete paths trailing."""
    eta: float | None = None
    """Stochasticity of ddim, 0 to 1."""
    order: int | None = None
    """Order of the solvers that have one."""
    switch: float | None = None
    """Noise-to-signal ratio at which hybrid changes from its first solver to its second."""
    rtol: float | None = None
    """Tolerance of adaptive, relative and absolute."""
    guidance: float = 0.0
    """Weight w of classifier-free guidance in the figures; 0, 1 and 3 are measured too."""
    seed: int = 0
    """Seed of everything."""
    overwrite: bool = False
    """Replace a model that is there."""


@one_thread()
def main(args: Image) -> int:
    """Run `n2a image`."""
    began = time.monotonic()
    _check(args)
    training, held_out = digits(seed=args.seed)
    config, drawing = _config(args, training), _drawing(args, args.guidance)
    # Refuses a grid that does not exist on the path, and guidance without a null, before anything is trained.
    draw(config.build().eval(), drawing, 2, labels=held_out.labels[:2], seed=0)
    model = _train(args, config, training)
    trained = time.monotonic() - began
    store.save(args.out, model, _about(args))
    metrics = _measure(args, model, training, held_out)
    seconds: dict[str, float] = metrics["seconds"]
    seconds["training"], seconds["total"] = trained, time.monotonic() - began
    write_json(args.out / "metrics.json", metrics)
    _show(metrics)
    drawn = time.monotonic()
    _draw(args, model, held_out)
    seconds["figures"], seconds["total"] = time.monotonic() - drawn, time.monotonic() - began
    write_json(args.out / "metrics.json", metrics)
    say(f"{args.out}: model, metrics.json, figures and animation  ({seconds['total']:.0f} s)")
    return 0


def _check(args: Image) -> None:
    check_new(args.out)
    if (args.out / store.CONFIG).exists() and not args.overwrite:
        raise ConfigError(f"--out: expected a new folder, got a model in {args.out}: add --overwrite")
    at_least("--seed", args.seed, 0)
    groups = UNet2dConfig().groups
    if not args.widths or any(width < 1 or width % groups for width in args.widths):
        raise ConfigError(f"--widths: expected channels divisible by {groups}, got {args.widths}")


def _objective(args: Image) -> Diffusion:
    return objective_named(path=args.path, target=args.target, times=args.times, weight=args.weight, span=args.span)


def _grid(args: Image) -> str:
    return args.grid or usual_grid(_objective(args).path)


def _config(args: Image, training: Images) -> AnyModelConfig:
    objective = _objective(args)
    shape, net = tuple(training.x.shape[1:]), UNet2dConfig(widths=args.widths)
    if args.latent:
        return LatentConfig(shape, net=net, objective=objective, classes=CLASSES, p_uncond=args.p_uncond)
    return ModelConfig(shape, net, objective, CLASSES, args.p_uncond)


def _drawing(args: Image, w: float) -> Drawing:
    sampler = resolve(args.sampler, eta=args.eta, order=args.order, switch=args.switch, rtol=args.rtol)
    return Drawing(sampler, grid_named(_grid(args)), args.nfe, Guidance(w))


def _about(args: Image) -> dict[str, Any]:
    sampling = {name: getattr(args, name) for name in ("sampler", "nfe", "eta", "order", "switch", "rtol")}
    return {"data": args.data, "seed": args.seed, "sampling": {**sampling, "grid": _grid(args)}}


def _train(args: Image, config: AnyModelConfig, training: Images) -> AnyModel:
    train = GenerativeTrain(args.steps, args.seconds, args.batch_size, args.learning_rate)
    with training_bar() as show:
        model = fit(
            config,
            training.x,
            training.labels,
            train=train,
            seed=args.seed,
            on_status=lambda s: show(s.progress, f"step {s.step}  loss {s.loss:.4f}"),
        )
        show(1.0, None)
    return model


def _measure(args: Image, model: AnyModel, training: Images, held_out: Images) -> dict[str, Any]:
    """Return what metrics.json holds: as many samples as held-out images, of the same classes, by guidance weight."""
    began = time.monotonic()
    judge, labels = Judge(training.x, training.labels), held_out.labels
    samples: list[dict[str, Any]] = []
    seconds: list[float] = []
    for w in sorted({*(WEIGHTS if args.p_uncond else ()), args.guidance}):
        drawn = draw(model, _drawing(args, w), len(labels), labels=labels, seed=args.seed)
        samples.append({"guidance": w, "nfe": drawn.nfe, **_quality(judge(drawn.x.clamp(-1, 1), labels))})
        seconds.append(drawn.seconds)
    found: dict[str, Any] = {
        "data": args.data,
        "training_images": len(training),
        "held_out_images": len(held_out),
        "features": f"{len(judge.axes)} principal components of the training pixels",
        "held_out": _quality(judge(held_out.x, labels)),
        "samples": samples,
        "sampling": _about(args)["sampling"],
        "seconds": {"sampling": sum(seconds)},
        "seed": args.seed,
    }
    if isinstance(model, LatentModel):
        again = model.raw(model.normalised(held_out.x))
        error = float((again - held_out.x).square().mean())
        spread = float((held_out.x - training.x.mean(0)).square().mean())
        found["reconstruction"] = {
            "code": list(model.autoencoder.latent),
            "rms_error": error**0.5,
            "unexplained_variance": error / spread,
            **_quality(judge(again, labels)),
        }
    found["seconds"]["measuring"] = time.monotonic() - began - sum(seconds)
    return found


def _quality(quality: ImageQuality) -> dict[str, Any]:
    return {
        "frechet": quality.frechet,
        "accuracy": quality.accuracy.value,
        "accuracy_ci95": [quality.accuracy.low, quality.accuracy.high],
        "nearest": quality.nearest,
    }


def _show(metrics: Mapping[str, Any]) -> None:
    """Print the quality of held-out images, reconstructions and samples, as `ImageQuality` names it."""
    table = Table("images", "Frechet", "of their class", "nearest")
    rows = [("held out (real)", metrics["held_out"])]
    if "reconstruction" in metrics:
        rows.append(("held out, reconstructed", metrics["reconstruction"]))
    rows += [(f"samples, guidance {row['guidance']:g}", row) for row in metrics["samples"]]
    for name, row in rows:
        low, high = row["accuracy_ci95"]
        accuracy = f"{100 * row['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        table.add_row(name, f"{row['frechet']:.3f}", accuracy, f"{row['nearest']:.2f}")
    Console().print(table)


COLUMNS = 8
"""Images of a class in a figure."""


def _draw(args: Image, model: AnyModel, held_out: Images) -> None:
    """Write the figures and the animation."""
    try:
        from ..evaluate import image_figures as figures  # noqa: PLC0415
        from ..evaluate.point_figures import encode_gif, write_figure  # noqa: PLC0415
        from ..evaluate.video import write_mp4  # noqa: PLC0415
    except MissingExtraError as error:
        note(f"note: no figures: {error}")
        return
    labels, names = torch.arange(CLASSES).repeat_interleave(COLUMNS), [str(k) for k in range(CLASSES)]
    real = torch.cat([held_out.x[held_out.labels == k][:COLUMNS] for k in range(CLASSES)])
    weights = sorted({0.0, args.guidance, *((3.0,) if args.p_uncond else ())})
    drawn = [draw(model, _drawing(args, w), len(labels), labels=labels, seed=args.seed).x for w in weights]
    panels, titles = [real, *drawn], ["held out (real)", *(f"samples, guidance {w:g}" for w in weights)]
    if isinstance(model, LatentModel):
        panels.insert(1, model.raw(model.normalised(real)))
        titles.insert(1, "reconstructed")
    write_figure(args.out, "samples", figures.tables([_table(x) for x in panels], titles, names))
    states, estimates, times = _course(args, model, labels)
    kept = np.linspace(0, len(times) - 1, min(11, len(times))).round().astype(int)
    # One image a class, the kept times from left to right.
    state, estimate = (run[kept][:, :, 0].swapaxes(0, 1) for run in (states, estimates))
    told = [f"{name}, decoded" if isinstance(model, LatentModel) else name for name in figures.NAMES]
    write_figure(args.out, "denoising", figures.strip(state, estimate, [times[k] for k in kept], names, names=told))
    pictures = list(figures.frames(states, estimates, times))
    fps = max(8.0, len(pictures) / 4)
    pictures += pictures[-1:] * round(1.5 * fps)  # the result stays for a moment
    atomic_write(args.out / "denoising.gif", encode_gif(pictures, fps))
    try:
        write_mp4(args.out / "denoising.mp4", pictures, fps)
    except MissingExtraError as error:
        note(f"note: no mp4: {error}")


def _table(x: Tensor) -> Float[np.ndarray, "r c H W"]:
    return x[:, 0].unflatten(0, (CLASSES, -1)).numpy()


def _course(
    args: Image, model: AnyModel, labels: Tensor
) -> tuple[Float[np.ndarray, "k r c H W"], Float[np.ndarray, "k r c H W"], list[float]]:
    """Return the states of a sampling, the estimates of x0 made at each, and their times; the result at the end."""
    seen = course(model, _drawing(args, args.guidance), len(labels), labels=labels, seed=args.seed)
    states, estimates = (np.stack([_table(model.raw(y)) for y in run]) for run in (seen.states, seen.estimates))
    return states, estimates, seen.times
