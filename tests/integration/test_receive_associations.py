"""Who may come in, and what they hear otherwise (PS3.8 section 9.3.4, table 9-21)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from nodes import Node
from peers import Dcmtk
from pydicom.uid import ExplicitVRLittleEndian
from scu import RejectedError, Wire, scu, store
from small_ct import CT, encoded, instance

from dicomnode.errors import DicomnodeError
from dicomnode.network import acceptor

REJECTED_PERMANENT = 1
REJECTED_TRANSIENT = 2
SERVICE_USER = 1
SERVICE_PROVIDER_PRESENTATION = 3
CALLING_AE_NOT_RECOGNISED = 3
CALLED_AE_NOT_RECOGNISED = 7
LOCAL_LIMIT_EXCEEDED = 2


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A receiver that takes two associations at a time."""
    peers = {"SILENT": {"ae_title": "SILENT", "host": "127.0.0.1"}}
    node = Node(
        tmp_path_factory.mktemp("receiver"),
        overrides={"limits": {"max_associations": 2}, "peers": peers},
    )
    try:
        node.start("receive")
        yield node
        node.stop()
    finally:
        node.close()


def wire(number: int, syntax: str = ExplicitVRLittleEndian) -> Wire:
    uid = f"1.2.3.{number}"
    return Wire(CT, uid, syntax, encoded(instance(SOPInstanceUID=uid), syntax))


def no_association(node: Node) -> None:
    node.wait_for(
        lambda status: all(row["outcome"] for row in status["associations"]),
        what="no association is open",
    )


def test_a_known_peer_is_answered_to_c_echo(receiver: Node) -> None:
    with scu(receiver.port) as requestor:
        assert requestor.echo() == 0x0000


@pytest.mark.peer("dcmtk")
def test_dcmtk_is_answered_to_c_echo_or_told_why_not(receiver: Node, dcmtk: Dcmtk) -> None:
    assert dcmtk.echoscu(receiver.port).returncode == 0
    done = dcmtk.echoscu(receiver.port, calling="UNKNOWN")
    assert done.returncode != 0
    assert "Calling AE Title Not Recognized" in done.stdout + done.stderr
    done = dcmtk.echoscu(receiver.port, called="WRONG")
    assert "Called AE Title Not Recognized" in done.stdout + done.stderr


@pytest.mark.parametrize("calling", ["UNKNOWN", "modality", "MODALITY2", "SILENT"])
def test_an_unknown_calling_ae_is_rejected(receiver: Node, calling: str) -> None:
    """SILENT is a peer, but none that may send."""
    with pytest.raises(RejectedError) as rejected, scu(receiver.port, calling=calling):
        pass
    expected = (REJECTED_PERMANENT, SERVICE_USER, CALLING_AE_NOT_RECOGNISED)
    assert rejected.value.codes == expected


@pytest.mark.parametrize("called", ["ANY-SCP", "dicomnode", "OTHER"])
def test_a_wrong_called_ae_is_rejected(receiver: Node, called: str) -> None:
    with pytest.raises(RejectedError) as rejected, scu(receiver.port, called=called):
        pass
    expected = (REJECTED_PERMANENT, SERVICE_USER, CALLED_AE_NOT_RECOGNISED)
    assert rejected.value.codes == expected


def test_spaces_around_an_ae_title_mean_nothing(receiver: Node) -> None:
    """PS3.5 6.2: leading and trailing spaces are not significant."""
    with scu(receiver.port, calling="MODALITY  ", called="DICOMNODE ") as requestor:
        assert requestor.echo() == 0x0000


def test_a_rejection_repeats_as_a_count(receiver: Node) -> None:
    for _ in range(3):
        with pytest.raises(RejectedError), scu(receiver.port, calling="INTRUDER"):
            pass
    receiver.wait_for(
        lambda status: (
            [row["count"] for row in status["strangers"] if row["calling_ae"] == "INTRUDER"] == [3]
        )
    )


def test_too_many_associations_are_rejected_for_the_moment(receiver: Node) -> None:
    no_association(receiver)
    with scu(receiver.port) as one, scu(receiver.port) as two:
        with pytest.raises(RejectedError) as rejected, scu(receiver.port):
            pass
        assert (one.echo(), two.echo()) == (0x0000, 0x0000)
    expected = (REJECTED_TRANSIENT, SERVICE_PROVIDER_PRESENTATION, LOCAL_LIMIT_EXCEEDED)
    assert rejected.value.codes == expected
    no_association(receiver)
    with scu(receiver.port) as again:
        assert again.echo() == 0x0000


def test_two_associations_at_once_with_the_same_instances(receiver: Node) -> None:
    no_association(receiver)
    sent = [wire(number) for number in range(20)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: store(receiver.port, *sent), range(2)))
    assert answers == [[0x0000] * 20] * 2
    assert receiver.status()["counts"]["instances"] == 20
    assert len(receiver.files()) == 20
    assert receiver.quarantine() == []


def test_an_abort_keeps_what_was_acknowledged_and_is_said(receiver: Node) -> None:
    no_association(receiver)
    kept = wire(100)
    with scu(receiver.port, [kept]) as requestor:
        assert requestor.store(kept) == 0x0000
        requestor.association.abort()
    no_association(receiver)
    newest = receiver.status()["associations"][0]
    assert (newest["outcome"], newest["instances"]) == ("ABORTED", 1)
    assert [path.name for path in receiver.files() if "1.2.3.100." in path.name]


def test_without_an_accepting_peer_nobody_may_send(node: Callable[..., Node]) -> None:
    nobody = {"MODALITY": {"accept": False}, "ARCHIVE": {"accept": False}}
    alone = node("receive", overrides={"peers": nobody})
    for calling in ("MODALITY", "ARCHIVE", "ANYBODY"):
        with pytest.raises(RejectedError) as rejected, scu(alone.port, calling=calling):
            pass
        assert rejected.value.codes[2] == CALLING_AE_NOT_RECOGNISED


def test_a_port_that_is_taken_is_told_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "BIND_ATTEMPTS_SECONDS", 0.3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DicomnodeError, match=f"cannot listen on 127.0.0.1:{port}"):
            acceptor.listen("127.0.0.1", port)
