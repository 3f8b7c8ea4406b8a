"""Threads that a role keeps running, by name; which they are follows from its settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from dicomnode.services.common import Context

Loop = Callable[[], None]


class Crew:
    """Keeps the threads of a role running.

    Args:
        context: of the role.
        loops: what is to run now, by name; each ends by itself when the role is to stop, or when
            the settings no longer want it.
    """

    def __init__(self, context: Context, loops: Callable[[], Mapping[str, Loop]]) -> None:
        self._context = context
        self._loops = loops
        self._threads: dict[str, threading.Thread] = {}
        self._failed: list[BaseException] = []

    def keep(self) -> None:
        """Start the threads that are missing."""
        for name, loop in self._loops().items():
            known = self._threads.get(name)
            if known is None or not known.is_alive():
                thread = threading.Thread(target=self._guarded, args=(loop,), name=name)
                self._threads[name] = thread
                thread.start()

    def _guarded(self, loop: Loop) -> None:
        """Run a loop; where it ends by a fault the role does, and is started again."""
        try:
            loop()
        except BaseException as error:
            self._failed.append(error)
            self._context.stop.set()
            raise

    def end(self) -> None:
        """Wait until all have ended; the role is to stop.

        Raises:
            BaseException: what ended one of them before.
        """
        self._context.stop.set()
        for thread in self._threads.values():
            thread.join()
        if self._failed:
            raise self._failed[0]
