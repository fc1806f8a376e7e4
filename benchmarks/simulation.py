"""Measures simulation: pictures and steps beside Metaworld's own, and rollouts of a policy in all processes.

Rounds are interleaved, and ratios are taken within a round. Run it on an otherwise idle machine.
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from noise2action.data.normalize import Normalizer
from noise2action.envs.manipulation import MANIPULATION
from noise2action.envs.rendering import Renderer
from noise2action.envs.rendering import platform as opengl
from noise2action.envs.sawyer import CAMERAS, Sawyer
from noise2action.envs.tasks import find
from noise2action.evaluate.workers import rollout_in_processes
from noise2action.machine import hardware
from noise2action.policies import AnyPolicy, DiffusionConfig
from noise2action.recipes import find as find_recipe
from noise2action.seeds import derive

TASK, THEIRS = "grasp_seen", "pick-place-v3"
SIZES = (96, 224)
WORKERS = 2
ROBOTS = 100
"""Episodes that a process advances together; all processes have as many as a comparison evaluates."""


def _ours() -> Sawyer:
    env = MANIPULATION[TASK]()
    env.reset(seed=0)
    return env


def _theirs(layout: np.ndarray) -> Any:  # noqa: ANN401 - Metaworld has no types
    """Return Metaworld's environment with our layout."""
    env: Any = ALL_V3_ENVIRONMENTS[THEIRS]()
    env._partially_observable, env._set_task_called, env._last_rand_vec = False, True, layout.copy()
    env.__dict__.pop("sawyer_observation_space", None)
    env.reset()
    return env


def _mean_ms(call: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times * 1e3


def drawing(camera: str, size: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """Return measurements of a picture, ours and MuJoCo's renderer as it comes, of the same state (ms)."""
    env = _ours()
    model, data = env._furnished(), env._data
    mine, default = Renderer(model, camera=camera, size=size), mujoco.Renderer(model, size, size)

    def theirs() -> object:
        default.update_scene(data, camera=camera)
        return default.render()

    return partial(_mean_ms, lambda: mine.picture(data), 20), partial(_mean_ms, theirs, 3)


def stepping() -> tuple[Callable[[], float], Callable[[], float]]:
    """Return measurements of a step of the environment from the same layout, ours and Metaworld's (ms)."""
    mine = _ours()
    other = _theirs(mine.layout)
    action = np.array([0.1, 0.1, 0.0, -1.0], np.float32)

    def ours() -> float:
        mine.reset(seed=0)
        return _mean_ms(lambda: mine.step(action), 200)

    def theirs() -> float:
        other.reset()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _mean_ms(lambda: other.step(action), 200)

    return ours, theirs


def policy() -> AnyPolicy:
    """Return the recipe's policy with fresh weights: it never succeeds, so that every episode has its full length."""
    torch.manual_seed(derive(0, "weights"))
    task, config = find(TASK), find_recipe(TASK).policy
    assert isinstance(config, DiffusionConfig), "the recipe's policy is diffusion"
    rng = np.random.default_rng(0)
    arrays = {f.name: rng.uniform(-1, 1, (100, *f.shape)).astype(np.float32) for f in task.schema.features.values()}
    normalizer = Normalizer.fit(arrays, dict.fromkeys(task.schema.normalised, "limits"))
    return config.build(task.schema, normalizer).eval()


def rollouts() -> Callable[[], float]:
    """Return a measurement of environment steps a second over all processes, their start included."""
    seeds = range(WORKERS * ROBOTS)

    def measure() -> float:
        start = time.perf_counter()
        results = rollout_in_processes(find(TASK), policy, seeds, workers=WORKERS)
        return sum(result.steps for result in results) / (time.perf_counter() - start)

    return measure


def main() -> None:
    """Measure, print, and write a table and its numbers to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    opengl()
    views = [(camera, size) for camera in CAMERAS for size in SIZES]
    pairs = {f"a picture of {size} x {size}, {camera} (ms)": drawing(camera, size) for camera, size in views}
    pairs["a step (ms)"] = stepping()
    run = rollouts()
    values: dict[str, list[float]] = {}
    for k in range(args.rounds):
        for name, sides in pairs.items():
            for side, measure in zip(("ours", "theirs"), sides, strict=True):
                values.setdefault(f"{name}, {side}", []).append(measure())
        values.setdefault("rollouts (steps/s)", []).append(run())
        print(f"round {k + 1} of {args.rounds}", flush=True)
    header = (
        f"{datetime.now(UTC):%Y-%m-%d}, {hardware()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"mujoco {mujoco.__version__}, one thread a process. Task `{TASK}`. Pictures beside mujoco.Renderer with "
        "its default options; steps beside Metaworld's own environment, which also computes its "
        f"reward. Median [least, most] of {args.rounds} interleaved rounds."
    )
    lines = ["# Simulation", "", header, "", "| what | ours | theirs | ratio |", "|---|---:|---:|---:|"]
    for name in pairs:
        mine, other = values[f"{name}, ours"], values[f"{name}, theirs"]
        ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
        lines.append(f"| {name} | {_shown(mine)} | {_shown(other)} | {ratio:.1f} |")
    steps = values["rollouts (steps/s)"]
    calls = find_recipe(TASK).policy.sampling.nfe
    told = (
        f"Rollouts of the recipe's diffusion policy ({calls} network calls a plan), {ROBOTS} episodes in lockstep in "
        f"each of {WORKERS} processes, their start included: {statistics.median(steps):,.0f} "
        f"[{min(steps):,.0f}, {max(steps):,.0f}] environment steps a second."
    )
    lines += ["", told]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "simulation.md").write_text("\n".join(lines) + "\n")
    (args.out / "simulation.json").write_text(json.dumps({"about": header, "rounds": values}, indent=1) + "\n")
    print("\n".join(lines))


def _shown(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


if __name__ == "__main__":
    main()
