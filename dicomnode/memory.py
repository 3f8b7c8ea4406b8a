"""What a process that runs for months does about its memory: it keeps little that it has freed."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from typing import Any

_M_ARENA_MAX = -8
"""Of mallopt(3), in glibc's malloc.h."""


@cache
def _glibc(name: str) -> Any:
    """Return a function of glibc; None with another C library."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None


def settle() -> None:
    """Prepare a process that is about to run for long, with all loaded and no threads yet.

    All threads share one heap: glibc would make one for each of up to eight a core, and fill them
    one after the other. And what is loaded is no longer looked at for garbage: Python waits with
    rings of objects until there are a quarter as many as of all others.
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Return what is free to the system.

    glibc keeps freed blocks of the sizes that it has met, up to 32 MiB each (mallopt(3),
    M_MMAP_THRESHOLD): a process that passes large objects on would keep some of each thread's.
    """
    gc.collect()
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)
