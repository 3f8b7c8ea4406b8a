"""The acceptor's side of the upper layer, byte for byte (PS3.8 section 9.2 and 9.3)."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import upper_layer as ul
from peers import wait_until

from dicomnode.domain.associations import (
    REASONS,
    AssociationRequest,
    AssociationRules,
    KnownPeer,
    Rejected,
    decide,
)
from dicomnode.network.association import (
    AcceptedConnection,
    Answer,
    Outcome,
    StoreRequest,
    Terms,
)
from dicomnode.network.wire import Wire

RULES = AssociationRules(
    ae_title="DICOMNODE",
    peers=(KnownPeer(name="CT1", ae_title="MODALITY", accept=True),),
    max_associations=9,
)
PROVIDER, USER = 2, 0
UNRECOGNIZED, UNEXPECTED, INVALID = 1, 2, 6


@dataclass
class Recorder:
    """A session that keeps what it is given."""

    requests: list[StoreRequest] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    discarded: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    answer: Answer = field(default_factory=lambda: Answer(status=0))
    most: int = 1 << 30
    settled_after: int | None = None
    """How many instances were stored when the release was asked for."""

    def store(self, request: StoreRequest) -> RecordingSink:
        self.requests.append(request)
        return RecordingSink(self)

    def settle(self) -> None:
        self.settled_after = len(self.stored)

    def close(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class RecordingSink:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.data = b""
        self.is_whole = self.is_closed = False

    def write(self, fragment: memoryview) -> bool:
        self.data += fragment
        return len(self.data) <= self.recorder.most

    def finish(self) -> Answer:
        self.recorder.stored.append(self.data)
        self.is_whole = True
        return self.recorder.answer

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True
        self.recorder.discarded += not self.is_whole


class Peer:
    """A requestor's end of a connection whose other end is served in a thread."""

    def __init__(self, **terms: float) -> None:
        self.recorder = Recorder()
        self.decision: Rejected | None = None
        self.requestors: list[AssociationRequest] = []
        here, there = socket.socketpair()
        here.settimeout(10)
        self.socket = here
        seconds = {"idle_seconds": 5.0, "pdu_seconds": 5.0, "artim_seconds": 5.0} | terms
        wire = Wire(there, pdu_seconds=seconds["pdu_seconds"])
        offered = Terms(unknown_classes="keep", max_pdu_bytes=16384, **seconds)
        self.connection = AcceptedConnection(wire, "10.0.0.1", offered, self._admit)
        self.thread = threading.Thread(target=self.connection.run)
        self.thread.start()

    def _admit(self, requestor: AssociationRequest) -> Recorder | Rejected:
        self.requestors.append(requestor)
        decision = decide(requestor, RULES)
        return decision if isinstance(decision, Rejected) else self.decision or self.recorder

    def associate(self, **keywords: object) -> Peer:
        self.socket.sendall(ul.associate_rq(**keywords))  # type: ignore[arg-type]
        kind, _ = ul.read_pdu(self.socket)
        assert kind == 0x02
        return self

    def says(self, data: bytes) -> tuple[int, bytes]:
        self.socket.sendall(data)
        return ul.read_pdu(self.socket)

    def aborts(self, data: bytes, source: int, reason: int) -> None:
        """The acceptor answers with an A-ABORT and then waits for the connection's end."""
        assert self.says(data) == (0x07, bytes((0, 0, source, reason)))
        self.close()

    def close(self) -> None:
        self.socket.close()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


# Sta2: the connection is open


def test_an_association_is_accepted_with_what_is_preferred_here(peer: Peer) -> None:
    contexts = (
        ul.context(1, ul.CT, ul.IMPLICIT, ul.EXPLICIT),
        ul.context(3, ul.CT, "1.2.3.4"),
        ul.context(5, "1.2.840.10008.5.1.4.31", ul.IMPLICIT),
        ul.context(255, ul.VERIFICATION, ul.IMPLICIT),
    )
    request = ul.associate_rq(*contexts)
    kind, body = peer.says(request)
    assert kind == 0x02
    assert body[:2] == b"\0\1"
    assert body[4:68] == request[10:74], "the titles come back as they are"
    assert ul.results_of(body) == [
        (1, 0, ul.EXPLICIT),
        (3, 4, ul.IMPLICIT),
        (5, 3, ul.IMPLICIT),
        (255, 0, ul.IMPLICIT),
    ]
    assert ul.item(0x51, (16384).to_bytes(4, "big")) in body
    assert peer.requestors == [
        AssociationRequest(calling_ae="MODALITY", called_ae="DICOMNODE", address="10.0.0.1")
    ]


