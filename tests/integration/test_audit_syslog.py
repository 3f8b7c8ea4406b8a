"""Audit messages to a real repository: rsyslog, by TLS (RFC 5425) and by UDP (RFC 5426)."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from audit_kit import details
from certificates import Authority
from ledger_kit import rows
from peers import HOST, free_port, wait_until
from repositories import Rsyslog

from dicomnode.domain.audit_policy import AuditSyslog, frame, syslog_message
from dicomnode.domain.security import PeerTls
from dicomnode.ledger import Ledger, audit_sinks, nodes
from dicomnode.ledger.outbox import record_now
from dicomnode.ledger.schema import upgrade
from dicomnode.ledger.tables import audit
from dicomnode.network import syslog
from dicomnode.network.syslog import SyslogError
from dicomnode.services.auditing import send_to_repository
from dicomnode.services.common import Context
from dicomnode.settings import Settings
from dicomnode.spool import Spool

AT = datetime(2026, 3, 1, 12, 30, 5, 250_000, tzinfo=UTC)


# RFC 5424 and 5425, without a peer


def test_a_message_has_the_header_that_the_standard_asks_for() -> None:
    made = syslog_message("<a>ü</a>".encode(), AT, "ct-node", "node-1", warns=False)
    assert made == (
        b"<85>1 2026-03-01T12:30:05.250+00:00 ct-node dicomnode node-1 DICOM+RFC3881 - "
        b"\xef\xbb\xbf<a>\xc3\xbc</a>"
    )
    assert syslog_message(b"", AT, "n\u00e4me with spaces", "n", warns=True).startswith(
        b"<84>1 2026-03-01T12:30:05.250+00:00 nmewithspaces dicomnode n "
    )


def test_octets_are_counted() -> None:
    assert frame("ü".encode()) == b"2 \xc3\xbc"


# With rsyslog


class Trail:
    """What an audit trail by syslog needs of a node."""

    def __init__(self, folder: Path, clock: Any, **syslog_settings: Any) -> None:
        self.clock = clock
        self.ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite", "node-1", clock)
        upgrade(self.ledger)
        with self.ledger.transaction() as tx:
            nodes.register_node(tx, "DICOMNODE", "key-1")
        settings = Settings.model_validate(
            {
                "node": {"id": "node-1"},
                "storage": {"folder": folder},
                "audit": {"syslog": syslog_settings, "retry": {"first_seconds": 5}},
            }
        )
        self.ledger.audit_room = settings.audit.room
        spool = Spool(folder / "spool", "tick")
        spool.create()
        self.context = Context(
            settings=settings,
            spool=spool,
            ledger=self.ledger,
            patient_key=b"key",
            stop=threading.Event(),
        )

    def happen(self, *numbers: int) -> None:
        for number in numbers:
            record_now(self.ledger, "USER_CHANGED", by="Jörg", detail=f"number {number}")

    def bring(self) -> int:
        self.clock.forward(121)
        return send_to_repository(self.context)

    def waiting(self) -> int:
        return len(rows(self.ledger, audit))

    def why(self) -> str:
        with self.ledger.transaction() as tx:
            facts = audit_sinks.listing(tx)
        assert facts is not None
        return str(facts["sinks"][0]["detail"])


def said(repository: Rsyslog) -> list[int]:
    """Return the numbers that have arrived, in order."""
    found = [details(one)["Alert Description"] for one in repository.messages()]
    return [int(text.rpartition(" ")[2]) for text in found]


@pytest.mark.peer("rsyslog")
def test_messages_arrive_whole_and_in_order(
    tmp_path: Path, clock: Any, repository: Rsyslog
) -> None:
    trail = Trail(tmp_path, clock, **repository.settings())
    trail.happen(*range(150))
    assert trail.bring() == 150
    assert trail.waiting() == 0
    wait_until(lambda: len(repository.lines()) == 150, 10, "all are written down")
    assert said(repository) == list(range(150))
    header = rb"<85>1 \S+ \S+ dicomnode node-1 DICOM\+RFC3881 - \xef\xbb\xbf<AuditMessage>"
    assert all(re.match(header, line) for line in repository.lines())
    people = {one.findall("ActiveParticipant")[1].get("UserID") for one in repository.messages()}
    assert people == {"Jörg"}


@pytest.mark.peer("rsyslog")
def test_a_long_message_arrives_whole(tmp_path: Path, clock: Any, repository: Rsyslog) -> None:
    """PS3.15 A.6 asks for 32768 octets."""
    policy = Trail(tmp_path, clock, **repository.settings()).context.settings.audit.syslog
    assert policy is not None
    long = syslog_message(b"<a>" + b"x" * 32768 + b"</a>", AT, "host", "node-1", warns=False)
    syslog.send(policy, [long])
    wait_until(lambda: repository.lines() == [long], 10, "it is written down whole")


@pytest.mark.peer("rsyslog")
def test_down_and_back_and_killed_and_frozen_everything_arrives_in_order(
    tmp_path: Path, clock: Any, repository: Rsyslog
) -> None:
    trail = Trail(tmp_path, clock, **repository.settings(timeout_seconds=1.0))
    trail.happen(0, 1)
    assert trail.bring() == 2
    wait_until(lambda: len(repository.lines()) == 2, 10, "two are written down")
    repository.stop()
    trail.happen(2, 3)
    assert trail.bring() == 0
    assert trail.why() == "Connection refused"
    repository.start()
    assert trail.bring() == 2
    wait_until(lambda: len(repository.lines()) == 4, 10, "four are written down")
    repository.freeze()
    trail.happen(4)
    assert trail.bring() == 0
    assert trail.why() == "it does not answer in time"
    assert trail.waiting() == 1
    repository.kill()
    repository.start()
    trail.happen(5)
    assert trail.bring() == 2
    wait_until(lambda: len(repository.lines()) == 6, 10, "all are written down")
    assert said(repository) == [0, 1, 2, 3, 4, 5]
    assert trail.waiting() == 0


@pytest.mark.peer("rsyslog")
def test_only_the_right_repository_is_believed(
    tmp_path: Path, clock: Any, repository: Rsyslog
) -> None:
    other = Authority(tmp_path / "other", "other")
    given = repository.settings()
    for tls, why in (
        ({**given["tls"], "ca": str(other.certificate)}, "its certificate is not accepted"),
        ({**given["tls"], "server_name": "arr.example"}, "its certificate is not accepted"),
        ({"ca": given["tls"]["ca"]}, "client certificate"),
    ):
        folder = tmp_path / f"node-{why[:3]}-{len(tls)}-{tls.get('server_name', '')}"
        folder.mkdir()
        trail = Trail(folder, clock, **{**given, "tls": tls})
        trail.happen(1)
        assert trail.bring() == 0
        assert why in trail.why()
        assert trail.waiting() == 1
    assert repository.lines() == []


@pytest.mark.peer("rsyslog")
def test_datagrams_arrive_where_they_are_allowed(
    tmp_path: Path, clock: Any, repository: Rsyslog
) -> None:
    given = {"host": HOST, "port": repository.port, "transport": "udp", "allow_unencrypted": True}
    trail = Trail(tmp_path, clock, **given)
    trail.happen(1, 2)
    assert trail.bring() == 2
    wait_until(lambda: len(repository.lines()) == 2, 10, "both are written down")
    assert said(repository) == [1, 2]


# Repositories that do other than they should


class Listener:
    """A TLS server for one connection, which does what a test says."""

    def __init__(self, folder: Path, act: Any) -> None:
        authority = Authority(folder / "listener")
        own = authority.sign("listener")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own.certificate, own.key)
        self.port = free_port()
        self.policy = AuditSyslog(
            host=HOST, port=self.port, timeout_seconds=2.0, tls=PeerTls(ca=authority.certificate)
        )
        self.heard = b""
        self._listening = socket.create_server((HOST, self.port))

        def serve() -> None:
            connection, _ = self._listening.accept()
            with connection, context.wrap_socket(connection, server_side=True) as secured:
                act(self, secured)

        self.thread = threading.Thread(target=serve)
        self.thread.start()

    def end(self) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive()
        self._listening.close()


def read_all(listener: Listener, secured: ssl.SSLSocket) -> None:
    while chunk := secured.recv(4096):
        listener.heard += chunk


def test_an_answered_end_is_a_receipt(tmp_path: Path) -> None:
    def act(listener: Listener, secured: ssl.SSLSocket) -> None:
        read_all(listener, secured)
        secured.unwrap()

    listener = Listener(tmp_path, act)
    syslog.send(listener.policy, [b"one", b"number two"])
    listener.end()
    assert listener.heard == b"3 one10 number two"


def test_who_goes_away_without_reading_has_nothing(tmp_path: Path) -> None:
    listener = Listener(tmp_path, lambda _listener, _secured: None)
    with pytest.raises(SyslogError):
        syslog.send(listener.policy, [b"x" * 8_000_000])
    listener.end()


def test_who_reads_and_never_answers_has_not_confirmed(tmp_path: Path) -> None:
    over = threading.Event()

    def act(listener: Listener, secured: ssl.SSLSocket) -> None:
        read_all(listener, secured)
        over.wait(10)

    listener = Listener(tmp_path, act)
    with pytest.raises(SyslogError, match="in time"):
        syslog.send(listener.policy, [b"one"])
    over.set()
    listener.end()


def test_who_speaks_no_tls_is_told_so(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as listening:
        port = listening.getsockname()[1]

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(SyslogError, match="does not speak TLS"):
            syslog.send(AuditSyslog(host=HOST, port=port, timeout_seconds=2.0), [b"one"])
        thread.join(10)


def test_a_datagram_to_nobody_is_no_success() -> None:
    port = free_port()
    policy = AuditSyslog(host=HOST, port=port, transport="udp", allow_unencrypted=True)
    with pytest.raises(SyslogError, match="refused"):
        syslog.send(policy, [b"one", b"two", b"three"])


def test_a_name_that_does_not_exist_is_said() -> None:
    policy = AuditSyslog(host="no.such.host.invalid", timeout_seconds=2.0)
    with pytest.raises(SyslogError):
        syslog.send(policy, [b"one"])
