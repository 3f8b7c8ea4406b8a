"""Whatever ends the receiver: what was acknowledged is there, and what is there is known."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from nodes import Node
from peers import Postgres, wait_until
from pydicom.uid import ExplicitVRLittleEndian
from scu import Wire, scu, store
from small_ct import CT, encoded, instance

from dicomnode import instances as reading
from dicomnode.instances import seals

MEGABYTE = 1_000_000


def wire(number: int, study: str = "1.2") -> Wire:
    uid = f"{study}.3.{number}"
    data = encoded(instance(SOPInstanceUID=uid, StudyInstanceUID=study))
    return Wire(CT, uid, ExplicitVRLittleEndian, data)


def names(node: Node) -> set[str]:
    return {path.stem for path in node.files()}


def sealed(node: Node) -> set[str]:
    """Of the instances whose bytes are sealed and whose rows are still to be written."""
    found = set()
    for path in (node.spool / "arriving" / "receive").iterdir():
        if seals.decode(path.read_bytes()[: seals.PREAMBLE_BYTES]) is not None:
            found.add(str(pydicom.dcmread(path).SOPInstanceUID))
    return found


def unfinished(node: Node) -> list[Path]:
    """Return the temporary files that are not empty."""
    folders = (node.spool / "tmp", node.spool / "arriving")
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in files if path.stat().st_size]


def test_what_was_acknowledged_survives_a_kill(node: Callable[..., Node]) -> None:
    """SIGKILL right behind an answer, in the midst of a series; then the same series again."""
    receiver = node("receive")
    sent = [wire(number) for number in range(40)]
    pid = receiver.pid("receive")
    acknowledged = set()
    with scu(receiver.port, sent) as requestor:
        for one in sent[:15]:
            assert requestor.store(one) == 0x0000
            acknowledged.add(one.sop_instance_uid)
        receiver.kill("receive")
        assert pid
        assert acknowledged <= names(receiver) | sealed(receiver)
    receiver.start("receive")
    status = receiver.status()
    assert status["counts"]["instances"] == 15
    assert store(receiver.port, *sent) == [0x0000] * 40
    assert receiver.status()["counts"]["instances"] == len(receiver.files()) == 40
    assert receiver.quarantine() == []


def test_a_kill_while_instances_arrive_leaves_nothing_half(node: Callable[..., Node]) -> None:
    receiver = node("receive")
    sent = [wire(number) for number in range(400)]
    acknowledged: list[str] = []

    def send() -> None:
        with scu(receiver.port, sent, timeout=5) as requestor:
            for one in sent:
                if not requestor.association.is_established or requestor.store(one) != 0x0000:
                    return
                acknowledged.append(one.sop_instance_uid)

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: len(acknowledged) > 30, 20, "instances arrive")
    receiver.kill("receive")
    sender.join(20)
    assert not sender.is_alive()
    assert 30 < len(acknowledged) < 400
    receiver.start("receive")
    assert set(acknowledged) <= names(receiver)
    assert receiver.status()["counts"]["instances"] == len(receiver.files())
    for path in receiver.files():
        data = path.read_bytes()
        syntax, start = reading.split_file(data)
        reading.read_header(data[start:], syntax, b"k" * 16)
    assert unfinished(receiver) == []


def test_a_file_without_a_row_gets_one_and_a_row_without_a_file_an_alarm(
    node: Callable[..., Node],
) -> None:
    receiver = node("receive")
    assert store(receiver.port, wire(1), wire(2)) == [0x0000, 0x0000]
    receiver.stop()
    first, second = receiver.files()
    orphan = wire(7, study="1.7")
    prefix = reading.file_prefix(CT, orphan.sop_instance_uid, ExplicitVRLittleEndian)
    place = receiver.spool / "instances/1.7/1.2.3" / f"{orphan.sop_instance_uid}.dcm"
    place.parent.mkdir(parents=True)
    place.write_bytes(prefix + orphan.data)
    second.unlink()
    left = receiver.spool / "arriving" / "receive" / "half"
    left.write_bytes(b"unfinished")
    receiver.start("receive")
    assert not left.exists()
    assert receiver.attention() == ["BYTES_MISSING"]
    studies = {row["study_uid"]: row for row in receiver.status()["studies"]}
    assert (studies["1.7"]["state"], studies["1.7"]["instances"]) == ("OPEN", 1)
    assert store(receiver.port, orphan) == [0x0000]
    assert receiver.events("1.7")[-1]["code"] == "DUPLICATE"
    assert first.exists()


def test_sigterm_lets_an_open_association_end(node: Callable[..., Node]) -> None:
    receiver = node("receive")
    sent = [wire(number) for number in range(30)]
    with scu(receiver.port, sent) as requestor:
        assert requestor.store(sent[0]) == 0x0000
        stopping = threading.Thread(target=receiver.stop)
        stopping.start()
        wait_until(lambda: not _listens(receiver.port), 10, "it takes nobody new")
        assert [requestor.store(one) for one in sent[1:]] == [0x0000] * 29
    released = time.monotonic()
    stopping.join(20)
    assert not stopping.is_alive()
    assert time.monotonic() - released < 5, "it does not wait when nobody is left"
    assert len(receiver.files()) == 30


def _listens(port: int) -> bool:
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "0A" for row in table)


def test_a_second_receiver_on_the_same_spool_does_not_start(node: Callable[..., Node]) -> None:
    receiver = node("receive")
    twin = Node(receiver.folder / "twin", overrides={"storage": {"folder": str(receiver.state)}})
    with pytest.raises(AssertionError, match="another process runs the role receive"):
        twin.start("receive")
    twin.close()
    assert store(receiver.port, wire(1)) == [0x0000]


# Out of resources, and back


def test_too_little_disk_space_is_said_and_recovers_by_itself(node: Callable[..., Node]) -> None:
    here = node()
    free = shutil.disk_usage(here.folder).free
    ballast = here.folder / "ballast"
    here.write_config({"limits": {"min_free_bytes": free - 400 * MEGABYTE}})
    here.start("receive")
    assert store(here.port, wire(1)) == [0x0000]
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 800 * MEGABYTE)
    assert store(here.port, wire(2), wire(2)) == [0xA700, 0xA700]
    assert names(here) == {"1.2.3.1"}
    assert here.attention() == ["DISK_FULL"], "once, however often it was said"
    ballast.unlink()
    assert store(here.port, wire(2)) == [0x0000]


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.peer("postgres")
def test_a_ledger_that_is_away_is_out_of_resources_and_comes_back(
    node: Callable[..., Node], own_postgres: Postgres
) -> None:
    url = own_postgres.fresh_database()
    receiver = node("receive", overrides={"storage": {"ledger": url}})
    with scu(receiver.port, [wire(1)]) as requestor:
        assert requestor.store(wire(1)) == 0x0000
        own_postgres.kill()
        assert requestor.store(wire(2)) == 0xA700
        assert requestor.store(wire(2)) == 0xA700
        own_postgres.start()
        assert requestor.store(wire(2)) == 0x0000
        assert requestor.store(wire(1)) == 0x0000
    assert names(receiver) == {"1.2.3.1", "1.2.3.2"}
    assert receiver.status()["counts"]["instances"] == 2
    assert unfinished(receiver) == []
