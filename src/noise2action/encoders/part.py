"""Parts of an observation encoder: one a modality, each with a learned null where it may be absent."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..schema import Feature

Observations = Mapping[str, Tensor]
"""Every observation [B, O, ...] by name: states and goals normalised, angles in rad, images and texts as they are."""


class Encoded(NamedTuple):
    """A modality, encoded."""

    vector: Float[Tensor, "B S D"]
    """One vector an observed step, or a single one where only the newest counts."""
    cells: Float[Tensor, "B M C"]
    """What tokens are made of."""


class Part(nn.Module, ABC):
    """Encodes one modality of an observation history."""

    name: str
    """Name of the modality."""
    once: bool
    """Whether only the newest observed step counts."""
    dim: int
    """Width of a step's vector."""
    cell_dim: int
    """Width of a cell."""
    cells: int
    """Cells of a history."""

    def __init__(self, name: str, features: tuple[Feature, ...], *, obs_steps: int) -> None:
        super().__init__()
        self.name, self.features, self.obs_steps = name, features, obs_steps

    @property
    def steps(self) -> int:
        """Number of vectors of a history."""
        return 1 if self.once else self.obs_steps

    @abstractmethod
    def check(self, observations: Observations) -> None:
        """Raise `ShapeError` or `SchemaError` unless the observations, in their own units, are what was declared."""

    @abstractmethod
    def forward(self, observations: Observations, visions: nn.ModuleList, generator: torch.Generator | None) -> Encoded:
        """Return the modality; `visions` are the networks that cameras share, a generator makes crops random."""


class Slot(nn.Module):
    """A part, its tokens, and what stands for it where it is absent."""

    def __init__(self, part: Part, *, token_dim: int | None, may_be_absent: bool) -> None:
        super().__init__()
        self.part = part
        self.null = nn.Parameter(torch.randn(part.steps, part.dim)) if may_be_absent else None
        self.tokens = self.places = self.null_token = None
        if token_dim is not None:
            self.tokens = nn.Linear(part.cell_dim, token_dim)
            # Attention does not see the order of tokens: each one says which step and place of what it is.
            self.places = nn.Parameter(torch.randn(part.cells, token_dim) * 0.02)
            self.null_token = nn.Parameter(torch.randn(token_dim)) if may_be_absent else None

    def forward(
        self, observations: Observations, *, visions: nn.ModuleList, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, "B1 S D"], Float[Tensor, "B1 M E"] | None]:
        """Return vectors, and tokens where they are wanted; the nulls, as a batch of one, where nothing is there."""
        if not any(f.name in observations for f in self.part.features):
            return self.nulls()
        vector, cells = self.part(observations, visions, generator)
        if self.tokens is None or self.places is None:
            return vector, None
        return vector, self.tokens(cells.to(self.places.dtype)) + self.places

    def nulls(self) -> tuple[Float[Tensor, "1 S D"], Float[Tensor, "1 M E"] | None]:
        """Return what stands for the modality where it is absent, zeros where it may not be."""
        like = self.null if self.null is not None else torch.zeros(self.part.steps, self.part.dim)
        if self.places is None:
            return like[None], None
        token = torch.zeros_like(self.places[0]) if self.null_token is None else self.null_token
        return like[None], token.expand(1, *self.places.shape)
