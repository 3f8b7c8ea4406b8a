"""TLS on both sides of an association: contexts, the handshake, and what is wrong with a file.

Versions and cipher suites are those of BCP 195 (RFC 8996, RFC 9325), as the DICOM profiles of that
name ask (PS3.15 annex B.12), without downgrading. The Python standard library does the work; no
other package parses a certificate here.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicomnode.domain.security import PeerTls, ServerTls
from dicomnode.errors import DicomnodeError

CIPHERS = ":".join(
    (
        # RFC 9325 section 4.2; those of TLS 1.3 are always on, and all are good.
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        # RSA of at least 2048 bits, no SHA-1 signatures (RFC 9325 section 4.5), whatever the
        # system's own default is.
        "@SECLEVEL=2",
    )
)


class TlsError(DicomnodeError):
    """A context cannot be made, or a handshake failed; the text says why, for a person."""


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """Return the context of the port with TLS.

    Raises:
        TlsError: a file is missing or of no use.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    # Every association shows its certificate anew: one that has expired since is no ticket.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    _load_own(context, tls.certificate, tls.key)
    if tls.client_certificates != "none" and tls.client_ca is not None:
        _load_ca(context, tls.client_ca)
        asked = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL}
        context.verify_mode = asked[tls.client_certificates]
    return context


def client_context(tls: PeerTls) -> ssl.SSLContext:
    """Return a context for connecting to a peer; its certificate and name are always verified.

    Raises:
        TlsError: a file is missing or of no use.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_ca(context, tls.ca)
    if tls.certificate is not None and tls.key is not None:
        _load_own(context, tls.certificate, tls.key)
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # A peer's own certificate, or an intermediate authority, may be trusted by itself.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for path in (certificate, key):
        _readable(path)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _EncryptedKeyError as error:
        raise TlsError(
            f"{key} is encrypted; the node has nobody to ask for its password"
        ) from error
    except ssl.SSLError as error:
        raise TlsError(_reason_of_file(error, certificate, key)) from error


class _EncryptedKeyError(ValueError):
    pass


def _no_password() -> str:
    raise _EncryptedKeyError


def _words(error: ssl.SSLError) -> str:
    return (error.reason or type(error).__name__).replace("_", " ").lower()


def _reason_of_file(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    reason = _words(error)
    if reason in ("key values mismatch", "key type mismatch"):
        return f"{key} is not the key of {certificate}"
    if reason in ("ee key too small", "ca key too small", "ca md too weak"):
        return f"{certificate} is too weak (RSA under 2048 bits, or a SHA-1 signature)"
    return f"{certificate} and {key} are not a certificate and its key in PEM ({reason})"


def _load_ca(context: ssl.SSLContext, path: Path) -> None:
    _readable(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise TlsError(f"{path} holds no certificate in PEM ({_words(error)})") from error


def _readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}") from error


# The handshake


class HandshakeError(ConnectionError):
    """There is no TLS with this peer; the text says why."""

    @property
    def is_refusal(self) -> bool:
        """Whether one side did not accept the other, rather than one that went away."""
        cause = self.__cause__
        return isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError)


def accept(connection: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Do the handshake of an accepted connection, in all within the socket's time limit.

    Call it in the connection's own thread: it blocks, and a peer may say nothing.

    Raises:
        HandshakeError: there is no TLS with this peer; the connection is closed.
    """
    # wrap_socket would do the handshake too, and lose the connection's file descriptor to us if it
    # fails: from here on the new object has it, and the old one is empty.
    secured: ssl.SSLSocket | None = None
    try:
        secured = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        secured.do_handshake()  # its time limit is for the whole of it, however slowly bytes come
    except (OSError, ValueError) as error:
        (secured or connection).close()
        raise HandshakeError(explain(error)) from error
    return secured


