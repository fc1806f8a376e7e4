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
from noise2action.envs.tasks import find
from noise2action.machine import hardware
from noise2action.policies.checkpoint import Deployed
from noise2action.recipes import find as find_recipe
from noise2action.seeds import generator
from noise2action.train.loop import Job, _State, _step
from noise2action.train.memory import keep_freed_memory

TASK = find("pusht")
RECIPE = find_recipe("pusht_state")
NFE = 8


def episodes() -> Episodes:
    """Return 400 synthetic episodes of PushT's shape and size (values do not change the time)."""
    rng = np.random.default_rng(0)
    shapes = {name: f.shape for name, f in TASK.schema.features.items()}
    return Episodes.concatenate(
        {name: rng.uniform(0, 500, (124, *shape)).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(400)
    )


def job() -> Job:
    """Return the recipe's training job on synthetic data."""
    data, spec = episodes(), RECIPE.policy.spec
    kinds = {name: "identity" if f.kind == "angle" else "limits" for name, f in TASK.schema.features.items()}
    normalizer = Normalizer.fit(data.arrays, kinds)
    windows = Windows(data.ends, spec.obs_steps, spec.horizon, spec.first_action)
    loader = Loader(data, windows, normalizer, batch_size=RECIPE.train.batch_size, seed=0)
    return Job(Deployed("pusht", RECIPE.policy, TASK.schema), RECIPE.train, normalizer, loader, None, 0)


def training(threads: int, *, half: bool) -> Callable[[], float]:
    """Return a measurement of training throughput, samples/s."""
    state = _State(job(), half=half)

    def measure() -> float:
        torch.set_num_threads(threads)
        _step(state)
        start, steps = time.perf_counter(), 30
        for _ in range(steps):
            _step(state)
        return steps * RECIPE.train.batch_size / (time.perf_counter() - start)

    return measure


def serving() -> Callable[[], float]:
    """Return a measurement of serving one batch, ms."""
    loader = job().training

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
    policy = _State(job(), half=False).weights.policy.eval()
    observation = {f.name: np.zeros((1, *f.shape), np.float32) for f in TASK.schema.observations}

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


def shown(value: float) -> str:
    """Return three significant digits, thousands whole."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def main() -> None:
    """Measure, print, and write a table and its numbers to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    keep_freed_memory()
    plan, tick = planning()
    measurements = {
        "training, bf16, 2 threads (samples/s)": training(2, half=True),
        "training, bf16, 1 thread (samples/s)": training(1, half=True),
        "training, fp32, 2 threads (samples/s)": training(2, half=False),
        "serving a batch of 256, 2 threads (ms)": serving(),
        "DDIM step besides the network, 1 thread (us)": sampling(DDIM()),
        "Adams-2 step besides the network, 1 thread (us)": sampling(Adams()),
        f"planning tick, {NFE} calls, batch 1, 1 thread (ms)": plan,
        "tick between plans, 1 thread (us)": tick,
    }
    values: dict[str, list[float]] = {name: [] for name in measurements}
    for k in range(args.rounds):
        for name, measure in measurements.items():
            values[name].append(measure())
        print(f"round {k + 1} of {args.rounds}", flush=True)
    parameters = sum(p.numel() for p in _State(job(), half=False).weights.policy.parameters())
    header = (
        f"{datetime.now(UTC):%Y-%m-%d}, {hardware()}, Python {platform.python_version()}, torch {torch.__version__}. "
        f"Recipe `pusht_state`: {parameters:,} parameters, batch {RECIPE.train.batch_size}. "
        f"Median, least and most of {args.rounds} interleaved rounds."
    )
    lines = ["# Benchmarks", "", header, "", "| what | median | least | most |", "|---|---:|---:|---:|"]
    lines += [f"| {n} | {shown(statistics.median(v))} | {shown(min(v))} | {shown(max(v))} |" for n, v in values.items()]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "cpu.md").write_text("\n".join(lines) + "\n")
    (args.out / "cpu.json").write_text(json.dumps({"about": header, "rounds": values}, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
