"""Validation on held-out episodes: the loss, and the error of planned actions, with the averaged weights."""

from dataclasses import dataclass
from typing import Any

import torch

from ..data.loader import Loader
from ..data.normalize import Normalizer
from ..data.windows import Batch
from ..policies import AnyPolicy
from ..seeds import generator

LOSS_WINDOWS = 2048
ACTION_WINDOWS = 256


@dataclass(frozen=True)
class Validation:
    """Held-out loss, and the mean Euclidean error of the executed actions of a plan, in the action's unit."""

    loss: float
    action_error: float
    action_error_unit: str

    def record(self) -> dict[str, Any]:
        """Return the fields for metrics.jsonl."""
        return {
            "loss": self.loss,
            "action_error": self.action_error,
            "action_error_unit": self.action_error_unit,
        }


@torch.no_grad()
def validate(policy: AnyPolicy, held_out: Loader, normalizer: Normalizer) -> Validation:
    """Return the validation of `policy` on fixed windows with fixed noise, so that runs and steps are comparable."""
    batch = held_out.gather(_spread(len(held_out.windows), LOSS_WINDOWS))
    loss = float(policy.loss(batch, generator=generator(0, "validation loss")).value.mean())
    error = action_error(policy, held_out.gather(_spread(len(held_out.windows), ACTION_WINDOWS)), normalizer)
    return Validation(loss, error, policy.schema.action.unit)


def action_error(policy: AnyPolicy, batch: Batch, normalizer: Normalizer) -> float:
    """Return the mean distance between planned and demonstrated actions over the executed, unpadded part of chunks."""
    states = normalizer.affines
    history = {n: normalizer.decode(n, x) if n in states else x for n, x in batch.observations.items()}
    planned = policy.plan(history, generator=generator(0, "validation plan"))
    wanted = policy.spec.commanded(normalizer.decode(policy.schema.action.name, batch.actions), history)
    first = -policy.spec.first_action
    executed = slice(first, first + policy.spec.stride)
    distance = (planned - wanted).norm(dim=2)[:, executed]
    return float(distance[batch.valid[:, executed]].mean())


def _spread(total: int, count: int) -> torch.Tensor:
    """Return at most `count` indices spread evenly over [0, total)."""
    return torch.linspace(0, total - 1, min(total, count)).round().long()
