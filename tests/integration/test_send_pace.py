"""Delivery to archives that are slow or mute, at a rate, and in the hours that are meant."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from archives import ScriptedArchive
from peers import wait_until
from proxies import Proxy
from sending_kit import Sending

MakeArchive = Callable[..., ScriptedArchive]
MakeSending = Callable[..., Sending]


# Slow and mute


def test_an_archive_that_accepts_and_then_says_nothing_is_given_up_in_time(
    archive: MakeArchive, sending: MakeSending, clock: Any
) -> None:
    says_something = threading.Event()

    def hang(_event: Any) -> int:
        says_something.wait(30)
        return 0x0000

    there = archive(hang)
    kit = sending(there.port, send={"timeout_seconds": 1.0})
    for _ in range(5):
        kit.give("seg", profile=("seg",))
    started = time.monotonic()
    for _ in range(4):
        kit.send()
    # The second object shows that it is the archive, which is then left alone.
    assert time.monotonic() - started < 10
    assert len(there.came) == 2
    assert (kit.health().reason, kit.health().failures) == ("NO_RESPONSE", 2)
    there.answer = lambda _event: 0x0000
    says_something.set()
    clock.forward(60)
    for _ in range(2):
        kit.send()
    assert set(kit.states().values()) == {"DELIVERED"}


def test_a_slow_archive_is_waited_for_as_long_as_something_moves(
    archive: MakeArchive, sending: MakeSending
) -> None:
    """1 KB in a second, scaled: the object takes several times as long as silence may last."""
    there = archive()
    with Proxy(there.port) as slow:
        slow.throttle(bytes_per_second=8_000)
        kit = sending(slow.port, send={"timeout_seconds": 1.0})
        kit.give("seg", profile=("seg",), size=40_000)
        started = time.monotonic()
        kit.send()
        took = time.monotonic() - started
    assert set(kit.states().values()) == {"DELIVERED"}
    assert there.kept == ["2.25.1.0"]
    assert took > 4, "and it was slow"


def test_a_transfer_under_way_does_not_keep_the_node_from_stopping(
    archive: MakeArchive, sending: MakeSending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomnode.network.progress.STOP_SECONDS", 0.5)
    there = archive()
    with Proxy(there.port) as slow:
        slow.throttle(bytes_per_second=1_000)
        kit = sending(slow.port, send={"timeout_seconds": 30.0})
        kit.give("seg", profile=("seg",), size=400_000)
        thread = threading.Thread(target=kit.send)
        thread.start()
        time.sleep(0.5)
        assert thread.is_alive()
        kit.stop.set()
        thread.join(10)
        assert not thread.is_alive()
    assert set(kit.states().values()) == {"PENDING"}


def test_a_connection_that_breaks_in_the_midst_ends_the_attempt(
    archive: MakeArchive, sending: MakeSending
) -> None:
    there = archive()
    with Proxy(there.port) as proxy:
        proxy.hold_after(100_000)
        kit = sending(proxy.port, send={"timeout_seconds": 30.0})
        kit.give("seg", profile=("seg",), size=3_000_000)
        thread = threading.Thread(target=kit.send)
        thread.start()
        wait_until(lambda: proxy.is_holding, 10, "it is on its way")
    thread.join(10)
    assert not thread.is_alive()
    assert set(kit.states().values()) == {"PENDING"}


def test_a_destination_is_sent_to_at_its_rate(archive: MakeArchive, sending: MakeSending) -> None:
    there = archive()
    kit = sending(there.port, destination={"max_mbit_per_second": 4.0})
    kit.give("seg", "preview", profile=("seg", "preview"), size=500_000)
    started = time.monotonic()
    kit.send()
    took = time.monotonic() - started
    assert len(there.kept) == 2
    assert 1.5 < took < 6, "1 MB at half a MB a second"


# When


def test_a_window_is_kept(archive: MakeArchive, sending: MakeSending, clock: Any) -> None:
    there = archive()
    kit = sending(there.port, destination={"window": "20:00-06:00"})
    clock.now = datetime(2026, 3, 4, 19, 58).astimezone()
    kit.give("seg", profile=("seg",))  # a minute passes until its study is closed
    kit.send()
    assert there.came == []
    clock.forward(60)
    kit.send()
    assert there.kept == ["2.25.1.0"]


def test_a_window_that_closes_ends_the_sending(
    archive: MakeArchive, sending: MakeSending, clock: Any
) -> None:
    def time_passes(_event: Any) -> int:
        clock.forward(60)
        return 0x0000

    there = archive(time_passes)
    kit = sending(there.port, destination={"window": "20:00-06:00"})
    clock.now = datetime(2026, 3, 4, 5, 0).astimezone()
    for _ in range(3):
        kit.give("seg", profile=("seg",))
    clock.now = datetime(2026, 3, 4, 5, 59).astimezone()
    kit.send()
    assert len(there.kept) == 1
    clock.now = datetime(2026, 3, 4, 20, 0).astimezone()
    kit.send()
    assert len(there.kept) >= 2


def test_what_is_late_calls_a_person_once(
    sending: MakeSending, free_port: Callable[[], int], clock: Any
) -> None:
    kit = sending(free_port(), destination={"deliver_within_minutes": 30})
    kit.give()
    clock.forward(28 * 60)
    kit.send()
    kit.sender.call_late()
    assert "RESULT_LATE" not in kit.events()
    clock.forward(60)
    for _ in range(3):
        kit.sender.call_late()
    assert kit.events("attention").count("RESULT_LATE") == 1
