"""`n2a likelihood RUN`: how probable a trained policy or model finds data that it was not trained on."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from ..config import encode
from ..data.digits import digits
from ..data.episodes import ACTION
from ..data.loader import Loader
from ..data.points import POINTS, READERS, read_points, source
from ..data.windows import Windows
from ..diffusion.likelihood import AnyTrace, Exact, Hutchinson
from ..diffusion.ode import AdaptiveSteps, AnySolver, Field, FixedSteps, Solver
from ..envs.tasks import find
from ..errors import ConfigError, DataError
from ..evaluate.quality import in_bits
from ..evaluate.statistics import Estimate, bootstrap_mean
from ..generative import store
from ..generative.likelihood import check_density as check_model
from ..generative.likelihood import log_likelihood
from ..policies import DiffusionPolicy
from ..policies.checkpoint import Checkpoint
from ..policies.likelihood import check_density
from ..policies.likelihood import log_likelihood as chunk_log_likelihood
from ..recipes.prepare import job, load_episodes
from ..recipes.runs import open_policy, read_experiment, run_folder
from ..seeds import generator
from ..train.folder import write_json
from .checks import at_least
from .terminal import check_file, counter, note, one_thread

FEW_DIMENSIONS = 32
"""Dimensions up to which the trace is exact by default: it takes a pass of the network for each."""
BATCH = 64
"""Chunks or samples that are solved as one system."""


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood of held-out data by the probability flow, in nats and in bits per dimension."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run or checkpoint folder of a diffusion policy, or folder of a model of points or images."""
    data: Path | None = None
    """Other data: demonstrations of the policy's task, or a .npz, .npy or .csv file of points; by default held-out."""
    episodes: int | None = None
    """Episodes of demonstrations, from the first; by default all."""
    samples: int = 512
    """Held-out points or images, for models."""
    trace: Literal["exact", "hutchinson"] | None = None
    """Trace of the flow's Jacobian: exact, or an unbiased estimate, which is the default above 32 dimensions."""
    probes: int = 1
    """Random directions a sample, for hutchinson."""
    noise: Literal["rademacher", "gaussian"] = "rademacher"
    """Law of the directions, for hutchinson: signs have the smaller variance."""
    solver: Literal["adaptive", "fixed"] = "adaptive"
    """Error control, or a fixed number of Runge-Kutta steps."""
    steps: int = 100
    """Steps of the fixed solver, 4 network evaluations each."""
    rtol: float = 1e-4
    """Tolerance of the adaptive solver, relative and absolute."""
    seed: int = 0
    """Seed of random directions and of the interval's resampling."""
    out: Path | None = None
    """JSON file to write the result to."""


@dataclass(frozen=True, eq=False)
class Found:
    """Log-densities by group: one number a sample, samples that depend on each other in one group."""

    groups: Sequence[Float[Tensor, "n"]]
    dims: int
    what: str
    """What has a density, in the plural."""
    per: str
    """What the interval resamples, in the plural."""
    trace: AnyTrace


class CountedSolver(Solver):
    """A solver that counts the network evaluations, one each time that the field is asked: `nfe`, over `batches`."""

    def __init__(self, solver: Solver) -> None:
        self.solver = solver
        self.nfe = self.batches = 0

    def integrate(self, f: Field, y: Tensor, knots: Sequence[float]) -> Tensor:
        """Return the state at the last of `knots`."""
        self.batches += 1

        def counted(u: float, state: Tensor) -> Tensor:
            self.nfe += 1
            return f(u, state)

        return self.solver.integrate(counted, y, knots)


