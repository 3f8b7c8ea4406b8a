"""Audit messages to a repository: syslog over TLS (RFC 5425), or over UDP (RFC 5426).

Syslog knows no receipt. Over TLS a connection takes one lot of messages and is then closed in good
order, which the receiver has to confirm (RFC 5425 section 4.4): it has read all before it can.
Only then the lot counts as kept; whatever ends otherwise is sent once more.
"""

from __future__ import annotations

import array
import fcntl
import socket
import ssl
import termios
import time
from collections.abc import Sequence

from dicomnode.domain.audit_policy import AuditSyslog, frame
from dicomnode.errors import DicomnodeError
from dicomnode.network import tls


class SyslogError(DicomnodeError):
    """The repository does not have the messages, or nobody knows; the text says why."""


def send(policy: AuditSyslog, messages: Sequence[bytes]) -> None:
    """Bring syslog messages to the repository, in order.

    Raises:
        SyslogError: send them once more.
    """
    if policy.transport == "udp":
        _send_datagrams(policy, messages)
    else:
        _send_over_tls(policy, messages)


def _send_datagrams(policy: AuditSyslog, messages: Sequence[bytes]) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            policy.host, policy.port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, protocol) as datagrams:
            datagrams.connect(address)  # then a port that nobody listens at is an error
            for message in messages:
                datagrams.send(message)
    except OSError as error:
        raise SyslogError(_why(error)) from error


def _send_over_tls(policy: AuditSyslog, messages: Sequence[bytes]) -> None:
    over_at = time.monotonic() + policy.timeout_seconds
    try:
        context = tls.client_context(policy.tls)
        where = (policy.host, policy.port)
        connection = socket.create_connection(where, timeout=policy.timeout_seconds)
    except (OSError, tls.TlsError) as error:
        raise SyslogError(_why(error)) from error
    name = policy.tls.server_name or policy.host
    try:
        with connection:
            _limit(connection, over_at)
            # The handshake's failures say what is wrong with a certificate.
            secured = context.wrap_socket(connection, server_hostname=name)
            with secured:
                _limit(secured, over_at)
                secured.sendall(b"".join(map(frame, messages)))
                _limit(secured, over_at)
                _take_leave(secured)
    except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError) as error:
        wants = "" if policy.tls.certificate else "; does it want a client certificate?"
        raise SyslogError(f"it closed the connection before the end{wants}") from error
    except (ssl.SSLError, ValueError) as error:
        raise SyslogError(tls.explain(error)) from error
    except OSError as error:
        raise SyslogError(_why(error)) from error


def _limit(connection: socket.socket, over_at: float) -> None:
    """Give the next step what is left of the time."""
    left = over_at - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)


def _take_leave(secured: ssl.SSLSocket) -> None:
    """Say that nothing more comes, and wait for the receiver to say that it has heard."""
    try:
        plain = secured.unwrap()
    except ssl.SSLEOFError:
        # It closed the connection without a word. Was it in good order, or had it gone before?
        if _unacknowledged_bytes(secured):
            raise
        return
    plain.close()


def _unacknowledged_bytes(connection: socket.socket) -> int:
    """Return how many bytes the peer's TCP has not acknowledged; one that is gone never will."""
    count = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, count)
    return count[0]


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
