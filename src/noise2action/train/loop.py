"""The training loop."""

import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from ..data.loader import Loader
from ..data.normalize import Normalizer
from ..diffusion.objective import Losses
from ..diffusion.times import buckets
from ..errors import ConfigError, TrainingError
from ..policies import NearestConfig
from ..policies.checkpoint import Checkpoint, Deployed, complete, load, load_weights, save
from ..seeds import derive, generator
from .config import TrainConfig
from .folder import Metrics, write_env
from .memory import keep_freed_memory
from .validate import Validation, validate
from .weights import Weights


@dataclass(frozen=True)
class Status:
    """What a progress display shows."""

    step: int
    progress: float
    """Fraction of the budget spent."""
    loss: float
    samples_per_s: float
    validation: Validation | None


@dataclass(frozen=True, eq=False)
class Job:
    """What is trained on what."""

    deployed: Deployed
    config: TrainConfig
    normalizer: Normalizer
    training: Loader
    held_out: Loader | None
    seed: int
    start: Mapping[str, Tensor] | None = None
    """First weights, of policy and average; None for fresh ones."""


class _State:
    """Weights, generators and counters: all that a checkpoint saves."""

    def __init__(self, job: Job, *, half: bool) -> None:
        torch.manual_seed(derive(job.seed, "weights"))
        self.job = job
        self.weights = Weights(
            lambda: job.deployed.policy.build(job.deployed.schema, job.normalizer), job.config, half=half
        )
        self.noise = generator(job.seed, "noise")
        torch.manual_seed(derive(job.seed, "dropout"))
        self.step = 0
        self.elapsed_s = 0.0

    def checkpoint(self) -> Checkpoint:
        """Return everything as tensors and numbers."""
        tensors = {
            "model": self.weights.policy.state_dict(),
            "ema": self.weights.ema.state_dict(),
            "optim": self.weights.optimizer_state(),
            "rng-rank0": {"global": torch.get_rng_state(), "noise": self.noise.get_state()},
            "normalizer": self.job.normalizer.state(),
        }
        return Checkpoint(self.step, self.job.deployed, tensors, {"elapsed_s": self.elapsed_s, "seed": self.job.seed})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from `checkpoint`, which must come from the same configuration."""
        if checkpoint.deployed != self.job.deployed or checkpoint.state.get("seed") != self.job.seed:
            raise ConfigError(
                "expected the configuration of the run that is resumed, got another policy, schema or seed: "
                "use the same command, or another --out"
            )
        ours, saved = self.job.normalizer.state(), checkpoint.tensors["normalizer"]
        if ours.keys() != saved.keys() or not all(torch.equal(ours[name], saved[name]) for name in ours):
            raise ConfigError(
                "expected the data set that the run was started with, got one with other ranges: use that one"
            )
        load_weights(self.weights.policy, checkpoint.tensors["model"], where="model.safetensors")
        load_weights(self.weights.ema, checkpoint.tensors["ema"], where="ema.safetensors")
        self.weights.restored(dict(checkpoint.tensors["optim"]))
        torch.set_rng_state(checkpoint.tensors["rng-rank0"]["global"])
        self.noise.set_state(checkpoint.tensors["rng-rank0"]["noise"])
        self.step, self.elapsed_s = checkpoint.step, float(checkpoint.state["elapsed_s"])


def fit(job: Job, run: Path, *, resume: bool = False, on_status: Callable[[Status], None] | None = None) -> bool:
    """Train until the budget is spent; return False where an interrupt (SIGINT, SIGTERM) ended it early.

    Either way the last state is saved. The caller holds the run folder's lock. With `resume` the run goes on from its
    newest intact checkpoint, or from the start where there is none yet; on the CPU, with a budget in steps, the result
    is that of an uninterrupted run to the bit.
    """
    config = job.config
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    if isinstance(job.deployed.policy, NearestConfig):
        return _remember(job.deployed.policy, job, run)
    half = config.half_precision(torch.device("cpu"))
    state = _State(job, half=half)
    check_resumable(run, resume=resume)
    if complete(run):
        state.restore(load(run))
    elif job.start is not None:
        state.weights.begin(job.start)
    else:
        state.weights.prepare()
    write_env(run, threads=torch.get_num_threads(), precision="bf16" if half else "fp32")
    with Metrics(run, after_step=state.step, tensorboard=config.tensorboard) as metrics, _interrupts() as interrupted:
        return _loop(state, run, metrics, interrupted=interrupted, on_status=on_status)


def _remember(config: NearestConfig, job: Job, run: Path) -> bool:
    """Write the policy that keeps every training window, trained in no steps; return True: it is whole."""
    if complete(run):
        return True
    began = time.monotonic()
    windows = job.training.gather(torch.arange(len(job.training.windows)))
    policy = config.build(job.deployed.schema, job.normalizer).remembering(windows)
    elapsed = time.monotonic() - began
    write_env(run, threads=torch.get_num_threads(), precision="fp32")
    tensors = {
        "model": policy.state_dict(),
        "ema": policy.state_dict(),
        "optim": {},
        "rng-rank0": {"global": torch.get_rng_state(), "noise": generator(job.seed, "noise").get_state()},
        "normalizer": job.normalizer.state(),
    }
    with Metrics(run, after_step=0, tensorboard=job.config.tensorboard) as metrics:
        if job.held_out is not None:
            found = validate(policy, job.held_out, job.normalizer).record()
            metrics.add({"kind": "validation", "step": 0, "elapsed_s": elapsed, **found})
    deployed = replace(job.deployed, policy=policy.config)
    save(run, Checkpoint(0, deployed, tensors, {"elapsed_s": elapsed, "seed": job.seed}))
    return True


def check_resumable(run: Path, *, resume: bool) -> None:
    """Raise `ConfigError` where the run has checkpoints and is not to be resumed."""
    if complete(run) and not resume:
        raise ConfigError(f"expected a new run folder, got {run} with checkpoints: add --resume, or another --out")


def _loop(
    state: _State,
    run: Path,
    metrics: Metrics,
    *,
    interrupted: threading.Event,
    on_status: Callable[[Status], None] | None,
) -> bool:
    job, config = state.job, state.job.config
    began = time.monotonic() - state.elapsed_s
    first = state.step
    window = _Window(first)
    validation: Validation | None = None
    validated = saved = state.elapsed_s
    while (spent := config.progress(state.step, state.elapsed_s)) < 1 and not interrupted.is_set():
        window.add(*_step(state))
        state.elapsed_s = time.monotonic() - began
        if state.step % config.log_every == 0:
            record = window.record(state, len(job.training.windows))
            metrics.add(record)
            if on_status is not None:
                on_status(Status(state.step, spent, record["loss"], record["samples_per_s"], validation))
            window = _Window(state.step)
        if job.held_out is not None and state.elapsed_s - validated >= 60 * config.validate_minutes:
            validation = _validate(state, job.held_out, metrics)
            validated = state.elapsed_s = time.monotonic() - began
        due = state.elapsed_s - saved >= 60 * config.save_minutes
        if state.step % config.save_steps == 0 if config.save_steps else due:
            save(run, state.checkpoint())
            saved = state.elapsed_s = time.monotonic() - began
    save(run, state.checkpoint())
    if job.held_out is not None and not interrupted.is_set() and state.step > first:
        _validate(state, job.held_out, metrics)
    return not interrupted.is_set()


def _step(state: _State) -> tuple[Losses, float]:
    """Do one optimiser step; return the losses and the gradient norm."""
    config, weights = state.job.config, state.weights
    losses = weights.worker.loss(state.job.training.batch(state.step), generator=state.noise)
    loss = losses.value.mean()
    if not bool(loss.isfinite()):
        raise TrainingError(
            f"expected a finite loss, got {float(loss)} at step {state.step}: lower --train.learning-rate, "
            "or look at the data with `n2a info`"
        )
    loss.backward()
    norm = weights.step(rate=config.rate(state.step, state.elapsed_s), grad_clip=config.grad_clip)
    state.step += 1
    if state.step % config.ema_every == 0:
        weights.average(config.ema.decay(state.step) ** config.ema_every)
    return losses, norm


def _validate(state: _State, held_out: Loader, metrics: Metrics) -> Validation:
    validation = validate(state.weights.ema, held_out, state.job.normalizer)
    metrics.add({"kind": "validation", "step": state.step, "elapsed_s": state.elapsed_s, **validation.record()})
    return validation


class _Window:
    """Losses since the last record."""

    def __init__(self, step: int) -> None:
        self.first = step
        self.began = time.monotonic()
        self.values: list[Tensor] = []
        self.at_time: list[Tensor] = []
        self.times: list[Tensor] = []
        self.norms: list[float] = []

    def add(self, losses: Losses, norm: float) -> None:
        self.values.append(losses.value.detach())
        self.at_time.append(losses.at_time.detach())
        self.times.append(losses.t)
        self.norms.append(norm)

    def record(self, state: _State, windows: int) -> dict[str, Any]:
        """Return the record of metrics.jsonl."""
        values = torch.cat(self.values)
        seconds = time.monotonic() - self.began
        return {
            "kind": "train",
            "step": state.step,
            "epoch": state.step * state.job.training.batch_size / windows,
            "loss": float(values.mean()),
            "lr": state.job.config.rate(state.step - 1, state.elapsed_s),
            "grad_norm": sum(self.norms) / len(self.norms),
            "samples_per_s": state.job.training.batch_size * (state.step - self.first) / seconds,
            "elapsed_s": state.elapsed_s,
            "buckets": buckets(torch.cat(self.times), torch.cat(self.at_time)),
        }


@contextmanager
def _interrupts() -> Generator[threading.Event]:
    """Turn SIGINT and SIGTERM into a flag, so that a step is never torn; a second SIGINT interrupts at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
