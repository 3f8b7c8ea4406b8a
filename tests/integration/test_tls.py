"""TLS between the node and real peers: DCMTK and pynetdicom, in both directions."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Signed
from ledger_kit import rows
from nodes import Node
from peers import HOST, Dcmtk, free_port, tail, wait_until
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from small_ct import CT, encoded, instance

from dicomnode.domain.outcomes import Done
from dicomnode.domain.security import PeerTls
from dicomnode.instances import file_prefix
from dicomnode.ledger.tables import audit
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


# Peers call the node


@pytest.fixture(scope="module")
def modality(authority: Authority) -> Signed:
    return authority.sign("modality", usage="clientAuth")


@pytest.fixture(scope="module")
def receiver(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, node: Signed, modality: Signed
) -> Iterator[Node]:
    """A receiver with both ports; the peer PINNED may come with one certificate only."""
    tls = {
        "port": free_port(),
        "certificate": str(node.certificate),
        "key": str(node.key),
        "client_ca": str(authority.certificate),
    }
    pinned = {
        "ae_title": "PINNED",
        "host": HOST,
        "accept": True,
        "certificate_sha256": modality.sha256,
    }
    one = Node(
        tmp_path_factory.mktemp("receiver"),
        overrides={
            "node": {"tls": tls},
            "peers": {"PINNED": pinned},
            "audit": {"file": {}},
            "limits": {"artim_seconds": 1.0, "pdu_timeout_seconds": 2.0},
        },
    )
    try:
        one.start("receive")
        yield one
        one.stop()
    finally:
        one.close()


def tls_port(node: Node) -> int:
    return int(node.document["node"]["tls"]["port"])


def as_dcmtk(own: Signed | None, authority: Authority) -> list[object]:
    """DCMTK's options for TLS."""
    if own is None:
        return ["+tla", "+cf", authority.certificate]
    return ["+tls", own.key, own.certificate, "+cf", authority.certificate]


def said(node: Node, mark: int, text: str) -> None:
    """Wait until the log has a line."""
    wait_until(
        lambda: text in node.log.read_bytes()[mark:].decode(), 10, f"{text} in\n{tail(node.log)}"
    )


@pytest.mark.peer("dcmtk")
def test_dcmtk_stores_and_verifies_over_tls(
    receiver: Node, dcmtk: Dcmtk, authority: Authority, modality: Signed, tmp_path: Path
) -> None:
    path = tmp_path / "ct.dcm"
    prefix = file_prefix(CT, "1.2.3.5", ExplicitVRLittleEndian)
    path.write_bytes(prefix + encoded(instance(SOPInstanceUID="1.2.3.5")))
    options = as_dcmtk(modality, authority)
    common = ["-aet", "MODALITY", "-aec", "DICOMNODE"]
    done = dcmtk.run("echoscu", *options, *common, "localhost", tls_port(receiver))
    assert done.returncode == 0, done.stderr
    done = dcmtk.run("storescu", *options, *common, "localhost", tls_port(receiver), path)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in receiver.files()] == ["1.2.3.5.dcm"]
    # The port without TLS is there as well.
    assert dcmtk.echoscu(receiver.port).returncode == 0


@pytest.mark.peer("dcmtk")
def test_dcmtk_does_not_get_in_with_what_will_not_do(
    receiver: Node, dcmtk: Dcmtk, authority: Authority, stranger: Authority, modality: Signed
) -> None:
    expired = authority.sign("expired", days=-1)
    other = stranger.sign("other")
    common = ["-aet", "MODALITY", "-aec", "DICOMNODE", "-to", "5", "-ta", "5"]
    for options, why in (
        (as_dcmtk(None, authority), "it "),  # no certificate: no suite, or no certificate shown
        (as_dcmtk(other, authority), "its certificate is not accepted: unable to get local issuer"),
        (as_dcmtk(expired, authority), "its certificate is not accepted: certificate has expired"),
        (as_dcmtk(modality, stranger), "it does not trust our certificate"),
        ([*as_dcmtk(modality, authority), "+pa"], "it offers no cipher suite of BCP 195"),
    ):
        mark = receiver.log.stat().st_size
        done = dcmtk.run("echoscu", *options, *common, "localhost", tls_port(receiver))
        assert done.returncode != 0, options
        said(receiver, mark, f'CONNECTION_FAILED address=127.0.0.1 detail="{why}')
        if options != as_dcmtk(None, authority):  # who only goes away has not been refused
            wait_until(lambda why=why: why in unproven(receiver), 10, "it is audited")


def unproven(node: Node) -> str:
    """Return what the audit trail is told of peers that did not prove who they are."""
    found = [row for row in rows(node.ledger, audit) if row.kind == "HANDSHAKES_FAILED"]
    assert all(row.facts["requestors"][0][1] == HOST for row in found)
    return " ".join(row.detail for row in found)


