"""Nobody but who asked reads the answer: pynetdicom's own thread stands still meanwhile."""

from __future__ import annotations

import queue
import threading
import time

from dicomnode.network.requesting import Gate


class Reactor(threading.Thread):
    """The loop of an association's thread: it takes what lies in the queue, unless it is held."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.gate = Gate(self)
        self.messages: queue.Queue[int] = queue.Queue()
        self.taken: list[int] = []
        self.ended = False
        self.clears = False

    def run(self) -> None:
        while not self.ended:
            self.gate.wait()
            time.sleep(0.002)  # as when the machine gives the time to somebody else just here
            if not self.messages.empty():
                self.taken.append(self.messages.get())
            if self.clears:
                self.gate.clear()
                self.gate.set()

    def end(self) -> None:
        self.ended = True
        self.gate.set()
        self.join(5)
        assert not self.is_alive()


def test_who_closes_the_gate_gets_every_answer() -> None:
    reactor = Reactor()
    reactor.start()
    for number in range(100):
        reactor.gate.clear()
        assert not reactor.gate.is_set()
        reactor.messages.put(number)
        time.sleep(0.0005)
        assert reactor.messages.get(timeout=1) == number
        reactor.gate.set()
    reactor.end()
    assert reactor.taken == []


def test_while_it_is_open_the_thread_goes_on() -> None:
    reactor = Reactor()
    reactor.start()
    reactor.messages.put(1)
    deadline = time.monotonic() + 5
    while not reactor.taken and time.monotonic() < deadline:
        time.sleep(0.001)
    reactor.end()
    assert reactor.taken == [1]


def test_nobody_waits_for_a_thread_that_ended_or_for_oneself() -> None:
    reactor = Reactor()
    reactor.gate.clear()  # it has not begun
    reactor.gate.set()
    reactor.clears = True
    reactor.start()
    time.sleep(0.02)
    reactor.end()
    reactor.gate.clear()


def test_an_open_gate_releases_who_closes_it() -> None:
    """An abort opens the gate for good while somebody may be about to close it."""
    reactor = Reactor()
    reactor.start()
    reactor.gate.clear()
    threading.Timer(0.05, reactor.gate.set).start()
    reactor.gate.clear()
    reactor.end()
