"""Storage and Verification SCU: one association to a peer, files sent as their bytes are."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pynetdicom import _config, evt

from dicomnode.domain.commitment import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST,
    CommitmentReport,
)
from dicomnode.domain.outcomes import (
    PROCESSING_FAILURE,
    Done,
    Outcome,
    Refuse,
    Retry,
    classify_action_status,
    classify_store_status,
)
from dicomnode.domain.security import PeerTls
from dicomnode.instances import UnreadableError, reports
from dicomnode.network.progress import Pace, Progress, regulate
from dicomnode.network.requesting import (
    UNCOMPRESSED,
    Call,
    ConnectError,
    Proposal,
    called,
    cut_off,
)
from dicomnode.network.sockets import VERIFICATION

__all__ = ["ConnectError", "StorageAssociation", "associate"]

log = logging.getLogger(__name__)

OnReport = Callable[[CommitmentReport], int]
_config.STORE_SEND_CHUNKED_DATASET = True  # files go out in pieces, never read whole or re-encoded


def _never() -> bool:
    return False


class StorageAssociation:
    """An established association as the requestor.

    Args:
        association: of pynetdicom.
        timeout_seconds: for how long nothing may move.
        pace: of what is sent.
        is_stopping: whether the node is to stop; what is under way is then soon cut off.
    """

    def __init__(
        self,
        association: Any,
        timeout_seconds: float,
        pace: Pace,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._association = association
        self._timeout_seconds = timeout_seconds
        self._is_stopping = is_stopping
        self._progress: Progress | None = None
        regulate(association, pace, lambda: self._progress)

    @property
    def is_alive(self) -> bool:
        """Whether it can still be used."""
        return bool(self._association.is_established) and self._association.dul.is_alive()

    @property
    def tls(self) -> str | None:
        """The version of TLS and the cipher suite; None: there is no TLS."""
        transport = getattr(self._association.dul.socket, "socket", None)
        if not isinstance(transport, ssl.SSLSocket):
            return None
        cipher = transport.cipher()
        return f"{transport.version()}, {cipher[0] if cipher else '-'}"

    def takes(self, sop_class: str, transfer_syntax: str) -> bool:
        """Whether the peer accepted a Presentation Context for the pair."""
        return any(
            context.abstract_syntax == sop_class and transfer_syntax in context.transfer_syntax
            for context in self._association.accepted_contexts
        )

    def store(
        self,
        path: Path,
        sop_class: str,
        transfer_syntax: str,
        patience_seconds: float | None = None,
    ) -> tuple[Outcome, int | None]:
        """Send a DICOM file as it is.

        Args:
            path: the file.
            sop_class: its SOP Class.
            transfer_syntax: its transfer syntax.
            patience_seconds: for how long nothing may move, if not for the association's time.

        Returns:
            What it came to, and the status of the response if there was one.
        """
        if not self.takes(sop_class, transfer_syntax):
            return (
                Refuse("CONTEXT_REFUSED", "the destination does not accept this SOP class"),
                None,
            )
        try:
            with self._watched(patience_seconds or self._timeout_seconds):
                status = self._association.send_c_store(path)
        except RuntimeError as error:
            return Retry(
                "ABORTED", f"the association ended before the object was sent: {error}"
            ), None
        if "Status" not in status:
            return Retry("NO_RESPONSE", "the association ended without an answer"), None
        return classify_store_status(status.Status), int(status.Status)

    @contextmanager
    def _watched(self, patience_seconds: float) -> Iterator[None]:
        """Wait as long as something moves, instead of for so long in all."""
        association = self._association
        self._progress = Progress(association, patience_seconds, self._is_stopping)
        connection = association.dul.socket
        association.dimse_timeout = None
        association.network_timeout = None
        _limit(connection, None)

        progress = self._progress

        def is_over() -> bool:
            if not progress.is_over():
                return False
            # Whoever waits for the response goes on, even where the connection is gone already.
            association.dimse.msg_queue.put((None, None))
            return True

        try:
            with cut_off(association, is_over):
                yield
        finally:
            self._progress = None
            association.dimse_timeout = self._timeout_seconds
            association.network_timeout = self._timeout_seconds
            _limit(connection, self._timeout_seconds)

    def request_commitment(
        self, transaction_uid: str, references: Sequence[tuple[str, str]]
    ) -> Done | Retry | Refuse:
        """Ask the peer to commit to keep instances (PS3.4 J.3.2); `Done`: it will report.

        Args:
            transaction_uid: by which the report names the request.
            references: SOP Class and SOP Instance UIDs.
        """
        taken = {one.abstract_syntax for one in self._association.accepted_contexts}
        if PUSH_MODEL not in taken:
            return Refuse("CONTEXT_REFUSED", "the destination offers no storage commitment")
        information = reports.request(transaction_uid, references)
        try:
            status, _ = self._association.send_n_action(
                information, REQUEST, PUSH_MODEL, PUSH_MODEL_INSTANCE
            )
        except (RuntimeError, ValueError) as error:
            return Retry("ABORTED", f"the association ended before it was asked: {error}")
        if "Status" not in status:
            return Retry("NO_RESPONSE", "no answer to the request for storage commitment")
        if status.Status == 0x0000:
            return Done()
        detail = "the destination refused the request for storage commitment"
        return classify_action_status(int(status.Status), detail)

    def echo(self) -> Outcome:
        """Ask for Verification."""
        status = self._association.send_c_echo()
        if "Status" not in status:
            return Retry("NO_RESPONSE", "no answer to C-ECHO")
        if status.Status != 0x0000:
            return Refuse(f"STATUS_{status.Status:04X}", "C-ECHO failed")
        return Done()


def _report(event: Any, on_report: OnReport) -> tuple[int, None]:
    try:
        report = reports.read(event.event_information)
    except UnreadableError as error:
        log.warning("REPORT_UNREADABLE", extra={"fields": {"detail": str(error)}})
        return PROCESSING_FAILURE, None
    return on_report(report), None


def _limit(connection: Any, seconds: float | None) -> None:
    with contextlib.suppress(OSError, AttributeError):  # the association may have ended
        connection.socket.settimeout(seconds)


@contextmanager
def associate(
    *,
    calling_ae: str,
    called_ae: str,
    host: str,
    port: int,
    contexts: Iterable[tuple[str, str]],
    timeout_seconds: float,
    tls: PeerTls | None = None,
    pace: Pace | None = None,
    is_stopping: Callable[[], bool] = _never,
    on_report: OnReport | None = None,
) -> Iterator[StorageAssociation]:
    """Open an association, and release it at the end of the block.

    Args:
        contexts: (abstract syntax, transfer syntax) pairs to propose, each as a Presentation
            Context of its own; Verification is always proposed beside them.
        tls: connect with TLS, so.
        pace: of what is sent; none: as fast as it goes.
        is_stopping: whether the node is to stop.
        on_report: takes reports on storage commitment that come over this association, and gives
            the status of the answer; without it commitment is not proposed.

    Raises:
        ConnectError: no association came about.
    """
    call = Call(
        calling_ae=calling_ae,
        called_ae=called_ae,
        host=host,
        port=port,
        timeout_seconds=timeout_seconds,
        tls=tls,
    )
    proposals = [
        Proposal(abstract_syntax=abstract_syntax, transfer_syntaxes=(transfer_syntax,))
        for abstract_syntax, transfer_syntax in contexts
    ]
    # With this the association comes about even where every storage class is refused.
    proposals.append(Proposal(abstract_syntax=VERIFICATION, transfer_syntaxes=UNCOMPRESSED))
    handlers: list[tuple[Any, ...]] = []
    if on_report is not None:
        proposals.append(Proposal(abstract_syntax=PUSH_MODEL, transfer_syntaxes=UNCOMPRESSED))
        handlers.append((evt.EVT_N_EVENT_REPORT, _report, [on_report]))
    with called(call, proposals, handlers) as association:
        yield StorageAssociation(association, timeout_seconds, pace or Pace(None), is_stopping)
