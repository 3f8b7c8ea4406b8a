"""Whether anything still moves on an association that sends, and how fast it may.

A transfer over a slow line may last for hours; one that has stopped is to end in time. So what is
limited is how long nothing moves: no byte is handed to the kernel and none is taken by the peer.
"""

from __future__ import annotations

import contextlib
import fcntl
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

QUEUED_PDUS = 32
"""P-DATA-TFs that wait to be sent; more would hold a large object in memory."""
PAUSE_SECONDS = 0.001
STOP_SECONDS = 5.0
"""How long a transfer may still take when the node is to stop."""


class Pace:
    """Lets bytes pass at a limited rate, over however many associations."""

    def __init__(self, mbit_per_second: float | None) -> None:
        self._bytes_per_second = None if mbit_per_second is None else mbit_per_second * 125_000
        self._free_at = 0.0

    def delay(self, size: int, now: float) -> float:
        """Return for how many seconds the next `size` bytes have to wait at monotonic time `now`.

        They are taken as sent.
        """
        if self._bytes_per_second is None:
            return 0.0
        start = max(self._free_at, now)
        self._free_at = start + size / self._bytes_per_second
        return start - now


class Progress:
    """Watches one transfer.

    Args:
        association: of pynetdicom, established.
        patience_seconds: for how long nothing may move.
        is_stopping: whether the node is to stop.
    """

    def __init__(
        self, association: Any, patience_seconds: float, is_stopping: Callable[[], bool]
    ) -> None:
        self._association = association
        self._patience = patience_seconds
        self._is_stopping = is_stopping
        self._moved_at = time.monotonic()
        self._stop_at: float | None = None
        self._seen: tuple[int, int] | None = None

    def moved(self) -> None:
        """Something has moved that cannot be seen from here."""
        self._moved_at = time.monotonic()

    def is_over(self) -> bool:
        """Whether nothing has moved for too long, or the node is to stop; asked now and then.

        Nothing moves any more, either, where pynetdicom's thread has died of a connection's end.
        """
        if not self._association.dul.is_alive():
            return True
        now = time.monotonic()
        if self._is_stopping():
            self._stop_at = self._stop_at or now + STOP_SECONDS
            if now >= self._stop_at:
                return True
        seen = self._look()
        if seen != self._seen:
            self._seen, self._moved_at = seen, now
        return now - self._moved_at > self._patience

    def _look(self) -> tuple[int, int]:
        """Return what changes while bytes move: messages to send, and bytes not acknowledged."""
        dul = self._association.dul
        unacknowledged = -1
        with contextlib.suppress(OSError, AttributeError, ValueError):  # the socket may be gone
            answer = fcntl.ioctl(dul.socket.socket.fileno(), termios.TIOCOUTQ, bytes(4))
            (unacknowledged,) = struct.unpack("i", answer)
        return dul.to_provider_queue.qsize(), unacknowledged


def regulate(association: Any, pace: Pace, progress: Callable[[], Progress | None]) -> None:
    """Have an association's PDUs wait until there is room for them, and until they may go.

    pynetdicom queues all PDUs of an object as fast as it can read them.
    """
    dul = association.dul
    send = dul.send_pdu

    def regulated(primitive: Any) -> None:
        values = getattr(primitive, "presentation_data_value_list", ())
        size = sum(len(value) for _, value in values)
        wait = pace.delay(size, time.monotonic())
        until = time.monotonic() + wait
        while association.is_established and (
            dul.to_provider_queue.qsize() > QUEUED_PDUS or time.monotonic() < until
        ):
            if not dul.is_alive():
                raise RuntimeError("the connection has ended")
            watched = progress()
            if watched is not None and time.monotonic() < until:
                watched.moved()  # it is we who wait
            time.sleep(min(0.05, max(until - time.monotonic(), PAUSE_SECONDS)))
        send(primitive)

    dul.send_pdu = regulated
