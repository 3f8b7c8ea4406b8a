"""The thread that writes for the receive role, in groups, while the role goes on listening.

Who waits for an answer is served at once. What was answered already waits a little, until more has
come: a transaction costs much, and an instance in it little.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dicomnode.services.desk import Desk, Item
from dicomnode.services.messages import Stored

LINGER_SECONDS = 0.15
GROUP = 200
AGAIN_SECONDS = 1.0
"""How often rows that are owed are tried when nothing else is to be written."""

Told = Callable[[list[Item]], None]


class Writer:
    """Hands what the role has heard to the desk.

    Args:
        desk: decides and makes durable.
        told: called with what was settled, in the thread that writes.
        idle: called now and then in that thread, whether or not there was anything to write.
    """

    def __init__(self, desk: Desk, told: Told, idle: Callable[[], None]) -> None:
        self._desk = desk
        self._told = told
        self._idle = idle
        self._items: list[Item] = []
        self._due: float | None = None
        self._is_ending = False
        self._changed = threading.Condition()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, item: Item) -> None:
        """Have something written."""
        with self._changed:
            self._items.append(item)
            now = time.monotonic()
            wait = LINGER_SECONDS if isinstance(item.message, Stored) else 0.0
            if len(self._items) >= GROUP:
                wait = 0.0
            due = now + wait
            if self._due is None or due < self._due:
                self._due = due
                self._changed.notify()

    def end(self) -> None:
        """Write what is left, and end."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._turn():
                self._idle()
        except BaseException as error:  # noqa: BLE001 - the role ends of it, in its own thread
            self.error = error

    def _turn(self) -> bool:
        group, is_ending = self._take()
        if group or self._desk.owes_rows:
            self._told(self._desk.serve(group))
        return not is_ending

    def _take(self) -> tuple[list[Item], bool]:
        """Wait until something is due; return all that has come by then."""
        with self._changed:
            until = time.monotonic() + AGAIN_SECONDS
            while not self._is_ending:
                now = time.monotonic()
                due = until if self._due is None else min(until, self._due)
                if due <= now:
                    break
                self._changed.wait(due - now)
            group, self._items, self._due = self._items, [], None
            return group, self._is_ending
