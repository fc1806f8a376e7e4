"""`n2a image digits`: class-conditional diffusion of small real images, from data to samples, metrics and figures."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..data.digits import CLASSES, Images, digits
from ..errors import ConfigError, MissingExtraError
from ..evaluate.images import ImageQuality, Judge
from ..generative import AnyModel, AnyModelConfig, LatentConfig, LatentModel, ModelConfig, store
from ..nets import UNet2dConfig
from ..train.folder import write_json
from .drawing import IMAGE_NFE as NFE
from .drawing import course, draw
from .learning import Learning, write_animation
from .terminal import note, one_thread, say

WEIGHTS = (0.0, 1.0, 3.0)
"""Guidance weights that are always compared."""


@dataclass(frozen=True, kw_only=True)
class Image(Learning):
    """Learn small real images with class-conditional diffusion: train, sample, measure, draw."""

    data: Annotated[Literal["digits"], tyro.conf.Positional]
    """digits: 1797 handwritten digits of 8 x 8 pixels, from scikit-learn."""
    latent: bool = False
    """Diffuse the codes of an autoencoder, half as many numbers as pixels, instead of the images."""
    steps: int = 1000
    """Optimiser steps."""
    widths: tuple[int, ...] = (32, 64)
    """Channels of the network at each resolution, divisible by 8."""
    batch_size: int = 128
    """Images a step."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    nfe: int | None = None
    """Network evaluations; by default 20, or as many as an adaptive solver needs."""
    guidance: float = 0.0
    """Weight w of classifier-free guidance in the figures; 0, 1 and 3 are measured too."""


@one_thread()
def main(args: Image) -> int:
    """Run `n2a image`."""
    with args.told_where_interrupted():
        return _run(args)


def _run(args: Image) -> int:
    began = time.monotonic()
    _check(args)
    training, held_out = digits(seed=args.seed)
    config, drawing = _config(args, training), args.drawing(args.guidance, nfe=NFE)
    # Refuses a grid that does not exist on the path, and guidance without a null, before anything is trained.
    draw(config.build().eval(), drawing, 2, labels=held_out.labels[:2], seed=0)
    model = args.train(config, training.x, training.labels)
    trained = time.monotonic() - began
    store.save(args.out, model, args.about(args.data))
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
    args.check()
    groups = UNet2dConfig().groups
    if not args.widths or any(width < 1 or width % groups for width in args.widths):
        raise ConfigError(f"--widths: expected channels divisible by {groups}, got {args.widths}")


def _config(args: Image, training: Images) -> AnyModelConfig:
    shape, net = tuple(training.x.shape[1:]), UNet2dConfig(widths=args.widths)
    if args.latent:
        return LatentConfig(shape, net=net, objective=args.objective(), classes=CLASSES, p_uncond=args.p_uncond)
    return ModelConfig(shape, net, args.objective(), CLASSES, args.p_uncond)


def _measure(args: Image, model: AnyModel, training: Images, held_out: Images) -> dict[str, Any]:
    """Return what metrics.json holds: as many samples as held-out images, of the same classes, by guidance weight."""
    began = time.monotonic()
    judge, labels = Judge(training.x, training.labels), held_out.labels
    samples: list[dict[str, Any]] = []
    seconds: list[float] = []
    for w in sorted({*(WEIGHTS if args.p_uncond else ()), args.guidance}):
        drawn = draw(model, args.drawing(w, nfe=NFE), len(labels), labels=labels, seed=args.seed)
        samples.append({"guidance": w, "nfe": drawn.nfe, **_quality(judge(drawn.x.clamp(-1, 1), labels))})
        seconds.append(drawn.seconds)
    found: dict[str, Any] = {
        "data": args.data,
        "training_images": len(training),
        "held_out_images": len(held_out),
        "features": f"{len(judge.axes)} principal components of the training pixels",
        "held_out": _quality(judge(held_out.x, labels)),
        "samples": samples,
        "sampling": args.about(args.data)["sampling"],
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
        from ..evaluate.point_figures import write_figure  # noqa: PLC0415
    except MissingExtraError as error:
        note(f"note: no figures: {error}")
        return
    labels, names = torch.arange(CLASSES).repeat_interleave(COLUMNS), [str(k) for k in range(CLASSES)]
    real = torch.cat([held_out.x[held_out.labels == k][:COLUMNS] for k in range(CLASSES)])
    weights = sorted({0.0, args.guidance, *((3.0,) if args.p_uncond else ())})
    drawn = [draw(model, args.drawing(w, nfe=NFE), len(labels), labels=labels, seed=args.seed).x for w in weights]
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
    write_animation(args.out, list(figures.frames(states, estimates, times)))


def _table(x: Tensor) -> Float[np.ndarray, "r c H W"]:
    return x[:, 0].unflatten(0, (CLASSES, -1)).numpy()


def _course(
    args: Image, model: AnyModel, labels: Tensor
) -> tuple[Float[np.ndarray, "k r c H W"], Float[np.ndarray, "k r c H W"], list[float]]:
    """Return the states of a sampling, the estimates of x0 made at each, and their times; the result at the end."""
    seen = course(model, args.drawing(args.guidance, nfe=NFE), len(labels), labels=labels, seed=args.seed)
    states, estimates = (np.stack([_table(model.raw(y)) for y in run]) for run in (seen.states, seen.estimates))
    return states, estimates, seen.times
