"""Measures what the README quotes, on this computer: `make bench`.

Rounds are interleaved: every figure is measured once a round, and the median over rounds is reported with the extremes,
so that a busy moment touches all of them alike. Thread counts are stated; run it on an otherwise idle machine.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from noise2action.control.executor import Executor
from noise2action.data.episodes import Episodes
from noise2action.data.loader import Loader
from noise2action.data.normalize import Normalizer
from noise2action.data.windows import Windows
from noise2action.diffusion.denoisers import clip
from noise2action.diffusion.grids import Trailing
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.samplers import DDIM, Adams
from noise2action.diffusion.sampling import sample
from noise2action.envs.tasks import Task, find
from noise2action.machine import hardware
from noise2action.policies.checkpoint import Deployed
from noise2action.recipes import find as find_recipe
from noise2action.schema import Feature
from noise2action.seeds import generator
from noise2action.train.loop import Job, _State, _step
from noise2action.train.memory import keep_freed_memory

NFE = 8
STEPS = {"pusht_state": 30, "pusht_image": 3}
"""Optimiser steps that a measurement of training takes."""


def episodes(task: Task, count: int) -> Episodes:
    """Return `count` synthetic episodes of a task's shapes (values do not change the time)."""
    rng = np.random.default_rng(0)

    def values(feature: Feature) -> np.ndarray:
        shape = (124, *feature.shape)
        if feature.kind == "image":
            return rng.integers(0, 256, shape, np.uint8)
        return rng.uniform(0, 500, shape).astype(np.float32)

    features = task.schema.features.values()
    return Episodes.concatenate({f.name: values(f) for f in features} for _ in range(count))


def job(recipe: str) -> Job:
    """Return a recipe's training job on synthetic data."""
    experiment = find_recipe(recipe)
    task, spec, train = find(experiment.task), experiment.policy.spec, experiment.train
    images = [f.name for f in task.schema.observations if f.kind == "image"]
    data = episodes(task, 40 if images else 400)
    kinds = {n: "identity" if task.schema.features[n].kind == "angle" else "limits" for n in task.schema.normalised}
    normalizer = Normalizer.fit(data.arrays, kinds)
    windows = Windows(data.ends, spec.obs_steps, spec.horizon, spec.first_action)
    loader = Loader(data, windows, normalizer, batch_size=train.batch_size, seed=0, raw=images)
    return Job(Deployed(task.name, experiment.policy, task.schema), train, normalizer, loader, None, 0)


def training(recipe: str, threads: int, *, half: bool) -> Callable[[], float]:
    """Return a measurement of training throughput, samples/s."""
    state = _State(job(recipe), half=half)

    def measure() -> float:
        torch.set_num_threads(threads)
        _step(state)
        start, steps = time.perf_counter(), STEPS[recipe]
        for _ in range(steps):
            _step(state)
        return steps * state.job.training.batch_size / (time.perf_counter() - start)

    return measure


def serving() -> Callable[[], float]:
    """Return a measurement of serving one batch, ms."""
    loader = job("pusht_state").training

    def measure() -> float:
        torch.set_num_threads(2)
        loader.batch(0)
        start, batches = time.perf_counter(), 150
        for step in range(batches):
            loader.batch(step)
        return (time.perf_counter() - start) / batches * 1e3

    return measure


def sampling(sampler: DDIM | Adams) -> Callable[[], float]:
    """Return a measurement of what a step costs besides the network, microseconds; the network returns its input."""
    objective = Diffusion()
    like = torch.empty(1, 16, 2)

    def measure() -> float:
        torch.set_num_threads(1)
        start, plans = time.perf_counter(), 200
        for _ in range(plans):
            # As a plan does: a fresh denoiser around the observation's condition, clipped.
            denoise = clip(objective.denoiser(lambda x, t: x))
            sample(denoise, objective.path, like, sampler=sampler, grid=Trailing(), nfe=NFE)
        return (time.perf_counter() - start) / plans / NFE * 1e6

    return measure


