"""Normaliser: an affine map per feature, `encode(x) = x * scale + offset`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import CheckpointError, DataError, SchemaError, ShapeError, did_you_mean
from .episodes import Array

NormalizerKind = Literal["limits", "gaussian", "quantile", "identity"]
"""limits: minimum..maximum to -1..1. gaussian: mean 0, standard deviation 1. quantile: 1 %..99 % to -1..1, not
clipped. identity: unchanged."""

KINDS: tuple[NormalizerKind, ...] = get_args(NormalizerKind)
"""Every kind; the position is the number stored in `Normalizer.state`, so only append."""

_PARTS = {"scale", "offset", "kind"}
_CONSTANT = 1e-6
_SMALLEST = 1e-8


@dataclass(frozen=True)
class Affine:
    """`y = x * scale + offset` over the last axis [D], float64 on the CPU, with the kind that it was fitted as."""

    kind: NormalizerKind
    scale: Tensor
    offset: Tensor


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Maps features to the units networks see, and back; one `Affine` by feature name.

    Tables are float64 on the CPU; `encode` and `decode` work in the dtype of their argument, on `device`.
    """

    affines: Mapping[str, Affine]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        """Reject maps without an inverse; put what `encode` and `decode` need on the device."""
        for name, affine in self.affines.items():
            _check(name, affine)
        object.__setattr__(self, "affines", MappingProxyType(dict(self.affines)))
        object.__setattr__(self, "_float32", {name: self._constants(name, torch.float32) for name in self.affines})

    @staticmethod
    def fit(arrays: Mapping[str, Array], kinds: Mapping[str, NormalizerKind]) -> "Normalizer":
        """Return the normaliser of every name in `kinds`, fitted in float64 over all but the last axis of its array.

        Pass the training episodes only. A constant column (range below 1e-6 of its magnitude, or 1e-8) maps to 0 and
        back to the constant.
        """
        missing = sorted(set(kinds) - set(arrays))
        if missing:
            raise DataError(f"expected arrays {sorted(kinds)} to fit a normaliser, got no {missing}")
        return Normalizer({name: _fitted(name, arrays[name], kind) for name, kind in kinds.items()})

    def to(self, device: torch.device | str) -> "Normalizer":
        """Return the same normaliser for tensors on `device`."""
        return Normalizer(self.affines, torch.device(device))

    def encode(self, name: str, x: Tensor) -> Tensor:
        """Return `x` [..., D] in normalised units; integers and booleans become float32."""
        x = x if x.is_floating_point() else x.float()
        center, scale = self._of(name, x)
        return (x - center) * scale

    def decode(self, name: str, y: Tensor) -> Tensor:
        """Return `y` [..., D] in the feature's own units, the inverse of `encode`."""
        center, scale = self._of(name, y)
        return y / scale + center

    def state(self) -> dict[str, Tensor]:
        """Return `{name}.scale`, `{name}.offset` (float64 [D]) and `{name}.kind` (its number) for safetensors."""
        state: dict[str, Tensor] = {}
        for name, affine in self.affines.items():
            state[f"{name}.scale"] = affine.scale.clone()
            state[f"{name}.offset"] = affine.offset.clone()
            state[f"{name}.kind"] = torch.tensor(KINDS.index(affine.kind))
        return state

    @staticmethod
    def from_state(state: Mapping[str, Tensor], names: Collection[str] | None = None) -> "Normalizer":
        """Return the normaliser that `state` holds, for exactly `names` where given, else raise `CheckpointError`."""
        parts: dict[str, set[str]] = {}
        for key in state:
            name, _, part = key.rpartition(".")
            parts.setdefault(name, set()).add(part)
        for name, have in parts.items():
            if not name or have != _PARTS:
                raise CheckpointError(
                    f"normaliser {name!r}: expected exactly {sorted(_PARTS)}, got {sorted(have)}: the file is damaged"
                )
        if names is not None and set(names) != set(parts):
            raise CheckpointError(f"expected a normaliser for exactly {sorted(names)}, got {sorted(parts)}")
        try:
            return Normalizer({name: _restored(name, state) for name in parts})
        except DataError as error:
            raise CheckpointError(str(error)) from error

    def _constants(self, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        affine = self.affines[name]
        # Subtracting the centre first loses no digits where a column is far from zero and narrow.
        center = -affine.offset / affine.scale
        return center.to(dtype).to(self.device), affine.scale.to(dtype).to(self.device)

    def _of(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        if name not in self.affines:
            raise SchemaError(
                f"expected a feature that the normaliser knows, got {name!r}: {did_you_mean(name, self.affines)}"
            )
        float32: dict[str, tuple[Tensor, Tensor]] = self.__dict__["_float32"]
        center, scale = float32[name] if x.dtype == torch.float32 else self._constants(name, x.dtype)
        if x.ndim < 1 or x.shape[-1] != len(scale):
            raise ShapeError(f"{name!r}: expected a last axis of {len(scale)}, got shape {tuple(x.shape)}")
        return center, scale


def _fitted(name: str, array: Array, kind: NormalizerKind) -> Affine:
    if kind not in KINDS:
        raise DataError(f"{name!r}: expected a normaliser kind, got {kind!r}: {did_you_mean(kind, KINDS)}")
    if array.ndim < 2 or not array.size:
        raise DataError(f"{name!r}: expected an array [T, ..., D] to fit a normaliser, got shape {array.shape}")
    size = array.shape[-1]
    if kind == "identity":
        return Affine(kind, torch.ones(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))
    rows = array.reshape(-1, size)
    low = rows.min(axis=0).astype(np.float64)
    high = rows.max(axis=0).astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise DataError(f"{name!r}: expected finite values, got NaN or infinity: inspect the data set")
    center, half = _spread(rows, kind, low, high)
    constant = high - low <= np.maximum(_CONSTANT * np.maximum(np.abs(low), np.abs(high)), _SMALLEST)
    # Kept exact: a column that never varied decodes to its value, not to the middle of a rounding error.
    center = np.where(constant, low, center)
    scale = 1.0 / np.where(constant, 1.0, half)
    return Affine(kind, torch.from_numpy(scale), torch.from_numpy(-center * scale))


def _spread(
    rows: Array, kind: NormalizerKind, low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centre and the half width of each column."""
    if kind == "gaussian":
        return rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    if kind == "quantile":
        q01, q99 = np.quantile(rows.astype(np.float64), [0.01, 0.99], axis=0)
        # A column with rare spikes has no spread between its quantiles; its limits still say how large they are.
        flat = q99 - q01 <= _CONSTANT * (high - low)
        low, high = np.where(flat, low, q01), np.where(flat, high, q99)
    return low + (high - low) / 2, (high - low) / 2


def _check(name: str, affine: Affine) -> None:
    scale, offset = affine.scale, affine.offset
    if scale.ndim != 1 or scale.shape != offset.shape or not len(scale):
        raise DataError(
            f"normaliser {name!r}: expected scale and offset [D], got {tuple(scale.shape)} and {tuple(offset.shape)}"
        )
    if scale.dtype != torch.float64 or offset.dtype != torch.float64:
        raise DataError(f"normaliser {name!r}: expected float64 tables, got {scale.dtype} and {offset.dtype}")
    if not (scale.isfinite().all() and offset.isfinite().all() and (scale != 0).all()):
        raise DataError(f"normaliser {name!r}: expected finite, non-zero scales and finite offsets: fit it again")


def _restored(name: str, state: Mapping[str, Tensor]) -> Affine:
    kind = state[f"{name}.kind"]
    if kind.numel() != 1 or kind.is_floating_point() or not 0 <= int(kind) < len(KINDS):
        raise CheckpointError(f"normaliser {name!r}: expected a kind from 0 to {len(KINDS) - 1}, got {kind.tolist()}")
    return Affine(KINDS[int(kind)], state[f"{name}.scale"].cpu(), state[f"{name}.offset"].cpu())
