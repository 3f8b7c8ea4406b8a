"""Which instances are on their way: whether one that comes is new to the node, asked once each.

Used from two threads: the one that listens asks, the one that writes tells what has its row.
"""

from __future__ import annotations

import logging
import threading

from dicomnode.errors import LedgerError
from dicomnode.ledger import Ledger, knowing

log = logging.getLogger(__name__)


class Expectations:
    """The SOP Instance UIDs that were said to be new and have no row yet.

    A UID is new to one association at a time: whoever brings it too is told to ask.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._heard_of = knowing.heard_of(ledger)
        self._lock = threading.Lock()
        self._owners: dict[str, object] = {}
        self._coming: dict[object, str] = {}  # by owner: expected, and not stored yet
        self.is_suspended = False
        """While rows cannot be written nothing is new: its sender hears what becomes of it."""

    def expect(self, owner: object, sop_instance_uid: str) -> bool:
        """Whether an instance is new; if so it is this owner's."""
        self.forget(owner)
        if self.is_suspended:
            return False
        with self._lock:
            if sop_instance_uid in self._owners:
                return False
            self._owners[sop_instance_uid] = owner
            self._coming[owner] = sop_instance_uid
        if self._is_unheard_of(sop_instance_uid):
            return True
        self.forget(owner)
        return False

    def stored(self, owner: object) -> None:
        """What the owner expected has come: it is the owner's until it has its row."""
        with self._lock:
            self._coming.pop(owner, None)

    def forget(self, owner: object) -> None:
        """What the owner expected does not come."""
        with self._lock:
            uid = self._coming.pop(owner, None)
            if uid is not None:
                del self._owners[uid]

    def settled(self, sop_instance_uid: str) -> None:
        """An instance has its row."""
        with self._lock:
            self._owners.pop(sop_instance_uid, None)

    def close(self) -> None:
        """Nothing more is asked."""
        self._heard_of.close()

    def _is_unheard_of(self, sop_instance_uid: str) -> bool:
        try:
            return not self._heard_of.ask(sop_instance_uid)
        except LedgerError as error:
            log.warning("LEDGER_UNAVAILABLE", extra={"fields": {"detail": str(error)}})
            return False
