"""Seeds: every random number comes from an explicit generator derived from one integer and names."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator]
"""One generator for a batch, or one a row: then a row's noise does not depend on what else is in the batch."""


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and every name, and on nothing else."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator seeded with `derive(seed, *names)`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *names))


def randn_like(x: Tensor, generators: Generators | None) -> Tensor:
    """Return standard normal noise with the shape, dtype and device of `x` [B, ...]."""
    if isinstance(generators, Sequence):
        if len(generators) != len(x):
            raise ValueError(f"expected one generator a row ({len(x)}), got {len(generators)}")
        rows = [torch.randn(x.shape[1:], generator=g, dtype=x.dtype, device=x.device) for g in generators]
        return torch.stack(rows) if rows else torch.empty_like(x)
    return torch.randn(x.shape, generator=generators, dtype=x.dtype, device=x.device)
