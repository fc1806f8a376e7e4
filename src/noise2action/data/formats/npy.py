"""The `.npy` layout: header and raw numbers, checked before anything is allocated."""

import io
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...errors import DataError
from ..episodes import Array, is_number

_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

HEADER_BYTES = 1 << 14
"""More than the longest header that is accepted."""


@dataclass(frozen=True)
class Header:
    """What an `.npy` header declares; `offset` is where the numbers start."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    order: Literal["C", "F"]
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def header(data: bytes, *, where: str) -> Header:
    """Return the header at the beginning of `data`; raises `DataError` naming `where`, also for non-numbers."""
    stream = io.BytesIO(data[:HEADER_BYTES])
    try:
        read = _READERS[np.lib.format.read_magic(stream)]
        shape, fortran, dtype = read(stream)
    except Exception as error:  # the header is a Python literal: many types
        raise DataError(f"{where}: expected an .npy array, got a damaged one ({error})") from error
    if not is_number(dtype):
        raise DataError(f"{where}: expected numbers, got dtype {dtype}: name the keys to read without it")
    if any(size < 0 for size in shape):
        raise DataError(f"{where}: expected a shape of sizes, got {shape}")
    return Header(tuple(shape), dtype, "F" if fortran else "C", stream.tell())


def decoded(data: bytes, *, where: str) -> Array:
    """Return the array that `data` holds, without copying it."""
    head = header(data, where=where)
    if head.offset + head.size != len(data):
        raise DataError(
            f"{where}: expected {head.size} bytes for {head.dtype} {head.shape}, got {len(data) - head.offset}"
        )
    values: Array = np.frombuffer(data, head.dtype, offset=head.offset)
    return values.reshape(head.shape, order=head.order)
