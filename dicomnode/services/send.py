"""The send role: stores results at their destinations, for days if it has to.

One thread and one association a destination; the bytes are those in the spool, every time. Loads no
model and encodes nothing.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from dicomnode.deflating import transcode, transfer_syntaxes
from dicomnode.domain.health import patience
from dicomnode.domain.identifiers import TransferSyntaxUID
from dicomnode.domain.outcomes import Outcome, Refuse, Retry
from dicomnode.domain.records import Delivery
from dicomnode.domain.subjects import IDENTITY_DIFFERS
from dicomnode.domain.web import OF_THE_DESTINATION, Web
from dicomnode.errors import LedgerError
from dicomnode.ledger import commitments, deliveries, destinations, substitution
from dicomnode.network.progress import Pace
from dicomnode.network.scu import ConnectError, StorageAssociation, associate
from dicomnode.network.stow import SecretError, StowService, find_credentials
from dicomnode.services.asking import Asker
from dicomnode.services.common import Context, beat_until_stopped, role
from dicomnode.services.crew import Crew
from dicomnode.services.folders import FolderSender
from dicomnode.services.promising import Promiser
from dicomnode.services.scrutiny import Scrutiny
from dicomnode.settings import Peer, Settings

log = logging.getLogger(__name__)

NAME = "send"
IDLE_SECONDS = 0.5
LATE_EVERY_SECONDS = 10.0
MAX_CONTEXTS = 126
"""Beside Verification and Storage Commitment, of 128."""


class Sender:
    """Brings what is due to one destination."""

    def __init__(
        self, context: Context, destination: str, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        self._context = context
        self._is_over = is_over
        self._settings = context.settings
        self._destination = destination
        self._terms = context.settings.destinations[destination]
        self._peer = context.settings.peer_of(destination)
        self._asker = Asker(context, destination) if self._terms.wants_commitment else None
        self._pace = Pace(self._terms.max_mbit_per_second)

    def run_until_stopped(self) -> None:
        """Send until the role is to stop, or these settings are no longer those that apply."""
        look_at = 0.0
        while not (self._context.stop.is_set() or self._is_over()):
            try:
                self.send_due()
                if time.monotonic() >= look_at:
                    self.call_late()
                    look_at = time.monotonic() + LATE_EVERY_SECONDS
            except LedgerError:
                log.exception("LEDGER_UNAVAILABLE")
            self._context.stop.wait(IDLE_SECONDS)

    def send_due(self) -> None:
        """Send what is due if the destination may be called now."""
        name = self._destination
        with self._context.ledger.transaction() as tx:
            if not self._terms.is_open(tx.now.astimezone()):
                return
            commitments.time_out(tx, name, self._settings.send.retry)
            if not destinations.may_be_called(tx, name):
                return
            asks = self._terms.wants_commitment and commitments.is_due(tx, name)
            if not (asks or deliveries.is_due(tx, name)):
                return
            deliveries.cancel_outdated(tx, name)
        if self._terms.web is not None:
            self._send_to_service(self._terms.web)
        elif self._peer is not None:
            self._send_to_peer(self._peer)

    def _send_to_peer(self, peer: Peer) -> None:
        """Send over one association, as long as there is something to send."""
        with self._context.ledger.transaction() as tx:
            contexts = [
                (sop_class, syntax)
                for sop_class, stored in substitution.contexts(tx, self._destination)
                for syntax in transfer_syntaxes(sop_class, stored)
            ]
        try:
            with associate(
                calling_ae=self._settings.node.ae_title,
                called_ae=peer.ae_title,
                host=peer.host,
                port=peer.port or 104,
                contexts=list(dict.fromkeys(contexts))[:MAX_CONTEXTS],
                timeout_seconds=self._settings.send.timeout_seconds,
                tls=peer.tls,
                pace=self._pace,
                is_stopping=self._context.stop.is_set,
                on_report=self._asker.hear if self._asker is not None else None,
            ) as association:
                self._send_all(
                    lambda delivery: self._store(association, delivery),
                    lambda: association.is_alive,
                )
                if self._asker is not None:
                    self._asker.ask_over(association)
        except ConnectError as error:
            self._stay_away(Retry(error.code, error.detail))

    def _send_to_service(self, web: Web) -> None:
        """Send by STOW-RS, a request an object."""
        try:
            credentials = find_credentials(web)
        except SecretError as error:
            self._stay_away(Retry("NO_SECRET", str(error)))
            return
        timeout = self._settings.send.timeout_seconds
        service = StowService(web, credentials, timeout, self._pace, self._context.stop.is_set)

        def store(delivery: Delivery) -> tuple[Outcome, int | None]:
            return service.store(
                self._context.spool.path(delivery.path),
                delivery.study_uid,
                delivery.sop_instance_uid,
                patience(timeout, delivery.attempt),
            )

        try:
            self._send_all(store, lambda: True)
        finally:
            service.close()

    def _send_all(
        self,
        store: Callable[[Delivery], tuple[Outcome, int | None]],
        can_go_on: Callable[[], bool],
    ) -> None:
        """Send what is due, one after the other, until nothing is or it cannot go on."""
        scrutiny = Scrutiny(self._context, self._destination)
        while can_go_on() and not (self._context.stop.is_set() or self._is_over()):
            delivery = self._claim()
            if delivery is None:
                return
            outcome, status, counts = _attempt(scrutiny, store, delivery)
            if isinstance(outcome, Refuse) and outcome.code == IDENTITY_DIFFERS:
                with self._context.ledger.transaction() as tx:
                    deliveries.hold_for(tx, delivery, outcome)
            else:
                self._finish(delivery, outcome, status, counts=counts)

    def _claim(self) -> Delivery | None:
        with self._context.ledger.transaction() as tx:
            if not self._terms.is_open(tx.now.astimezone()):
                return None
            if not destinations.may_be_called(tx, self._destination):
                return None
            return deliveries.claim(tx, self._destination)

    def _store(
        self, association: StorageAssociation, delivery: Delivery
    ) -> tuple[Outcome, int | None]:
        stored = delivery.transfer_syntax_uid
        syntax = next(
            (
                one
                for one in transfer_syntaxes(delivery.sop_class_uid, stored)
                if association.takes(delivery.sop_class_uid, one)
            ),
            stored,
        )
        with self._encoded(delivery, syntax) as path:
            return association.store(
                path,
                delivery.sop_class_uid,
                syntax,
                patience(self._settings.send.timeout_seconds, delivery.attempt),
            )

    @contextmanager
    def _encoded(self, delivery: Delivery, syntax: TransferSyntaxUID) -> Iterator[Path]:
        """Give the file in a transfer syntax; rewritten where it is stored in another one."""
        path = self._context.spool.path(delivery.path)
        if syntax == delivery.transfer_syntax_uid:
            yield path
            return
        rewritten = self._context.spool.tmp / f"{delivery.id}.dcm"
        try:
            transcode(path, rewritten, syntax)
            yield rewritten
        finally:
            rewritten.unlink(missing_ok=True)

    def _stay_away(self, outcome: Retry) -> None:
        """Without an association everything waits, and no object is to blame."""
        with self._context.ledger.transaction() as tx:
            destinations.note(
                tx, self._destination, outcome, None, self._settings.send.retry, _jitter()
            )
            deliveries.wait_for_destination(tx, self._destination, outcome, self._give_up_after)

    @property
    def _give_up_after(self) -> timedelta:
        return timedelta(days=self._settings.send.give_up_after_days)

    def _finish(
        self, delivery: Delivery, outcome: Outcome, status: int | None, *, counts: bool = True
    ) -> None:
        """Record an attempt.

        Args:
            delivery: whose.
            outcome: what it came to.
            status: of the response.
            counts: whether it says something of the destination.
        """
        retry = self._settings.send.retry
        with self._context.ledger.transaction() as tx:
            deliveries.finish(
                tx,
                delivery,
                outcome,
                status=status,
                wait=retry.after(delivery.attempt, _jitter()),
                give_up_after=self._give_up_after,
                commit=self._terms.wants_commitment,
            )
            if counts:
                whose = None if outcome.code in OF_THE_DESTINATION else delivery.id
                destinations.note(tx, self._destination, outcome, whose, retry, _jitter())
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

    def call_late(self) -> None:
        """Call a person for what has not arrived in time."""
        within = self._terms.deliver_within_minutes
        if within is None:
            return
        with self._context.ledger.transaction() as tx:
            destinations.call_late(tx, self._destination, timedelta(minutes=within))


def _attempt(
    scrutiny: Scrutiny,
    store: Callable[[Delivery], tuple[Outcome, int | None]],
    delivery: Delivery,
) -> tuple[Outcome, int | None, bool]:
    """Look at an object once more, and send it.

    Returns:
        What it came to, the status of the answer, and whether that says something of the
        destination.
    """
    try:
        hindrance = scrutiny.of(delivery)
        if hindrance is not None:
            return hindrance, None, isinstance(hindrance, Retry)
        return *store(delivery), True
    except OSError as error:
        log.exception("STORAGE_FAILED")
        return Retry("STORAGE_FAILED", f"the spool failed ({type(error).__name__})"), None, False
    except Exception as error:  # a fault of this software ends one attempt, never the sending
        log.exception("SENDING_FAILED")
        return Retry("SENDING_FAILED", f"see the log ({type(error).__name__})"), None, False


def _jitter() -> float:
    return random.random()  # noqa: S311 - no secret


def sender_of(
    context: Context, name: str, is_over: Callable[[], bool] = lambda: False
) -> Sender | FolderSender:
    """Return what brings results to a destination."""
    folder = context.settings.destinations[name].folder
    if folder is None:
        return Sender(context, name, is_over)
    return FolderSender(context, name, Path(folder), is_over)


def _bring(context: Context, name: str) -> None:
    """Send to one destination as long as there is one of that name.

    What is on its way when the settings change arrives by the old ones.
    """
    while not context.stop.is_set():
        settings = context.settings
        if name not in settings.destinations:
            return
        kept = replace(context, settings=settings)
        sender_of(kept, name, partial(_has_others, context, settings)).run_until_stopped()


def _has_others(context: Context, settings: Settings) -> bool:
    return context.settings is not settings


def _loops(context: Context) -> dict[str, Callable[[], None]]:
    settings = context.settings
    loops = {name: partial(_bring, context, name) for name in settings.destinations}
    if any(peer.commit_here for peer in settings.peers.values()):
        return {**loops, "storage commitment": Promiser(context).run_until_stopped}
    return {**loops}


def run(settings: Settings, config: Path | None = None) -> None:
    """Send until the role is to stop."""
    with role(settings, NAME, config) as context:
        with context.ledger.transaction() as tx:
            count = deliveries.take_back(tx)
        if count:
            log.warning("DELIVERIES_TAKEN_BACK", extra={"fields": {"count": count}})
        crew = Crew(context, partial(_loops, context))

        def doing() -> str:
            crew.keep()  # again: after a reload there may be others
            return f"{len(context.settings.destinations)} destinations"

        crew.keep()
        try:
            beat_until_stopped(context, NAME, doing)
        finally:
            crew.end()
