"""How long one plan takes on this computer, measured as it runs on a robot: batch 1, one thread."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..policies import AnyPolicy
from ..policies.backbone import Backbone
from ..policies.policy import Policy
from ..seeds import generator
from ..timing import Stopwatch

WARMUP = 5
"""Plans before those that are timed."""


@dataclass(frozen=True)
class Percentiles:
    """Median and 99th percentile of a duration, in milliseconds."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Latency:
    """Duration of one `plan` call, as a whole and by stage (encode, denoise, decode)."""

    total: Percentiles
    stages: Mapping[str, Percentiles]
    calls: int
    threads: int


def measure_latency(
    policy: Policy, observation: Mapping[str, np.ndarray], *, calls: int = 100, warmup: int = WARMUP
) -> Latency:
    """Return the latency of planning from one `observation` (name -> per-step array, without batch axis).

    The observation is repeated to fill the history. `warmup` calls are not counted. torch runs on one thread
    meanwhile; the thread count is restored. Raises `ValueError` for fewer than one call.
    """
    if calls < 1:
        raise ValueError(f"expected at least 1 call, got {calls}")
    steps = policy.spec.obs_steps
    history = {
        name: torch.as_tensor(value).expand(1, steps, *np.shape(value)).clone() for name, value in observation.items()
    }
    noise = generator(0, "latency")
    watch = Stopwatch()
    total: list[float] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for call in range(warmup + calls):
            start = time.perf_counter()
            policy.plan(history, generator=[noise], watch=watch if call >= warmup else None)
            total.append((time.perf_counter() - start) * 1e3)
    finally:
        torch.set_num_threads(threads)
    stages = {stage: _percentiles(durations) for stage, durations in watch.milliseconds.items()}
    return Latency(_percentiles(total[warmup:]), stages, calls, 1)


def _percentiles(durations: list[float]) -> Percentiles:
    p50, p99 = np.percentile(durations, [50, 99])
    return Percentiles(float(p50), float(p99))


def measured(policy: AnyPolicy, observation: Mapping[str, np.ndarray], *, calls: int = 100) -> tuple[Latency, int]:
    """Return the latency of a plan, and its network evaluations: counted, the mean of `calls` plans, a whole number."""
    nfe = 0

    def count(*_: object) -> None:
        nonlocal nfe
        nfe += 1

    # A policy without a network makes no call.
    hooks = [m.register_forward_pre_hook(count) for m in policy.modules() if isinstance(m, Backbone)]
    try:
        latency = measure_latency(policy, observation, calls=calls)
    finally:
        for hook in hooks:
            hook.remove()
    return latency, round(nfe / (calls + WARMUP))
