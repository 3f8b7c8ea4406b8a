"""What an acceptor tells the desk, and when: stored instances soon, and before anything else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import cast

import pytest
from small_ct import CT, encoded, instance

from dicomnode.instances import read_header
from dicomnode.network.association import Outcome
from dicomnode.services import messages
from dicomnode.services.messages import Leave, Settle, Settled, Store, StoredAll
from dicomnode.services.telling import DeskLine, Teller

HEADER = read_header(encoded(instance()), "1.2.840.10008.1.2.1", b"k" * 32)
STORE = Store(
    header=HEADER,
    sop_class_uid=CT,
    sop_instance_uid=HEADER.sop_instance_uid,
    digest="0" * 64,
    size=9,
    tmp="a",
)


class Reminded:
    """In place of the thread that has lines told of soon: when, says the test."""

    def __init__(self) -> None:
        self.lines: list[DeskLine] = []

    def remind(self, line: DeskLine) -> None:
        self.lines.append(line)


@pytest.fixture
def ends() -> Iterator[tuple[DeskLine, socket.socket, Reminded]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    reminded = Reminded()
    with ours, theirs:
        yield DeskLine(ours, cast("Teller", reminded)), theirs, reminded


Ends = tuple[DeskLine, socket.socket, Reminded]


def heard(desk: socket.socket) -> list[object]:
    found = []
    while True:
        try:
            found.append(messages.receive(desk))
        except messages.GoneError:  # nothing more has come
            return found


def test_what_is_stored_is_told_together(ends: Ends) -> None:
    line, desk, reminded = ends
    line.stored(STORE)
    line.stored(STORE)
    assert reminded.lines == [line]
    assert heard(desk) == []
    line.tell()
    line.tell()
    assert heard(desk) == [StoredAll((STORE, STORE))]
    line.stored(STORE)
    assert reminded.lines == [line, line]


def test_it_is_told_before_anything_else(ends: Ends) -> None:
    line, desk, _ = ends
    line.stored(STORE)
    messages.send(desk, Settled())
    assert line.ask(Settle()) == Settled()
    assert heard(desk) == [StoredAll((STORE,)), Settle()]
    line.stored(STORE)
    line.leave(Outcome.ABORTED)
    assert heard(desk) == [StoredAll((STORE,)), Leave(Outcome.ABORTED)]
    line.tell()


def test_a_desk_that_is_no_more_is_no_fault_at_the_end(ends: Ends) -> None:
    line, desk, _ = ends
    line.stored(STORE)
    desk.close()
    with pytest.raises(messages.GoneError):
        line.tell()
    line.stored(STORE)
    line.leave(Outcome.ABORTED)


def test_it_is_told_soon_whatever_the_association_does() -> None:
    """One desk that is gone keeps nobody else's from hearing."""
    teller = Teller()
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
    lines = [DeskLine(ours, teller) for ours, _ in pairs]
    desks = [theirs for _, theirs in pairs]
    desks[0].close()
    for _ in range(2):
        for line in lines:
            line.stored(STORE)
        for desk in desks[1:]:
            desk.settimeout(5)
            assert messages.receive(desk) == StoredAll((STORE,))
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
