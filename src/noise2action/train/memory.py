"""Memory allocation while training."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_GIB = 1 << 30


def keep_freed_memory() -> bool:
    """Tell the C library to reuse large blocks instead of returning them to the system; return whether it listened.

    A training step frees and allocates the same megabytes again; without this each step pays for their page faults.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt  # glibc's; others have none and are left alone
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _GIB) and mallopt(_TRIM_THRESHOLD, _GIB))
