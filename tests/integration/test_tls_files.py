"""What `check` says of certificates and keys, and the handshake on a connection by itself."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Signed, openssl

from dicomnode.domain.security import PeerTls, ServerTls
from dicomnode.network import tls

pytestmark = pytest.mark.peer("openssl")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def node(authority: Authority) -> Signed:
    return authority.sign("node")


@pytest.fixture(scope="module")
def client(authority: Authority) -> Signed:
    return authority.sign("client", usage="clientAuth")


@pytest.fixture(scope="module")
def expired(authority: Authority) -> Signed:
    return authority.sign("expired", days=-1)


def server(node: Signed, authority: Authority, **changes: Any) -> ServerTls:
    values = {
        "port": 2762,
        "certificate": node.certificate,
        "key": node.key,
        "client_ca": authority.certificate,
    }
    return ServerTls(**(values | changes))


# Files


def test_good_files_have_no_fault(authority: Authority, node: Signed, client: Signed) -> None:
    assert tls.faults_of_server(server(node, authority)) == []
    good = PeerTls(ca=authority.certificate, certificate=client.certificate, key=client.key)
    assert tls.faults_of_peer(good) == []
    assert tls.faults_of_peer(PeerTls()) == []


def faults_of_files(certificate: Path, key: Path, **changes: Any) -> list[tuple[str, str]]:
    values = {"port": 2762, "client_certificates": "none"} | changes
    return tls.faults_of_server(ServerTls(certificate=certificate, key=key, **values))


def test_a_fault_is_named(
    authority: Authority, node: Signed, client: Signed, expired: Signed, tmp_path: Path
) -> None:
    missing, empty, encrypted = tmp_path / "none", tmp_path / "empty", tmp_path / "encrypted"
    empty.write_text("")
    openssl("ec", "-in", node.key, "-aes128", "-passout", "pass:secret", "-out", encrypted)
    encrypted.chmod(0o600)
    readable = tmp_path / "readable.key"
    readable.write_bytes(node.key.read_bytes())
    readable.chmod(0o644)
    weak = authority.sign("weak", rsa=1024)
    for found, expected in (
        (faults_of_files(missing, missing), [("certificate", "No such"), ("key", "No such")]),
        (faults_of_files(empty, node.key), [("key", "are not a certificate and its key")]),
        (faults_of_files(node.certificate, client.key), [("key", "is not the key of")]),
        (faults_of_files(node.certificate, encrypted), [("key", "is encrypted")]),
        (faults_of_files(node.certificate, readable), [("key", "may be read by everybody")]),
        (faults_of_files(expired.certificate, expired.key), [("certificate", "has expired")]),
        (faults_of_files(client.certificate, client.key), [("certificate", "purpose")]),
        (faults_of_files(weak.certificate, weak.key), [("certificate", "too weak")]),
        (
            faults_of_files(
                node.certificate, node.key, client_certificates="required", client_ca=empty
            ),
            [("client_ca", "holds no certificate")],
        ),
        (tls.faults_of_peer(PeerTls(ca=missing)), [("ca", "No such file")]),
        (
            tls.faults_of_peer(PeerTls(certificate=expired.certificate, key=expired.key)),
            [("certificate", "has expired")],
        ),
    ):
        assert [key for key, _ in found] == [key for key, _ in expected], found
        for (_, said), (_, wanted) in zip(found, expected, strict=True):
            assert wanted in said


def test_check_names_file_line_and_key(
    authority: Authority, node: Signed, expired: Signed, tmp_path: Path
) -> None:
    config = tmp_path / "dicomnode.yaml"
    config.write_text(
        "node:\n  tls:\n    port: 2762\n"
        f"    certificate: {expired.certificate}\n    key: {expired.key}\n"
        f"    client_ca: {authority.certificate}\n"
        "peers:\n  PACS:\n    ae_title: PACS\n    host: pacs\n    tls:\n      ca: tls/none.pem\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "dicomnode", "check", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"{config}:4:5: node.tls.certificate: {expired.certificate}: certificate has expired",
        f"{config}:12:7: peers.PACS.tls.ca: {tmp_path}/tls/none.pem cannot be read: No such file or"
        " directory",
    ]


# The handshake


class Listening:
    """A listener that does the server's handshake with whoever connects, in threads."""

    def __init__(self, context: ssl.SSLContext, timeout: float = 5.0) -> None:
        self._context, self._timeout = context, timeout
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.said: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(self._timeout)
        try:
            with tls.accept(connection, self._context) as secured:
                said = f"{secured.version()} {secured.cipher()[0]}"  # type: ignore[index]
                secured.sendall((tls.fingerprint(secured) or "nobody").encode())
        except tls.HandshakeError as error:
            said = str(error)
        assert connection.fileno() == -1
        self.said.append(said)

    def next(self, seconds: float = 10) -> str:
        """Return what came of the next connection."""
        deadline = time.monotonic() + seconds
        while not self.said:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return self.said.pop(0)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def listening(authority: Authority, node: Signed) -> Iterator[Listening]:
    one = Listening(tls.server_context(server(node, authority)), timeout=1.0)
    yield one
    one.close()


def connect(port: int, context: ssl.SSLContext, name: str = "localhost") -> bytes:
    """Connect, and return what the server says after the handshake."""
    with (
        socket.create_connection(("127.0.0.1", port), 5) as raw,
        context.wrap_socket(raw, server_hostname=name) as secured,
    ):
        return secured.recv(100)


