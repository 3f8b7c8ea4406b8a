"""Whether an instance is new to the node: an acceptor process asks the ledger itself.

A question to the receive role would wake another process for every instance, twice.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time

from dicomnode.errors import LedgerError
from dicomnode.ledger import Ledger, knowing

log = logging.getLogger(__name__)

ROW_SECONDS = 10.0
"""An instance whose sender heard Success has its row by then; usually within 0.2."""


class Newness:
    """Knows what the ledger knows, and what this process has taken and has no row yet.

    For all associations of an acceptor process, each in a thread of its own.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._heard_of = knowing.heard_of(ledger)
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._taken_before: set[str] = set()
        self._turn_at = time.monotonic() + ROW_SECONDS
        self.is_suspended = False
        """While rows cannot be written nothing is new: its sender hears what becomes of it."""
        with contextlib.suppress(LedgerError):  # a connection now: the first peer does not wait
            self._heard_of.ask("")

    def claim(self, sop_instance_uid: str) -> bool:
        """Whether an instance is new; then it is not new to whoever asks next."""
        if self.is_suspended:
            return False
        with self._lock:
            if time.monotonic() >= self._turn_at:
                self._taken_before, self._taken = self._taken, set()
                self._turn_at = time.monotonic() + ROW_SECONDS
            if sop_instance_uid in self._taken or sop_instance_uid in self._taken_before:
                return False
            try:
                is_new = not self._heard_of.ask(sop_instance_uid)
            except LedgerError as error:
                log.warning("LEDGER_UNAVAILABLE", extra={"fields": {"detail": str(error)}})
                return False
            if is_new:
                self._taken.add(sop_instance_uid)
            return is_new

    def forget(self, sop_instance_uid: str) -> None:
        """What was claimed is not stored after all."""
        with self._lock:
            self._taken.discard(sop_instance_uid)
            self._taken_before.discard(sop_instance_uid)
