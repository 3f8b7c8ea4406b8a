"""Storage and Verification SCU: one association to a peer, files sent as their bytes are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pynetdicom import _config

from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry, classify_store_status
from dicomnode.domain.security import PeerTls
from dicomnode.network.requesting import UNCOMPRESSED, Call, ConnectError, Proposal, called
from dicomnode.network.sockets import VERIFICATION

__all__ = ["ConnectError", "StorageAssociation", "associate"]

_config.STORE_SEND_CHUNKED_DATASET = True  # files go out in pieces, never read whole or re-encoded


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
    tls: PeerTls | None = None,
) -> Iterator[StorageAssociation]:
    """Open an association, and release it at the end of the block.

    Args:
        contexts: (abstract syntax, transfer syntax) pairs to propose, each as a Presentation
            Context of its own; Verification is always proposed beside them.
        tls: connect with TLS, so.

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
    with called(call, proposals) as association:
        yield StorageAssociation(association)
