"""Audit messages to a repository: syslog over TLS (RFC 5425), or over UDP (RFC 5426).

Syslog knows no receipt. Over TLS a connection takes one lot of messages and is then closed in good
order, which the receiver has to confirm (RFC 5425 section 4.4): it has read all before it can.
Only then the lot counts as kept; whatever ends otherwise is sent once more.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
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
    try:
        context = tls.client_context(policy.tls)
        where = (policy.host, policy.port)
        connection = socket.create_connection(where, timeout=policy.timeout_seconds)
    except (OSError, tls.TlsError) as error:
        raise SyslogError(_why(error)) from error
    name = policy.tls.server_name or policy.host
    try:
        with connection:
            secured = context.wrap_socket(connection, server_hostname=name)
            with secured:
                secured.sendall(b"".join(map(frame, messages)))
                _take_leave(secured)
    except (ssl.SSLError, ValueError) as error:
        raise SyslogError(tls.explain(error)) from error
    except OSError as error:
        raise SyslogError(_why(error)) from error


def _take_leave(secured: ssl.SSLSocket) -> None:
    """Say that nothing more comes, and wait for the receiver to say that it has heard."""
    try:
        plain = secured.unwrap()
    except ssl.SSLEOFError:
        # It closed the connection itself, in good order, without a word: it has read ours.
        return
    with contextlib.suppress(OSError):
        plain.shutdown(socket.SHUT_WR)
    plain.close()


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