def planning() -> tuple[Callable[[], float], Callable[[], float]]:
    """Return measurements of a plan at batch 1 (ms), and of a tick that does not plan (microseconds)."""
    policy = _State(job("pusht_state"), half=False).weights.policy.eval()
    observation = {f.name: np.zeros((1, *f.shape), np.float32) for f in policy.schema.observations}

    def plan() -> float:
        torch.set_num_threads(1)
        executor = Executor(policy, [generator(0)])
        executor.act(observation)
        watch, plans = [], 20
        for _ in range(plans):
            while executor._tick % policy.spec.stride:
                executor.act(observation)
            start = time.perf_counter()
            executor.act(observation)
            watch.append((time.perf_counter() - start) * 1e3)
        return statistics.median(watch)

    def tick() -> float:
        torch.set_num_threads(1)
        executor = Executor(policy, [generator(0)])
        watch = []
        for _ in range(20 * policy.spec.stride):
            start = time.perf_counter()
            executor.act(observation)
            if not executor.planned:
                watch.append((time.perf_counter() - start) * 1e6)
        return statistics.median(watch)

    return plan, tick


def encoding() -> tuple[Callable[[], float], Callable[[], float]]:
    """Return measurements of encoding two frames, and of a whole plan, of the image recipe at batch 1 (ms)."""
    policy = _State(job("pusht_image"), half=False).weights.policy.eval()
    history = {
        f.name: torch.zeros(1, 2, *f.shape, dtype=torch.uint8 if f.kind == "image" else torch.float32)
        for f in policy.schema.observations
    }

    def milliseconds(call: Callable[[], object]) -> float:
        torch.set_num_threads(1)
        call()
        watch = []
        for _ in range(20):
            start = time.perf_counter()
            call()
            watch.append((time.perf_counter() - start) * 1e3)
        return statistics.median(watch)

    def encode() -> float:
        with torch.no_grad():
            return milliseconds(lambda: policy.backbone.condition(history))

    return encode, lambda: milliseconds(lambda: policy.plan(history, generator=generator(0)))


def shown(value: float) -> str:
    """Return three significant digits, thousands whole."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _described(recipe: str) -> str:
    experiment = find_recipe(recipe)
    parameters = sum(p.numel() for p in _State(job(recipe), half=False).weights.policy.parameters())
    return f"`{recipe}` ({parameters:,} parameters, batch {experiment.train.batch_size})"


def main() -> None:
    """Measure, print, and write a table and its numbers to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    keep_freed_memory()
    plan, tick = planning()
    encode, plan_images = encoding()
    measurements = {
        "training, bf16, 2 threads (samples/s)": training("pusht_state", 2, half=True),
        "training, bf16, 1 thread (samples/s)": training("pusht_state", 1, half=True),
        "training, fp32, 2 threads (samples/s)": training("pusht_state", 2, half=False),
        "serving a batch of 256, 2 threads (ms)": serving(),
        "DDIM step besides the network, 1 thread (us)": sampling(DDIM()),
        "Adams-2 step besides the network, 1 thread (us)": sampling(Adams()),
        f"planning tick, {NFE} calls, batch 1, 1 thread (ms)": plan,
        "tick between plans, 1 thread (us)": tick,
        "images: training, bf16, 2 threads (samples/s)": training("pusht_image", 2, half=True),
        "images: training, bf16, 1 thread (samples/s)": training("pusht_image", 1, half=True),
        "images: encoding two frames, 1 thread (ms)": encode,
        f"images: planning tick, {NFE} calls, batch 1, 1 thread (ms)": plan_images,
    }
    values: dict[str, list[float]] = {name: [] for name in measurements}
    for k in range(args.rounds):
        for name, measure in measurements.items():
            values[name].append(measure())
        print(f"round {k + 1} of {args.rounds}", flush=True)
    about = ", ".join(_described(name) for name in STEPS)
    header = (
        f"{datetime.now(UTC):%Y-%m-%d}, {hardware()}, Python {platform.python_version()}, torch {torch.__version__}. "
        f"Recipes: {about}. Median, least and most of {args.rounds} interleaved rounds."
    )
    lines = ["# Benchmarks", "", header, "", "| what | median | least | most |", "|---|---:|---:|---:|"]
    lines += [f"| {n} | {shown(statistics.median(v))} | {shown(min(v))} | {shown(max(v))} |" for n, v in values.items()]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "cpu.md").write_text("\n".join(lines) + "\n")
    (args.out / "cpu.json").write_text(json.dumps({"about": header, "rounds": values}, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
