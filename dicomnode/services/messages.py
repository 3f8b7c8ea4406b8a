"""What an acceptor process and the receive role say to each other, over sockets of their own.

An association has a socket pair: the acceptor's thread writes a message and, where one is due,
waits for the answer. Both ends belong to one node and one user; nothing that a peer has sent is
unpickled, only what was read from it.
"""

from __future__ import annotations

import pickle
import socket
from dataclasses import dataclass, field
from typing import Any, Protocol

from dicomnode.domain.admission import Decision
from dicomnode.domain.associations import AssociationRequest, Rejected
from dicomnode.domain.commitment import CommitmentReport
from dicomnode.domain.packing import Packed
from dicomnode.domain.records import Header
from dicomnode.domain.security import ServerTls
from dicomnode.network.association import Outcome, Terms

PART_BYTES = 1 << 16
"""A message goes in parts of so many bytes: the kernel takes no packet of any size, and a rejection
note may name ten thousand instances."""
_MORE, _LAST = b"+", b"."
ABORT, OWING, PAID = b"abort", b"owing", b"paid"
"""To an acceptor: abort whatever is open; rows cannot be written; they can be again."""
WORD_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptorPlan:
    """What an acceptor process works by."""

    spool_root: str
    node_id: str
    ledger_url: str = field(repr=False)
    """There may be a password in it."""
    patient_key: bytes
    terms: Terms
    plain: int | None
    """File descriptor of the listening socket without TLS."""
    secured: int | None
    """File descriptor of the one with TLS."""
    tls: ServerTls | None
    min_free_bytes: int
    max_instance_bytes: int


@dataclass(frozen=True, slots=True)
class Ask:
    """May this association come about? Answered by `Welcome` or `Rejected`."""

    request: AssociationRequest


@dataclass(frozen=True, slots=True)
class Welcome:
    """It may."""

    association_id: int | None = None
    """Of the association's row in the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store(Packed):
    """An instance whose bytes are synchronised. Answered by `Decision` or `Compare`."""

    header: Header
    sop_class_uid: str
    """Of the request; likewise the next."""
    sop_instance_uid: str
    digest: str
    size: int
    """Of the data set."""
    tmp: str
    """The file, in the role's folder for what is unfinished."""
    compared: bool = False
    """Whether `same_image` was found out, as far as it can be."""
    same_image: bool | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """An instance whose peer heard Success: its sealed file will get its row. Not answered."""

    store: Store


@dataclass(frozen=True, slots=True)
class StoredAll:
    """Several of those, in their order."""

    stores: tuple[Store, ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """Answered by `Settled` once whatever was `Stored` has its row, if it can have one now."""


@dataclass(frozen=True, slots=True)
class Settled:
    """It has."""


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare the instance with this file, relative to the spool, and ask again."""

    path: str
    decode: bool
    """Whether their pixels are encoded differently; else only the frames' places are compared."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that brings no instance: refused, or set aside. Answered by its `Decision`."""

    header: Header | None
    decision: Decision
    size: int
    """Of the data set."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A report on storage commitment. Answered by the status that the peer hears."""

    report: CommitmentReport


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for storage commitment. Answered by the status that the peer hears."""

    transaction_uid: str
    references: tuple[tuple[str, str], ...]
    """SOP Class and SOP Instance UIDs."""


@dataclass(frozen=True, slots=True)
class Unproven:
    """A connection in which a peer did not prove by TLS who it is. Not answered."""

    address: str
    detail: str


@dataclass(frozen=True, slots=True)
class Leave:
    """The association has ended. Not answered."""

    outcome: Outcome


Message = Ask | Store | Stored | StoredAll | Settle | Note | Reported | Wanted | Unproven | Leave
Reply = Welcome | Rejected | Decision | Compare | Settled | int


class Line(Protocol):
    """A connection's line to the desk: one message at a time."""

    def ask(self, message: Message) -> Any:
        """Say something and wait for the reply.

        Raises:
            GoneError: the desk is no more.
        """

    def stored(self, store: Store) -> None:
        """Have said that a new instance is sealed: soon, and before anything else that is said.

        It gets its row soon; if this process dies before, when the desk looks for such files.
        """

    def leave(self, outcome: Outcome) -> None:
        """Say that the association has ended; it is the last thing said."""


class GoneError(Exception):
    """The other end is no more."""


def send(to: socket.socket, message: object) -> None:
    """Send a message.

    Raises:
        GoneError: nobody is there to take it.
    """
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    try:
        while len(data) > PART_BYTES:
            to.send(_MORE + data[:PART_BYTES])
            data = data[PART_BYTES:]
        to.send(_LAST + data)
    except OSError as error:
        raise GoneError from error


def receive(source: socket.socket) -> Any:
    """Receive a message; waits for it if the socket does.

    Raises:
        GoneError: none will come.
    """
    parts: list[bytes] = []
    while not parts or parts[-1][:1] == _MORE:
        try:
            part = source.recv(PART_BYTES + 1)
        except OSError as error:
            raise GoneError from error
        if not part:
            raise GoneError
        parts.append(part)
    data = b"".join(part[1:] for part in parts)
    return pickle.loads(data)  # noqa: S301 - from this node's own process, see above
