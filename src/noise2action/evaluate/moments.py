"""Moments at which a policy plans: what it observes there, in rollouts or in demonstrations."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.episodes import Episodes
from ..data.windows import Batch, Windows
from ..diffusion.objective import Losses
from ..diffusion.tableau import OnStep
from ..envs.tasks import Task
from ..policies.policy import Policy
from ..seeds import Generators
from ..timing import Stopwatch
from .rollouts import rollout


@dataclass(frozen=True, eq=False)
class Moments:
    """N observation histories, and where they come from."""

    history: Mapping[str, Tensor]
    """Each observation [N, O, ...] in robot units, oldest step first."""
    episodes: tuple[int, ...]
    """Episode of each moment: its seed, or its number among the demonstrations that were given."""
    ticks: tuple[int, ...]
    """Control ticks since the start of the episode."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.episodes)

    def take(self, rows: Sequence[int]) -> "Moments":
        """Return the moments at `rows`."""
        index = torch.tensor(rows, dtype=torch.int64)
        history = {name: x[index] for name, x in self.history.items()}
        return Moments(history, tuple(self.episodes[k] for k in rows), tuple(self.ticks[k] for k in rows))

    def evenly(self, count: int) -> "Moments":
        """Return at most `count` of them, evenly spread."""
        return self.take(spread(len(self), count))

    @staticmethod
    def join(parts: Sequence["Moments"]) -> "Moments":
        """Return the moments of all `parts`, in order."""
        history = {name: torch.cat([part.history[name] for part in parts]) for name in parts[0].history}
        return Moments(
            history,
            tuple(episode for part in parts for episode in part.episodes),
            tuple(tick for part in parts for tick in part.ticks),
        )


class Witness:
    """A policy that keeps what it was asked about."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.spec, self.schema = policy, policy.spec, policy.schema
        self.seen: list[Mapping[str, Tensor]] = []
        """The history of every plan."""

    def loss(self, batch: Batch, *, generator: torch.Generator) -> Losses:
        """Return the policy's loss."""
        return self.policy.loss(batch, generator=generator)

    def plan(
        self,
        history: Mapping[str, Tensor],
        committed: Tensor | None = None,
        *,
        generator: Generators | None = None,
        watch: Stopwatch | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return the policy's plan."""
        self.seen.append(history)
        return self.policy.plan(history, committed, generator=generator, watch=watch, on_step=on_step)


def of_rollouts(
    task: Task, policy: Policy, seeds: Sequence[int], *, each: int, on_progress: Callable[[int], None] | None = None
) -> Moments:
    """Return `each` moments at which `policy` planned in the episode of every seed, evenly spread.

    Fewer where an episode has fewer plans. `on_progress` is called with the number of episodes that have ended.
    """
    parts: list[Moments] = []
    for done, seed in enumerate(seeds, start=1):
        witness = Witness(policy)
        rollout(task, witness, [seed])
        plans = len(witness.seen)
        # The first row is the robot's, the others fill the batch.
        history = {name: torch.cat([seen[name][:1] for seen in witness.seen]) for name in witness.seen[0]}
        ticks = tuple(k * policy.spec.stride for k in range(plans))
        parts.append(Moments(history, (seed,) * plans, ticks).evenly(each))
        if on_progress is not None:
            on_progress(done)
    return Moments.join(parts)


def of_demonstrations(episodes: Episodes, policy: Policy, *, count: int, each: int) -> Moments:
    """Return `each` moments of `count` demonstrated episodes, both evenly spread over what there is."""
    spec = policy.spec
    windows = Windows(episodes.ends, spec.obs_steps, spec.horizon, spec.first_action)
    homes = np.searchsorted(episodes.ends, windows.anchors, side="right")
    rows: list[int] = []
    for home in spread(len(episodes), count):
        own = np.flatnonzero(homes == home)
        rows += [int(own[k]) for k in spread(len(own), each)]
    history: dict[str, Tensor] = {}
    for feature in policy.schema.observations:
        x = np.asarray(episodes.arrays[feature.name][windows.observations[rows]])
        history[feature.name] = torch.from_numpy(x.astype(np.float32) if feature.is_state else x)
    anchors, found = windows.anchors[rows], homes[rows]
    return Moments(history, tuple(found.tolist()), tuple((anchors - episodes.starts[found]).tolist()))


def spread(length: int, count: int) -> list[int]:
    """Return at most `count` of the numbers 0 .. length - 1, evenly spread, the first of each equal part."""
    count = min(length, count)
    return [math.floor(k * length / count) for k in range(count)]
