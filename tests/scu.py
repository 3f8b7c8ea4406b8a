"""An SCU that sends bytes as they are, whatever they are: what no well-behaved library would."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pydicom
from peers import HOST
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from dicomnode import instances
from dicomnode.network.requesting import Gate
from dicomnode.network.sockets import VERIFICATION, no_delay


@dataclass(frozen=True, slots=True)
class Wire:
    """One instance as a C-STORE request carries it; every part may be a lie."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes = field(repr=False)

    @classmethod
    def of_file(cls, data: bytes) -> Wire:
        """Split a DICOM file into what goes over the network; the data set's bytes stay as is."""
        syntax, start = instances.split_file(data)
        meta = pydicom.dcmread(BytesIO(data), stop_before_pixels=True, force=True)
        return cls(
            sop_class_uid=str(meta.get("SOPClassUID") or meta.file_meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(
                meta.get("SOPInstanceUID") or meta.file_meta.MediaStorageSOPInstanceUID
            ),
            transfer_syntax_uid=syntax,
            data=data[start:],
        )


class RejectedError(Exception):
    """The association was rejected (PS3.8 9.3.4): result, source, reason."""

    def __init__(self, result: int, source: int, reason: int) -> None:
        super().__init__(result, source, reason)
        self.codes = (result, source, reason)


class Scu:
    """An established association that stores bytes without looking at them."""

    def __init__(self, association: Association) -> None:
        self.association = association

    def store(self, wire: Wire) -> int | None:
        """Store an instance; return the status, or None where no answer came."""
        request = C_STORE()
        request.MessageID = 1
        request.Priority = 2
        request.AffectedSOPClassUID = UID(wire.sop_class_uid)
        request.AffectedSOPInstanceUID = UID(wire.sop_instance_uid)
        request.DataSet = BytesIO(wire.data)
        context = next(
            context
            for context in self.association.accepted_contexts
            if context.abstract_syntax == wire.sop_class_uid
            and context.transfer_syntax[0] == wire.transfer_syntax_uid
        )
        # As pynetdicom's send_c_store does, which would decode and judge the data set first.
        self.association._reactor_checkpoint.clear()
        try:
            self.association.dimse.send_msg(request, context.context_id or 0)
            _, response = self.association.dimse.get_msg(block=True)
        finally:
            self.association._reactor_checkpoint.set()
        return response.Status if isinstance(response, C_STORE) else None

    def echo(self) -> int:
        """Ask for Verification; return the status."""
        return int(self.association.send_c_echo().Status)


@contextmanager
def scu(
    port: int,
    wires: Iterable[Wire] = (),
    *,
    calling: str = "MODALITY",
    called: str = "DICOMNODE",
    timeout: float = 30.0,
) -> Iterator[Scu]:
    """Open an association that proposes what `wires` need, and Verification.

    Raises:
        RejectedError: the peer rejected it.
    """
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout
    for pair in sorted({(wire.sop_class_uid, wire.transfer_syntax_uid) for wire in wires}):
        ae.add_requested_context(*pair)
    ae.add_requested_context(VERIFICATION)
    association = ae.associate(
        HOST, port, ae_title=called, evt_handlers=[(evt.EVT_CONN_OPEN, opened)]
    )
    answer: Any = association.acceptor.primitive if association.is_rejected else None
    if answer is None and not association.is_established:
        # On a busy machine the answer can be there, and the connection closed, before pynetdicom
        # looks whether there is a connection; then it leaves the answer lying.
        answer = association.dul.receive_pdu(wait=False)
    if getattr(answer, "diagnostic", None) is not None:
        raise RejectedError(answer.result, answer.result_source, answer.diagnostic)
    assert association.is_established, "no association"
    try:
        yield Scu(association)
    finally:
        if association.is_established:
            association.release()


def opened(event: Any) -> None:
    """Make a connection of pynetdicom's that has just opened fast and sure (`EVT_CONN_OPEN`)."""
    no_delay(event)
    event.assoc._reactor_checkpoint = Gate(event.assoc)  # with pynetdicom's own, answers get lost


def store(port: int, *wires: Wire, **keywords: Any) -> list[int | None]:
    """Store instances over one association; return their statuses."""
    with scu(port, wires, **keywords) as requestor:
        return [requestor.store(wire) for wire in wires]
