"""The acceptor processes of the receive role: started, started again when one dies, ended."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from dicomnode.services import messages
from dicomnode.services.messages import ABORT, OWING, PAID, AcceptorPlan, GoneError

log = logging.getLogger(__name__)

AGAIN_FIRST_SECONDS = 0.2
AGAIN_CEILING_SECONDS = 10.0
STEADY_SECONDS = 60.0
"""An acceptor that has run this long before it died is started again at once."""
END_SECONDS = 3.0


@dataclass(slots=True, eq=False)
class Place:
    """A place for an acceptor process."""

    taken: bool = False
    start_at: float = 0.0
    failures: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """An acceptor process that runs."""

    place: Place
    control: socket.socket
    child: subprocess.Popen[bytes]
    started_at: float


class Acceptors:
    """Some acceptor processes on the same listening sockets."""

    def __init__(self, plan: AcceptorPlan, listening: Sequence[socket.socket], count: int) -> None:
        self._plan = plan
        self._listening = listening
        self._places = [Place() for _ in range(count)]
        self._running: set[Process] = set()
        self._is_owing = False

    def start_missing(self) -> list[Process]:
        """Start those that are due; return them."""
        now = time.monotonic()
        due = [place for place in self._places if not place.taken and place.start_at <= now]
        return [self._start(place) for place in due]

    def _start(self, place: Place) -> Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-m", "dicomnode.services.acceptor", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *(one.fileno() for one in self._listening)),
            )
        with contextlib.suppress(GoneError, OSError):  # it died at once, and its line says so
            messages.send(ours, self._plan)
            if self._is_owing:
                ours.send(OWING)
        process = Process(place, ours, child, time.monotonic())
        place.taken = True
        self._running.add(process)
        return process

    def died(self, process: Process) -> None:
        """Take note that a process has ended; it is started again when it is due."""
        process.control.close()
        process.child.kill()
        code = process.child.wait()
        self._running.discard(process)
        now, place = time.monotonic(), process.place
        steady = now - process.started_at >= STEADY_SECONDS
        place.failures = 0 if steady else place.failures + 1
        wait = 0.0 if steady else AGAIN_FIRST_SECONDS * 2.0 ** min(place.failures - 1, 10)
        place.start_at, place.taken = now + min(wait, AGAIN_CEILING_SECONDS), False
        log.warning("ACCEPTOR_DIED", extra={"fields": {"exit_code": code}})

    def say_owing(self, is_owing: bool) -> None:
        """Have it known whether rows are owed: while they are, no acceptor answers by itself."""
        if is_owing is not self._is_owing:
            self._is_owing = is_owing
            self._say(OWING if is_owing else PAID)

    def abort(self) -> None:
        """Have all associations aborted that are still open."""
        self._say(ABORT)

    def _say(self, word: bytes) -> None:
        for process in self._running:
            with contextlib.suppress(OSError):
                process.control.send(word)

    def end(self) -> None:
        """End all processes."""
        for process in self._running:
            process.control.close()
        deadline = time.monotonic() + END_SECONDS
        for process in self._running:
            try:
                process.child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.child.kill()
                process.child.wait()
