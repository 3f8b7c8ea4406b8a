"""Storage and Verification SCU: one association to a peer, files sent as their bytes are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pynetdicom import AE, _config, evt

from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry, classify_store_status
from dicomnode.network.sockets import VERIFICATION, no_delay

log = logging.getLogger(__name__)

_config.STORE_SEND_CHUNKED_DATASET = True  # files go out in pieces, never read whole or re-encoded


class ConnectError(Exception):
    """There is no association; `code` says why: NO_CONNECTION, ASSOCIATION_REJECTED, ABORTED."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class StorageAssociation:
    """An established association as the requestor."""

    def __init__(self, association: Any) -> None:
        self._association = association

    @property
    def is_alive(self) -> bool:
        """Whether it can still be used."""
        return bool(self._association.is_established)

    def takes(self, sop_class: str, transfer_syntax: str) -> bool:
        """Whether the peer accepted a Presentation Context for the pair."""
        return any(
            context.abstract_syntax == sop_class and transfer_syntax in context.transfer_syntax
            for context in self._association.accepted_contexts
        )

    def store(self, path: Path, sop_class: str, transfer_syntax: str) -> tuple[Outcome, int | None]:
        """Send a DICOM file as it is.

        Returns:
            What it came to, and the status of the response if there was one.
        """
        if not self.takes(sop_class, transfer_syntax):
            return (
                Refuse("CONTEXT_REFUSED", "the destination does not accept this SOP class"),
                None,
            )
        try:
            status = self._association.send_c_store(path)
        except RuntimeError as error:
            return Retry(
                "ABORTED", f"the association ended before the object was sent: {error}"
            ), None
        if "Status" not in status:
            return Retry("NO_RESPONSE", "the association ended without an answer"), None
        return classify_store_status(status.Status), int(status.Status)

    def echo(self) -> Outcome:
        """Ask for Verification."""
        status = self._association.send_c_echo()
        if "Status" not in status:
            return Retry("NO_RESPONSE", "no answer to C-ECHO")
        if status.Status != 0x0000:
            return Refuse(f"STATUS_{status.Status:04X}", "C-ECHO failed")
        return Done()


@contextmanager
def associate(
    *,
    calling_ae: str,
    called_ae: str,
    host: str,
    port: int,
    contexts: Iterable[tuple[str, str]],
    timeout_seconds: float,
) -> Iterator[StorageAssociation]:
    """Open an association, and release it at the end of the block.

    Args:
        contexts: (abstract syntax, transfer syntax) pairs to propose, each as a Presentation
            Context of its own; Verification is always proposed beside them.

    Raises:
        ConnectError: no association came about.
    """
    ae = AE(ae_title=calling_ae)
    ae.connection_timeout = timeout_seconds
    ae.acse_timeout = timeout_seconds
    ae.dimse_timeout = timeout_seconds
    ae.network_timeout = timeout_seconds
    for abstract_syntax, transfer_syntax in contexts:
        ae.add_requested_context(abstract_syntax, transfer_syntax)
    # With this the association comes about even where every storage class is refused.
    ae.add_requested_context(VERIFICATION)
    connected = threading.Event()
    handlers: list[Any] = [
        (evt.EVT_CONN_OPEN, no_delay),
        (evt.EVT_CONN_OPEN, lambda _event: connected.set()),
    ]
    try:
        association = ae.associate(
            host, port, ae_title=called_ae, max_pdu=131072, evt_handlers=handlers
        )
    except OSError as error:
        raise ConnectError("NO_CONNECTION", f"the peer's name is not known: {error}") from error
    if not association.is_established:
        raise _why_not(association, connected.is_set())
    try:
        yield StorageAssociation(association)
    finally:
        if association.is_established:
            association.release()


def _why_not(association: Any, connected: bool) -> ConnectError:
    if not connected:
        return ConnectError("NO_CONNECTION", "the peer cannot be reached")
    if association.is_rejected:
        answer = association.acceptor.primitive
        reason = f"{answer.result_str}, {answer.source_str}: {answer.reason_str}"
        return ConnectError("ASSOCIATION_REJECTED", f"the peer rejected the association ({reason})")
    return ConnectError("ABORTED", "the peer aborted, or did not answer as a DICOM peer does")
