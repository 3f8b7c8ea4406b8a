"""What an acceptor tells the desk, and when: of a stored instance with whatever comes next."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_ct import CT, encoded, instance

from dicomnode.instances import Headers, read_header
from dicomnode.network.association import Outcome, StoreRequest
from dicomnode.services import messages
from dicomnode.services.acceptor import DeskLine
from dicomnode.services.arriving import House, Sender
from dicomnode.services.messages import Expect, Expected, Leave, Settle, Settled, Store, Stored
from dicomnode.spool import Spool

HEADER = read_header(encoded(instance()), "1.2.840.10008.1.2.1", b"k" * 32)
STORE = Store(
    header=HEADER,
    sop_class_uid=CT,
    sop_instance_uid=HEADER.sop_instance_uid,
    digest="0" * 64,
    size=9,
    tmp="a",
)


@pytest.fixture
def ends() -> Iterator[tuple[DeskLine, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with ours, theirs:
        yield DeskLine(ours), theirs


def heard(desk: socket.socket) -> list[object]:
    found = []
    while True:
        try:
            found.append(messages.receive(desk))
        except messages.GoneError:  # nothing more has come
            return found


def test_it_goes_with_the_question_for_the_next(ends: tuple[DeskLine, socket.socket]) -> None:
    line, desk = ends
    assert line.expect("1.2.1")
    line.stored(STORE)
    assert heard(desk) == [Expect("1.2.1")]
    messages.send(desk, Expected(True))
    assert line.expect("1.2.2")
    assert heard(desk) == [Expect("1.2.2", STORE)]
    messages.send(desk, Expected(True))
    assert line.is_new()
    line.tell()
    assert heard(desk) == []


def test_it_is_told_once_and_first(ends: tuple[DeskLine, socket.socket]) -> None:
    line, desk = ends
    line.stored(STORE)
    line.tell()
    line.tell()
    assert heard(desk) == [Stored(STORE)]
    line.stored(STORE)
    messages.send(desk, Settled())
    assert line.ask(Settle()) == Settled()
    assert heard(desk) == [Stored(STORE), Settle()]
    line.stored(STORE)
    line.leave(Outcome.ABORTED)
    assert heard(desk) == [Stored(STORE), Leave(Outcome.ABORTED)]


def test_it_does_not_wait_for_one_of_which_nothing_is_asked(
    ends: tuple[DeskLine, socket.socket], tmp_path: Path
) -> None:
    line, desk = ends
    spool = Spool(tmp_path, "node")
    spool.create()
    house = House(
        spool=spool, headers=Headers(b"k" * 32), min_free_bytes=0, max_instance_bytes=1 << 20
    )
    line.stored(STORE)
    request = StoreRequest(
        sop_class_uid=CT, sop_instance_uid="ü", transfer_syntax_uid="1.2.840.10008.1.2.1"
    )
    arriving = Sender(house, line, "MODALITY").store(request)
    assert heard(desk) == [Stored(STORE)]
    arriving.close()


def test_a_desk_that_is_no_more_is_no_fault_at_the_end(
    ends: tuple[DeskLine, socket.socket],
) -> None:
    line, desk = ends
    line.stored(STORE)
    desk.close()
    with pytest.raises(messages.GoneError):
        line.tell()
    line.stored(STORE)
    line.leave(Outcome.ABORTED)
