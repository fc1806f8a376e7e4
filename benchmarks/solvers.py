"""Measures what a sampler's step costs besides the network, ours and diffusers', on this computer: `make bench`.

The network returns its input, so that only the sampler is left. Both sides get the same chunk, path and number of steps
in one process, interleaved round by round, on one thread. Ours is a whole sample (first noise, decoding the target,
checking the result) over its steps; of theirs only the calls of `step`, with the timesteps already set.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from noise2action.diffusion.grids import LogSNR, Trailing
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.paths import Schedule
from noise2action.diffusion.samplers import NAMED
from noise2action.diffusion.sampling import TableSampler, sample
from noise2action.diffusion.targets import Epsilon
from noise2action.machine import hardware
from noise2action.seeds import generator

TABLE = Diffusion(path=Schedule(steps=1000, name="linear"), target=Epsilon())
"""What diffusers' schedulers work on."""
SMOOTH = Diffusion()
"""Our default, for the samplers that have no peer there."""
CHUNK = torch.randn(1, 16, 2, generator=generator(0))
STEPS = 20
# Euler-Maruyama refuses long steps.
GRIDS = {name: LogSNR() if name == "euler-maruyama" else Trailing() for name in NAMED}
PEERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
    "ddpm": (diffusers.DDPMScheduler, {"clip_sample": False}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "dpm-solver++-2m": (diffusers.DPMSolverMultistepScheduler, {"solver_order": 2}),
    "dpm-solver++-3m": (diffusers.DPMSolverMultistepScheduler, {"solver_order": 3}),
    "dpm-solver++-sde-2m": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
}

CASES = {name: (name, TABLE if name in PEERS else SMOOTH) for name in NAMED}
# The one sampler that looks new times up in every sample, on the path where that is dearest.
CASES["adaptive, on the table"] = ("adaptive", TABLE)


def ours(name: str, objective: Diffusion) -> Callable[[], float]:
    """Return a measurement of microseconds a network call."""
    sampler, noise = NAMED[name], generator(1)
    steps = 100 if name == "euler-maruyama" else STEPS
    nfe = sampler.calls * (steps - 1) + 1 if isinstance(sampler, TableSampler) else 1

    def measure() -> float:
        calls, start, plans = [0], time.perf_counter(), 20

        def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            calls[0] += 1
            return x

        for _ in range(plans):
            denoise = objective.denoiser(net)
            sample(denoise, objective.path, CHUNK, sampler=sampler, grid=GRIDS[name], nfe=nfe, generator=noise)
        return (time.perf_counter() - start) / calls[0] * 1e6

    measure()
    return measure


def theirs(name: str) -> Callable[[], float]:
    """Return a measurement of microseconds a call of `step`."""
    cls, options = PEERS[name]
    scheduler = cls(num_train_timesteps=1000, trained_betas=np.array(TABLE.path.betas), **options)

    def measure() -> float:
        spent, calls = 0.0, 0
        for _ in range(20):
            scheduler.set_timesteps(STEPS)
            x = CHUNK
            start = time.perf_counter()
            for k in scheduler.timesteps:
                seen = scheduler.scale_model_input(x, k)
                x = scheduler.step(seen, k, x).prev_sample
            spent, calls = spent + time.perf_counter() - start, calls + len(scheduler.timesteps)
        return spent / calls * 1e6

    measure()
    return measure


def main() -> None:
    """Measure, print, and write a table and its numbers to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    measurements = {(case, "ours"): ours(*of) for case, of in CASES.items()} | {
        (name, "diffusers"): theirs(name) for name in PEERS
    }
    values: dict[tuple[str, str], list[float]] = {key: [] for key in measurements}
    for k in range(args.rounds):
        for key, measure in measurements.items():
            values[key].append(measure())
        print(f"round {k + 1} of {args.rounds}", flush=True)
    header = (
        f"{datetime.now(UTC):%Y-%m-%d}, {hardware()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}, one thread. Microseconds a network call besides the network, chunk "
        f"16 x 2, batch 1, {STEPS} steps; on a table of 1000 steps where diffusers has the sampler, else on the "
        "cosine path unless told. "
        f"Median [least, most] of {args.rounds} interleaved rounds."
    )
    lines = ["# Samplers besides the network", "", header, ""]
    lines += ["| sampler | ours (us) | diffusers (us) | ratio |", "|---|---:|---:|---:|"]
    for name in CASES:
        mine, other = values[name, "ours"], values.get((name, "diffusers"))
        ratio = f"{statistics.median(b / a for a, b in zip(mine, other, strict=True)):.1f}" if other else "-"
        lines.append(f"| {name} | {_shown(mine)} | {_shown(other) if other else '-'} | {ratio} |")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "solvers.md").write_text("\n".join(lines) + "\n")
    rounds = {f"{name}, {side}": v for (name, side), v in values.items()}
    (args.out / "solvers.json").write_text(json.dumps({"about": header, "rounds": rounds}, indent=1) + "\n")
    print("\n".join(lines))


def _shown(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


if __name__ == "__main__":
    main()
