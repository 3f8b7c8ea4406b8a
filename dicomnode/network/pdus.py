"""The PDUs of the DICOM Upper Layer Protocol as an acceptor meets them (PS3.8 section 9.3).

Bytes in, frozen records out, and back; strict about lengths, because whoever connects may send
anything. No socket, no state, no decision.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dicomnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.domain.associations import APPLICATION_CONTEXT
from dicomnode.network.contexts import COMMITMENT, AnsweredContext, ProposedContext

ASSOCIATE_RQ = 0x01
ASSOCIATE_AC = 0x02
ASSOCIATE_RJ = 0x03
P_DATA = 0x04
RELEASE_RQ = 0x05
RELEASE_RP = 0x06
ABORT = 0x07

HEADER_BYTES = 6
RELEASE_BYTES = 4
MAX_ASSOCIATE_BYTES = 1 << 20
"""Of an A-ASSOCIATE-RQ: 128 Presentation Contexts with every transfer syntax there is take less."""
MAX_CONTEXTS = 128
"""Their ids are the odd numbers of a byte (PS3.8 9.3.2.2)."""
MAX_TRANSFER_SYNTAXES = 256
"""Of one Presentation Context."""

# Sources and reasons of A-ABORT (PS3.8 table 9-26); a service user gives no reason.
SERVICE_USER = 0
SERVICE_PROVIDER = 2
REASON_NOT_SPECIFIED = 0
UNRECOGNIZED_PDU = 1
UNEXPECTED_PDU = 2
INVALID_PARAMETER = 6

_APPLICATION_CONTEXT_ITEM = 0x10
_PROPOSED_CONTEXT_ITEM = 0x20
_ACCEPTED_CONTEXT_ITEM = 0x21
_ABSTRACT_SYNTAX_ITEM = 0x30
_TRANSFER_SYNTAX_ITEM = 0x40
_USER_INFORMATION_ITEM = 0x50
_MAXIMUM_LENGTH_ITEM = 0x51
_IMPLEMENTATION_CLASS_ITEM = 0x52
_ROLES_ITEM = 0x54
_IMPLEMENTATION_VERSION_ITEM = 0x55


class MalformedPduError(ValueError):
    """A PDU does not have the structure that PS3.8 section 9.3 gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ."""

    protocol_version: int
    called_ae: str
    calling_ae: str
    titles: bytes
    """Both AE titles and what is reserved behind them, to be sent back as they are."""
    application_context: str
    contexts: tuple[ProposedContext, ...]
    max_pdu_bytes: int
    """The longest P-DATA-TF the requestor takes; 0 where it sets no limit."""
    implementation_class_uid: str
    implementation_version: str
    roles: tuple[bytes, ...] = ()
    """SCP/SCU Role Selections, as they came (PS3.7 D.3.3.4)."""


def decode_associate_request(body: bytes) -> AssociateRequest:
    """Decode what follows the header of an A-ASSOCIATE-RQ (PS3.8 9.3.2).

    Raises:
        MalformedPduError: it is none.
    """
    if len(body) < 68:
        raise MalformedPduError("an A-ASSOCIATE-RQ is at least 68 bytes long")
    (version,) = struct.unpack_from(">H", body)
    application = ""
    contexts: dict[int, ProposedContext] = {}
    user: dict[int, bytes] = {}
    roles: list[bytes] = []
    for kind, value in _items(body, 68):
        if kind == _APPLICATION_CONTEXT_ITEM:
            application = _uid(value)
        elif kind == _PROPOSED_CONTEXT_ITEM:
            context = _proposed(value)
            if context.id in contexts:
                raise MalformedPduError("a Presentation Context ID stands twice")
            contexts[context.id] = context
        elif kind == _USER_INFORMATION_ITEM:
            items = list(_items(value, 0))
            user = dict(items)
            roles += [role for kind_of_item, role in items if kind_of_item == _ROLES_ITEM]
    longest = user.get(_MAXIMUM_LENGTH_ITEM, b"\0\0\0\0")
    if len(longest) != 4:
        raise MalformedPduError("the maximum length is not 4 bytes long")
    return AssociateRequest(
        protocol_version=version,
        called_ae=_title(body[4:20]),
        calling_ae=_title(body[20:36]),
        titles=bytes(body[4:68]),
        application_context=application,
        contexts=tuple(contexts.values()),
        max_pdu_bytes=int.from_bytes(longest, "big"),
        implementation_class_uid=_uid(user.get(_IMPLEMENTATION_CLASS_ITEM, b"")),
        implementation_version=_title(user.get(_IMPLEMENTATION_VERSION_ITEM, b"")),
        roles=tuple(roles),
    )


def encode_associate_accept(
    request: AssociateRequest, results: Iterable[AnsweredContext], max_pdu_bytes: int
) -> bytes:
    """Encode an A-ASSOCIATE-AC (PS3.8 9.3.3).

    No asynchronous operations window is answered, so the default holds: one operation at a time
    (PS3.7 D.3.3.3). Roles are accepted as proposed for storage commitment, whose SCP calls to
    report; for all else the default holds: the requestor is the SCU (PS3.7 D.3.3.4).
    """
    items = [_item(_APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT.encode())]
    for context in results:
        syntax = _item(_TRANSFER_SYNTAX_ITEM, context.transfer_syntax.encode())
        head = struct.pack(">BxBx", context.id, context.result)
        items.append(_item(_ACCEPTED_CONTEXT_ITEM, head + syntax))
    user = [
        _item(_MAXIMUM_LENGTH_ITEM, struct.pack(">I", max_pdu_bytes)),
        _item(_IMPLEMENTATION_CLASS_ITEM, IMPLEMENTATION_CLASS_UID.encode()),
        _item(_IMPLEMENTATION_VERSION_ITEM, IMPLEMENTATION_VERSION_NAME.encode()),
    ]
    user += [_item(_ROLES_ITEM, role) for role in request.roles if _of_role(role) == COMMITMENT]
    items.append(_item(_USER_INFORMATION_ITEM, b"".join(user)))
    return _pdu(ASSOCIATE_AC, struct.pack(">HH", 1, 0) + request.titles + b"".join(items))


def encode_associate_reject(result: int, source: int, reason: int) -> bytes:
    """Encode an A-ASSOCIATE-RJ (PS3.8 9.3.4, table 9-21)."""
    return _pdu(ASSOCIATE_RJ, bytes((0, result, source, reason)))


def encode_release_reply() -> bytes:
    """Encode an A-RELEASE-RP (PS3.8 9.3.7)."""
    return _pdu(RELEASE_RP, bytes(4))


def encode_abort(source: int, reason: int) -> bytes:
    """Encode an A-ABORT (PS3.8 9.3.8)."""
    return _pdu(ABORT, bytes((0, 0, source, reason)))


def _of_role(role: bytes) -> str:
    """Return the SOP Class UID that a role selection is about."""
    length = int.from_bytes(role[:2], "big")
    return _uid(role[2 : 2 + length]) if len(role) == length + 4 else ""


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _items(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield (type, value) of the items that fill `data` from `start` on."""
    while start < len(data):
        if len(data) - start < 4:
            raise MalformedPduError("an item ends within its header")
        kind, length = struct.unpack_from(">BxH", data, start)
        start += 4
        if length > len(data) - start:
            raise MalformedPduError(f"item {kind:02X}H is longer than what it stands in")
        yield kind, data[start : start + length]
        start += length


