"""Delivery over real associations: archives that are away, slow, full, mute or choosy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from archives import COMPREHENSIVE_3D, PICTURE, SEGMENTATION, ScriptedArchive
from ledger_kit import rows
from peers import Orthanc, wait_until
from proxies import Proxy
from pydicom.uid import ExplicitVRLittleEndian
from sending_kit import Sending
from small_ct import CT, encoded, instance

from dicomnode.instances import file_prefix
from dicomnode.instances.subjects import read_subject
from dicomnode.ledger import actions
from dicomnode.ledger.tables import event

MakeArchive = Callable[..., ScriptedArchive]
MakeSending = Callable[..., Sending]


@pytest.fixture
def archive() -> Iterator[MakeArchive]:
    """Make archives that run."""
    made: list[ScriptedArchive] = []

    def make(*arguments: Any, **keywords: Any) -> ScriptedArchive:
        made.append(ScriptedArchive(*arguments, **keywords).start())
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def sending(tmp_path: Path, clock: Any) -> Iterator[MakeSending]:
    """Make a sender to a port."""
    made: list[Sending] = []

    def make(port: int, **keywords: Any) -> Sending:
        made.append(Sending(tmp_path / f"sending-{len(made)}", clock, port, **keywords))
        return made[-1]

    yield make
    for one in made:
        one.close()


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


# What, and to whom


def test_the_next_form_goes_where_a_class_is_refused(
    archive: MakeArchive, sending: MakeSending
) -> None:
    there = archive(classes=(SEGMENTATION, PICTURE))
    kit = sending(there.port)
    names = ("labelmap", "seg", "preview", "sr", "sr-alone")
    kit.give(*names, profile=("labelmap", "preview", "sr"))
    kit.send()
    assert there.kept == ["2.25.1.1", "2.25.1.2"], "over the same association"
    assert there.associations == 1
    states = kit.states()
    assert states["2.25.1.0"] == "SUBSTITUTED"
    assert (states["2.25.1.4"], states["2.25.1.3"]) == ("SUBSTITUTED", "REFUSED")


def test_a_class_that_is_refused_by_its_status_falls_back_too(
    archive: MakeArchive, sending: MakeSending
) -> None:
    there = archive(
        lambda event: 0x0122 if event.request.AffectedSOPClassUID == COMPREHENSIVE_3D else 0
    )
    kit = sending(there.port)
    kit.give("seg", "sr", "sr-2", profile=("seg", "sr"))
    kit.send()
    assert there.kept == ["2.25.1.0", "2.25.1.2"]
    assert kit.states() == {
        "2.25.1.0": "DELIVERED",
        "2.25.1.1": "SUBSTITUTED",
        "2.25.1.2": "DELIVERED",
    }


def test_a_segmentation_is_deflated_where_that_is_accepted(
    archive: MakeArchive, sending: MakeSending
) -> None:
    sizes = []

    def measure(event: Any) -> int:
        sizes.append((event.context.transfer_syntax, len(event.request.DataSet.getvalue())))
        return 0x0000

    there = archive(measure, syntaxes=("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.1"))
    kit = sending(there.port)
    kit.give("seg", "preview", profile=("seg", "preview"), size=100_000)
    kit.send()
    assert [syntax for syntax, _ in sizes] == ["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.1"]
    assert sizes[0][1] < 2000 < 100_000 < sizes[1][1]
    assert list(kit.spool.tmp.iterdir()) == []


# Whose


QUERIED = {"query": True}


@pytest.mark.peer("orthanc")
def test_a_study_that_was_corrected_meanwhile_is_held_until_a_person_has_looked(
    start_orthanc: Callable[..., Orthanc], sending: MakeSending, caplog: Any
) -> None:
    """Orthanc has the study with another Patient ID and birth date: a merge, while results wait."""
    orthanc = start_orthanc(modalities={"node": ("DICOMNODE", 1)})
    kit = sending(orthanc.port, peer=QUERIED)
    corrected = instance(StudyInstanceUID="1.2.1", PatientID="MERGED", PatientBirthDate="19500102")
    prefix = file_prefix(CT, "1.2.3.4", ExplicitVRLittleEndian)
    orthanc.post("/instances", prefix + encoded(corrected))
    kit.give()
    other = kit.give()  # a study that the archive does not know
    kit.send()
    assert kit.states() == {
        **{f"2.25.1.{position}": "HELD" for position in range(3)},
        **{f"2.25.{other}.{position}": "DELIVERED" for position in range(3)},
    }
    assert {row.reason for row in kit.deliveries()[:3]} == {"IDENTITY_DIFFERS"}
    (told,) = [row for row in rows(kit.ledger, event) if row.code == "IDENTITY_DIFFERS"]
    assert told.detail.endswith("the archive has another Patient ID and Patient's Birth Date")
    assert "MERGED" not in caplog.text + told.detail
    kit.send()
    assert kit.events().count("IDENTITY_DIFFERS") == 1
    with kit.ledger.transaction() as tx:
        assert actions.release_study(tx, "1.2.1", "me", "the archive is wrong")
    kit.send()
    assert set(kit.states().values()) == {"DELIVERED"}
    with kit.ledger.transaction() as tx:
        assert actions.acknowledge(tx, (), "me") == 0


@pytest.mark.peer("orthanc")
def test_the_same_identity_goes(
    start_orthanc: Callable[..., Orthanc], sending: MakeSending
) -> None:
    orthanc = start_orthanc(modalities={"node": ("DICOMNODE", 1)})
    kit = sending(orthanc.port, peer=QUERIED)
    prefix = file_prefix(CT, "1.2.3.4", ExplicitVRLittleEndian)
    orthanc.post("/instances", prefix + encoded(instance(StudyInstanceUID="1.2.1")))
    kit.give()
    kit.send()
    assert set(kit.states().values()) == {"DELIVERED"}


def test_an_archive_that_does_not_say_whose_it_is_gets_it_later(
    archive: MakeArchive, sending: MakeSending
) -> None:
    there = archive()  # which answers no queries
    kit = sending(there.port, peer=QUERIED)
    kit.give("seg", profile=("seg",))
    kit.send()
    (row,) = kit.deliveries()
    assert (row.state, row.reason, there.came) == ("PENDING", "IDENTITY_NOT_COMPARED", [])
    assert "CONTEXT_REFUSED" in row.detail


@pytest.mark.parametrize(
    ("kind", "patient", "code"),
    [
        ("clinical", {}, None),
        ("clinical", {"PatientIdentityRemoved": "NO"}, None),
        ("clinical", {"PatientIdentityRemoved": "YES"}, "DEIDENTIFIED_TO_CLINICAL"),
        ("research", {"PatientIdentityRemoved": "YES"}, None),
        ("research", {"PatientIdentityRemoved": "NO"}, "IDENTIFIED_TO_RESEARCH"),
        ("research", {}, "IDENTIFIED_TO_RESEARCH"),
    ],
)
def test_identified_and_deidentified_do_not_mix(
    archive: MakeArchive,
    sending: MakeSending,
    kind: str,
    patient: dict[str, str],
    code: str | None,
) -> None:
    there = archive()
    kit = sending(there.port, destination={"kind": kind})
    kit.give(patient=patient)
    kit.send()
    if code is None:
        assert len(there.kept) == 3
        return
    assert there.came == []
    rows = kit.deliveries()
    assert {row.state for row in rows} == {"REFUSED"}
    assert rows[0].reason == code
    assert "DELIVERY_REFUSED" in kit.events("attention")


def test_what_a_late_slice_has_outdated_is_cancelled_before_the_next_association(
    archive: MakeArchive, sending: MakeSending
) -> None:
    there = archive()
    kit = sending(there.port)
    kit.give("seg", profile=("seg",))
    with kit.ledger.transaction() as tx:  # as if whoever raised it had forgotten its deliveries
        tx.connection.exec_driver_sql("UPDATE series SET generation = 2")
    kit.send()
    assert there.came == []
    assert [(row.state, row.reason) for row in kit.deliveries()] == [("CANCELLED", "SUPERSEDED")]
