"""Several acceptors on one listening socket share what comes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import upper_layer as ul

from dicomnode.domain.associations import AssociationRequest
from dicomnode.network.acceptor import Acceptor, Listener, listen
from dicomnode.network.association import Outcome, Sink, StoreRequest, Terms

TERMS = Terms(
    unknown_classes="keep", max_pdu_bytes=16384, idle_seconds=30, pdu_seconds=5, artim_seconds=5
)


class Association:
    """Takes no instance."""

    def store(self, request: StoreRequest) -> Sink:
        raise NotImplementedError

    def settle(self) -> None:
        pass

    def close(self, outcome: Outcome) -> None:
        pass


class Taker:
    """An acceptor, as each process has one, that counts the associations it has admitted."""

    def __init__(self, listening: socket.socket) -> None:
        self.count = 0
        self.acceptor = Acceptor([Listener(listening)], TERMS, self._admit)
        self.acceptor.start()

    def _admit(self, _request: AssociationRequest) -> Association:
        self.count += 1
        return Association()


@pytest.fixture
def takers() -> Iterator[tuple[int, list[Taker]]]:
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    made = [Taker(listening.dup()), Taker(listening.dup())]
    listening.close()
    yield port, made
    made[0].acceptor.stop()  # for both: it is one socket
    made[1].acceptor.abort()


def test_who_has_fewer_associations_takes_the_next(takers: tuple[int, list[Taker]]) -> None:
    """So that no process has three of four senders, and two of them wait for the third."""
    port, (first, second) = takers
    with ExitStack() as open_ones:
        for _ in range(8):
            sender = open_ones.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            sender.sendall(ul.associate_rq())
            assert ul.read_pdu(sender)[0] == 0x02
        assert first.count + second.count == 8
        assert abs(first.count - second.count) <= 2


def test_many_that_come_at_once_are_all_taken(takers: tuple[int, list[Taker]]) -> None:
    port, (first, second) = takers
    with ExitStack() as open_ones:
        senders = [
            open_ones.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            for _ in range(60)
        ]
        for sender in senders:
            sender.sendall(ul.associate_rq())
        assert {ul.read_pdu(sender)[0] for sender in senders} == {0x02}
    assert first.count + second.count == 60
