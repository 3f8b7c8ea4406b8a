"""Who looked at which study, for the audit trail: once in a while, however often a page renews."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

SECONDS = 300.0
"""Whoever looks at a study again within this time is still looking."""
MOST_REMEMBERED = 10_000


class Viewings:
    """Remembers who looked at what lately. Thread-safe.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._lock = Lock()

    def begins(self, user: str, study_uid: str) -> bool:
        """Whether a user begins to look at a study, rather than going on."""
        key, now = (user, study_uid), self._clock()
        with self._lock:
            before = self._seen.get(key)
            if before is not None and now - before < SECONDS:
                return False
            self._seen.pop(key, None)
            self._seen[key] = now
            while len(self._seen) > MOST_REMEMBERED:
                self._seen.popitem(last=False)
            return True