@one_thread()
def main(args: Likelihood) -> int:
    """Run `n2a likelihood`."""
    check_file(args.out, "a JSON file")
    at_least("--samples", args.samples, 1)
    at_least("--episodes", args.episodes, 1)
    at_least("--probes", args.probes, 1)
    at_least("--seed", args.seed, 0)
    solver: AnySolver = AdaptiveSteps(args.rtol, args.rtol) if args.solver == "adaptive" else FixedSteps(args.steps)
    counted = CountedSolver(solver)
    found = (_of_model if store.holds(args.run) else _of_policy)(args, counted)
    nats = bootstrap_mean([float(group.mean()) for group in found.groups], args.seed)
    bits = in_bits(nats, found.dims)
    count = sum(map(len, found.groups))
    if args.out is not None:
        body = {
            "folder": str(args.run),
            "data": "held out" if args.data is None else str(args.data),
            "nats": _interval(nats),
            "bits_per_dimension": _interval(bits),
            "dims": found.dims,
            found.what: count,
            found.per: len(found.groups),
            f"nats_by_{found.per[:-1]}": [group.tolist() for group in found.groups],
            "solver": {"kind": args.solver, **encode(asdict(solver))},
            "trace": {
                "kind": "exact" if isinstance(found.trace, Exact) else "hutchinson",
                **encode(asdict(found.trace)),
            },
            "nfe": counted.nfe,
            "batches": counted.batches,
            "seed": args.seed,
        }
        write_json(args.out, body)
    table = Table(title=f"Log-likelihood of {escape(str(args.run))}", title_justify="left", show_header=False)
    sizes = f"{count} {found.what}" + (f" of {len(found.groups)} {found.per}" if found.per != found.what else "")
    table.add_row("data", f"{'held out' if args.data is None else escape(str(args.data))}: {sizes}")
    table.add_row(f"nats a {found.what[:-1]}", _shown(nats))
    table.add_row(f"bits per dimension ({found.dims})", _shown(bits))
    batches = f"{counted.batches} batch{'es' if counted.batches > 1 else ''} of at most {BATCH}"
    table.add_row("network evaluations", f"{counted.nfe} in {batches}")
    Console().print(table)
    return 0


def _trace(args: Likelihood, dims: int) -> AnyTrace:
    """Return the trace that is asked for; where none is, one whose cost does not grow with the dimensions."""
    if args.trace == "exact" or (args.trace is None and dims <= FEW_DIMENSIONS):
        return Exact()
    if args.trace is None:
        note(
            f"note: {dims} dimensions: the trace is Hutchinson's estimate, without bias, by --probes {args.probes}; "
            f"--trace exact has no noise and takes about {dims} times as long"
        )
    return Hutchinson(args.noise, args.probes)


def _of_policy(args: Likelihood, solver: Solver) -> Found:
    """Return the log-densities of demonstrated chunks that do not overlap, by episode, in units of the actions."""
    opened, checkpoint = open_policy(args.run)
    policy = check_density(opened)
    dims = policy.spec.horizon * policy.schema.action_dim
    trace = _trace(args, dims)
    loader, normalizer = _demonstrations(args, policy, checkpoint), policy.backbone.normalizer
    rows = _whole_chunks(loader.windows, args.episodes)
    _warn_constant(normalizer.decode(ACTION, loader.gather(torch.cat(rows)).actions))

    def of(some: Tensor, index: int) -> Tensor:
        batch = loader.gather(some)
        states = normalizer.affines
        observed = {n: normalizer.decode(n, x) if n in states else x for n, x in batch.observations.items()}
        return chunk_log_likelihood(
            policy,
            observed,
            normalizer.decode(ACTION, batch.actions),
            solver=solver,
            trace=trace,
            generator=generator(args.seed, "directions", index),
        ).nats

    nats = _in_batches(of, torch.cat(rows), "chunks")
    return Found(nats.split([len(r) for r in rows]), dims, "chunks", "episodes", trace)


def _demonstrations(args: Likelihood, policy: DiffusionPolicy, checkpoint: Checkpoint) -> Loader:
    experiment, spec = read_experiment(run_folder(args.run)), policy.spec
    if args.data is not None:
        if args.data.is_file() and args.data.suffix in (".csv", ".npy"):
            raise DataError(
                f"--data: expected demonstrations of {experiment.task} for a policy, got a table: {args.data}: "
                "a table of points is for a model of `n2a toy`"
            )
        episodes = load_episodes(find(experiment.task), replace(experiment.data, path=str(args.data)))
        windows = Windows(episodes.ends, spec.obs_steps, spec.horizon, spec.first_action)
        raw = [f.name for f in policy.schema.observations if not f.is_state]
        return Loader(episodes, windows, policy.backbone.normalizer, batch_size=BATCH, seed=0, raw=raw)
    with counter() as progress:
        bar = progress.add_task("demonstrations", total=experiment.data.demonstrations, visible=False)
        # In the run's own normaliser: one that was started from another run, or imported, fitted none.
        prepared, _ = job(
            experiment, start=checkpoint, on_progress=lambda n: progress.update(bar, completed=n, visible=True)
        )
    assert prepared.held_out is not None
    return prepared.held_out


