"""What an acceptor process tells the receive role of stored instances: soon, and many at once."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any

from dicomnode.network.association import Outcome
from dicomnode.services import messages
from dicomnode.services.messages import GoneError, Leave, Message, Store, StoredAll

SOON_SECONDS = 0.05


class Teller:
    """A thread that has lines say what they have to say, `SOON_SECONDS` after it was asked."""

    def __init__(self) -> None:
        self._lines: list[DeskLine] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="teller", daemon=True).start()

    def remind(self, line: DeskLine) -> None:
        """Have a line told of soon."""
        with self._changed:
            self._lines.append(line)
            if len(self._lines) == 1:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines:
                    self._changed.wait()
            time.sleep(SOON_SECONDS)  # meanwhile more comes
            with self._changed:
                lines, self._lines = self._lines, []
            for line in lines:
                with contextlib.suppress(GoneError):  # the association's thread will hear of it
                    line.tell()


class DeskLine:
    """The line of one connection to the receive role."""

    def __init__(self, channel: socket.socket, teller: Teller) -> None:
        self._channel = channel
        self._teller = teller
        self._lock = threading.Lock()
        self._stored: list[Store] = []

    def ask(self, message: Message) -> Any:
        """Say something and wait for the reply."""
        with self._lock:
            self._tell()
            messages.send(self._channel, message)
        return messages.receive(self._channel)

    def stored(self, store: Store) -> None:
        """Have said that a new instance is sealed."""
        with self._lock:
            self._stored.append(store)
            if len(self._stored) > 1:
                return
        self._teller.remind(self)

    def tell(self) -> None:
        """Say what is still to be said.

        Raises:
            GoneError: the desk is no more, and does not know.
        """
        with self._lock:
            self._tell()

    def leave(self, outcome: Outcome) -> None:
        """Say that the association has ended."""
        with self._lock:
            with contextlib.suppress(GoneError):
                self._tell()
                messages.send(self._channel, Leave(outcome))
            self._channel.close()

    def close(self) -> None:
        """End the line of a connection that became no association."""
        self._channel.close()

    def _tell(self) -> None:
        if self._stored:
            stored, self._stored = self._stored, []
            messages.send(self._channel, StoredAll(tuple(stored)))
