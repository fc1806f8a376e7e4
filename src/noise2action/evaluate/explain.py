"""What a policy's actions depend on: a policy to be asked, and the influence of everything that it observes.

All is measured on the actions that would be executed, in their own units, with the sampler's noise held fixed, so that
nothing moves them but what is asked about. `saliency.py` asks about pixels, `keypoints.py` about keypoints.
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.actions import Absolute
from ..encoders.fuse import ObservationEncoder
from ..encoders.image import CameraPart
from ..encoders.part import Slot
from ..errors import ConfigError
from ..policies import AnyPolicy, LatentDiffusionPolicy, backbone_of
from ..policies.backbone import Backbone
from ..seeds import generator
from .moments import Moments

BATCH = 12
"""Plans made at once. Always as many: then equal observations give equal bits, whatever else is asked."""

EVERYTHING, NOISE, OLDER = "everything", "sampler's noise", "older steps"
"""Names of influences that are no modality."""

MOST = 10
"""Times everything's influence beyond which a share of it means nothing, as the noise of an untrained policy has."""

History = Mapping[str, Tensor]
"""Observations [B, O, ...] in robot units."""

OnPiece = Callable[[str, int, int], None]
"""Called before each piece of work: its kind, how many of that kind are done, and how many there are."""


def unheard(_kind: str, _done: int, _total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A policy under explanation."""

    policy: AnyPolicy
    seed: int = 0
    """Seed of the sampler's noise, and of everything that is drawn here."""

    @property
    def backbone(self) -> Backbone:
        """The policy's encoder and network."""
        return backbone_of(self.policy)

    @property
    def encoder(self) -> ObservationEncoder:
        """The policy's observation encoder."""
        return self.backbone.encoder

    @property
    def cameras(self) -> dict[str, CameraPart]:
        """The encoders of cameras and goal images, by name."""
        slots = [slot for slot in self.encoder.slots if isinstance(slot, Slot)]
        return {slot.part.name: slot.part for slot in slots if isinstance(slot.part, CameraPart)}

    def executed(self, history: History, noises: Sequence[int], *, at: History | None = None) -> Float[Tensor, "B T A"]:
        """Return the actions that would be executed; row b has the sampler noise numbered `noises[b]`.

        Where actions are relative to a state, it is that of `at`: moving both would answer nothing.
        """
        found: list[Tensor] = []
        for rows in padded(len(noises)):
            generators = [self._noise(noises[int(row)]) for row in rows]
            told = {name: x[rows] for name, x in history.items()}
            chunk, spec = self.policy.plan(told, generator=generators), self.policy.spec
            if at is not None:
                chunk = spec.commanded(spec.learnt(chunk, told), {name: x[rows] for name, x in at.items()})
            found.append(self._stride_of(chunk))
        return torch.cat(found)[: len(noises)]

    def differentiable(self, history: History, noise: int) -> Float[Tensor, "B T A"]:
        """Return the same actions, every row with the noise numbered `noise`, with the graph of their gradient."""
        rows = len(next(iter(history.values())))
        chunk = _planned(self.policy, history, [self._noise(noise) for _ in range(rows)])
        if not chunk.requires_grad:
            raise ConfigError(
                "expected a sampler on a fixed grid to take the gradient of, got one that plans without a graph: "
                "--sampler ddim"
            )
        return self._stride_of(chunk)

    def _noise(self, number: int) -> torch.Generator:
        return generator(self.seed, "explained", number)

    def _stride_of(self, chunk: Tensor) -> Tensor:
        spec = self.policy.spec
        return chunk[:, -spec.first_action : -spec.first_action + spec.stride]


def padded(size: int) -> Iterator[Int[Tensor, "rows"]]:
    """Yield the rows 0 .. size - 1 in batches of `BATCH`, the last one filled up with its last row."""
    for start in range(0, size, BATCH):
        yield torch.arange(start, start + BATCH).clamp(max=size - 1)


def _planned(policy: AnyPolicy, history: History, generators: Sequence[torch.Generator]) -> Tensor:
    """Return the policy's plan with its graph: `plan` itself, without the `no_grad` around it."""
    if isinstance(policy, LatentDiffusionPolicy):
        codes = copy.copy(policy.codes)
        codes.config = policy.config.codes  # as in its own plan: this policy may be a resampled one
        return policy.spec.commanded(policy.decode(_planned(codes, history, generators)), history)
    return inspect.unwrap(type(policy).plan)(policy, history, generator=generators)


def moved(a: Float[Tensor, "*B T A"], b: Float[Tensor, "*B T A"]) -> Float[Tensor, "*B"]:
    """Return how far actions are apart: the Euclidean distance, averaged over the executed ticks, action units."""
    return (a - b).norm(dim=-1).mean(dim=-1)


@dataclass(frozen=True, eq=False)
class Influence:
    """How far the executed actions move when a part of the observation becomes another."""

    name: str
    change: str
    """What it was changed to."""
    moved: Float[Tensor, "N"]
    """A moment, averaged over the changes, action units."""
    changed: float
    """Share of the changes that changed anything: 0 where the part is the same in all moments."""


def share_text(part: float, whole: float) -> str:
    """Return a part of what exchanging everything does in per cent, at most `> 1000 %`; empty where that is nothing."""
    if not whole:
        return ""
    return "> 1000 %" if part > MOST * whole else f"{100 * part / whole:.0f} %"


def influences(
    subject: Subject, moments: Moments, *, swaps: int = 4, on_progress: OnPiece = unheard
) -> list[Influence]:
    """Return the influence of everything that is observed, then of all at once and of the sampler's noise.

    Each part of the observation is exchanged for that of `swaps` moments of other episodes (of other moments where
    there is one episode only), the same ones for every part. Beside these: older steps exchanged for the newest,
    modalities that may be absent left out.
    """
    history, size = moments.history, len(moments)
    if size < 2:
        raise ConfigError(f"expected at least 2 moments to exchange observations between, got {size}")
    noises, others = range(size), _partners(moments, swaps, seed=subject.seed)
    base = subject.executed(history, noises)

    def swapped(features: Iterable[str]) -> Iterator[History]:
        for rows in others:
            yield {n: x[rows] if n in features else x for n, x in history.items()}

    groups = _groups(subject)
    changes: list[tuple[str, str, Iterable[History]]] = [
        (name, "another episode's", swapped(features)) for name, features in groups.items()
    ]
    if subject.policy.spec.obs_steps > 1:
        still = {n: x[:, -1:].expand_as(x) for n, x in history.items()}
        changes.append((OLDER, "the newest step", [still]))
    space = subject.policy.spec.action_space
    needed = set[str]() if isinstance(space, Absolute) else {space.reference}
    for name in subject.encoder.droppable:
        left = {n: x for n, x in history.items() if n not in groups[name]}
        if left and needed <= left.keys():
            changes.append((f"{name}, absent", "its learned null", [left]))
    changes.append((EVERYTHING, "another episode's", swapped(history)))
    found: list[Influence] = []
    for done, (name, change, lazy) in enumerate(changes):
        on_progress("influence", done, len(changes) + 1)
        variants = list(lazy)
        distances = [moved(subject.executed(told, noises, at=history), base) for told in variants]
        found.append(Influence(name, change, torch.stack(distances).mean(0), _changed(history, variants)))
    if not found[-1].changed:
        raise ConfigError(f"expected moments that differ, got {size} equal ones: take more episodes")
    on_progress("influence", len(changes), len(changes) + 1)
    fresh = [moved(subject.executed(history, [size * (k + 1) + n for n in noises]), base) for k in range(swaps)]
    return [*found, Influence(NOISE, "other noise", torch.stack(fresh).mean(0), 1.0)]


def _groups(subject: Subject) -> dict[str, list[str]]:
    """Return the features that are exchanged together, by name: each alone, and all states as one modality."""
    features = subject.policy.schema.observations
    states = [f.name for f in features if f.is_state and not f.goal]
    groups = {f.name: [f.name] for f in features}
    return {**groups, "state": states} if len(states) > 1 or "state" in subject.encoder.droppable else groups


def _partners(moments: Moments, swaps: int, *, seed: int) -> list[Int[Tensor, "N"]]:
    """Return, `swaps` times, a moment for every moment: of another episode where there is one."""
    episodes = torch.tensor(moments.episodes)
    other = episodes[:, None] != episodes
    if not bool(other.any(1).all()):
        other = ~torch.eye(len(moments), dtype=torch.bool)
    draws = torch.multinomial(other.double(), swaps, replacement=True, generator=generator(seed, "partners"))
    return list(draws.unbind(1))


def _changed(history: History, variants: Sequence[History]) -> float:
    differs = [
        torch.stack([(history[n] != x).flatten(1).any(1) for n, x in told.items()]).any(0)
        if told.keys() == history.keys()
        else torch.ones(len(next(iter(told.values()))), dtype=torch.bool)
        for told in variants
    ]
    return float(torch.stack(differs).double().mean())
