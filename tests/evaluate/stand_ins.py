"""The smallest task and policy that keep the contract; picklable, so that workers can run them."""

import os
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch

from noise2action.data.windows import Batch
from noise2action.diffusion.objective import Losses
from noise2action.envs.tasks import Task
from noise2action.policies.policy import PolicySpec
from noise2action.schema import Feature, Schema
from noise2action.seeds import randn_like

SCHEMA = Schema((Feature("position", (2,)),), Feature("action", (2,)))
HZ = 10.0
MAX_STEPS = 40


class Drift(gymnasium.Env[Any, Any]):
    """A point that adds up its actions; it succeeds right of x = 1, after a number of steps that its seed fixes."""

    closed = 0
    opened = 0

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Dict({"position": gymnasium.spaces.Box(-np.inf, np.inf, (2,))})
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
        type(self).opened += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.normal(size=2).astype(np.float32)
        self.left = 5 + (seed or 0) % 30
        self.steps = 0
        return {"position": self.position}, {}

    def step(self, action):
        self.steps += 1
        self.position = (self.position + action).astype(np.float32)
        success = bool(self.position[0] > 1) and self.steps >= self.left
        info = {"success": success, "score": float(self.position[0] > 1), "route": "left" if success else "none"}
        return {"position": self.position}, 0.0, success, self.steps >= MAX_STEPS, info

    def render(self):
        return np.full((30, 41, 3), self.steps, dtype=np.uint8)

    def close(self):
        type(self).closed += 1


def no_demonstration(*_: object) -> Any:
    raise NotImplementedError


TASK = Task("drift", SCHEMA, HZ, MAX_STEPS, Drift, no_demonstration, no_demonstration)


@dataclass
class Wander:
    """A policy whose chunk depends on each row's history and noise, and on nothing else."""

    spec: PolicySpec = field(default_factory=lambda: PolicySpec(2, 6, 4, 0, HZ))
    schema: Schema = SCHEMA
    batches: list[int] = field(default_factory=list)

    def loss(self, batch: Batch, *, generator: torch.Generator) -> Losses:
        raise NotImplementedError

    def plan(self, history, committed=None, *, generator=None, watch=None, on_step=None):
        position = history["position"]
        self.batches.append(len(position))
        shape = torch.zeros(len(position), self.spec.horizon, 2)
        if watch is not None:
            with watch("denoise"):
                noise = randn_like(shape, generator)
        else:
            noise = randn_like(shape, generator)
        pull = torch.tensor([1.5, 0.0]) - position.mean(dim=1)
        return 0.1 * pull[:, None] + 0.05 * noise


def load_wander() -> Wander:
    """What a worker calls."""
    return Wander()


def load_nothing() -> Wander:
    """A policy that cannot be loaded."""
    raise ValueError("expected a checkpoint, got none")


def die() -> Wander:
    """A process that ends at once, as one that the system kills."""
    os._exit(9)