def test_a_rejection_has_the_codes_of_who_decided(peer: Peer) -> None:
    peer.decision = Rejected(REASONS["TOO_MANY_ASSOCIATIONS"])
    assert peer.says(ul.associate_rq()) == (0x03, bytes((0, 2, 3, 2)))
    peer.close()
    assert peer.recorder.outcomes == []


@pytest.mark.parametrize(
    ("changes", "codes"),
    [({"version": 2}, (1, 2, 2)), ({"application": "1.2.3"}, (1, 1, 2))],
)
def test_another_protocol_is_rejected(
    peer: Peer, changes: dict[str, object], codes: tuple[int, int, int]
) -> None:
    request = ul.associate_rq(**changes)  # type: ignore[arg-type]
    assert peer.says(request) == (0x03, bytes((0, *codes)))
    assert peer.recorder.outcomes == []


def test_a_later_version_of_the_protocol_includes_this_one(peer: Peer) -> None:
    """PS3.8 9.3.2: bit 0 is this version, other bits are others."""
    assert peer.says(ul.associate_rq(version=3))[0] == 0x02


@pytest.mark.parametrize(
    "sent",
    [
        ul.p_data(ul.pdv(1, 3, ul.command(ul.C_ECHO))),
        ul.RELEASE_RQ,
        ul.RELEASE_RP,
        ul.pdu(0x99, b""),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ul.pdu(0x01, b"\0" * 67),
        ul.associate_rq(ul.context(2, ul.CT, ul.IMPLICIT)),
        ul.associate_rq(ul.context(1, ul.CT, ul.IMPLICIT), ul.context(1, ul.CT, ul.IMPLICIT)),
        ul.associate_rq(ul.context(1, ul.CT)),
        ul.associate_rq(ul.context(1, "1" * 99, ul.IMPLICIT)),
        ul.associate_rq(ul.item(0x20, b"\1")),
        ul.associate_rq(more=b"\x52\0\xff\xff"),
        ul.associate_rq(more=b"\x51\0\0\2\0\0"),
        ul.associate_rq()[:2] + b"\x7f\xff\xff\xff",
    ],
)
def test_anything_else_than_a_request_is_aborted_as_by_the_user(peer: Peer, sent: bytes) -> None:
    """AA-1 of PS3.8 table 9-7."""
    peer.aborts(sent, USER, 0)
    assert peer.requestors == []


def test_an_abort_instead_of_a_request_needs_no_answer(peer: Peer) -> None:
    assert peer.says(ul.ABORT) == (0, b"")


def test_who_asks_for_nothing_is_disconnected_in_time() -> None:
    peer = Peer(artim_seconds=0.2)
    started = time.monotonic()
    assert ul.read_pdu(peer.socket) == (0, b"")
    assert 0.1 < time.monotonic() - started < 3
    peer.close()


# Sta6: messages


def test_an_echo_is_answered(peer: Peer) -> None:
    peer.associate()
    peer.socket.sendall(ul.p_data(ul.pdv(3, 3, ul.command(ul.C_ECHO, sop_class=ul.VERIFICATION))))
    response = ul.read_response(peer.socket)
    assert ul.status_of(response) == 0
    assert response[0x0100] == b"\x30\x80"
    assert response[0x0120] == b"\7\0"
    assert response[0x0800] == b"\1\1"
    assert response[0x0002].rstrip(b"\0").decode() == ul.VERIFICATION
    assert int.from_bytes(response[0], "little") == sum(
        8 + len(value) for number, value in response.items() if number
    )


