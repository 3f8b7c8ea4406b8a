"""Peers that break every rule: an answer or a drop in time, a log line, and nothing left behind.

`make fuzz` plays many more scripts.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import upper_layer as ul
from attacks import Condition, Played, Script, condition, family, play, scripts
from certificates import Authority
from damage import DATA_SETS, DEFLATED, bomb, with_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nodes import Node
from peers import HOST, free_port, is_alive, tail, wait_until
from scu import scu
from small_ct import encoded, instance

TIMEOUT = 2.0
"""Every time-out of the node."""
PATIENCE = TIMEOUT + 8.0
"""For the end of a connection, on a machine that is busy with other things."""
FUZZ = int(os.environ.get("DICOMNODE_FUZZ_EXAMPLES", "0"))
ASSOCIATE = ul.associate_rq()
pytestmark = pytest.mark.peer("openssl")
SUCCESS, CANNOT_UNDERSTAND, MISMATCH = 0x0000, 0xC000, 0xA900


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    own = Authority(tmp_path_factory.mktemp("authority")).sign("node")
    tls = {
        "port": free_port(),
        "certificate": str(own.certificate),
        "key": str(own.key),
        "client_certificates": "none",
    }
    node = Node(
        tmp_path_factory.mktemp("receiver"),
        overrides={
            "node": {"tls": tls},
            "limits": {
                "association_timeout_seconds": TIMEOUT,
                "pdu_timeout_seconds": TIMEOUT,
                "artim_seconds": TIMEOUT,
                "max_associations": 20,
            },
        },
    )
    try:
        node.start("receive")
        settle(node)
        yield node
        node.stop()
    finally:
        node.close()


def settle(node: Node) -> None:
    """Wait until its processes have all begun and change no more."""
    seen = [condition([])] * 10

    def is_steady() -> bool:
        seen.append(condition(family(node.pid("receive"))))
        return len({(one.descriptors, one.threads) for one in seen[-10:]}) == 1

    wait_until(is_steady, 30, "the receiver is up", every=0.1)


@pytest.fixture(autouse=True)
def nothing_is_left(receiver: Node) -> Iterator[None]:
    """After every test: the same processes, as they were, that serve an honest peer."""
    assert_serves(receiver)
    quiet(receiver)
    pids = family(receiver.pid("receive"))
    before = condition(pids)
    mark = receiver.log.stat().st_size
    yield
    assert family(receiver.pid("receive")) == pids, tail(receiver.log)
    assert all(map(is_alive, pids))
    assert_serves(receiver)
    quiet(receiver)

    def is_as_before() -> bool:
        now = condition(pids)
        # A pool may grow by a thread when it is first used; what leaks, leaks with every peer.
        return now.descriptors <= before.descriptors + 2 and now.threads <= before.threads + 2

    wait_until(is_as_before, 20, f"{before}, now {condition(pids)}")
    assert_little_memory(before, condition(pids))
    said = receiver.log.read_bytes()[mark:].decode(errors="replace")
    assert "Traceback" not in said, said[-4000:]
    assert "ASSOCIATION_FAILED" not in said, said[-4000:]


def assert_little_memory(before: Condition, after: Condition) -> None:
    assert after.megabytes < before.megabytes + 120, (before, after)


def assert_serves(node: Node) -> None:
    with scu(node.port) as honest:
        assert honest.echo() == SUCCESS


def quiet(node: Node) -> None:
    node.wait_for(lambda status: all(row["outcome"] for row in status["associations"]))


# Anything at all

data_sets = st.sampled_from(
    [
        encoded(instance(SOPInstanceUID="1.2.9")),
        *(make() for name, (_, make) in DATA_SETS.items() if "bomb" not in name),
    ]
).map(lambda data: data[:60_000])


@settings(
    max_examples=FUZZ or 80,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(script=scripts(data_sets), pieces=st.one_of(st.none(), st.integers(0, 99)))
def test_whatever_a_peer_does_it_is_answered_or_dropped_in_time(
    receiver: Node, script: Script, pieces: int | None
) -> None:
    played = play(receiver.port, script, patience=PATIENCE, pieces=pieces)
    for kind, _ in pdus(played):
        assert kind in (0x02, 0x03, 0x04, 0x06, 0x07)


@settings(max_examples=FUZZ or 20, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=scripts(data_sets), pieces=st.one_of(st.none(), st.integers(0, 99)))
def test_so_it_is_within_tls(receiver: Node, script: Script, pieces: int | None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = receiver.document["node"]["tls"]["port"]
    wrap = context.wrap_socket
    list(pdus(play(port, script, patience=PATIENCE, pieces=pieces, wrap=wrap)))


@settings(max_examples=FUZZ or 20, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=scripts(data_sets))
def test_so_it_is_where_tls_is_expected(receiver: Node, script: Script) -> None:
    port = receiver.document["node"]["tls"]["port"]
    play(port, script, patience=PATIENCE)


def pdus(played: Played) -> Iterator[tuple[int, bytes]]:
    """Yield what the node has answered, PDU by PDU; what it sends is always whole."""
    data = played.answer
    while data:
        length = int.from_bytes(data[2:6], "big")
        assert len(data) >= 6 + length
        yield data[0], data[6 : 6 + length]
        data = data[6 + length :]


CRASHERS: dict[str, Script] = {
    "nothing": [],
    "one byte": [b"\x01"],
    "TLS": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)],
    "HTTP": [b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"],
    "a PDU of 4 GiB": [b"\x01\0\xff\xff\xff\xff" + bytes(1000)],
    "128 contexts and 128 more": [
        ul.associate_rq(*(ul.context(n % 256, ul.CT, ul.EXPLICIT) for n in range(1, 512, 2)))
    ],
    "no context": [ul.associate_rq(ul.item(0x50, b""))],
    "items without end": [ul.pdu(1, bytes(68) + b"\x20\0\0\0" * 200_000)],
    "an association within an association": [ASSOCIATE, ASSOCIATE],
    "data before the association": [ul.p_data(ul.pdv(1, 3, ul.command(ul.C_ECHO))), ASSOCIATE],
    "release twice": [ASSOCIATE, ul.RELEASE_RQ, ul.RELEASE_RQ],
    "a command that never ends": [ASSOCIATE, *[ul.p_data(ul.pdv(1, 1, bytes(10_000)))] * 20],
    "a data set without a command": [ASSOCIATE, ul.p_data(ul.pdv(1, 2, bytes(100)))],
    "a data set on another context": [
        ASSOCIATE,
        ul.p_data(ul.pdv(1, 3, ul.command(ul.C_STORE, data_set=True)), ul.pdv(3, 2, bytes(100))),
    ],
    "a C-STORE without a data set": [ASSOCIATE, ul.p_data(ul.pdv(1, 3, ul.command(ul.C_STORE)))],
    "a C-STORE that stops": [
        ASSOCIATE,
        ul.p_data(ul.pdv(1, 3, ul.command(ul.C_STORE, data_set=True)), ul.pdv(1, 0, bytes(9))),
    ],
    "UIDs of 300 characters": [
        ASSOCIATE,
        ul.p_data(ul.pdv(1, 3, ul.command(ul.C_STORE, sop_instance="1." * 150, data_set=True))),
    ],
    "a peer that takes PDUs of one byte": [
        ul.associate_rq(max_pdu=1),
        ul.p_data(ul.pdv(3, 3, ul.command(ul.C_ECHO, sop_class=ul.VERIFICATION))),
    ],
}
"""What has hurt once, here or elsewhere."""


@pytest.mark.parametrize("name", CRASHERS)
def test_what_has_hurt_once(receiver: Node, name: str) -> None:
    before = receiver.log.stat().st_size
    played = play(receiver.port, CRASHERS[name], patience=PATIENCE)
    kinds = [kind for kind, _ in pdus(played)]
    if kinds[-1:] == [0x07]:
        said = receiver.log.read_bytes()[before:].decode()
        assert "NO_ASSOCIATION_REQUEST" in said or "ASSOCIATION_ABORTED" in said


# Peers that take their time


def never_ending(receiver: Node, first: bytes, more: bytes) -> float:
    """Send `first`, then `more` byte by byte, and never close; return when the node does."""
    with socket.create_connection((HOST, receiver.port), 10) as connection:
        connection.settimeout(0.1)
        connection.sendall(first)
        started = time.monotonic()
        while time.monotonic() - started < PATIENCE * 2:
            try:
                if more:
                    connection.sendall(more[:1])
                    more = more[1:]
                while connection.recv(65536):
                    pass
                break
            except TimeoutError:
                continue
            except OSError:
                break
        return time.monotonic() - started


def test_slow_peers_are_dropped_in_time_and_keep_nobody_waiting(receiver: Node) -> None:
    store = ul.p_data(ul.pdv(1, 3, ul.command(ul.C_STORE, data_set=True)))
    slow: list[tuple[bytes, bytes]] = [
        (b"", b""),  # connects, and that is all
        (ASSOCIATE[:40], b""),  # half a request
        (b"", ASSOCIATE),  # a request byte by byte
        (ASSOCIATE, b""),  # an association, and silence
        (ASSOCIATE + store + ul.pdu(4, bytes(9000))[:100], b""),  # half a PDU
        (ASSOCIATE + store, ul.p_data(ul.pdv(1, 0, bytes(5000)))),  # a PDU byte by byte
        (b"\x01\0\x00\x0f\xff\xff", bytes(10_000)),  # a request of a megabyte, byte by byte
    ]
    with ThreadPoolExecutor(len(slow) + 30) as pool:
        crowd = [pool.submit(never_ending, receiver, b"", b"") for _ in range(30)]
        ends = [pool.submit(never_ending, receiver, *script) for script in slow]
        time.sleep(0.3)
        started = time.monotonic()
        with scu(receiver.port) as honest:
            assert honest.echo() == SUCCESS
        assert time.monotonic() - started < 5
        seconds = [end.result() for end in [*ends, *crowd]]
    assert max(seconds) < PATIENCE, seconds


def test_who_never_reads_an_answer_is_dropped(receiver: Node) -> None:
    echo = ul.p_data(ul.pdv(3, 3, ul.command(ul.C_ECHO, sop_class=ul.VERIFICATION)))
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE)
        connection.connect((HOST, receiver.port))
        connection.sendall(ASSOCIATE)
        started = time.monotonic()
        with pytest.raises(OSError, match=r"reset|pipe"):
            while time.monotonic() - started < PATIENCE * 3:
                connection.sendall(echo * 100)


def test_a_reset_in_the_midst_of_anything_leaves_nothing(receiver: Node) -> None:
    whole = ASSOCIATE + ul.store_rq(encoded(instance()), piece=200)
    for cut in range(0, len(whole), 97):
        with socket.create_connection((HOST, receiver.port), 10) as connection:
            # Close with a reset, not in good order.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(whole[:cut])


# Hostile data sets


def send(
    receiver: Node,
    data: bytes,
    syntax: str,
    sop_instance: str = "1.2.3.4",
    sop_class: str = ul.CT,
) -> int:
    """Store a data set and return the status."""
    with socket.create_connection((HOST, receiver.port), 10) as connection:
        connection.settimeout(60)
        connection.sendall(ul.associate_rq(ul.context(1, sop_class, syntax)))
        assert ul.read_pdu(connection)[0] == 0x02
        request = ul.store_rq(data, piece=16000, sop_class=sop_class, sop_instance=sop_instance)
        connection.sendall(request)
        status = ul.status_of(ul.read_response(connection))
        connection.sendall(ul.RELEASE_RQ)
        assert ul.read_pdu(connection)[0] == 0x06
        return status


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_every_hostile_data_set_is_answered_and_kept(receiver: Node) -> None:
    quarantined = len(receiver.quarantine())
    refused = 0
    data_sets = {name: (syntax, make()) for name, (syntax, make) in DATA_SETS.items()}
    if not FUZZ:
        for name in (name for name in data_sets if "bomb" in name):
            data_sets[name] = (DEFLATED, bomb(40, in_pixels="pixels" in name))
    for name, (syntax, data) in data_sets.items():
        sop_class = ul.CT
        if "rejection" in name:
            sop_class = "1.2.840.10008.5.1.4.1.1.88.59"
        status = send(receiver, data, syntax, sop_class=sop_class)
        assert status in (SUCCESS, CANNOT_UNDERSTAND, MISMATCH, 0xC001), (name, hex(status))
        refused += status != SUCCESS
    assert refused > 15
    assert len(receiver.quarantine()) - quarantined >= refused
    spooled = names_below(receiver.spool)
    assert not [name for name in spooled if ".." in name or "passwd" in name]


@pytest.mark.parametrize(
    "sop_instance", ["../../../../tmp/x", "1.2\0.3", "/etc/passwd", "", "1" * 64, "1.2.3.999"]
)
def test_a_request_with_a_hostile_uid_is_refused_and_kept(
    receiver: Node, sop_instance: str
) -> None:
    data = with_header(b"", SOPInstanceUID="1.2.3.777")
    before = len(receiver.quarantine())
    assert send(receiver, data, ul.EXPLICIT, sop_instance) in (MISMATCH, CANNOT_UNDERSTAND)
    assert len(receiver.quarantine()) == before + 1


def test_many_at_once(receiver: Node) -> None:
    """Twenty hostile peers at a time, and one honest among them."""
    names = [name for name in CRASHERS for _ in range(3)]

    def play_one(name: str) -> Played:
        return play(receiver.port, CRASHERS[name], patience=PATIENCE)

    with ThreadPoolExecutor(20) as pool:
        played = [pool.submit(play_one, name) for name in names]
        good = encoded(instance(SOPInstanceUID="1.2.77"))
        status = send(receiver, good, ul.EXPLICIT, "1.2.77")
        assert status == SUCCESS
        for one in played:
            one.result()
