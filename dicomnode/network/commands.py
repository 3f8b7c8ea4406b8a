"""DIMSE command sets as a storage SCP meets them (PS3.7 sections 6.3, 9.3 and annex E).

A command set is implicit VR little endian, group 0000, always (PS3.7 6.3.1). Parsed and encoded
here by hand: it is a dozen elements, one for every instance that arrives.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
N_EVENT_REPORT_RQ = 0x0100
N_ACTION_RQ = 0x0130
C_CANCEL_RQ = 0x0FFF
RESPONSE = 0x8000
"""Set in the Command Field of every response."""

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNIZED_OPERATION = 0x0211

MAX_COMMAND_BYTES = 16384
_NO_DATA_SET = 0x0101

_GROUP_LENGTH = 0x0000
_AFFECTED_SOP_CLASS_UID = 0x0002
_REQUESTED_SOP_CLASS_UID = 0x0003
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_RESPONDED_TO = 0x0120
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_REQUESTED_SOP_INSTANCE_UID = 0x1001


class MalformedCommandError(ValueError):
    """The bytes are no command set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A request, or what else a requestor sends."""

    field: int
    message_id: int
    sop_class_uid: str
    """Affected or Requested SOP Class UID; empty where there is none."""
    sop_instance_uid: str
    """Affected or Requested SOP Instance UID; empty where there is none."""
    has_data_set: bool


def decode(data: bytes) -> Command:
    """Decode a command set.

    Raises:
        MalformedCommandError: its elements do not fill it, or one that every command has is
            missing.
    """
    found: dict[int, bytes] = {}
    place, size = 0, len(data)
    while place < size:
        if size - place < 8:
            raise MalformedCommandError("it ends within the header of an element")
        group, element, length = struct.unpack_from("<HHI", data, place)
        place += 8
        if group != 0 or length > size - place:
            raise MalformedCommandError("an element is of another group, or longer than the rest")
        found[element] = data[place : place + length]
        place += length
    field = _number(found, _COMMAND_FIELD)
    message = _MESSAGE_ID_RESPONDED_TO if field & RESPONSE else _MESSAGE_ID
    if field == C_CANCEL_RQ:
        message = _MESSAGE_ID_RESPONDED_TO
    return Command(
        field=field,
        message_id=_number(found, message),
        sop_class_uid=_uid(found, _AFFECTED_SOP_CLASS_UID) or _uid(found, _REQUESTED_SOP_CLASS_UID),
        sop_instance_uid=_uid(found, _AFFECTED_SOP_INSTANCE_UID)
        or _uid(found, _REQUESTED_SOP_INSTANCE_UID),
        has_data_set=_number(found, _DATA_SET_TYPE) != _NO_DATA_SET,
    )


def encode_response(request: Command, status: int, comment: str = "") -> bytes:
    """Encode the response to a request, without a data set.

    Args:
        request: what is answered.
        status: of PS3.7 annex C, or of the service (PS3.4 B.2.3).
        comment: Error Comment, where the status is not Success; at most 64 characters are sent.
    """
    elements = []
    if request.sop_class_uid:
        elements.append(_text(_AFFECTED_SOP_CLASS_UID, request.sop_class_uid, b"\0"))
    elements += [
        _short(_COMMAND_FIELD, request.field | RESPONSE),
        _short(_MESSAGE_ID_RESPONDED_TO, request.message_id),
        _short(_DATA_SET_TYPE, _NO_DATA_SET),
        _short(_STATUS, status),
    ]
    if comment and status != SUCCESS:
        elements.append(_text(_ERROR_COMMENT, comment[:64], b" "))
    if request.sop_instance_uid:
        elements.append(_text(_AFFECTED_SOP_INSTANCE_UID, request.sop_instance_uid, b"\0"))
    body = b"".join(elements)
    return struct.pack("<HHII", 0, _GROUP_LENGTH, 4, len(body)) + body


def _short(element: int, value: int) -> bytes:
    return struct.pack("<HHIH", 0, element, 2, value)


def _text(element: int, value: str, padding: bytes) -> bytes:
    data = value.encode("ascii", "replace")
    data += padding * (len(data) % 2)
    return struct.pack("<HHI", 0, element, len(data)) + data


def _number(found: dict[int, bytes], element: int) -> int:
    value = found.get(element, b"")
    if len(value) != 2:
        raise MalformedCommandError(f"(0000,{element:04X}) is missing or no number of 2 bytes")
    return int.from_bytes(value, "little")


def _uid(found: dict[int, bytes], element: int) -> str:
    value = found.get(element, b"")
    if len(value) > 66:
        raise MalformedCommandError(f"(0000,{element:04X}) is longer than a UID")
    return value.rstrip(b"\0 ").decode("ascii", "replace")
