"""The upper layer by its bytes, as a requestor that may do anything (PS3.8 section 9.3)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
C_STORE, C_ECHO, C_FIND, C_CANCEL = 0x0001, 0x0030, 0x0020, 0x0FFF
RELEASE_RQ = bytes.fromhex("05 00 00000004 00000000")
RELEASE_RP = bytes.fromhex("06 00 00000004 00000000")
ABORT = bytes.fromhex("07 00 00000004 00000000")


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def context(number: int, abstract: str, *transfer: str) -> bytes:
    """A proposed Presentation Context."""
    syntaxes = b"".join(item(0x40, uid.encode()) for uid in transfer)
    return item(0x20, bytes((number, 0, 0, 0)) + item(0x30, abstract.encode()) + syntaxes)


def associate_rq(
    *contexts: bytes,
    calling: str = "MODALITY",
    called: str = "DICOMNODE",
    version: int = 1,
    application: str = "1.2.840.10008.3.1.1.1",
    max_pdu: int = 16384,
    more: bytes = b"",
) -> bytes:
    """An A-ASSOCIATE-RQ; by default it proposes CT (1) and Verification (3)."""
    body = struct.pack(">HH", version, 0)
    body += called.encode().ljust(16) + calling.encode().ljust(16) + bytes(32)
    body += item(0x10, application.encode())
    body += b"".join(
        contexts or (context(1, CT, IMPLICIT, EXPLICIT), context(3, VERIFICATION, IMPLICIT))
    )
    user = item(0x51, struct.pack(">I", max_pdu)) + item(0x52, b"1.2.3") + more
    return pdu(0x01, body + item(0x50, user))


def element(number: int, value: bytes) -> bytes:
    """An element of a command set."""
    return struct.pack("<HHI", 0, number, len(value)) + value


def command(
    field: int,
    *,
    message_id: int = 7,
    data_set: bool = False,
    sop_class: str = CT,
    sop_instance: str = "1.2.3.4",
    more: bytes = b"",
) -> bytes:
    """A command set, with its group length."""

    def uid(text: str) -> bytes:
        return text.encode() + b"\0" * (len(text) % 2)

    number = 0x0120 if field == C_CANCEL else 0x0110
    body = element(0x0002, uid(sop_class)) + element(0x0100, struct.pack("<H", field))
    body += element(number, struct.pack("<H", message_id))
    body += element(0x0800, struct.pack("<H", 1 if data_set else 0x0101))
    if field == C_STORE:
        body += element(0x1000, uid(sop_instance))
    body += more
    return element(0, struct.pack("<I", len(body))) + body


def pdv(context_id: int, control: int, value: bytes) -> bytes:
    """A Presentation Data Value; control: 1 command, 2 last."""
    return struct.pack(">IBB", len(value) + 2, context_id, control) + value


def p_data(*values: bytes) -> bytes:
    return pdu(0x04, b"".join(values))


def store_rq(data: bytes, *, piece: int = 1000, **keywords: object) -> bytes:
    """A whole C-STORE request on context 1, its data set in pieces, a PDU each."""
    parts = [data[start : start + piece] for start in range(0, len(data), piece)] or [b""]
    sent = p_data(pdv(1, 3, command(C_STORE, data_set=True, **keywords)))  # type: ignore[arg-type]
    for number, part in enumerate(parts, 1):
        sent += p_data(pdv(1, 2 if number == len(parts) else 0, part))
    return sent


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Return type and body of the next PDU; (0, b"") where the connection is closed."""
    header = _read(connection, 6)
    if len(header) < 6:
        return 0, b""
    kind, length = struct.unpack(">BxI", header)
    return kind, _read(connection, length)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            break
        data += part
    return data


def read_response(connection: socket.socket) -> dict[int, bytes]:
    """Return the elements of the next response, whatever pieces it comes in."""
    whole, last = b"", False
    while not last:
        kind, body = read_pdu(connection)
        assert kind == 0x04, f"PDU {kind} {body.hex()}"
        length, _, control = struct.unpack_from(">IBB", body)
        assert length == len(body) - 4
        assert control & 1
        whole, last = whole + body[6:], bool(control & 2)
    return dict(elements(whole))


def elements(data: bytes) -> Iterable[tuple[int, bytes]]:
    place = 0
    while place < len(data):
        _, number, length = struct.unpack_from("<HHI", data, place)
        yield number, data[place + 8 : place + 8 + length]
        place += 8 + length


def status_of(response: dict[int, bytes]) -> int:
    return int.from_bytes(response[0x0900], "little")


def results_of(accept: bytes) -> list[tuple[int, int, str]]:
    """Return (context id, result, transfer syntax) of an A-ASSOCIATE-AC's body."""
    found = []
    place = 68
    while place < len(accept):
        kind, length = struct.unpack_from(">BxH", accept, place)
        value = accept[place + 4 : place + 4 + length]
        if kind == 0x21:
            found.append((value[0], value[2], value[8:].decode()))
        place += 4 + length
    return found


def send_in_pieces(connection: socket.socket, data: bytes, sizes: Sequence[int]) -> None:
    """Send bytes in pieces of the given sizes, then the rest."""
    for size in sizes:
        connection.sendall(data[:size])
        data = data[size:]
    connection.sendall(data)