def test_a_data_set_arrives_as_it_is_and_is_answered(peer: Peer) -> None:
    peer.associate()
    data = random.Random(1).randbytes(50_001)
    peer.socket.sendall(ul.store_rq(data, message_id=300))
    response = ul.read_response(peer.socket)
    assert (ul.status_of(response), response[0x0100]) == (0, b"\1\x80")
    assert response[0x0120] == (300).to_bytes(2, "little")
    assert response[0x1000] == b"1.2.3.4\0"
    assert peer.recorder.stored == [data]
    assert peer.recorder.requests == [
        StoreRequest(
            sop_class_uid=ul.CT, sop_instance_uid="1.2.3.4", transfer_syntax_uid=ul.EXPLICIT
        )
    ]
    assert 0x0902 not in response


def test_a_failure_says_why(peer: Peer) -> None:
    peer.recorder.answer = Answer(status=0xA700, comment="x" * 100)
    peer.associate()
    peer.socket.sendall(ul.store_rq(b"data"))
    response = ul.read_response(peer.socket)
    assert ul.status_of(response) == 0xA700
    assert response[0x0902] == b"x" * 64


def test_several_values_in_a_pdu_and_a_value_in_several_pdus(peer: Peer) -> None:
    peer.associate()
    command = ul.command(ul.C_STORE, data_set=True)
    peer.socket.sendall(
        ul.p_data(ul.pdv(1, 1, command[:9]), ul.pdv(1, 1, b""))
        + ul.p_data(ul.pdv(1, 3, command[9:]), ul.pdv(1, 0, b"ab"), ul.pdv(1, 0, b""))
        + ul.p_data(ul.pdv(1, 0, b"c"), ul.pdv(1, 2, b"d"))
    )
    assert ul.status_of(ul.read_response(peer.socket)) == 0
    assert peer.recorder.stored == [b"abcd"]


def test_the_network_may_cut_anywhere(peer: Peer) -> None:
    source = random.Random(2)
    data = source.randbytes(30_000)
    sent = ul.associate_rq() + ul.store_rq(data, piece=7001) + ul.store_rq(data[:10])
    sizes = [source.choice((1, 2, 3, 5, 700, 4000)) for _ in range(60)]
    ul.send_in_pieces(peer.socket, sent + ul.RELEASE_RQ, sizes)
    assert ul.read_pdu(peer.socket)[0] == 0x02
    assert [ul.status_of(ul.read_response(peer.socket)) for _ in range(2)] == [0, 0]
    assert ul.read_pdu(peer.socket) == (0x06, bytes(4))
    peer.close()
    assert peer.recorder.stored == [data, data[:10]]
    assert peer.recorder.outcomes == [Outcome.RELEASED]


def test_the_longest_pdu_is_taken_and_a_longer_one_is_not(peer: Peer) -> None:
    peer.associate()
    size = 16384 - 6
    peer.socket.sendall(ul.store_rq(b"x" * size, piece=size))
    assert ul.status_of(ul.read_response(peer.socket)) == 0
    peer.aborts(ul.store_rq(b"x" * (size + 1), piece=size + 1), PROVIDER, INVALID)
    assert peer.recorder.discarded == 1
    assert peer.recorder.outcomes == [Outcome.ABORTED]


def test_a_requestor_with_a_small_limit_gets_its_response_in_pieces(peer: Peer) -> None:
    peer.associate(max_pdu=40)
    peer.socket.sendall(ul.p_data(ul.pdv(3, 3, ul.command(ul.C_ECHO))))
    kind, body = ul.read_pdu(peer.socket)
    assert (kind, len(body)) == (0x04, 40)
    while not body[5] & 2:
        kind, body = ul.read_pdu(peer.socket)
        assert len(body) <= 40


