"""A TCP proxy before a real peer: it can stop passing bytes in the midst of an object."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType

HOST = "127.0.0.1"


class Proxy:
    """Passes connections on to a port, both ways, until it is told to hold."""

    def __init__(self, to_port: int) -> None:
        self._to = to_port
        self._limit: int | None = None
        self._rate: float | None = None
        self._passed = 0
        self._changed = threading.Condition()
        self._server = socket.create_server((HOST, 0))
        self._sockets: list[socket.socket] = []
        self.port = int(self._server.getsockname()[1])
        self.is_holding = False

    def hold_after(self, size: int | None) -> None:
        """Pass no more than so many bytes on to the peer, in all; None: pass everything."""
        with self._changed:
            self._limit = size
            self._changed.notify_all()

    def throttle(self, bytes_per_second: float) -> None:
        """Pass so much on to the peer, and take little before it is passed on."""
        self._rate = bytes_per_second
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for one in self._sockets:  # a socket that a thread waits on is not closed by `close` alone
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.hold_after(None)
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection((HOST, self._to))
            self._sockets += [near, far]
            threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):  # either side may go at any moment: that is the test
            while data := source.recv(16384 if self._rate is None else 1024):
                if counts:
                    self._wait_for(len(data), source)
                    if self._rate is not None:
                        time.sleep(len(data) / self._rate)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _wait_for(self, size: int, source: socket.socket) -> None:
        with self._changed:
            while self._limit is not None and self._passed + size > self._limit:
                self.is_holding = True
                self._changed.wait(0.1)
                if _is_closed(source):
                    raise ConnectionResetError
            self.is_holding = False
            self._passed += size


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side has gone, and nothing that it sent is left to read."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
