"""Storage and Verification SCP: hands every C-STORE's raw bytes to a `Reception`."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any, Protocol

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.pdu_primitives import A_RELEASE

from dicomnode.errors import DicomnodeError
from dicomnode.network.sockets import VERIFICATION, no_delay

log = logging.getLogger(__name__)

BIND_ATTEMPTS_SECONDS = 10.0
RETIRED_TRANSFER_SYNTAXES = tuple(
    f"1.2.840.10008.1.2.4.{number}" for number in (52, 53, 54, 55, 56, *range(58, 67))
)
"""JPEG processes that DICOM retired in 2001 (PS3.6 annex A): archives still hold such instances,
and what arrives is kept, whether it can be decoded or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requestor:
    """Who asks for an association."""

    calling_ae: str
    called_ae: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """One C-STORE request."""

    association_id: int | None
    sop_class_uid: str
    """Affected SOP Class UID."""
    sop_instance_uid: str
    """Affected SOP Instance UID."""
    transfer_syntax_uid: str
    data: bytes
    """The data set as encoded, without File Meta Information."""
    requestor: Requestor


class Reception(Protocol):
    """What stands behind the SCP. Its methods are called from one thread an association."""

    def opened(self, requestor: Requestor) -> int | None:
        """An association was established; return its id in the ledger."""

    def store(self, request: StoreRequest) -> int:
        """Store an instance and return the DICOM status."""

    def closed(self, association_id: int, *, outcome: str, instances: int, size: int) -> None:
        """An association ended: RELEASED or ABORTED."""

    def rejected(self, requestor: Requestor) -> None:
        """An association was rejected."""


@dataclass(slots=True)
class _Open:
    id: int | None
    outcome: str = "ABORTED"
    instances: int = 0
    size: int = 0


class StorageServer:
    """An SCP that accepts every storage class in every transfer syntax, from known AE titles."""

    def __init__(
        self,
        reception: Reception,
        *,
        ae_title: str,
        bind: str,
        port: int,
        calling_ae_titles: tuple[str, ...],
        max_associations: int,
        max_pdu_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self._reception = reception
        self._open: dict[int, _Open] = {}
        self._address = (bind, port)
        self._ae = AE(ae_title=ae_title)
        self._ae.require_called_aet = True
        # An empty list would let everybody in; a title that nobody knows lets nobody in.
        self._ae.require_calling_aet = list(calling_ae_titles) or [secrets.token_hex(8)]
        self._ae.maximum_associations = max_associations
        self._ae.maximum_pdu_size = max_pdu_bytes
        self._ae.network_timeout = timeout_seconds
        self._ae.acse_timeout = timeout_seconds
        self._ae.dimse_timeout = timeout_seconds
        syntaxes = [*ALL_TRANSFER_SYNTAXES, *RETIRED_TRANSFER_SYNTAXES]
        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(str(context.abstract_syntax), syntaxes)
        self._ae.add_supported_context(VERIFICATION)
        self._server: Any = None

    @property
    def open_associations(self) -> int:
        """How many associations are established now."""
        return len(self._open)

    def start(self) -> None:
        """Listen; returns at once.

        Raises:
            DicomnodeError: the port is taken and stays so (a predecessor may need a moment to go).
        """
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, no_delay),
            (evt.EVT_ESTABLISHED, self._established),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_ACSE_RECV, self._acse),
            (evt.EVT_CONN_CLOSE, self._closed),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, lambda _event: 0x0000),
        ]
        deadline = time.monotonic() + BIND_ATTEMPTS_SECONDS
        while True:
            try:
                self._server = self._ae.start_server(
                    self._address, block=False, evt_handlers=handlers
                )
            except OSError as error:
                if time.monotonic() > deadline:
                    host, port = self._address
                    raise DicomnodeError(f"cannot listen on {host}:{port}: {error}") from error
                time.sleep(0.2)
            else:
                return

    def stop(self, grace_seconds: float) -> None:
        """Accept nothing new, let open associations end, abort those that do not in time."""
        if self._server is None:
            return
        self._server.shutdown()
        deadline = time.monotonic() + grace_seconds
        while self._open and time.monotonic() < deadline:
            time.sleep(0.05)
        self._ae.shutdown()

    def _established(self, event: Any) -> None:
        self._open[id(event.assoc)] = _Open(self._reception.opened(_requestor(event)))

    def _rejected(self, event: Any) -> None:
        self._reception.rejected(_requestor(event))

    def _acse(self, event: Any) -> None:
        state = self._open.get(id(event.assoc))
        if state is not None and isinstance(event.primitive, A_RELEASE):
            state.outcome = "RELEASED"

    def _closed(self, event: Any) -> None:
        state = self._open.pop(id(event.assoc), None)
        if state is not None and state.id is not None:
            self._reception.closed(
                state.id, outcome=state.outcome, instances=state.instances, size=state.size
            )

    def _store(self, event: Any) -> int:
        state = self._open.get(id(event.assoc)) or _Open(None)
        data = event.request.DataSet.getvalue() if event.request.DataSet is not None else b""
        status = self._reception.store(
            StoreRequest(
                association_id=state.id,
                sop_class_uid=str(event.request.AffectedSOPClassUID),
                sop_instance_uid=str(event.request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                data=data,
                requestor=_requestor(event),
            )
        )
        if status == 0x0000:
            state.instances += 1
            state.size += len(data)
        return status


def _requestor(event: Any) -> Requestor:
    peer = event.assoc.requestor
    primitive = peer.primitive
    return Requestor(
        calling_ae=str(primitive.calling_ae_title).strip() if primitive else "",
        called_ae=str(primitive.called_ae_title).strip() if primitive else "",
        address=str(peer.address),
    )
