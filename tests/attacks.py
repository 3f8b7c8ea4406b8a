"""Peers that break the protocol: scripts of bytes and waits, and who plays them.

A script is what one connection does, in order. Whatever it is, the receiver has to answer or to
drop the connection in time, and to be as it was afterwards.
"""

from __future__ import annotations

import os
import random
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import upper_layer as ul
from hypothesis import strategies as st
from peers import HOST

Script = Sequence[bytes | float]
"""Bytes to send, and seconds to wait."""

TITLES = ("MODALITY", "DICOMNODE", "", " ", "../../x", "A" * 16, "MODALITY\0", "'; --", "\x1b[2J")
UIDS = (
    ul.CT, ul.VERIFICATION, ul.IMPLICIT, ul.EXPLICIT, "1.2.840.10008.1.2.1.99",
    "", "1", "../../etc/passwd", "1.2\0.3", "1." * 32, "1" * 64, "1" * 65, "1.2.3 ", "%s%n",
    "1.2.840.10008.3.1.1.1",
)  # fmt: skip
LENGTHS = (0, 1, 3, 4, 5, 6, 65, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)

titles = st.sampled_from(TITLES)
uids = st.sampled_from(UIDS)
junk = st.binary(max_size=40)


def _fit(title: str) -> str:
    return title[:16]


contexts = st.one_of(
    st.builds(
        lambda number, abstract, transfer: ul.context(number, abstract, *transfer),
        st.integers(0, 255),
        uids,
        st.lists(uids, max_size=4),
    ),
    st.builds(ul.item, st.sampled_from([0x20, 0x21, 0x30, 0x40, 0x10, 0]), junk),
    st.just(ul.context(1, ul.CT, ul.EXPLICIT)),
)
user_items = st.one_of(
    st.builds(ul.item, st.integers(0x50, 0x5F), junk),
    st.builds(lambda size: b"\x54\0" + struct.pack(">H", size) + b"x", st.sampled_from([0, 1, 9])),
    junk,
)
requests = st.builds(
    lambda made, calling, called, version, application, size, more: ul.associate_rq(
        *made,
        calling=_fit(calling),
        called=_fit(called),
        version=version,
        application=application,
        max_pdu=size,
        more=b"".join(more),
    ),
    st.lists(contexts, min_size=0, max_size=5),
    titles,
    titles,
    st.sampled_from([1, 1, 1, 0, 2, 0xFFFF]),
    uids,
    st.sampled_from([0, 1, 6, 7, 16384, 0xFFFFFFFF]),
    st.lists(user_items, max_size=3),
)
accepted_requests = st.builds(
    lambda size: ul.associate_rq(
        ul.context(1, ul.CT, ul.EXPLICIT),
        ul.context(3, ul.VERIFICATION, ul.IMPLICIT),
        ul.context(5, ul.CT, "1.2.840.10008.1.2.1.99"),
        max_pdu=size,
    ),
    st.sampled_from([0, 1, 7, 20, 128, 16384, 0xFFFFFFFF]),
)
command_elements = st.builds(
    lambda group, number, size, value: struct.pack("<HHI", group, number, size) + value,
    st.sampled_from([0, 0, 0, 2, 8]),
    st.sampled_from([0, 2, 3, 0x100, 0x110, 0x120, 0x700, 0x800, 0x900, 0x1000, 0x1030, 0x1031]),
    st.sampled_from([0, 1, 2, 4, 8, 300, 0xFFFF, 0xFFFFFFFF]),
    st.one_of(junk, st.just(b"9" * 300)),
)
commands = st.one_of(
    st.builds(
        lambda field, data_set, sop_class, sop_instance, more: ul.command(
            field,
            data_set=data_set,
            sop_class=sop_class,
            sop_instance=sop_instance,
            more=b"".join(more),
        ),
        st.sampled_from([ul.C_STORE, ul.C_ECHO, ul.C_FIND, ul.C_CANCEL, 0x8001, 0x21, 0xFFFF, 0]),
        st.booleans(),
        uids,
        st.one_of(uids, st.just("1." * 150)),
        st.lists(command_elements, max_size=3),
    ),
    st.builds(b"".join, st.lists(command_elements, max_size=6)),
    junk,
)
values = st.builds(
    ul.pdv,
    st.sampled_from([1, 1, 3, 5, 7, 0, 2, 255]),
    st.sampled_from([0, 1, 2, 3, 3, 3, 0xFF]),
    st.one_of(commands, junk, st.just(bytes(5000))),
)
p_datas = st.one_of(
    st.builds(lambda made: ul.p_data(*made), st.lists(values, max_size=4)),
    st.builds(
        lambda made, tail: ul.pdu(4, b"".join(made) + tail), st.lists(values, max_size=2), junk
    ),
)
others = st.one_of(
    st.just(ul.RELEASE_RQ),
    st.just(ul.RELEASE_RP),
    st.just(ul.ABORT),
    st.builds(ul.pdu, st.integers(0, 255), junk),
    requests,
)