@pytest.mark.peer("dcmtk")
def test_a_certificate_is_bound_to_an_ae_title(
    receiver: Node, dcmtk: Dcmtk, authority: Authority, modality: Signed
) -> None:
    common = ["-aet", "PINNED", "-aec", "DICOMNODE", "localhost"]
    good = as_dcmtk(modality, authority)
    assert dcmtk.run("echoscu", *good, *common, tls_port(receiver)).returncode == 0
    another = authority.sign("another")  # of the same authority, but not that peer's
    done = dcmtk.run("echoscu", *as_dcmtk(another, authority), *common, tls_port(receiver))
    assert "Calling AE Title Not Recognized" in done.stdout + done.stderr
    done = dcmtk.run("echoscu", *common, receiver.port)
    assert "Calling AE Title Not Recognized" in done.stdout + done.stderr
    strangers = receiver.wait_for(
        lambda status: len([s for s in status["strangers"] if s["calling_ae"] == "PINNED"]) == 2
    )["strangers"]
    remedies = {row["certificate_sha256"]: row["remedy"] for row in strangers}
    assert modality.sha256 in remedies[another.sha256]
    assert another.sha256 in remedies[another.sha256]
    assert "TLS port" in remedies[None]


def test_pynetdicom_comes_in_over_tls(
    receiver: Node, authority: Authority, modality: Signed
) -> None:
    ours = PeerTls(ca=authority.certificate, certificate=modality.certificate, key=modality.key)
    with associate(
        calling_ae="MODALITY",
        called_ae="DICOMNODE",
        host="localhost",
        port=tls_port(receiver),
        contexts=[(CT, ExplicitVRLittleEndian)],
        timeout_seconds=5,
        tls=ours,
    ) as association:
        assert association.echo() == Done()


def test_each_on_the_others_port_is_told_and_does_not_hang(
    receiver: Node, authority: Authority, modality: Signed
) -> None:
    ours = PeerTls(ca=authority.certificate, certificate=modality.certificate, key=modality.key)
    for port, tls, line in (
        (tls_port(receiver), None, "it does not speak TLS"),
        (receiver.port, ours, "it speaks TLS, and this port does not"),
    ):
        mark = receiver.log.stat().st_size
        started = time.monotonic()
        with (
            pytest.raises(ConnectError),
            associate(
                calling_ae="MODALITY",
                called_ae="DICOMNODE",
                host="localhost",
                port=port,
                contexts=(),
                timeout_seconds=5,
                tls=tls,
            ),
        ):
            pass
        assert time.monotonic() - started < 5
        said(receiver, mark, line)


def test_silent_handshakes_keep_nobody_waiting(
    receiver: Node, authority: Authority, modality: Signed
) -> None:
    silent = [socket.create_connection((HOST, tls_port(receiver)), 5) for _ in range(30)]
    try:
        started = time.monotonic()
        test_pynetdicom_comes_in_over_tls(receiver, authority, modality)
        assert time.monotonic() - started < 5
        mark = 0
        said(receiver, mark, "it did not finish the handshake in time")
    finally:
        for connection in silent:
            connection.close()


def test_a_node_with_tls_only(
    node: Signed, authority: Authority, modality: Signed, tmp_path: Path
) -> None:
    plain = free_port()
    tls = {
        "port": free_port(),
        "certificate": str(node.certificate),
        "key": str(node.key),
        "client_certificates": "none",
    }
    one = Node(tmp_path, overrides={"node": {"port": None, "tls": tls}})
    try:
        one.start("receive")
        with associate(
            calling_ae="MODALITY",
            called_ae="DICOMNODE",
            host="localhost",
            port=tls["port"],
            contexts=(),
            timeout_seconds=5,
            tls=PeerTls(ca=authority.certificate),
        ) as association:
            assert association.echo() == Done()
        with socket.socket() as probe:
            assert probe.connect_ex((HOST, plain)) != 0
        one.stop()
    finally:
        one.close()


def test_a_receiver_with_a_bad_certificate_says_so_and_ends(
    authority: Authority, tmp_path: Path
) -> None:
    expired = authority.sign("expired2", days=-1)
    tls = {
        "port": free_port(),
        "certificate": str(expired.certificate),
        "key": str(tmp_path / "none.key"),
        "client_certificates": "none",
    }
    one = Node(tmp_path, overrides={"node": {"tls": tls}})
    done = subprocess.run(
        [sys.executable, "-m", "dicomnode", "receive", str(one.config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"node.tls.key: {tmp_path}/none.key cannot be read" in done.stderr
