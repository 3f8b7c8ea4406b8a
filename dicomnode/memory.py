"""Memory that a piece of work no longer needs goes back to the system."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from typing import Any


@cache
def _trim() -> Any:
    """Return glibc's malloc_trim(3); None with another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None


def give_back() -> None:
    """Return what is free to the system.

    glibc keeps freed blocks of the sizes that it has met, up to 32 MiB each (mallopt(3),
    M_MMAP_THRESHOLD): a process that passes large objects on would keep some of each thread's.
    """
    gc.collect()
    trim = _trim()
    if trim is not None:
        trim(0)
