"""Results to an archive: over one association to a peer, or by requests to a DICOMweb service.

The bytes are those in the spool, every time. Loads no model and encodes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dicomnode.deflating import transcode, transfer_syntaxes
from dicomnode.domain.health import patience
from dicomnode.domain.holdings import StudyRecord
from dicomnode.domain.identifiers import TransferSyntaxUID
from dicomnode.domain.outcomes import Outcome, Refuse, Retry
from dicomnode.domain.records import Delivery
from dicomnode.domain.web import Web
from dicomnode.ledger import substitution
from dicomnode.memory import give_back
from dicomnode.network.progress import Pace
from dicomnode.network.query import find_study
from dicomnode.network.scu import ConnectError, StorageAssociation, associate
from dicomnode.network.stow import SecretError, StowService, find_credentials
from dicomnode.services.asking import Asker
from dicomnode.services.common import Context
from dicomnode.services.peers import call_of
from dicomnode.services.sending import Sender
from dicomnode.settings import Peer

MAX_CONTEXTS = 126
"""Beside Verification and Storage Commitment, of 128."""


class PeerSender(Sender):
    """Brings what is due to a peer by C-STORE, and asks it for storage commitment."""

    def __init__(
        self, context: Context, destination: str, is_over: Callable[[], bool], peer: Peer
    ) -> None:
        super().__init__(context, destination, is_over)
        self._peer = peer
        self._asker = Asker(context, destination) if self._terms.wants_commitment else None
        self._pace = Pace(self._terms.max_mbit_per_second)

    def _send(self) -> None:
        """Send over one association, as long as there is something to send."""
        peer = self._peer
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
                    self._ask if peer.query else None,
                )
                if self._asker is not None:
                    self._asker.ask_over(association)
            give_back()  # an association is a ring of objects, which Python finds late
        except ConnectError as error:
            self._stay_away(Retry(error.code, error.detail))

    def _ask(self, study_uid: str) -> StudyRecord | Retry | Refuse | None:
        return find_study(call_of(self._settings, self._peer), study_uid, identity=True)

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


class ServiceSender(Sender):
    """Brings what is due to a DICOMweb service by STOW-RS, a request an object."""

    def __init__(
        self, context: Context, destination: str, is_over: Callable[[], bool], web: Web
    ) -> None:
        super().__init__(context, destination, is_over)
        self._web = web
        self._pace = Pace(self._terms.max_mbit_per_second)

    def _send(self) -> None:
        try:
            credentials = find_credentials(self._web)
        except SecretError as error:
            self._stay_away(Retry("NO_SECRET", str(error)))
            return
        timeout = self._settings.send.timeout_seconds
        is_stopping = self._context.stop.is_set
        service = StowService(self._web, credentials, timeout, self._pace, is_stopping)

        def store(delivery: Delivery) -> tuple[Outcome, int | None]:
            return service.store(
                self._context.spool.path(delivery.path),
                delivery.study_uid,
                delivery.sop_instance_uid,
                patience(timeout, delivery.attempt),
            )

        with closing(service):
            self._send_all(store, lambda: True, service.find_study)