@pytest.mark.parametrize(
    ("context_id", "field", "status"),
    [(1, ul.C_FIND, 0x0211), (1, 0x0100, 0x0211), (3, ul.C_STORE, 0x0122), (1, ul.C_ECHO, 0x0122)],
)
@pytest.mark.parametrize("with_data", [False, True])
def test_what_is_not_served_is_answered_and_the_association_lives_on(
    peer: Peer, context_id: int, field: int, status: int, with_data: bool
) -> None:
    peer.associate()
    sent = ul.p_data(ul.pdv(context_id, 3, ul.command(field, data_set=with_data)))
    if with_data:
        sent += ul.p_data(ul.pdv(context_id, 0, b"a" * 9000), ul.pdv(context_id, 2, b"b"))
    peer.socket.sendall(sent)
    response = ul.read_response(peer.socket)
    assert ul.status_of(response) == status
    assert int.from_bytes(response[0x0100], "little") == field | 0x8000
    peer.socket.sendall(ul.p_data(ul.pdv(3, 3, ul.command(ul.C_ECHO))))
    assert ul.status_of(ul.read_response(peer.socket)) == 0
    assert peer.recorder.requests == []


def test_a_cancel_of_what_is_long_answered_is_ignored(peer: Peer) -> None:
    peer.associate()
    peer.socket.sendall(ul.p_data(ul.pdv(1, 3, ul.command(ul.C_CANCEL))) + ul.store_rq(b"x"))
    assert ul.status_of(ul.read_response(peer.socket)) == 0


def test_a_store_without_a_data_set_is_an_empty_one(peer: Peer) -> None:
    peer.associate()
    peer.socket.sendall(ul.p_data(ul.pdv(1, 3, ul.command(ul.C_STORE))))
    assert ul.status_of(ul.read_response(peer.socket)) == 0
    assert peer.recorder.stored == [b""]


# Sta6: what breaks the protocol

WHOLE = ul.pdv(1, 3, ul.command(ul.C_STORE, data_set=True))


@pytest.mark.parametrize(
    ("sent", "source", "reason"),
    [
        (ul.associate_rq(), PROVIDER, UNEXPECTED),
        (ul.pdu(0x02, bytes(68)), PROVIDER, UNEXPECTED),
        (ul.pdu(0x03, bytes(4)), PROVIDER, UNEXPECTED),
        (ul.RELEASE_RP, PROVIDER, UNEXPECTED),
        (ul.pdu(0x08, bytes(4)), PROVIDER, UNRECOGNIZED),
        (ul.pdu(0x00, b""), PROVIDER, UNRECOGNIZED),
        (ul.pdu(0xFF, bytes(9)), PROVIDER, UNRECOGNIZED),
        (ul.pdu(0x05, b""), PROVIDER, INVALID),
        (b"\x04\0\xff\xff\xff\xff", PROVIDER, INVALID),
        (ul.p_data(), PROVIDER, INVALID),
        (ul.p_data(b"\0\0\0"), PROVIDER, INVALID),
        (ul.p_data(b"\0\0\0\0\1\3"), PROVIDER, INVALID),
        (ul.p_data(b"\0\0\0\1\1\3"), PROVIDER, INVALID),
        (ul.p_data(b"\0\0\0\x09\1\3abc"), PROVIDER, INVALID),
        (ul.p_data(b"\xff\xff\xff\xff\1\3abc"), PROVIDER, INVALID),
        (ul.p_data(ul.pdv(5, 3, ul.command(ul.C_ECHO))), PROVIDER, INVALID),
        (ul.p_data(ul.pdv(1, 2, b"data before a command")), PROVIDER, INVALID),
        (ul.p_data(WHOLE, WHOLE), PROVIDER, INVALID),
        (ul.p_data(WHOLE, ul.pdv(3, 2, b"of another context")), PROVIDER, INVALID),
        (ul.p_data(ul.pdv(1, 1, b"ab"), ul.pdv(3, 3, b"cd")), PROVIDER, INVALID),
        (ul.p_data(ul.pdv(1, 1, b"ab"), ul.pdv(1, 2, b"cd")), PROVIDER, INVALID),
        (ul.p_data(*[ul.pdv(1, 1, bytes(8000))] * 2) * 2, PROVIDER, INVALID),
        (ul.p_data(ul.pdv(1, 3, b"")), USER, 0),
        (ul.p_data(ul.pdv(1, 3, b"garbage")), USER, 0),
        (ul.p_data(ul.pdv(1, 3, ul.command(ul.C_ECHO)[:-1])), USER, 0),
        (ul.p_data(ul.pdv(1, 3, ul.element(0x0100, b"\1\0"))), USER, 0),
        (ul.p_data(ul.pdv(1, 3, ul.command(ul.C_STORE, sop_class="1" * 70))), USER, 0),
        (ul.p_data(ul.pdv(1, 3, ul.command(ul.C_ECHO, more=b"\x08\0\0\0\0\0\0\0"))), USER, 0),
        (ul.p_data(ul.pdv(1, 3, ul.command(0x8001))), USER, 0),
    ],
)
def test_what_breaks_the_protocol_is_aborted(
    peer: Peer, sent: bytes, source: int, reason: int
) -> None:
    peer.associate()
    peer.aborts(sent, source, reason)
    assert peer.recorder.outcomes == [Outcome.ABORTED]
    assert peer.recorder.stored == []