def lied(data: bytes, length: int) -> bytes:
    """A PDU whose length field says something else."""
    return data[:2] + struct.pack(">I", length) + data[6:]


def stored(data: bytes, cut: int | None, context: int = 1) -> bytes:
    """A C-STORE request with a data set, perhaps cut off."""
    sent = ul.p_data(
        ul.pdv(context, 3, ul.command(ul.C_STORE, data_set=True, sop_instance="1.2.9"))
    )
    sent += ul.p_data(ul.pdv(context, 2, data[:60_000]))
    return sent if cut is None else sent[:cut]


def scripts(data_sets: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes | float]]:
    """Return what one connection may do: mostly an association first, then anything."""
    stores = st.builds(
        stored, data_sets, st.one_of(st.none(), st.integers(0, 400)), st.sampled_from([1, 5, 3])
    )
    steps = st.one_of(p_datas, p_datas, stores, others)
    broken = st.one_of(
        steps,
        st.builds(lied, st.one_of(steps, requests), st.sampled_from(LENGTHS)),
        st.builds(lambda data, at: data[: int(at * len(data))], steps, st.floats(0, 1)),
    )
    return st.builds(
        lambda first, middle, last: [first, *middle, last],
        st.one_of(accepted_requests, accepted_requests, requests, others, junk),
        st.lists(st.one_of(steps, st.sampled_from([0.001])), max_size=3),
        broken,
    )


@dataclass(frozen=True, slots=True)
class Played:
    """How a connection ended."""

    answer: bytes
    """All that the node has sent."""
    seconds: float
    """From when the script was over until the node closed."""


def play(
    port: int,
    script: Script,
    *,
    patience: float,
    pieces: int | None = None,
    wrap: Callable[[socket.socket], socket.socket] = lambda connection: connection,
) -> Played:
    """Play a script, then say no more, and wait until the node closes the connection.

    Args:
        port: of the node.
        script: what to do.
        patience: seconds to wait for the end.
        pieces: seed by which what is sent is cut into TCP segments; None: as it is.
        wrap: puts TLS around the connection.
    """
    rng = None if pieces is None else random.Random(pieces)
    answer = bytearray()
    plain = socket.create_connection((HOST, port), 10)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with wrap(plain) as connection:
        try:
            for step in script:
                if isinstance(step, float):
                    time.sleep(step)
                    continue
                for part in [step] if rng is None else _cut(step, rng):
                    connection.sendall(part)
            # Not SSLSocket's own, after which it would read what is encrypted.
            socket.socket.shutdown(connection, socket.SHUT_WR)
        except OSError:
            pass  # it has closed already
        started = time.monotonic()
        connection.settimeout(patience)
        try:
            while data := connection.recv(65536):
                answer += data
                connection.settimeout(max(0.01, patience - (time.monotonic() - started)))
        except (ConnectionError, ssl.SSLError):
            pass
        return Played(bytes(answer), time.monotonic() - started)


def _cut(data: bytes, rng: random.Random) -> Iterator[bytes]:
    while data:
        size = rng.choice((1, 2, 5, 6, 7, 100, 5000))
        yield data[:size]
        data = data[size:]


# How a process is


@dataclass(frozen=True, slots=True)
class Condition:
    """What processes hold: leaks show here."""

    descriptors: int
    threads: int
    megabytes: int


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in path.read_text().split()]
    return found


def condition(pids: Sequence[int]) -> Condition:
    """Look at processes, all together."""
    descriptors = threads = pages = 0
    for pid in pids:
        descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        threads += len(list(Path(f"/proc/{pid}/task").iterdir()))
        pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Condition(descriptors, threads, pages * os.sysconf("SC_PAGESIZE") >> 20)
