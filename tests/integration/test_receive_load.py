"""Many at once, and much at once: what the receiver stands, and what it costs in memory."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pydicom
import pytest
import upper_layer as ul
from nodes import Node
from peers import HOST, Dcmtk, is_alive, wait_until
from pydicom.uid import ExplicitVRLittleEndian
from scu import Wire, scu, store
from small_ct import CT, encoded, instance

LIMIT_MIB = 200
ASSOCIATIONS = 300


def wire(number: int, study: str = "1.2", **changes: object) -> Wire:
    uid = f"{study}.3.{number}"
    data = encoded(instance(SOPInstanceUID=uid, StudyInstanceUID=study, **changes))
    return Wire(CT, uid, ExplicitVRLittleEndian, data)


def acceptors(node: Node) -> list[int]:
    """Return the ids of the receive role's acceptor processes."""
    pid = node.pid("receive")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def memory_mib(pid: int) -> float:
    """Return the most memory that a process ever had in use of its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def connected(port: int) -> socket.socket:
    """Return an open association."""
    connection = socket.create_connection((HOST, port), timeout=30)
    connection.sendall(ul.associate_rq())
    assert ul.read_pdu(connection)[0] == 0x02
    return connection


def echo(connection: socket.socket) -> int:
    connection.sendall(ul.p_data(ul.pdv(3, 3, ul.command(ul.C_ECHO, sop_class=ul.VERIFICATION))))
    return ul.status_of(ul.read_response(connection))


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    limits = {"max_associations": ASSOCIATIONS}
    overrides = {"limits": limits, "receive": {"acceptors": 2}, "rules": []}
    node = Node(tmp_path_factory.mktemp("crowded"), overrides=overrides)
    try:
        node.start("receive")
        yield node
        node.stop()
    finally:
        node.close()


def test_three_hundred_associations_are_open_at_once(crowded: Node) -> None:
    with ExitStack() as stack:
        open_ones = [stack.enter_context(connected(crowded.port)) for _ in range(ASSOCIATIONS)]
        with socket.create_connection((HOST, crowded.port), timeout=30) as one_more:
            one_more.sendall(ul.associate_rq())
            assert ul.read_pdu(one_more) == (0x03, bytes((0, 2, 3, 2))), "local limit exceeded"
        assert {echo(connection) for connection in open_ones} == {0}
        for number, connection in enumerate(open_ones[::10]):
            one = wire(number, "1.30")
            connection.sendall(ul.store_rq(one.data, sop_instance=one.sop_instance_uid))
        statuses = {ul.status_of(ul.read_response(one)) for one in open_ones[::10]}
        assert statuses == {0}
        for connection in open_ones:
            connection.sendall(ul.RELEASE_RQ)
        assert {ul.read_pdu(one)[0] for one in open_ones} == {0x06}
    crowded.wait_for(lambda status: all(row["outcome"] for row in status["associations"]))
    assert crowded.status()["counts"]["instances"] == ASSOCIATIONS // 10
    assert all(memory_mib(pid) < LIMIT_MIB for pid in acceptors(crowded))


def test_memory_does_not_grow_with_the_instance(crowded: Node, tmp_path: Path) -> None:
    """Twenty associations, one of them with 300 MB, the others with 4 MB."""
    size = 300_000_000
    head = encoded(instance(PixelData=None, Rows=512, Columns=512, NumberOfFrames=572))
    element = bytes.fromhex("e07f1000") + b"OW\0\0" + size.to_bytes(4, "little")
    piece = os.urandom(100_000)

    def large(connection: socket.socket) -> None:
        connection.sendall(
            ul.p_data(ul.pdv(1, 3, ul.command(ul.C_STORE, data_set=True)))
            + ul.p_data(ul.pdv(1, 0, head + element))
        )
        for left in range(size, 0, -len(piece)):
            connection.sendall(ul.p_data(ul.pdv(1, 2 if left <= len(piece) else 0, piece)))
        assert ul.status_of(ul.read_response(connection)) == 0

    def small(connection: socket.socket, number: int) -> None:
        one = wire(number, "1.31", PixelData=bytes(4_000_000))
        sent = ul.store_rq(one.data, sop_instance=one.sop_instance_uid, piece=100_000)
        connection.sendall(sent)
        assert ul.status_of(ul.read_response(connection)) == 0

    with ExitStack() as stack:
        one, *others = (stack.enter_context(connected(crowded.port)) for _ in range(20))
        threads = [threading.Thread(target=large, args=(one,))]
        threads += [
            threading.Thread(target=small, args=(other, number))
            for number, other in enumerate(others)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
    used = {pid: memory_mib(pid) for pid in (crowded.pid("receive"), *acceptors(crowded))}
    assert all(mib < LIMIT_MIB for mib in used.values()), used

    def large_files() -> list[Path]:
        return [path for path in crowded.files() if path.stat().st_size > size]

    wait_until(large_files, 10, "the large one has its row")
    (path,) = large_files()
    assert path.read_bytes()[-len(piece) :] == piece
    path.unlink()


@pytest.mark.skipif(
    "DICOMNODE_LARGE" not in os.environ, reason="make bench-receive sends 1 GB; it takes a while"
)
@pytest.mark.peer("dcmtk")
def test_a_gigabyte_by_storescu(crowded: Node, dcmtk: Dcmtk, tmp_path: Path) -> None:
    dataset = instance(Rows=512, Columns=512, NumberOfFrames=2000, StudyInstanceUID="1.32")
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.PixelData = os.urandom(1 << 20) * 1000
    dataset["PixelData"].VR = "OW"
    path = tmp_path / "large.dcm"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    dcmtk.storescu(crowded.port, path)
    assert all(memory_mib(pid) < LIMIT_MIB for pid in acceptors(crowded))


def test_a_data_set_beyond_the_limit_is_refused_and_leaves_nothing(
    node: Callable[..., Node],
) -> None:
    limits = {"max_instance_bytes": 100_000}
    receiver = node("receive", overrides={"limits": limits, "rules": []})
    large, small = wire(1, PixelData=bytes(150_000)), wire(2)
    assert store(receiver.port, large, small, large) == [0xA700, 0x0000, 0xA700]
    assert [path.stem for path in receiver.files()] == [small.sop_instance_uid]
    assert receiver.attention() == ["INSTANCE_TOO_LARGE"], "once, however often it was said"
    assert receiver.quarantine() == []
    left = (receiver.spool / "arriving" / "receive").iterdir()
    assert [path for path in left if path.stat().st_size] == []


def test_an_acceptor_that_is_killed_is_replaced_and_nothing_acknowledged_is_lost(
    node: Callable[..., Node],
) -> None:
    receiver = node("receive", overrides={"receive": {"acceptors": 2}, "rules": []})
    wait_until(lambda: len(acceptors(receiver)) == 2, 20, "the acceptors run")
    sent = [wire(number) for number in range(500)]
    acknowledged: list[str] = []

    def send() -> None:
        with scu(receiver.port, sent, timeout=10) as requestor:
            for one in sent:
                if not requestor.association.is_established or requestor.store(one) != 0x0000:
                    return
                acknowledged.append(one.sop_instance_uid)

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: len(acknowledged) > 20, 30, "instances arrive")
    main, killed = receiver.pid("receive"), acceptors(receiver)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    sender.join(30)
    assert not sender.is_alive()
    assert 20 < len(acknowledged) < 500
    wait_until(lambda: len(set(acceptors(receiver)) - set(killed)) == 2, 20, "others run")
    assert receiver.pid("receive") == main
    # Of the last one no acceptor may have told any more.
    wait_until(
        lambda: set(acknowledged) <= {path.stem for path in receiver.files()}, 20, "all are there"
    )
    status = receiver.wait_for(lambda status: status["associations"][0]["outcome"])
    assert status["associations"][0]["outcome"] == "ABORTED"
    assert status["counts"]["instances"] == len(receiver.files())
    assert store(receiver.port, *sent[:40]) == [0x0000] * 40


def test_the_acceptors_die_with_their_role(node: Callable[..., Node]) -> None:
    receiver = node("receive", overrides={"receive": {"acceptors": 3}, "rules": []})
    wait_until(lambda: len(acceptors(receiver)) == 3, 20, "the acceptors run")
    with connected(receiver.port) as connection:
        assert echo(connection) == 0
        pids = acceptors(receiver)
        receiver.kill("receive")
        wait_until(lambda: not any(map(is_alive, pids)), 5, "the acceptors have ended")
        started = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - started < 5
    receiver.start("receive")
    assert store(receiver.port, wire(1)) == [0x0000]