def _proposed(value: bytes) -> ProposedContext:
    if len(value) < 4:
        raise MalformedPduError("a Presentation Context is at least 4 bytes long")
    if value[0] % 2 == 0:
        raise MalformedPduError("a Presentation Context ID is an odd number")
    abstract: list[str] = []
    transfer: list[str] = []
    for kind, uid in _items(value, 4):
        if kind == _ABSTRACT_SYNTAX_ITEM:
            abstract.append(_uid(uid))
        elif kind == _TRANSFER_SYNTAX_ITEM:
            transfer.append(_uid(uid))
    if len(abstract) != 1 or not 1 <= len(transfer) <= MAX_TRANSFER_SYNTAXES:
        raise MalformedPduError("a Presentation Context has an abstract and a transfer syntax")
    return ProposedContext(
        id=value[0], abstract_syntax=abstract[0], transfer_syntaxes=tuple(transfer)
    )


def _uid(value: bytes) -> str:
    if len(value) > 65:  # 64 and a padding that does not belong here (PS3.8 annex F) but occurs
        raise MalformedPduError("a UID is longer than 64 bytes")
    return value.rstrip(b"\0 ").decode("ascii", "replace")


def _title(value: bytes) -> str:
    """Spaces around it mean nothing (PS3.5 6.2)."""
    return value.decode("ascii", "replace").strip(" \0")