def test_an_abort_ends_the_association_and_its_data_set(peer: Peer) -> None:
    peer.associate()
    peer.socket.sendall(ul.p_data(WHOLE, ul.pdv(1, 0, b"half")) + ul.ABORT)
    assert ul.read_pdu(peer.socket) == (0, b"")
    peer.close()
    assert peer.recorder.outcomes == [Outcome.ABORTED]
    assert peer.recorder.discarded == 1


def test_a_connection_that_breaks_is_an_abort(peer: Peer) -> None:
    peer.associate()
    peer.socket.sendall(ul.store_rq(b"x" * 5000)[:-100])
    peer.close()
    assert peer.recorder.outcomes == [Outcome.ABORTED]
    assert (peer.recorder.stored, peer.recorder.discarded) == ([], 1)


def test_a_release_within_a_data_set_discards_it(peer: Peer) -> None:
    peer.associate()
    peer.socket.sendall(ul.p_data(WHOLE, ul.pdv(1, 0, b"half")) + ul.RELEASE_RQ)
    assert ul.read_pdu(peer.socket) == (0x06, bytes(4))
    peer.close()
    assert peer.recorder.outcomes == [Outcome.RELEASED]
    assert (peer.recorder.stored, peer.recorder.discarded) == ([], 1)


def test_more_than_is_taken_ends_the_association(peer: Peer) -> None:
    peer.recorder.most = 10
    peer.associate()
    peer.aborts(ul.p_data(WHOLE, ul.pdv(1, 0, b"x" * 11)), USER, 0)
    assert peer.recorder.discarded == 1


# Time


def test_a_silent_association_is_aborted() -> None:
    peer = Peer(idle_seconds=0.2).associate()
    assert ul.read_pdu(peer.socket) == (0x07, bytes(4))
    peer.close()
    assert peer.recorder.outcomes == [Outcome.ABORTED]


@pytest.mark.parametrize("associated", [False, True])
def test_a_pdu_that_trickles_is_not_waited_for(associated: bool) -> None:
    """A peer that sends a byte now and then is never silent, and never done."""
    peer = Peer(pdu_seconds=0.4, artim_seconds=0.4)
    if associated:
        peer.associate()
    started = time.monotonic()
    with pytest.raises(OSError):
        for byte in ul.store_rq(b"x" * 500) if associated else ul.associate_rq():
            peer.socket.sendall(bytes((byte,)))
            time.sleep(0.02)
    assert time.monotonic() - started < 5
    peer.close()
    assert peer.recorder.outcomes == ([Outcome.ABORTED] if associated else [])


def test_who_does_not_close_at_the_end_is_disconnected() -> None:
    peer = Peer(artim_seconds=0.5).associate()
    assert peer.says(ul.RELEASE_RQ) == (0x06, bytes(4))
    wait_until(lambda: peer.recorder.outcomes, 0.4, "the association ends before the connection")
    assert ul.read_pdu(peer.socket) == (0, b"")
    peer.close()


def test_an_association_can_be_aborted_from_outside(peer: Peer) -> None:
    peer.associate()
    peer.connection.abort()
    assert ul.read_pdu(peer.socket) == (0x07, bytes(4))
