"""The send role: stores results at their destinations, for days if it has to.

One thread and one association a destination; the bytes are those in the spool, every time. Loads no
model and encodes nothing.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
from datetime import timedelta
from pathlib import Path

from dicomnode.domain.outcomes import Outcome, Refuse, Retry
from dicomnode.domain.records import Delivery
from dicomnode.errors import LedgerError
from dicomnode.ledger import deliveries, substitution
from dicomnode.network.scu import ConnectError, StorageAssociation, associate
from dicomnode.services.common import Context, beat_until_stopped, role
from dicomnode.settings import Settings

log = logging.getLogger(__name__)

NAME = "send"
IDLE_SECONDS = 0.5
MAX_CONTEXTS = 127


class Sender:
    """Brings what is due to one destination."""

    def __init__(self, context: Context, destination: str) -> None:
        self._context = context
        self._settings = context.settings
        self._destination = destination
        self._peer = context.settings.peer_of(destination)

    def run_until_stopped(self) -> None:
        """Send until the role is to stop."""
        while not self._context.stop.is_set():
            try:
                with self._context.ledger.transaction() as tx:
                    due = deliveries.is_due(tx, self._destination)
                if due:
                    self._send_due()
            except LedgerError:
                log.exception("LEDGER_UNAVAILABLE")
            self._context.stop.wait(IDLE_SECONDS)

    def _send_due(self) -> None:
        """Open an association and send until nothing is due or it ends."""
        with self._context.ledger.transaction() as tx:
            contexts = substitution.contexts(tx, self._destination)[:MAX_CONTEXTS]
        try:
            with associate(
                calling_ae=self._settings.node.ae_title,
                called_ae=self._peer.ae_title,
                host=self._peer.host,
                port=self._peer.port or 104,
                contexts=contexts,
                timeout_seconds=self._settings.send.timeout_seconds,
                tls=self._peer.tls,
            ) as association:
                while association.is_alive and not self._context.stop.is_set():
                    delivery = self._claim()
                    if delivery is None:
                        return
                    self._send(association, delivery)
        except ConnectError as error:
            self._postpone(Retry(error.code, error.detail))

    def _claim(self) -> Delivery | None:
        with self._context.ledger.transaction() as tx:
            return deliveries.claim(tx, self._destination)

    def _send(self, association: StorageAssociation, delivery: Delivery) -> None:
        path = self._context.spool.path(delivery.path)
        outcome: Outcome
        fault = _fault(path, delivery.digest)
        if fault is None:
            outcome, status = association.store(
                path, delivery.sop_class_uid, delivery.transfer_syntax_uid
            )
        else:
            outcome, status = fault, None
        self._finish(delivery, outcome, status)

    def _postpone(self, outcome: Retry) -> None:
        """Without an association everything that is due waits; no object is to blame."""
        while (delivery := self._claim()) is not None:
            self._finish(delivery, outcome, None)

    def _finish(self, delivery: Delivery, outcome: Outcome, status: int | None) -> None:
        retry = self._settings.send.retry
        with self._context.ledger.transaction() as tx:
            deliveries.finish(
                tx,
                delivery,
                outcome,
                status=status,
                wait=retry.after(delivery.attempt, random.random()),  # noqa: S311 - no secret
                give_up_after=timedelta(days=self._settings.send.give_up_after_days),
            )
        log.info(
            "DELIVERY_ENDED",
            extra={
                "fields": {
                    "delivery": delivery.id,
                    "destination": delivery.destination,
                    "kind": delivery.kind,
                    "sop_instance_uid": delivery.sop_instance_uid,
                    "attempt": delivery.attempt,
                    "outcome": outcome.code,
                }
            },
        )


def _fault(path: Path, digest: str) -> Refuse | None:
    """Say why a file is not the result that was recorded, or None if it is."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return Refuse("BYTES_MISSING", "the result is not in the spool")
    if found != digest:
        return Refuse("BYTES_CHANGED", "the result in the spool is not the one that was recorded")
    return None


def run(settings: Settings) -> None:
    """Send until the role is to stop."""
    with role(settings, NAME) as context:
        with context.ledger.transaction() as tx:
            count = deliveries.take_back(tx)
        if count:
            log.warning("DELIVERIES_TAKEN_BACK", extra={"fields": {"count": count}})
        threads = [
            threading.Thread(target=Sender(context, name).run_until_stopped, name=name)
            for name in settings.destinations
        ]
        for thread in threads:
            thread.start()
        try:
            beat_until_stopped(context, NAME, lambda: f"{len(threads)} destinations")
        finally:
            context.stop.set()
            for thread in threads:
                thread.join()
