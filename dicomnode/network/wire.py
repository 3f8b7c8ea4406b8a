"""PDUs out of a socket: into one buffer, each with a deadline.

What is there is taken at once; only where nothing is, poll(2) waits for it, for which no number of
open files is too high. A socket with a time limit would be asked twice for every piece.
"""

from __future__ import annotations

import hashlib
import math
import select
import socket
import ssl
import struct
import time
from dataclasses import dataclass

from dicomnode.network.pdus import HEADER_BYTES

TLS_HANDSHAKE = 0x16
"""The first byte of a TLS connection (RFC 8446 section 5.1); no PDU has it."""


_WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class WireError(Exception):
    """No further PDU comes."""


class ClosedError(WireError):
    """The peer has closed the connection, or it broke."""


class SilentError(WireError):
    """Nothing came for longer than is waited for the next PDU."""


class SlowError(WireError):
    """A PDU that had begun was not there in time."""


class OversizeError(WireError):
    """A PDU says that it is longer than what is taken."""


@dataclass(frozen=True, slots=True)
class Pdu:
    """A PDU whose body lies in the buffer; it is valid until the next one is read."""

    kind: int
    body: memoryview


class Wire:
    """The connection to a peer.

    Args:
        connection: connected, possibly within TLS.
        pdu_seconds: how long a PDU may take from its first byte to its last.
    """

    def __init__(self, connection: socket.socket, *, pdu_seconds: float) -> None:
        self._socket = connection
        connection.setblocking(False)
        self._pdu_seconds = pdu_seconds
        self._buffer = bytearray(1 << 14)
        self._start = 0
        self._end = 0

    def peer_certificate_sha256(self) -> str | None:
        """Return the fingerprint of the peer's certificate; None without TLS or certificate."""
        if not isinstance(self._socket, ssl.SSLSocket):
            return None
        certificate = self._socket.getpeercert(binary_form=True)
        return hashlib.sha256(certificate).hexdigest() if certificate else None

    def read(self, longest: int, wait_seconds: float) -> Pdu:
        """Read the next PDU.

        Args:
            longest: body that is taken, in bytes.
            wait_seconds: for its first byte.

        Raises:
            WireError: there is none; the subclass says why.
        """
        if self._end == self._start:
            self._start = self._end = 0
            self._receive(time.monotonic() + wait_seconds, SilentError)
        deadline = time.monotonic() + self._pdu_seconds
        self._have(HEADER_BYTES, deadline)
        kind, length = struct.unpack_from(">BxI", self._buffer, self._start)
        if length > longest:
            if kind == TLS_HANDSHAKE:
                raise OversizeError("it speaks TLS, and this port does not")
            raise OversizeError(f"a PDU of {length} bytes, at most {longest} are taken")
        self._have(HEADER_BYTES + length, deadline)
        first = self._start + HEADER_BYTES
        self._start = first + length
        return Pdu(kind, memoryview(self._buffer)[first : self._start])

    def write(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            ClosedError: they cannot be sent.
        """
        deadline = time.monotonic() + self._pdu_seconds
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except _WAITS as error:
                self._wait(select.POLLOUT, error, deadline, ClosedError)
            except OSError as error:
                raise ClosedError(str(error)) from error

    def drain(self, seconds: float) -> None:
        """Wait until the peer closes, and throw away what still comes (PS3.8 9.2, Sta13)."""
        deadline = time.monotonic() + seconds
        try:
            while True:
                self._start = self._end = 0
                self._receive(deadline, SilentError)
        except WireError:
            return

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _have(self, size: int, deadline: float) -> None:
        """Make sure that `size` bytes lie in the buffer from where the next PDU starts."""
        if self._start + size > len(self._buffer):
            # Nobody holds a view of what was read before: the bytes may move.
            rest = self._buffer[self._start : self._end]
            if size > len(self._buffer):
                self._buffer = bytearray(2 * size)
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        while self._end - self._start < size:
            self._receive(deadline, SlowError)

    def _receive(self, deadline: float, too_late: type[WireError]) -> None:
        count = -1
        while count < 0:
            if time.monotonic() >= deadline:
                raise too_late
            try:
                count = self._socket.recv_into(memoryview(self._buffer)[self._end :])
            except _WAITS as error:
                self._wait(select.POLLIN, error, deadline, too_late)
            except OSError as error:
                raise ClosedError(str(error)) from error
        if count == 0:
            raise ClosedError("the peer closed the connection")
        self._end += count

    def _wait(self, wanted: int, why: OSError, deadline: float, too_late: type[WireError]) -> None:
        """Wait until the socket may be used again; TLS may want the other direction first."""
        if isinstance(why, ssl.SSLWantReadError):
            wanted = select.POLLIN
        elif isinstance(why, ssl.SSLWantWriteError):
            wanted = select.POLLOUT
        remaining = deadline - time.monotonic()
        poll = select.poll()
        poll.register(self._socket, wanted)
        if remaining <= 0 or not poll.poll(math.ceil(remaining * 1000)):
            raise too_late from why
