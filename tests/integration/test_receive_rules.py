"""The rules for associations, asked by real connections: addresses, limits of a peer, strangers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import upper_layer as ul
from nodes import Node
from peers import Dcmtk

BOTH_FAMILIES = "::"


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A receiver on both families of addresses, in several processes."""
    peers = {
        "FOUR": {"ae_title": "FOUR", "host": "127.0.0.1", "accept": True, "addresses": "127.0.0.1"},
        "SIX": {"ae_title": "SIX", "host": "::1", "accept": True, "addresses": ["::1", "fd00::/8"]},
        "ELSE": {"ae_title": "ELSE", "host": "10.1.1.1", "accept": True, "addresses": "10.0.0.0/8"},
        "FEW": {"ae_title": "FEW", "host": "127.0.0.1", "accept": True, "max_associations": 3},
    }
    node = Node(
        tmp_path_factory.mktemp("receiver"),
        overrides={
            "node": {"bind": BOTH_FAMILIES},
            "peers": peers,
            "limits": {"max_associations": 6},
        },
    )
    try:
        node.start("receive")
        yield node
        node.stop()
    finally:
        node.close()


def ask(node: Node, calling: str, host: str = "127.0.0.1", **changes: object) -> socket.socket:
    """Ask for an association and leave the connection open."""
    connection = socket.create_connection((host, node.port), 10)
    connection.sendall(ul.associate_rq(calling=calling, **changes))  # type: ignore[arg-type]
    return connection


def answer(node: Node, calling: str, host: str = "127.0.0.1", **changes: object) -> str:
    """Ask for an association; return "accepted", or result/source/reason."""
    with ask(node, calling, host, **changes) as connection:
        return heard(connection)


def heard(connection: socket.socket) -> str:
    kind, body = ul.read_pdu(connection)
    return "accepted" if kind == 0x02 else "/".join(map(str, body[1:4]))


@pytest.mark.parametrize(
    ("calling", "host", "expected"),
    [
        ("FOUR", "127.0.0.1", "accepted"),  # the socket shows ::ffff:127.0.0.1
        ("FOUR", "::1", "1/1/3"),
        ("SIX", "::1", "accepted"),
        ("SIX", "127.0.0.1", "1/1/3"),
        ("ELSE", "127.0.0.1", "1/1/3"),
        ("MODALITY", "::1", "accepted"),
    ],
)
def test_where_a_peer_may_come_from(receiver: Node, calling: str, host: str, expected: str) -> None:
    assert answer(receiver, calling, host) == expected


def test_what_is_no_dicom_is_rejected_as_such(receiver: Node) -> None:
    assert answer(receiver, "FOUR", application="1.2.3") == "1/1/2"
    assert answer(receiver, "FOUR", version=2) == "1/2/2"
    assert answer(receiver, "FOUR", version=3) == "accepted"
    assert answer(receiver, "FOUR", called="OTHER") == "1/1/7"


def none_open(node: Node) -> None:
    node.wait_for(lambda status: all(row["outcome"] for row in status["associations"]))


def test_a_peer_has_as_many_associations_as_it_may(receiver: Node) -> None:
    """Counted over all the processes that accept."""
    none_open(receiver)
    with ExitStack() as stack:
        answers = [heard(stack.enter_context(ask(receiver, "FEW"))) for _ in range(5)]
        assert sorted(answers) == ["2/3/2", "2/3/2", "accepted", "accepted", "accepted"]
        assert answer(receiver, "FOUR") == "accepted"
        others = [heard(stack.enter_context(ask(receiver, "FOUR"))) for _ in range(5)]
        assert others.count("2/3/2") >= 2, "six in all"
        assert answer(receiver, "NOBODY") == "1/1/3", "a stranger is told so however full it is"
    none_open(receiver)
    assert answer(receiver, "FEW") == "accepted"


@pytest.mark.peer("dcmtk")
def test_a_refused_modality_is_in_status_with_the_yaml_that_lets_it_in(
    receiver: Node, dcmtk: Dcmtk
) -> None:
    for _ in range(3):
        assert dcmtk.echoscu(receiver.port, calling="NEW_CT").returncode != 0
    status = receiver.wait_for(
        lambda status: any(
            row["calling_ae"] == "NEW_CT" and row["count"] == 3 for row in status["strangers"]
        )
    )
    (row,) = [row for row in status["strangers"] if row["calling_ae"] == "NEW_CT"]
    assert (row["called_ae"], row["code"]) == ("DICOMNODE", "CALLING_AE_UNKNOWN")
    assert row["remedy"] == ("peers:\n  NEW_CT: {ae_title: NEW_CT, host: 127.0.0.1, accept: true}")


def test_a_scanner_of_titles_leaves_a_bounded_trace(receiver: Node) -> None:
    """Whoever reaches the port can be refused as often as it likes."""
    for number in range(60):
        assert answer(receiver, f"SCAN{number}") == "1/1/3"
    receiver.wait_for(lambda status: len(status["strangers"]) >= 60)
    with receiver.ledger.transaction() as tx:
        events = tx.connection.exec_driver_sql("SELECT count(*) FROM event").scalar_one()
    assert events < 30, "refusals are counted, not listed"