def fingerprint(connection: socket.socket) -> str | None:
    """Return the SHA-256 of the peer's certificate, hexadecimal, or None where there is none."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    certificate = connection.getpeercert(binary_form=True)
    return None if certificate is None else hashlib.sha256(certificate).hexdigest()


_SAID = {
    "http request": "it speaks HTTP, not TLS",
    "wrong version number": "it does not speak TLS",
    "unsupported protocol": "it speaks no TLS from version 1.2 on",
    "no protocols available": "it speaks no TLS from version 1.2 on",
    "tlsv1 alert protocol version": "it speaks no TLS from version 1.2 on",
    "no shared cipher": "it offers no cipher suite of BCP 195",
    "sslv3 alert handshake failure": "it agrees to no cipher suite of BCP 195, or wants a client"
    " certificate",
    "peer did not return a certificate": "it shows no client certificate",
    "tlsv1 alert unknown ca": "it does not trust our certificate",
    "sslv3 alert certificate expired": "it says that our certificate has expired",
    "sslv3 alert bad certificate": "it refuses our certificate",
    "sslv3 alert certificate unknown": "it refuses our certificate",
    "sslv3 alert unsupported certificate": "it refuses our certificate",
    "tlsv13 alert certificate required": "it wants a client certificate",
}
"""By OpenSSL's own reasons."""


def explain(error: BaseException) -> str:
    """Return in words why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "it closed the connection within the handshake"
    if isinstance(error, ssl.SSLError):
        reason = _words(error)
        return _SAID.get(reason, f"the handshake failed ({reason})")
    if isinstance(error, TimeoutError):
        return "it did not finish the handshake in time"
    return "it closed the connection within the handshake"


def remembering(context: ssl.SSLContext, remember: Callable[[BaseException], None]) -> None:
    """Have `context` tell why a handshake of its connections fails.

    pynetdicom, which connects, says only that there is no association.
    """

    class Remembering(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            try:
                super().do_handshake(block)
            except (OSError, ValueError) as error:
                remember(error)
                raise

    context.sslsocket_class = Remembering


# What is wrong with the files


def faults_of_server(tls: ServerTls) -> list[tuple[str, str]]:
    """Return (key below `node.tls`, fault) for every file that will not do."""
    faults = _faults_of_own(tls.certificate, tls.key, for_server=True)
    if tls.client_certificates != "none" and tls.client_ca is not None:
        faults += _faults_of_ca("client_ca", tls.client_ca)
    return faults


def faults_of_peer(tls: PeerTls) -> list[tuple[str, str]]:
    """Return (key below `peers.NAME.tls`, fault) for every file that will not do."""
    faults = [] if tls.ca is None else _faults_of_ca("ca", tls.ca)
    if tls.certificate is not None and tls.key is not None:
        faults += _faults_of_own(tls.certificate, tls.key, for_server=False)
    return faults


def _faults_of_ca(key: str, path: Path) -> list[tuple[str, str]]:
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    try:
        _load_ca(context, path)
    except TlsError as error:
        return [(key, str(error))]
    certificates = context.get_ca_certs()
    if certificates and all(_has_expired(certificate) for certificate in certificates):
        return [(key, f"{path}: every authority in it has expired")]
    return []


def _has_expired(certificate: Any) -> bool:
    return ssl.cert_time_to_seconds(certificate["notAfter"]) < time.time()


def _faults_of_own(certificate: Path, key: Path, *, for_server: bool) -> list[tuple[str, str]]:
    faults = []
    for name, path in (("certificate", certificate), ("key", key)):
        try:
            _readable(path)
        except TlsError as error:
            faults.append((name, str(error)))
    if faults:
        return faults
    if key.stat().st_mode & stat.S_IRWXO:
        faults.append(("key", f"{key} may be read by everybody on this machine: chmod o= it"))
    try:
        _load_own(_context(ssl.PROTOCOL_TLS_SERVER), certificate, key)
    except TlsError as error:
        wrong = "certificate" if "too weak" in str(error) else "key"
        return [*faults, (wrong, str(error))]
    why = _why_not_valid(certificate, key, for_server=for_server)
    return faults if why is None else [*faults, ("certificate", f"{certificate}: {why}")]


def _why_not_valid(certificate: Path, key: Path, *, for_server: bool) -> str | None:
    """Let OpenSSL judge our own certificate as a peer that trusts it would; None if it is good."""
    client, server = _context(ssl.PROTOCOL_TLS_CLIENT), _context(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    for side in (client, server):
        _load_own(side, certificate, key)
    verifying = client if for_server else server
    _load_ca(verifying, certificate)
    verifying.verify_mode = ssl.CERT_REQUIRED
    return _shake_hands(client, server)


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> str | None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_side=False),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
            except ssl.SSLError as error:
                return explain(error)
    return None
