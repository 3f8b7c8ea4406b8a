"""Accepting connections: a thread a connection, in as many processes as listen on the socket.

Every process that has inherited a listening socket accepts from it. All of them wake for a
connection, and who has the fewest takes it: threads of one process run one at a time. A socket that
was shut down by one of them takes nobody new in any.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dicomnode.errors import DicomnodeError
from dicomnode.network.association import AcceptedConnection, Admit, Terms
from dicomnode.network.tls import HandshakeError
from dicomnode.network.wire import Wire

log = logging.getLogger(__name__)

BIND_ATTEMPTS_SECONDS = 10.0
BACKLOG = 512
"""Connections that wait to be accepted: every association there may be can come at one moment."""
HESITATION_SECONDS, MOST_HESITATIONS = 0.002, 5
"""How long a process lets the others go first, for each connection that it has."""
MAX_CONNECTIONS = 1000
"""Of one process, with and without an association; whoever comes beyond is disconnected."""

Wrap = Callable[[socket.socket], socket.socket]
"""Makes of an accepted connection the one that is spoken on; for TLS. Raises OSError if it fails.
Called in the connection's thread, with a time limit set on the socket."""


def as_it_is(connection: socket.socket) -> socket.socket:
    """Speak without TLS."""
    return connection


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, and what is done to each of its connections first."""

    socket: socket.socket
    wrap: Wrap = as_it_is


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and listens.

    Raises:
        DicomnodeError: the port is taken and stays so (a predecessor may need a moment to go).
    """
    deadline = time.monotonic() + BIND_ATTEMPTS_SECONDS
    while True:
        try:
            return _listen(host, port)
        except OSError as error:
            if time.monotonic() > deadline:
                raise DicomnodeError(f"cannot listen on {host}:{port}: {error}") from error
            time.sleep(0.2)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


class Acceptor:
    """Accepts connections from listening sockets until those are shut down."""

    def __init__(
        self,
        listeners: Iterable[Listener],
        terms: Terms,
        admit: Admit,
        unproven: Callable[[str, str], None] = lambda _address, _detail: None,
    ) -> None:
        self._listeners = tuple(listeners)
        self._terms = terms
        self._admit = admit
        self._unproven = unproven
        self._open: set[AcceptedConnection] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Accept in threads of its own; returns at once."""
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Take nobody new, in any process that has the sockets, and abort whatever is open."""
        for listener in self._listeners:
            listener.socket.shutdown(socket.SHUT_RDWR)
            listener.socket.close()
        self.abort()

    def abort(self) -> None:
        """Abort whatever is open."""
        with self._lock:
            still_open = list(self._open)
        for connection in still_open:
            connection.abort()

    def _accept(self, listener: Listener) -> None:
        listener.socket.setblocking(False)
        poll = select.poll()
        poll.register(listener.socket, select.POLLIN)
        while True:
            poll.poll()
            time.sleep(HESITATION_SECONDS * min(len(self._open), MOST_HESITATIONS))
            try:
                connection, address = listener.socket.accept()
            except (BlockingIOError, ConnectionAbortedError):  # another has it, or it had gone
                continue
            except OSError as error:
                if not _is_listening(listener.socket):
                    return
                # Out of file descriptors or memory: those who wait are served when some are back.
                log.warning("ACCEPT_FAILED", extra={"fields": {"detail": str(error)}})
                time.sleep(0.2)
                continue
            if len(self._open) >= MAX_CONNECTIONS:
                log.warning("TOO_MANY_CONNECTIONS", extra={"fields": {"address": address[0]}})
                connection.close()
                continue
            threading.Thread(
                target=self._serve, args=(listener, connection, address[0]), daemon=True
            ).start()

    def _serve(self, listener: Listener, connection: socket.socket, address: str) -> None:
        try:
            # Nagle's algorithm costs about 40 ms an object. The receive buffer stays the kernel's
            # to size: a size set here would end its growing with the peer's speed.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(self._terms.artim_seconds)
            spoken = listener.wrap(connection)
        except OSError as error:
            log.warning(
                "CONNECTION_FAILED", extra={"fields": {"address": address, "detail": str(error)}}
            )
            connection.close()
            if isinstance(error, HandshakeError) and error.is_refusal:
                self._unproven(address, str(error))
            return
        wire = Wire(spoken, pdu_seconds=self._terms.pdu_seconds)
        accepted = AcceptedConnection(wire, address, self._terms, self._admit)
        with self._lock:
            self._open.add(accepted)
        try:
            accepted.run()
        except Exception:  # a fault of this software ends one association, never the receiver
            log.exception("ASSOCIATION_FAILED", extra={"fields": {"address": address}})
        finally:
            with self._lock:
                self._open.discard(accepted)


def _is_listening(listening: socket.socket) -> bool:
    try:
        return bool(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False
