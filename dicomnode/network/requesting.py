"""One place where this node calls a peer: the association, its sockets, its limits in time.

What is asked over it is elsewhere: storage in scu.py, queries in query.py.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE, _config, build_role, evt
from pynetdicom.pdu import A_ASSOCIATE_RJ

from dicomnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.domain.security import PeerTls
from dicomnode.network import tls
from dicomnode.network.sockets import no_delay

_config.LOG_REQUEST_IDENTIFIERS = False  # they hold patients
_config.LOG_RESPONSE_IDENTIFIERS = False

MAX_PDU_BYTES = 131072
UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
"""Explicit and Implicit VR Little Endian."""
LOOK_EVERY_SECONDS = 0.2


class ConnectError(Exception):
    """There is no association; `code` says why.

    NO_CONNECTION, TLS_FAILED, ASSOCIATION_REJECTED, ABORTED.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Whom to call, and as whom."""

    calling_ae: str
    called_ae: str
    host: str
    port: int
    timeout_seconds: float
    """For connecting, and for every answer."""
    tls: PeerTls | None
    """Connect with TLS, so; required, so that nobody forgets it and speaks in the clear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A Presentation Context to propose."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    """In one context the peer takes one of them."""
    as_scp: bool = False
    """The node is the SCP of it although it calls, as for Storage in C-GET (PS3.7 D.3.3.4)."""


@contextmanager
def called(
    call: Call, proposals: Sequence[Proposal], handlers: Sequence[tuple[Any, ...]] = ()
) -> Iterator[Any]:
    """Open an association, and release it at the end of the block.

    Raises:
        ConnectError: no association came about.
    """
    ae = AE(ae_title=call.calling_ae)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = call.timeout_seconds
    ae.acse_timeout = call.timeout_seconds
    ae.dimse_timeout = call.timeout_seconds
    ae.network_timeout = call.timeout_seconds
    for proposal in proposals:
        ae.add_requested_context(proposal.abstract_syntax, list(proposal.transfer_syntaxes))
    connected = threading.Event()
    failed: list[BaseException] = []
    rejected: list[A_ASSOCIATE_RJ] = []

    def received(event: Any) -> None:
        # Who rejects and closes at once is taken by pynetdicom for one that was never there.
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            rejected.append(event.pdu)

    def opened(event: Any) -> None:
        no_delay(event)
        event.assoc._reactor_checkpoint = Gate(event.assoc)
        # A peer that stops in the midst of a PDU would otherwise hold the thread for ever.
        event.assoc.dul.socket.socket.settimeout(call.timeout_seconds)
        connected.set()

    try:
        association = ae.associate(
            call.host,
            call.port,
            ae_title=call.called_ae,
            max_pdu=MAX_PDU_BYTES,
            ext_neg=_roles(proposals),
            evt_handlers=[
                (evt.EVT_CONN_OPEN, opened),
                (evt.EVT_PDU_RECV, received),
                *handlers,
            ],
            tls_args=_secured(call, failed),
        )
    except OSError as error:
        raise ConnectError("NO_CONNECTION", f"the peer's name is not known: {error}") from error
    if not association.is_established:
        raise _why_not(connected.is_set(), failed, rejected)
    association.unbind(evt.EVT_PDU_RECV, received)
    try:
        yield association
    finally:
        _part(association)


def _part(association: Any) -> None:
    """Release an association, if it still is one."""
    if not association.is_established:
        return
    if association.dul.is_alive():
        association.release()
        return
    association.kill()  # nobody would send the request, and nobody hear the reply
    with contextlib.suppress(AttributeError):  # there may be no socket any more
        association.dul.socket.close()


class Gate:
    """Where an association's own thread stands still while another one reads the responses.

    In place of pynetdicom's event: who clears that one asks a flag whether the thread stands still,
    and the flag may be of the last time. The thread then takes the next message from the queue,
    and a response is lost: an answer to a query, or an instance of a C-GET. Here it is asked for
    and answered under one lock.
    """

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread
        self._changed = threading.Condition()
        self._is_open = True
        self._stands = False

    def wait(self, timeout: float | None = None) -> bool:
        """Stand still while the gate is closed; called by the association's own thread."""
        with self._changed:
            while not self._is_open:
                self._stands = True
                self._changed.notify_all()
                if not self._changed.wait(timeout):
                    break
            self._stands = False
            return self._is_open

    def set(self) -> None:
        """Open the gate."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def is_set(self) -> bool:
        return self._is_open

    def clear(self) -> None:
        """Close the gate, and wait until the thread stands at it or has ended."""
        with self._changed:
            self._is_open = False
            if threading.current_thread() is self._thread:
                return
            while not (self._stands or self._is_open) and self._thread.is_alive():
                self._changed.wait(0.05)


def _roles(proposals: Sequence[Proposal]) -> list[Any]:
    classes = dict.fromkeys(item.abstract_syntax for item in proposals if item.as_scp)
    return [build_role(uid, scp_role=True) for uid in classes]


def _secured(call: Call, failed: list[BaseException]) -> tuple[ssl.SSLContext, str] | None:
    """Return what pynetdicom needs for TLS; why a handshake fails is put into `failed`."""
    if call.tls is None:
        return None
    try:
        # Made anew for every call: a renewed certificate is used at once.
        context = tls.client_context(call.tls)
    except tls.TlsError as error:
        raise ConnectError("TLS_FAILED", str(error)) from error
    tls.remembering(context, failed.append)
    return context, call.tls.server_name or call.host


def _why_not(
    connected: bool, failed: Sequence[BaseException], rejected: Sequence[A_ASSOCIATE_RJ]
) -> ConnectError:
    if failed:
        return ConnectError("TLS_FAILED", f"no TLS with the peer: {tls.explain(failed[0])}")
    if not connected:
        return ConnectError("NO_CONNECTION", "the peer cannot be reached")
    for answer in rejected:
        reason = f"{answer.result_str}, {answer.source_str}: {answer.reason_str}"
        return ConnectError("ASSOCIATION_REJECTED", f"the peer rejected the association ({reason})")
    return ConnectError("ABORTED", "the peer aborted, or did not answer as a DICOM peer does")


@contextmanager
def cut_off(association: Any, when: Callable[[], bool]) -> Iterator[None]:
    """Cut the connection as soon as `when()` is true, whatever waits on it in the block."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_EVERY_SECONDS):
            if when():
                transport = association.dul.socket
                with contextlib.suppress(OSError, AttributeError):  # it may be gone by itself
                    transport.socket.shutdown(socket.SHUT_RDWR)
                return

    watcher = threading.Thread(target=watch, name="cut-off", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