def lax(**changes: Any) -> ssl.SSLContext:
    """A client that verifies nothing and speaks anything, as old devices do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    for name, value in changes.items():
        setattr(context, name, value)
    return context


def test_both_sides_verify_each_other(
    listening: Listening, authority: Authority, client: Signed
) -> None:
    context = tls.client_context(
        PeerTls(ca=authority.certificate, certificate=client.certificate, key=client.key)
    )
    assert connect(listening.port, context).decode() == client.sha256
    assert listening.next().startswith("TLSv1.3 TLS_AES_")
    assert connect(listening.port, context, "127.0.0.1").decode() == client.sha256


@pytest.mark.parametrize(
    "cipher", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"]
)
def test_tls_1_2_has_the_suites_of_bcp_195(
    listening: Listening, client: Signed, cipher: str
) -> None:
    context = lax(maximum_version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(cipher)
    context.load_cert_chain(client.certificate, client.key)
    connect(listening.port, context)
    assert listening.next() == f"TLSv1.2 {cipher}"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_versions_are_refused(
    listening: Listening, client: Signed, version: ssl.TLSVersion
) -> None:
    context = lax(maximum_version=version)
    context.load_cert_chain(client.certificate, client.key)
    with pytest.raises(ssl.SSLError):
        connect(listening.port, context)
    assert listening.next() == "it speaks no TLS from version 1.2 on"


@pytest.mark.parametrize(
    "ciphers",
    ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "AES128-GCM-SHA256", "NULL", "ADH"],
)
def test_weaker_suites_are_refused(listening: Listening, client: Signed, ciphers: str) -> None:
    """CBC, RSA key exchange, no encryption, no authentication."""
    context = lax(maximum_version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    context.load_cert_chain(client.certificate, client.key)
    with pytest.raises(ssl.SSLError):
        connect(listening.port, context)
    assert listening.next() == "it offers no cipher suite of BCP 195"


def test_client_certificates_that_will_not_do(
    listening: Listening, expired: Signed, stranger: Authority, node: Signed
) -> None:
    for signed, said in (
        (None, "it shows no client certificate"),
        (stranger.sign("other"), "its certificate is not accepted: unable to get local issuer"),
        (expired, "its certificate is not accepted: certificate has expired"),
    ):
        context = lax()
        if signed is not None:
            context.load_cert_chain(signed.certificate, signed.key)
        # In TLS 1.3 the client has done its part when the server looks at the certificate.
        with pytest.raises((ssl.SSLError, ConnectionError)):
            assert connect(listening.port, context)
            raise ConnectionError
        assert listening.next().startswith(said)


def test_certificates_may_be_optional_and_even_then_are_verified(
    authority: Authority, node: Signed, client: Signed, expired: Signed
) -> None:
    optional = tls.server_context(server(node, authority, client_certificates="optional"))
    one = Listening(optional)
    assert connect(one.port, lax()) == b"nobody"
    context = lax(maximum_version=ssl.TLSVersion.TLSv1_2)
    context.load_cert_chain(expired.certificate, expired.key)
    with pytest.raises(ssl.SSLError):
        connect(one.port, context)
    one.close()
    none = tls.server_context(server(node, authority, client_certificates="none", client_ca=None))
    one = Listening(none)
    assert connect(one.port, lax()) == b"nobody"
    one.close()


def test_a_pinned_certificate_needs_no_authority(node: Signed, client: Signed) -> None:
    """`client_ca` and `ca` may hold the other side's own certificate."""
    context = tls.server_context(
        ServerTls(port=1, certificate=node.certificate, key=node.key, client_ca=client.certificate)
    )
    one = Listening(context)
    pinned = PeerTls(ca=node.certificate, certificate=client.certificate, key=client.key)
    assert connect(one.port, tls.client_context(pinned)).decode() == client.sha256
    one.close()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"\x01\x00\x00\x00\x00\xcd" + bytes(205), "it does not speak TLS"),  # an A-ASSOCIATE-RQ
        (b"GET / HTTP/1.0\r\n\r\n", "it speaks HTTP, not TLS"),
        (b"\x16\x03\x01\x40\x00", "it did not finish the handshake in time"),
        (b"", "it did not finish the handshake in time"),
    ],
)
def test_what_is_no_tls_is_dropped_and_said(listening: Listening, sent: bytes, said: str) -> None:
    with socket.create_connection(("127.0.0.1", listening.port), 5) as raw:
        raw.sendall(sent)
        started = time.monotonic()
        assert listening.next() == said
        assert time.monotonic() - started < 2


def test_bytes_that_come_slowly_do_not_prolong_the_handshake(listening: Listening) -> None:
    """The time limit is for the whole of it, not for each byte."""
    with socket.create_connection(("127.0.0.1", listening.port), 5) as raw:
        started = time.monotonic()
        raw.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        while not listening.said and time.monotonic() - started < 5:
            try:
                raw.sendall(b"\0")
            except OSError:
                break
            time.sleep(0.1)
    assert listening.next() == "it did not finish the handshake in time"
    assert time.monotonic() - started < 2.5


def test_a_peer_that_goes_within_the_handshake(listening: Listening) -> None:
    socket.create_connection(("127.0.0.1", listening.port), 5).close()
    assert listening.next() == "it closed the connection within the handshake"


def test_there_is_no_renegotiation_and_no_resumption(
    listening: Listening, client: Signed, authority: Authority
) -> None:
    context = tls.client_context(
        PeerTls(ca=authority.certificate, certificate=client.certificate, key=client.key)
    )
    with (
        socket.create_connection(("127.0.0.1", listening.port), 5) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as secured,
    ):
        secured.recv(100)
        assert secured.session is None or not secured.session.has_ticket
        assert secured.compression() is None
