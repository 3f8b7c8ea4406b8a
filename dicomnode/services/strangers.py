"""Refused requestors on their way to the ledger: at most one write a second, whoever knocks.

A refusal costs the peer a packet and the node a transaction that is synchronised to disk. So what
comes within a second of the last write is counted in memory and written together.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter

from dicomnode.domain.associations import AssociationRequest, Rejected
from dicomnode.errors import LedgerError
from dicomnode.ledger import Ledger, Transaction, outbox, strangers
from dicomnode.ledger.strangers import MAX_STRANGERS, Stranger

log = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
MOST_NAMED = 10
"""In one record of the audit trail; the others are counted."""
MAX_PENDING = MAX_STRANGERS
"""Different requestors that are counted between two writes; more are only logged."""


class Strangers:
    """Counts who was refused for who it is. Thread-safe; the ledger may be away."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._pending: Counter[tuple[Stranger, str]] = Counter()
        self._unproven: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def note(self, request: AssociationRequest, rejected: Rejected) -> None:
        """Count one refusal; it is in the ledger a second later."""
        key = (Stranger.of(request), rejected.reason.code)
        with self._lock:
            if key in self._pending or len(self._pending) < MAX_PENDING:
                self._pending[key] += 1
            self._start_timer()

    def note_unproven(self, address: str, detail: str) -> None:
        """Count a connection in which a peer did not prove by TLS who it is."""
        if not self._ledger.audit_room:
            return
        key = (address[:64], detail[:200])
        with self._lock:
            if key in self._unproven or len(self._unproven) < MAX_PENDING:
                self._unproven[key] += 1
            self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(EVERY_SECONDS, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def flush(self) -> None:
        """Write what has been counted."""
        with self._lock:
            pending, self._pending = self._pending, Counter()
            unproven, self._unproven = self._unproven, Counter()
            self._timer = None
        if not pending and not unproven:
            return
        try:
            with self._ledger.transaction() as tx:
                for (who, code), times in pending.items():
                    strangers.record(tx, who, code, times)
                _audit(tx, pending)
                _audit_unproven(tx, unproven)
        except LedgerError:
            # Each has its line in the log; who is refused once will try again.
            log.exception("LEDGER_UNAVAILABLE")


def _audit(tx: Transaction, pending: Counter[tuple[Stranger, str]]) -> None:
    """Put what was refused within a second into one record."""
    if not pending:
        return
    codes = ", ".join(sorted({code for _, code in pending}))
    named = [
        [who.calling_ae, who.address, times] for (who, _), times in pending.most_common(MOST_NAMED)
    ]
    detail = f"{pending.total()} associations of {len(pending)} requestors were refused: {codes}"
    facts = {"role": "receive", "requestors": named}
    outbox.record(tx, "REQUESTORS_REFUSED", detail=detail, facts=facts)


def _audit_unproven(tx: Transaction, unproven: Counter[tuple[str, str]]) -> None:
    if not unproven:
        return
    whys = "; ".join(sorted({why for _, why in unproven})[:MOST_NAMED])
    named = [["", address, times] for (address, _), times in unproven.most_common(MOST_NAMED)]
    detail = f"{unproven.total()} connections without TLS: {whys}"
    facts = {"role": "receive", "requestors": named}
    outbox.record(tx, "HANDSHAKES_FAILED", detail=detail, facts=facts)
