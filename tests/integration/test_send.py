"""Delivery over real associations: what goes in which order, past archives that fail."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from archives import ScriptedArchive
from peers import wait_until
from sending_kit import Sending

from dicomnode.instances.subjects import read_subject
from dicomnode.ledger import actions

MakeArchive = Callable[..., ScriptedArchive]
MakeSending = Callable[..., Sending]


def test_all_that_is_due_goes_over_one_association(
    archive: MakeArchive, sending: MakeSending
) -> None:
    there = archive()
    kit = sending(there.port)
    first, second = kit.give(), kit.give()
    kit.send()
    assert set(kit.states().values()) == {"DELIVERED"}
    expected = [f"2.25.{job}.{position}" for job in (first, second) for position in range(3)]
    assert (there.kept, there.associations) == (expected, 1)


def test_what_is_urgent_goes_first(archive: MakeArchive, sending: MakeSending) -> None:
    there = archive()
    kit = sending(there.port)
    kit.give()
    urgent = kit.give(stat=True)
    kit.send()
    assert there.came[:3] == [f"2.25.{urgent}.{position}" for position in range(3)]
    assert len(there.kept) == 6


# Away


def test_an_archive_that_is_away_for_an_hour_gets_all_at_once_when_it_is_back(
    archive: MakeArchive, sending: MakeSending, clock: Any
) -> None:
    there = archive()
    kit = sending(there.port, send={"retry": {"first_seconds": 5.0, "ceiling_seconds": 600.0}})
    for _ in range(4):
        kit.give()
    there.stop()
    began, attempts = clock.now, 0
    while clock.now - began < timedelta(hours=1, minutes=20):
        kit.send()
        health = kit.health()
        if health.failures > attempts:
            attempts = health.failures
            wait = kit.seconds_until(health.retry_at)
            most = min(5.0 * 2 ** (attempts - 1), 600.0)
            assert most / 2 <= wait <= most
        clock.forward(15)
    assert 8 <= attempts <= 25, "not every time that it looked"
    rows = kit.deliveries()
    assert {row.state for row in rows} == {"PENDING"}
    assert {row.attempt for row in rows} == {0}, "no object is to blame"
    assert {row.reason for row in rows} == {"NO_CONNECTION"}
    assert kit.events("attention") == ["DESTINATION_STILL_AWAY"]
    assert kit.events().count("DESTINATION_AWAY") == 1, "once, not for each attempt or object"

    there.start()
    clock.forward(600)
    kit.send()
    assert set(kit.states().values()) == {"DELIVERED"}
    assert (len(there.kept), there.associations) == (12, 1)
    assert kit.events()[-1] == "DELIVERED"
    assert "DESTINATION_BACK" in kit.events()
    with kit.ledger.transaction() as tx:
        assert actions.acknowledge(tx, (), "me") == 0, "nobody has to look any more"


def test_after_days_it_gives_up_also_without_any_attempt(
    sending: MakeSending, free_port: Callable[[], int], clock: Any
) -> None:
    kit = sending(free_port())
    kit.give()
    clock.forward(14 * 86400)
    kit.send()
    rows = kit.deliveries()
    assert {(row.state, row.reason) for row in rows} == {("REFUSED", "GAVE_UP")}
    assert all("NO_CONNECTION" in row.detail for row in rows)


def test_out_of_resources_then_success(
    archive: MakeArchive, sending: MakeSending, clock: Any
) -> None:
    there = archive(lambda _event: 0xA700)
    kit = sending(there.port)
    jobs = [kit.give("preview", profile=("preview",)) for _ in range(5)]
    kit.send()
    # Two objects in a row: it is the archive's trouble, and the others are left alone.
    assert there.came == [f"2.25.{job}.0" for job in jobs[:2]]
    assert kit.health().reason == "STATUS_A700"
    there.answer = lambda _event: 0x0000
    kit.send()
    assert len(there.came) == 2, "not before it is its turn"
    clock.forward(11)
    kit.send()
    assert len(there.came) >= 6
    kit.send()
    assert set(kit.states().values()) == {"DELIVERED"}
    assert sorted(there.kept) == [f"2.25.{job}.0" for job in jobs]
    assert sorted(set(there.came)) == sorted(there.kept)


@pytest.mark.parametrize("status", [0xA700, 0xC123, 0xA900])
def test_one_bad_object_blocks_no_other(
    archive: MakeArchive, sending: MakeSending, clock: Any, status: int
) -> None:
    bad = "2.25.1.0"
    there = archive(lambda event: status if event.request.AffectedSOPInstanceUID == bad else 0)
    kit = sending(there.port)
    for _ in range(4):
        kit.give("seg", profile=("seg",))
    for _ in range(20):
        kit.send()
        clock.forward(30)
    states = kit.states()
    assert states.pop(bad) == ("PENDING" if status == 0xA700 else "REFUSED")
    assert set(states.values()) == {"DELIVERED"}
    assert there.kept == ["2.25.2.0", "2.25.3.0", "2.25.4.0"]
    assert there.came.count(bad) <= 8, "with growing waits"


def test_an_object_on_which_the_archive_dies_blocks_no_other(
    archive: MakeArchive, sending: MakeSending, clock: Any
) -> None:
    def die_of_the_first(event: Any) -> int:
        if event.request.AffectedSOPInstanceUID == "2.25.1.0":
            event.assoc.abort()
        return 0x0000

    there = archive(die_of_the_first)
    kit = sending(there.port)
    for _ in range(3):
        kit.give("seg", profile=("seg",))
    for _ in range(3):
        kit.send()
    states = kit.states()
    assert states.pop("2.25.1.0") == "PENDING"
    assert set(states.values()) == {"DELIVERED"}


def test_a_fault_of_the_software_with_one_object_blocks_no_other(
    archive: MakeArchive, sending: MakeSending, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = archive()
    kit = sending(there.port)
    for _ in range(3):
        kit.give("seg", profile=("seg",))

    def read(path: Path) -> Any:
        if path.name == "2.25.1.0.dcm":
            raise ZeroDivisionError
        return read_subject(path)

    monkeypatch.setattr("dicomnode.services.scrutiny.read_subject", read)
    kit.send()
    assert kit.deliveries()[0].reason == "SENDING_FAILED"
    assert list(kit.states().values()) == ["PENDING", "DELIVERED", "DELIVERED"]


def test_what_the_ledger_could_not_be_told_of_is_sent_once_more(
    archive: MakeArchive, sending: MakeSending, caplog: Any
) -> None:
    """The archive has the object, and the ledger fails before that is written down."""

    def rename(old: str, new: str) -> None:
        with closing(sqlite3.connect(kit.settings.storage.folder / "ledger.sqlite")) as other:
            other.execute(f"ALTER TABLE {old} RENAME TO {new}")

    def fail_first(_event: Any) -> int:
        if len(there.came) == 1:
            rename("delivery", "away")
        return 0x0000

    there = archive(fail_first)
    kit = sending(there.port)
    kit.give("seg", profile=("seg",))
    thread = threading.Thread(target=kit.sender.run_until_stopped)
    thread.start()
    try:
        wait_until(lambda: "LEDGER_UNAVAILABLE" in caplog.messages, 10, "the ledger is away")
        rename("away", "delivery")
        wait_until(lambda: set(kit.states().values()) == {"DELIVERED"}, 10, "it has arrived")
    finally:
        kit.stop.set()
        thread.join()
    assert there.came == ["2.25.1.0"] * 2
