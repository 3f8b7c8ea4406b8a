"""Asks an archive for storage commitment, and hears its report over the same association."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

from dicomnode.domain.commitment import CommitmentReport
from dicomnode.domain.outcomes import PROCESSING_FAILURE, Done
from dicomnode.errors import LedgerError
from dicomnode.ledger import commitments
from dicomnode.network.scu import StorageAssociation
from dicomnode.services.common import Context

log = logging.getLogger(__name__)

REPORT_WAIT_SECONDS = 2.0
"""For a report over the association of the request; later it comes over one of the archive's."""


class Asker:
    """Asks one destination."""

    def __init__(self, context: Context, destination: str) -> None:
        self._context = context
        self._send = context.settings.send
        self._destination = destination
        self._required = context.settings.destinations[destination].commitment == "required"
        self._heard = threading.Event()

    def ask_over(self, association: StorageAssociation) -> None:
        """Ask for what is there, and wait a moment for a report.

        After the last object: a report that came in its midst would be taken for its answer.
        """
        wait = timedelta(seconds=self._send.commitment_seconds)
        while association.is_alive and not self._context.stop.is_set():
            with self._context.ledger.transaction() as tx:
                request = commitments.begin(tx, self._destination, wait)
            if request is None:
                return
            self._heard.clear()
            outcome = association.request_commitment(request.transaction_uid, request.references)
            if isinstance(outcome, Done):
                fields = {"destination": self._destination, "objects": len(request.references)}
                log.info("COMMITMENT_ASKED", extra={"fields": fields})
                self._heard.wait(REPORT_WAIT_SECONDS)
                continue
            with self._context.ledger.transaction() as tx:
                commitments.not_asked(
                    tx, request, outcome, self._send.retry, required=self._required
                )

    def hear(self, report: CommitmentReport) -> int:
        """Take in a report that came over this node's own association; return the answer."""
        try:
            with self._context.ledger.transaction() as tx:
                names = {self._destination}
                return commitments.answered(tx, names, report, self._send.retry)
        except LedgerError:
            log.exception("LEDGER_UNAVAILABLE")
            return PROCESSING_FAILURE
        finally:
            self._heard.set()
