"""Validation on held-out episodes: the loss, and the error of planned actions, with the averaged weights."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
    """Return the validation of `policy` on fixed windows with fixed noise, so that runs and steps are comparable.

    The policy never gets more windows at once than a batch of `held_out` has.
    """
    noise = generator(0, "validation loss")
    losses = [policy.loss(batch, generator=noise).value for batch in _batches(held_out, LOSS_WINDOWS)]
    error = action_error(policy, _batches(held_out, ACTION_WINDOWS), normalizer)
    return Validation(float(torch.cat(losses).mean()), error, policy.schema.action.unit)


def action_error(policy: AnyPolicy, batches: Iterable[Batch], normalizer: Normalizer) -> float:
    """Return the mean distance between planned and demonstrated actions over the executed, unpadded part of chunks."""
    states, noise = normalizer.affines, generator(0, "validation plan")
    first = -policy.spec.first_action
    executed = slice(first, first + policy.spec.stride)
    distances: list[Tensor] = []
    for batch in batches:
        history = {n: normalizer.decode(n, x) if n in states else x for n, x in batch.observations.items()}
        planned = policy.plan(history, generator=noise)
        wanted = policy.spec.commanded(normalizer.decode(policy.schema.action.name, batch.actions), history)
        distances.append((planned - wanted).norm(dim=2)[:, executed][batch.valid[:, executed]])
    return float(torch.cat(distances).mean())


def _batches(held_out: Loader, count: int) -> Iterator[Batch]:
    """Return at most `count` windows, spread evenly, a batch at a time."""
    return (held_out.gather(rows) for rows in _spread(len(held_out.windows), count).split(held_out.batch_size))


def _spread(total: int, count: int) -> Tensor:
    """Return at most `count` indices spread evenly over [0, total)."""
    return torch.linspace(0, total - 1, min(total, count)).round().long()
