"""The policy that is checked, the histories that it is given, and its plans."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from ..data.actions import Absolute
from ..data.normalize import Normalizer
from ..encoders.fuse import ObservationEncoder
from ..policies.policy import Policy
from ..schema import Feature
from ..seeds import generator
from .findings import world

Where = Literal["rest", "low", "high", "drawn"]
"""rest: black pictures and the numbers nearest to 0. low, high: the edges of the ranges. drawn: anywhere inside."""
ROWS = 4
"""Histories of a batch."""


def settings() -> dict[str, object]:
    """Return what torch is set to."""
    return {
        "the default dtype": torch.get_default_dtype(),
        "the threads": torch.get_num_threads(),
        "grad mode": torch.is_grad_enabled(),
    }


@contextmanager
def as_it_was() -> Generator[None]:
    """Put back what torch is set to after the block."""
    dtype, threads, grad = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(grad)


class Subject:
    """A policy under examination."""

    def __init__(self, policy: Policy, seeds: tuple[int, ...]) -> None:
        self.policy, self.seeds = policy, seeds
        self.settings = settings()
        """As they were before the first plan."""

    @property
    def normalizer(self) -> Normalizer | None:
        """Its normaliser, where it is one of this project's."""
        owners = (self.policy, getattr(self.policy, "backbone", None))
        found = (getattr(owner, "normalizer", None) for owner in owners)
        return next((each for each in found if isinstance(each, Normalizer)), None)

    @property
    def encoder(self) -> ObservationEncoder | None:
        """Its encoder, where it is one of this project's."""
        modules = self.policy.modules() if isinstance(self.policy, nn.Module) else ()
        return next((module for module in modules if isinstance(module, ObservationEncoder)), None)

    @cached_property
    def drawn(self) -> dict[str, Tensor]:
        """A batch of histories from anywhere inside the ranges."""
        return self.history("drawn", rows=ROWS)

    def history(self, where: Where, *, rows: int = 1, seed: int = 0) -> dict[str, Tensor]:
        """Return a legal history, name -> [rows, O, ...], robot units."""
        noise = generator(seed, "check")
        return {f.name: self._observed(f, where, rows, noise) for f in self.policy.schema.observations}

    def _observed(self, feature: Feature, where: Where, rows: int, noise: torch.Generator) -> Tensor:
        shape = (rows, self.policy.spec.obs_steps, *feature.shape)
        if feature.kind == "image":
            if where == "drawn":
                return torch.randint(0, 256, shape, generator=noise, dtype=torch.uint8)
            return torch.full(shape, 255 if where == "high" else 0, dtype=torch.uint8)
        if feature.kind == "text":
            return self._said(feature, where, shape, noise)
        low, high = self._range(feature)
        if where == "drawn":
            return low + (high - low) * torch.rand(shape, generator=noise)
        at = {"rest": torch.zeros_like(low).clamp(low, high), "low": low, "high": high}[where]
        return at.expand(shape).clone()

    def _said(self, feature: Feature, where: Where, shape: tuple[int, ...], noise: torch.Generator) -> Tensor:
        """Return a sentence a row by its position; an empty embedding where there is none to choose from."""
        count = len(feature.sentences)
        if not count and self.encoder is not None:
            return self.encoder.example()[feature.name].expand(*shape[:2], -1).clone()
        last = max(count - 1, 0)
        said = torch.randint(0, last + 1, (shape[0], 1, 1), generator=noise)
        return (said if where == "drawn" else torch.full_like(said, last if where == "high" else 0)).expand(shape)

    def _range(self, feature: Feature) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest value of every element: as declared, else as the data had them."""
        low, high = (-torch.pi, torch.pi) if feature.kind == "angle" else (-1.0, 1.0)
        ends = torch.full(feature.shape, low), torch.full(feature.shape, high)
        if self.normalizer is not None and feature.kind == "vector":
            minus, plus = (self.normalizer.decode(feature.name, torch.full(feature.shape, x)) for x in (-1.0, 1.0))
            ends = torch.minimum(minus, plus), torch.maximum(minus, plus)
        legal = (torch.as_tensor(end).to(ends[0]) for end in feature.bounds)
        least, most = (torch.where(end.isfinite(), end, data) for end, data in zip(legal, ends, strict=True))
        return torch.minimum(least, most), torch.maximum(least, most)

    @property
    def action_range(self) -> tuple[Tensor, Tensor] | None:
        """Smallest and largest action [A], robot units: legal ones, else those of the data; None where unknown."""
        action = self.policy.schema.action
        low, high = (torch.as_tensor(end, dtype=torch.float32) for end in action.bounds)
        if (high - low).isfinite().all():
            return low, high
        scales = self.normalizer
        known = scales is not None and scales.affines[action.name].kind == "limits"
        if scales is None or not known or not isinstance(self.policy.spec.action_space, Absolute):
            return None
        ends = [scales.decode(action.name, torch.full(action.shape, x)) for x in (-1.0, 1.0)]
        return torch.minimum(*ends), torch.maximum(*ends)

    def plan(
        self,
        history: Mapping[str, Tensor],
        *,
        seed: int = 0,
        rows: Sequence[int] | None = None,
        committed: Tensor | None = None,
        world_seed: int = 0,
    ) -> Tensor:
        """Return a plan, each row with its own generator: that of `rows`, whose numbers stand for histories."""
        numbers = range(len(next(iter(history.values())))) if rows is None else rows
        noise = [generator(seed, "plan", number) for number in numbers]
        with world(world_seed), as_it_was():
            return self.policy.plan(dict(history), committed, generator=noise)

    @cached_property
    def plans(self) -> Tensor:
        """Plans for `drawn`, one a seed, [S, B, H, A]."""
        return torch.stack([self.plan(self.drawn, seed=seed) for seed in self.seeds])

    @property
    def scale(self) -> float:
        """How large actions are, against which differences are small or not."""
        known = self.action_range
        return float(self.plans.abs().max()) if known is None else float((known[1] - known[0]).max())