def _whole_chunks(windows: Windows, episodes: int | None) -> list[Tensor]:
    """Return the rows of windows without padding, by episode, a horizon apart so that they share no action."""
    if episodes is not None and episodes > len(windows.ends):
        raise ConfigError(f"--episodes: expected at most the {len(windows.ends)} there are, got {episodes}")
    whole, home = windows.valid.all(axis=1), np.searchsorted(windows.ends, windows.anchors, side="right")
    rows = [np.flatnonzero(whole & (home == k))[:: windows.horizon] for k in range(episodes or len(windows.ends))]
    kept = [torch.from_numpy(r) for r in rows if len(r)]
    if not kept:
        raise DataError(f"expected an episode of at least {windows.horizon} steps, got none: no chunk is whole")
    return kept


def _warn_constant(actions: Float[Tensor, "n H A"]) -> None:
    flat = actions.flatten(0, 1)
    constant = [str(k) for k in range(flat.shape[1]) if float(flat[:, k].max() - flat[:, k].min()) == 0.0]
    if constant:
        note(
            f"note: action {', '.join(constant)} never varies here: its density is set by the path's cleanest noise, "
            "so compare it between policies on this path only"
        )


def _of_model(args: Likelihood, solver: Solver) -> Found:
    """Return the log-densities of held-out points or images under their labels, in units of the data."""
    model = check_model(store.load(args.run))
    if args.episodes is not None:
        raise ConfigError("--episodes: expected a policy, got a model: use --samples")
    x, labels = _held_out(args)
    if x.shape[1:] != model.config.shape:
        raise DataError(f"expected data of shape {model.config.shape}, got {tuple(x.shape[1:])}: use the model's own")
    told = labels if model.config.classes else None
    dims = math.prod(model.config.shape)
    trace = _trace(args, dims)

    def of(some: Tensor, index: int) -> Tensor:
        return log_likelihood(
            model,
            x[some],
            None if told is None else told[some],
            solver=solver,
            trace=trace,
            generator=generator(args.seed, "directions", index),
        )

    nats = _in_batches(of, torch.arange(len(x)), "samples")
    return Found(nats.split(1), dims, "samples", "samples", trace)


def _held_out(args: Likelihood) -> tuple[Tensor, Tensor | None]:
    """Return held-out data of a model, or that in `--data`, and its labels."""
    if args.data is not None:
        points = read_points(args.data)
        return points.x[: args.samples], None if points.labels is None else points.labels[: args.samples]
    about = store.about(args.run)
    name, seed = str(about.get("data")), int(about.get("seed", 0))
    if name == "digits":
        images = digits(seed=seed)[1]
        return images.x[: args.samples], images.labels[: args.samples]
    if name not in POINTS and Path(name).suffix not in READERS:
        raise DataError(f"expected a model that says what it was trained on, got {name!r}: give --data")
    points = source(name, training=2, size=args.samples, trials=1, seed=seed).held_out[0]
    return points.x, points.labels


def _in_batches(of: Callable[[Tensor, int], Tensor], rows: Tensor, what: str) -> Float[Tensor, "n"]:
    """Return `of(rows, index of the batch)` of every batch, with a progress bar."""

    def batches() -> Iterator[Tensor]:
        with counter() as progress:
            bar = progress.add_task(what, total=len(rows))
            for index, some in enumerate(rows.split(BATCH)):
                yield of(some, index)
                progress.update(bar, advance=len(some))

    return torch.cat(list(batches()))


def _interval(estimate: Estimate) -> dict[str, Any]:
    """Return the estimate as JSON; null for an end that one group says nothing about."""
    ends = {"low": estimate.low, "high": estimate.high}
    return {"value": estimate.value, **{name: x if math.isfinite(x) else None for name, x in ends.items()}}


def _shown(estimate: Estimate) -> str:
    if not math.isfinite(estimate.high - estimate.low):
        return f"{estimate.value:.3f} (no interval from one)"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
