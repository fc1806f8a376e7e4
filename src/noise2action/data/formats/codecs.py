"""How many bytes a compressed chunk will become, told without allocating them."""

import struct
import zlib
from collections.abc import Callable

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_RATIO = 1 << 15
"""Blosc shrinks zeros about 8,000 times and zstd 32,000 times; more is a claim, not a measurement."""
_FLOOR = 1 << 16


def claimed(codec: str | None, data: bytes, limit: int) -> int | None:
    """Return the decoded size that `data` claims, or None if it is damaged or claims more than it can justify.

    `codec` is a name in `CODECS`, or None for uncompressed; gzip and zlib do not tell, so they are decoded up to
    `limit`.
    """
    size = len(data) if codec is None else CODECS[codec](data, limit)
    return None if size is None or size > _FLOOR + _RATIO * len(data) else size


def _blosc(data: bytes, _limit: int) -> int | None:
    if len(data) < 16:
        return None
    size, _, packed = struct.unpack_from("<III", data, 4)
    return size if packed == len(data) else None


def _lz4(data: bytes, _limit: int) -> int | None:
    return struct.unpack_from("<I", data)[0] if len(data) >= 4 else None


def _zstd(data: bytes, _limit: int) -> int | None:
    """Read the content size of the frame header (RFC 8878, 3.1.1.1); a frame without one could grow without bound."""
    if len(data) < 5 or not data.startswith(_ZSTD_MAGIC):
        return None
    descriptor = data[4]
    single = descriptor >> 5 & 1
    width = (single, 2, 4, 8)[descriptor >> 6]
    offset = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    if not width or len(data) < offset + width:
        return None
    size = int.from_bytes(data[offset : offset + width], "little")
    return size + 256 if width == 2 else size


def _inflated(window: int) -> Callable[[bytes, int], int | None]:
    def size(data: bytes, limit: int) -> int | None:
        stream = zlib.decompressobj(window)
        try:
            length = len(stream.decompress(data, limit + 1))
        except zlib.error:
            return None
        # A second gzip member would be decoded too, unbounded.
        return length if stream.eof and not stream.unused_data else None

    return size


CODECS: dict[str, Callable[[bytes, int], int | None]] = {
    "blosc": _blosc,
    "gzip": _inflated(16 + zlib.MAX_WBITS),
    "lz4": _lz4,
    "zlib": _inflated(zlib.MAX_WBITS),
    "zstd": _zstd,
}
"""Compressors that are read: none of them runs code from the file."""
