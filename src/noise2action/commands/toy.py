"""`n2a toy NAME|FILE`: diffusion on points in the plane, from data to samples, metrics, figures and an animation."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from ..config import encode
from ..data.points import READERS, PointSet, Source, source, spread_ratio
from ..diffusion.likelihood import Exact, Hutchinson
from ..diffusion.ode import FixedSteps
from ..errors import MissingExtraError
from ..evaluate.distances import energy_distance
from ..evaluate.quality import FEWEST, Trial, in_bits, quality
from ..evaluate.statistics import bootstrap_mean
from ..generative import AnyModel, ModelConfig, store
from ..generative.likelihood import log_likelihood
from ..nets import PointMLPConfig
from ..seeds import generator
from ..train.folder import write_json
from .checks import at_least
from .drawing import NFE, Drawing, course, draw
from .learning import Learning, write_animation
from .sample import named, show
from .terminal import note, one_thread, say

TRAINING, TRIALS = 100_000, 5
"""Points to train on, and sets of samples that are measured."""
UNEVEN = 10.0
"""Ratio of standard deviations above which columns are told to be of different scales."""


@dataclass(frozen=True, kw_only=True)
class Toy(Learning):
    """Learn a distribution of points with diffusion: train, sample, measure, draw."""

    data: Annotated[str, tyro.conf.Positional]
    """swiss_roll, moons, checkerboard, mixture, conditional_mixture, quadrants, or a .npz, .npy or .csv file."""
    steps: int = 2500
    """Optimiser steps."""
    width: int = 64
    """Width of the network."""
    blocks: int = 4
    """Residual blocks of the network."""
    batch_size: int = 512
    """Points a step."""
    learning_rate: float = 4e-3
    """Peak learning rate."""
    nfe: int | None = None
    """Network evaluations; by default 37, or as many as an adaptive solver needs."""
    samples: int = 2000
    """Points that are compared with as many held-out ones, five times."""


@one_thread()
def main(args: Toy) -> int:
    """Run `n2a toy`."""
    with args.told_where_interrupted():
        return _run(args)


def _run(args: Toy) -> int:
    began = time.monotonic()
    _check(args)
    drawing = args.drawing(args.guidance, nfe=NFE)
    points = source(args.data, training=TRAINING, size=args.samples, trials=TRIALS, seed=args.seed)
    if (ratio := spread_ratio(points.training.x)) >= UNEVEN:
        note(
            f"note: the widest column varies {ratio:.3g} times as much as the narrowest, which distances, figures and "
            "training will hardly see: divide each column by its standard deviation first"
        )
    if names := points.training.names:
        note(named(names))
    config = _config(args, points.training)
    # Refuses a grid that does not exist on the path, and guidance without labels, before anything is trained.
    draw(config.build(), drawing, 2, labels=_labels(points.held_out[0], 2), seed=0)
    model = args.train(config, points.training.x, points.training.labels)
    trained = time.monotonic() - began
    store.save(args.out, model, {**_about(args), "classes": list(points.training.names)})
    metrics = _measure(args, model, drawing, points)
    seconds: dict[str, float] = metrics["seconds"]
    seconds["training"], seconds["total"] = trained, time.monotonic() - began
    write_json(args.out / "metrics.json", metrics)
    show(metrics)
    drawn = time.monotonic()
    _draw(args.out, model, drawing, points, seed=args.seed)
    seconds["figures"], seconds["total"] = time.monotonic() - drawn, time.monotonic() - began
    write_json(args.out / "metrics.json", metrics)
    say(f"{args.out}: model, metrics.json, figures and animation  ({seconds['total']:.0f} s)")
    return 0


def _check(args: Toy) -> None:
    args.check()
    at_least("--samples", args.samples, FEWEST)
    at_least("--width", args.width, 1)
    at_least("--blocks", args.blocks, 1)


def _config(args: Toy, training: PointSet) -> ModelConfig:
    net = PointMLPConfig(width=args.width, blocks=args.blocks)
    return ModelConfig((training.x.shape[1],), net, args.objective(), training.classes, args.p_uncond)


def _about(args: Toy) -> dict[str, Any]:
    file = Path(args.data).suffix in READERS
    return args.about(str(Path(args.data).resolve()) if file else args.data)


def _labels(points: PointSet, n: int) -> Tensor | None:
    return None if points.labels is None else points.labels[:n]


def _measure(args: Toy, model: AnyModel, drawing: Drawing, points: Source) -> dict[str, Any]:
    """Return what metrics.json holds."""
    began = time.monotonic()
    drawn = [
        draw(model, drawing, len(held_out), labels=held_out.labels, seed=args.seed + k)
        for k, held_out in enumerate(points.held_out)
    ]
    sampled = time.monotonic()
    sets = list(zip(drawn, points.held_out, points.data, strict=True))
    found = quality([Trial(d.x, held_out.x, data.x) for d, held_out, data in sets], modes=points.modes)
    first, held_out, data = sets[0]
    found |= _by_class(first.x, held_out, data, classes=points.training.classes)
    found |= _likelihood(model, held_out, seed=args.seed)
    return {
        "data": args.data,
        **found,
        "samples": len(first.x),
        "trials": len(sets),
        "nfe": first.nfe,
        "sampling": {**encode(asdict(drawing.guidance)), **_about(args)["sampling"]},
        "seconds": {"sampling": sampled - began, "measuring": time.monotonic() - sampled},
        "seeds": {"training": args.seed, "sampling": [args.seed + k for k in range(len(sets))], "data": points.seeds},
    }


def _by_class(x: Tensor, held_out: PointSet, data: PointSet, *, classes: int) -> dict[str, Any]:
    """Return the energy distances of samples, and of data, to held-out points of their class; None for too few."""
    if held_out.labels is None or data.labels is None:
        return {}
    kinds = [
        Trial.of(x[held_out.labels == k], held_out.x[held_out.labels == k], data.x[data.labels == k])
        for k in range(classes)
    ]
    return {
        "energy_distance_by_class": [t and energy_distance(t.generated, t.held_out) for t in kinds],
        "energy_distance_by_class_data": [t and energy_distance(t.data, t.held_out) for t in kinds],
    }


SCORED = 500
"""Held-out points whose likelihood is measured."""
PRECISE, COARSE = FixedSteps(50), FixedSteps(20)
"""Solvers of the likelihood and of its map: within 0.01 and 0.03 nats of a fine one, root mean square."""
FEW_DIMENSIONS = 16
"""Dimensions up to which the trace is exact."""


def _likelihood(model: AnyModel, held_out: PointSet, *, seed: int) -> dict[str, Any]:
    """Return the log-likelihood of held-out points under their labels, with its 95 % interval."""
    some = held_out.rows(slice(SCORED))
    dims = some.x.shape[1]
    trace = Exact() if dims <= FEW_DIMENSIONS else Hutchinson()
    directions = generator(seed, "directions")
    found = log_likelihood(model, some.x, some.labels, solver=PRECISE, trace=trace, generator=directions)
    nats = bootstrap_mean(found.tolist(), seed)
    bits = in_bits(nats, dims)
    return {
        "log_likelihood_nats": nats.value,
        "log_likelihood_nats_ci95": [nats.low, nats.high],
        "bits_per_dimension": bits.value,
        "bits_per_dimension_ci95": [bits.low, bits.high],
        "log_likelihood_points": len(some),
    }


DRAWN = 1500
"""Points of the pictures of denoising."""
CELLS = 64
"""Cells a side of the map of log-density."""


def _draw(out: Path, model: AnyModel, drawing: Drawing, points: Source, *, seed: int) -> None:
    """Write the figures and the animation."""
    try:
        from ..evaluate import point_figures as figures  # noqa: PLC0415
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
    _density(out, model, held_out)
    levels = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], dtype=torch.float64)
    x0 = model.normalised(held_out.x)
    noise = torch.randn(x0.shape, generator=generator(seed, "forward"))
    # Noise that the path lets explode is drawn with a spread of 1.
    scales = (path.alpha(levels) ** 2 + path.sigma(levels) ** 2).rsqrt().clamp(max=1.0)
    noisy = [(path.noised(x0, t, noise) * scale).float().numpy() for t, scale in zip(levels, scales, strict=True)]
    titles = [f"t = {float(t):.1f}" for t in levels]
    forward = figures.panels(noisy, titles, view=figures.View.of(*noisy), labels=[labels] * len(noisy))
    figures.write_figure(out, "forward", forward)
    few = held_out.rows(slice(DRAWN))
    seen = course(model, drawing, len(few), labels=few.labels, seed=seed)
    states, estimates, times = seen.states.numpy(), seen.estimates.numpy(), seen.times
    told, around = None if labels is None else labels[:DRAWN], figures.View.of(states[0], states[-1])
    kept = [int(np.abs(np.array(times) - t).argmin()) for t in np.linspace(times[0], 0, 6)]
    steps = figures.denoising(states[kept], estimates[kept], [times[k] for k in kept], view=around, labels=told)
    figures.write_figure(out, "denoising", steps)
    write_animation(out, list(figures.frames(states, estimates, times, view=around, labels=told)))


def _density(out: Path, model: AnyModel, held_out: PointSet) -> None:
    """Write the map of the model's log-density, where points lie in the plane and p(x) is known without labels."""
    from ..evaluate import point_figures as figures  # noqa: PLC0415

    config = model.config
    if config.shape != (2,) or (config.classes and not config.p_uncond):
        return
    data, view = held_out.x.numpy(), figures.View.of(held_out.x.numpy())
    x, y = (
        torch.linspace(low, high, 2 * CELLS + 1)[1::2]  # the middles of the cells
        for low, high in zip(view.low, view.high, strict=True)
    )
    nodes = torch.cartesian_prod(y, x).flip(1)
    nats = log_likelihood(model, nodes, solver=COARSE, trace=Exact()).reshape(CELLS, CELLS)
    figures.write_figure(out, "density", figures.density(nats.numpy(), data, view=view))
