"""TLS between the node and real peers: DCMTK and pynetdicom, in both directions."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Signed
from peers import HOST, free_port
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from small_ct import CT, encoded, instance

from dicomnode.domain.outcomes import Done
from dicomnode.domain.security import PeerTls
from dicomnode.instances import file_prefix
from dicomnode.network.scu import ConnectError, associate
from dicomnode.network.sockets import VERIFICATION

pytestmark = pytest.mark.peer("openssl")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def archive(authority: Authority) -> Signed:
    return authority.sign("archive")


@pytest.fixture(scope="module")
def node(authority: Authority) -> Signed:
    return authority.sign("node")


# The node calls a peer


@contextmanager
def listening(own: Signed, client_ca: Path | None = None, **changes: Any) -> Iterator[int]:
    """pynetdicom's SCP with TLS; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.load_cert_chain(own.certificate, own.key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    for name, value in changes.items():
        setattr(context, name, value)
    ae = AE(ae_title="ARCHIVE")
    ae.add_supported_context(VERIFICATION)
    ae.add_supported_context(CT, ExplicitVRLittleEndian)
    port = free_port()
    server = ae.start_server(
        (HOST, port),
        block=False,
        ssl_context=context,
        evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0x0000)],
    )
    try:
        yield port
    finally:
        server.shutdown()
        ae.shutdown()


def call(port: int, tls: PeerTls | None, host: str = "localhost") -> Any:
    return associate(
        calling_ae="DICOMNODE",
        called_ae="ARCHIVE",
        host=host,
        port=port,
        contexts=[(CT, ExplicitVRLittleEndian)],
        timeout_seconds=3,
        tls=tls,
    )


def test_a_result_goes_out_over_tls(
    authority: Authority, archive: Signed, node: Signed, tmp_path: Path
) -> None:
    path = tmp_path / "ct.dcm"
    prefix = file_prefix(CT, "1.2.3.4", ExplicitVRLittleEndian)
    path.write_bytes(prefix + encoded(instance()))
    ours = PeerTls(ca=authority.certificate, certificate=node.certificate, key=node.key)
    with (
        listening(archive, authority.certificate) as port,
        call(port, ours) as association,
    ):
        assert association.echo() == Done()
        assert association.store(path, CT, ExplicitVRLittleEndian) == (Done(), 0x0000)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_peer_that_will_not_do_is_told_why(
    authority: Authority, stranger: Authority, archive: Signed
) -> None:
    trusted = PeerTls(ca=authority.certificate)
    expired = authority.sign("expired", days=-1)
    elsewhere = authority.sign("elsewhere", alternative_names="DNS:pacs.example")
    only_common_name = authority.sign("localhost", alternative_names="DNS:other.example")
    for own, tls, changes, said in (
        (archive, PeerTls(ca=stranger.certificate), {}, "unable to get local issuer certificate"),
        (archive, PeerTls(), {}, "unable to get local issuer certificate"),
        (expired, trusted, {}, "certificate has expired"),
        (elsewhere, trusted, {}, "Hostname mismatch, certificate is not valid for 'localhost'"),
        (only_common_name, trusted, {}, "Hostname mismatch"),
        (
            archive,
            trusted,
            {"maximum_version": ssl.TLSVersion.TLSv1_1},
            "it speaks no TLS from version 1.2 on",
        ),
    ):
        with listening(own, **changes) as port:
            with pytest.raises(ConnectError) as error, call(port, tls):
                pass
            assert error.value.code == "TLS_FAILED"
            assert said in error.value.detail
    with listening(elsewhere) as port:
        named = PeerTls(ca=authority.certificate, server_name="pacs.example")
        with call(port, named) as association:
            assert association.echo() == Done()
    missing = PeerTls(ca=Path("/nowhere/ca.pem"))
    with pytest.raises(ConnectError, match=r"TLS_FAILED: /nowhere/ca\.pem cannot be read"):
        call(1, missing).__enter__()


def test_a_peer_without_tls_or_without_a_word_does_not_hold_us(authority: Authority) -> None:
    """A plain SCP takes the handshake for a PDU of half a gigabyte, and waits; we do not."""
    ae = AE(ae_title="ARCHIVE")
    ae.add_supported_context(VERIFICATION)
    port = free_port()
    plain = ae.start_server((HOST, port), block=False)
    silent = socket.create_server((HOST, 0))
    try:
        for number in (port, silent.getsockname()[1]):
            started = time.monotonic()
            with (
                pytest.raises(ConnectError) as error,
                call(number, PeerTls(ca=authority.certificate)),
            ):
                pass
            assert error.value.code == "TLS_FAILED"
            assert time.monotonic() - started < 6
    finally:
        plain.shutdown()
        ae.shutdown()
        silent.close()


def test_a_call_without_tls_to_a_port_with_tls_is_no_hang(archive: Signed) -> None:
    with listening(archive) as port:
        started = time.monotonic()
        with pytest.raises(ConnectError) as error, call(port, None):
            pass
        assert error.value.code == "ABORTED"
        assert time.monotonic() - started < 6


def test_a_client_certificate_that_the_peer_misses_is_no_association(
    authority: Authority, archive: Signed
) -> None:
    """In TLS 1.3 our side of the handshake is over when the peer finds no certificate."""
    with listening(archive, authority.certificate) as port:
        with pytest.raises(ConnectError) as error, call(port, PeerTls(ca=authority.certificate)):
            pass
        assert error.value.code in ("ABORTED", "TLS_FAILED")
    with listening(archive, authority.certificate, maximum_version=ssl.TLSVersion.TLSv1_2) as port:
        with pytest.raises(ConnectError) as error, call(port, PeerTls(ca=authority.certificate)):
            pass
        assert error.value.code == "TLS_FAILED"
