"""`n2a toy NAME|FILE`: diffusion on points in the plane, from data to samples, metrics, figures and an animation."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from jaxtyping import Float
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..config import decode, encode
from ..data.points import READERS, PointSet, Source, source
from ..diffusion.objective import Diffusion
from ..diffusion.paths import Path as NoisePath
from ..diffusion.sampling import prior
from ..diffusion.tableau import Step
from ..errors import ConfigError, MissingExtraError
from ..evaluate.distances import energy_distance
from ..evaluate.quality import Trial, quality
from ..generative import AnyModel, Guidance, ModelConfig, store
from ..nets import PointMLPConfig
from ..seeds import generator
from ..storage import atomic_write
from ..train.folder import write_json
from ..train.generative import GenerativeTrain, Status, fit
from .runs import check_new, console, note, say
from .sample import NFE, Drawing, draw, show
from .sampling import grid_named, resolve

TRAINING, TRIALS = 100_000, 5
"""Points to train on, and sets of samples that are measured."""


@dataclass(frozen=True)
class Toy:
    """Learn a distribution of points with diffusion: train, sample, measure, draw."""

    data: Annotated[str, tyro.conf.Positional]
    """swiss_roll, moons, checkerboard, mixture, conditional_mixture, quadrants, or a .npz, .npy or .csv file."""
    out: Path
    """Folder to write: the model, metrics.json, figures and the animation."""
    steps: int = 2500
    """Optimiser steps."""
    seconds: float | None = None
    """Budget in seconds of training, instead of steps."""
    path: str = "cosine"
    """Forward process: straight, cosine, linear_vp, sub_vp, ve or table."""
    target: str = "v"
    """What the network predicts: epsilon, clean, v, score, velocity or edm."""
    times: str = "stratified"
    """Training times: uniform, stratified, logit_normal, log_normal or loss_second_moment."""
    weight: str = "uniform"
    """Weight of the loss: uniform, snr, min_snr or likelihood."""
    span: tuple[float, float] = (0.0, 1.0)
    """Smallest and largest time; some targets are singular at an end."""
    width: int = 64
    """Width of the network."""
    blocks: int = 4
    """Residual blocks of the network."""
    batch_size: int = 512
    """Points a step."""
    learning_rate: float = 4e-3
    """Peak learning rate."""
    p_uncond: float = 0.1
    """Probability that training hides a label; guidance needs it above 0."""
    sampler: str = "dpm-solver++-2m"
    """Solver, such as ddim, dpm-solver++-2m or heun."""
    nfe: int | None = None
    """Network evaluations; by default 40, or as many as an adaptive solver needs."""
    grid: str = "log_snr"
    """trailing, leading, linspace, quadratic, log_snr or karras."""
    eta: float | None = None
    """Stochasticity of ddim, 0 to 1."""
    order: int | None = None
    """Order of the solvers that have one."""
    switch: float | None = None
    """Noise-to-signal ratio at which hybrid changes from its first solver to its second."""
    guidance: float = 0.0
    """Weight w of classifier-free guidance: -1 unconditional, 0 conditional, more is sharper."""
    samples: int = 2000
    """Points that are compared with as many held-out ones, five times."""
    seed: int = 0
    """Seed of everything."""
    overwrite: bool = False
    """Replace a model that is there."""


def main(args: Toy) -> int:
    """Run `n2a toy`."""
    began = time.monotonic()
    _check(args)
    drawing = Drawing(
        resolve(args.sampler, eta=args.eta, order=args.order, switch=args.switch, nfe=args.nfe),
        grid_named(args.grid),
        args.nfe or NFE,
        Guidance(args.guidance),
    )
    points = source(args.data, training=TRAINING, size=args.samples, trials=TRIALS, seed=args.seed)
    config = _config(args, points.training)
    # Refuses a grid that does not exist on the path, and guidance without labels, before anything is trained.
    draw(config.build(), drawing, 2, labels=_labels(points.held_out[0], 2), seed=0)
    train = GenerativeTrain(args.steps, args.seconds, args.batch_size, args.learning_rate)
    with _bar() as progress:
        bar = progress.add_task("training", total=1.0, note="")
        model = fit(
            config,
            points.training.x,
            points.training.labels,
            train=train,
            seed=args.seed,
            on_status=lambda s: _show(progress, bar, s),
        )
        progress.update(bar, completed=1.0)
    trained = time.monotonic() - began
    store.save(args.out, model, _about(args))
    metrics = _measure(args, model, drawing, points)
    metrics["seconds"] |= {"training": trained, "total": time.monotonic() - began}
    write_json(args.out / "metrics.json", metrics)
    show(metrics)
    _draw(args.out, model, drawing, points, seed=args.seed)
    say(f"{args.out}: model, metrics.json, figures and animation  ({time.monotonic() - began:.0f} s)")
    return 0


def _check(args: Toy) -> None:
    check_new(args.out)
    if (args.out / store.CONFIG).exists() and not args.overwrite:
        raise ConfigError(f"--out: expected a new folder, got a model in {args.out}: add --overwrite")
    if args.samples < 10 or args.seed < 0:
        raise ConfigError(f"expected --samples >= 10 and --seed >= 0, got {args.samples} and {args.seed}")


def _config(args: Toy, training: PointSet) -> ModelConfig:
    names: dict[str, Any] = {name: getattr(args, name) for name in ("path", "target", "times", "weight")}
    # Data is normalised to this standard deviation.
    if names["target"] == "edm":
        names["target"] = {"kind": "edm", "data_std": 1.0}
    objective = decode(Diffusion, {**names, "span": list(args.span)}, where="option")
    net = PointMLPConfig(width=args.width, blocks=args.blocks)
    return ModelConfig((training.x.shape[1],), net, objective, training.classes, args.p_uncond)


def _about(args: Toy) -> dict[str, Any]:
    file = Path(args.data).suffix in READERS
    sampling = {name: getattr(args, name) for name in ("sampler", "nfe", "grid", "eta", "order", "switch")}
    return {"data": str(Path(args.data).resolve()) if file else args.data, "seed": args.seed, "sampling": sampling}


def _labels(points: PointSet, n: int) -> torch.Tensor | None:
    return None if points.labels is None else points.labels[:n]


def _measure(args: Toy, model: AnyModel, drawing: Drawing, points: Source) -> dict[str, Any]:
    """Return what metrics.json holds."""
    drawn = [
        draw(model, drawing, len(held_out), labels=held_out.labels, seed=args.seed + k)
        for k, held_out in enumerate(points.held_out)
    ]
    sets = list(zip(drawn, points.held_out, points.data, strict=True))
    found = quality([Trial(d.x, held_out.x, data.x) for d, held_out, data in sets], modes=points.modes)
    (first, held_out, data), classes = sets[0], points.training.classes
    for name, x in (("", first.x), ("_data", data.x)):
        told = held_out.labels if not name else data.labels
        if told is not None and held_out.labels is not None:
            found[f"energy_distance_by_class{name}"] = [
                energy_distance(x[told == k], held_out.x[held_out.labels == k]) for k in range(classes)
            ]
    return {
        "data": args.data,
        **found,
        "samples": len(first.x),
        "trials": len(sets),
        "nfe": first.nfe,
        "sampling": {**encode(asdict(drawing.guidance)), **_about(args)["sampling"]},
        "seconds": {"sampling": sum(d.seconds for d in drawn) / len(drawn)},
        "seeds": {"training": args.seed, "sampling": [args.seed + k for k in range(len(sets))], "data": points.seeds},
    }


def _bar() -> Progress:
    return Progress(
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _show(progress: Progress, bar: Any, status: Status) -> None:  # noqa: ANN401
    progress.update(bar, completed=status.progress, note=f"step {status.step}  loss {status.loss:.4f}")


DRAWN = 1500
"""Points of the pictures of denoising."""


def _draw(out: Path, model: AnyModel, drawing: Drawing, points: Source, *, seed: int) -> None:
    """Write the figures and the animation."""
    try:
        from ..evaluate import point_figures as figures  # noqa: PLC0415
        from ..evaluate.video import write_mp4  # noqa: PLC0415
    except MissingExtraError as error:
        note(f"note: no figures: {error}")
        return
    held_out, path = points.held_out[0], model.config.objective.path
    data, labels = held_out.x.numpy(), None if held_out.labels is None else held_out.labels.numpy()
    samples = draw(model, drawing, len(data), labels=held_out.labels, seed=seed).x.numpy()
    view = figures.View.of(data)
    pair = figures.panels([data, samples], ["data", "samples"], view=view, labels=[labels, labels])
    figures.write_figure(out, "samples", pair)
    if labels is not None:
        figures.write_figure(out, "classes", figures.class_panels(data, labels, samples, labels, view=view))
    levels = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], dtype=torch.float64)
    x0 = model.normalised(held_out.x)
    noise = torch.randn(x0.shape, generator=generator(seed, "forward"))
    noisy = [_shown(path.noised(x0, t, noise).float(), path, float(t)) for t in levels]
    titles = [f"t = {float(t):.1f}" for t in levels]
    forward = figures.panels(noisy, titles, view=figures.View.of(*noisy), labels=[labels] * len(noisy))
    figures.write_figure(out, "forward", forward)
    few = held_out.rows(slice(DRAWN))
    states, estimates, times = _denoised(model, drawing, few, seed=seed)
    told, around = None if labels is None else labels[:DRAWN], figures.View.of(states[0], states[-1])
    kept = [int(np.abs(np.array(times) - t).argmin()) for t in np.linspace(times[0], 0, 6)]
    steps = figures.denoising(states[kept], estimates[kept], [times[k] for k in kept], view=around, labels=told)
    figures.write_figure(out, "denoising", steps)
    pictures = list(figures.frames(states, estimates, times, view=around, labels=told))
    fps = max(8.0, len(pictures) / 4)
    pictures += pictures[-1:] * round(1.5 * fps)  # the result stays for a moment
    atomic_write(out / "denoising.gif", figures.encode_gif(pictures, fps))
    try:
        write_mp4(out / "denoising.mp4", pictures, fps)
    except MissingExtraError as error:
        note(f"note: no mp4: {error}")


def _denoised(
    model: AnyModel, drawing: Drawing, points: PointSet, *, seed: int
) -> tuple[Float[np.ndarray, "k n D"], Float[np.ndarray, "k n D"], list[float]]:
    """Return the states of a sampling, the estimates of x0 made at each, and their times; the result at the end."""
    steps: list[Step] = []
    draw(model, drawing, len(points), labels=points.labels, seed=seed, on_step=steps.append)
    path = model.config.objective.path
    # The noise that the sampling started from: the same generator gives it again.
    first = prior(path, steps[0].x, start=steps[0].t, generator=generator(seed, "sampling"))
    times = [*(step.t for step in steps), 0.0]
    states = [_shown(x, path, t) for x, t in zip([first, *(step.x for step in steps)], times, strict=True)]
    estimates = [step.x0_hat.numpy() for step in [*steps, steps[-1]]]
    return np.stack(states), np.stack(estimates), times


def _shown(x_t: torch.Tensor, path: NoisePath, t: float) -> Float[np.ndarray, "n D"]:
    """Return `x_t` as it is drawn: with a spread of 1 where the path lets it explode."""
    at = torch.tensor(t, dtype=torch.float64)
    spread = float((path.alpha(at) ** 2 + path.sigma(at) ** 2).sqrt())
    return (x_t / max(1.0, spread)).numpy()
