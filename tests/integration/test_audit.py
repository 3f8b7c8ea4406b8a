"""The audit trail from what happens in the ledger to whole files; with real files in the spool."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from audit_kit import counted, details, event_of, messages_in, patient_of, study_of, type_of
from ledger_kit import claimed, close, finish, rows, settle, taken
from small_ct import CT, encoded, instance
from sqlalchemy import insert

from dicomnode.audit_files import AuditFiles
from dicomnode.domain.associations import AssociationRequest
from dicomnode.domain.audit_policy import AuditFile
from dicomnode.domain.outcomes import Backoff, Done, Refuse
from dicomnode.errors import LedgerError
from dicomnode.instances import file_prefix, read_file
from dicomnode.ledger import (
    Ledger,
    actions,
    audit_sinks,
    auditing,
    nodes,
    outbox,
    presence,
    steering,
)
from dicomnode.ledger.outbox import record_now as record
from dicomnode.ledger.schema import upgrade
from dicomnode.ledger.tables import association, audit, event
from dicomnode.network.association import Outcome
from dicomnode.services.auditing import keep_in_files, remove_old_files, remover
from dicomnode.services.common import Context
from dicomnode.services.desk import Desk, Item, LocalLine
from dicomnode.services.messages import Store
from dicomnode.services.retain import retain
from dicomnode.settings import Settings
from dicomnode.spool import Spool

KEY = b"k" * 32
SYNTAX = "1.2.840.10008.1.2.1"


class House:
    """A node with an audit trail in files; instances come over associations."""

    def __init__(self, folder: Path, ledger: Ledger, clock: Any, **policy: Any) -> None:
        self.folder, self.clock, self.ledger = folder, clock, ledger
        self.spool = Spool(folder / "spool", "receive")
        self.spool.create()
        settings = Settings.model_validate(
            {
                "node": {"id": "node-1", "ae_title": "DICOMNODE"},
                "storage": {"folder": folder},
                "peers": {"PACS": {"ae_title": "PACS", "host": "10.1.1.10", "port": 104}},
                "destinations": {"archive": {"peer": "PACS"}},
                "assembly": {"study_quiet_seconds": 60, "series_quiet_seconds": 60},
                "audit": {"file": {}, "retry": {"first_seconds": 10}, **policy},
            }
        )
        ledger.audit_room = settings.audit.room
        self.context = Context(
            settings=settings,
            spool=self.spool,
            ledger=ledger,
            patient_key=KEY,
            stop=threading.Event(),
        )
        self.desk = Desk(self.context)

    @property
    def trail(self) -> Path:
        return self.context.settings.audit_folder

    def associate(self, title: str = "CT1") -> LocalLine:
        request = AssociationRequest(calling_ae=title, called_ae="DICOMNODE", address="10.1.1.20")
        return self.desk.line(request, title)

    def come(self, line: LocalLine, *uids: str, **changes: Any) -> None:
        """Let instances come in one group over one association."""
        items = []
        for uid in uids:
            data = encoded(instance(SOPInstanceUID=uid, **changes))
            path = self.spool.write_arriving([file_prefix(CT, uid, SYNTAX) + data])
            header, digest, size = read_file(path, KEY)
            store = Store(
                header=header,
                sop_class_uid=CT,
                sop_instance_uid=uid,
                digest=digest,
                size=size,
                tmp=path.name,
            )
            items.append(Item(line._seat, store))
        for item in self.desk.serve(items):
            assert getattr(item.reply, "status", None) == 0

    def analysed(self) -> int:
        self.clock.forward(61)
        assert close(self.ledger) == 1
        job = claimed(self.ledger)
        assert finish(self.ledger, job)
        return job.id

    def told(self) -> list[Any]:
        """Bring what waits to the files; return all that is in them."""
        keep_in_files(self.context)
        return messages_in(self.trail) if self.trail.exists() else []

    def waiting(self) -> int:
        return len(rows(self.ledger, audit))


@pytest.fixture
def house(tmp_path: Path, ledger: Ledger, clock: Any) -> House:
    return House(tmp_path, ledger, clock)


def test_a_reception_is_one_message_an_association_and_study(house: House) -> None:
    line = house.associate()
    house.come(line, "1.2.3.1", "1.2.3.2")
    house.come(line, "1.2.3.3")
    other = {"StudyInstanceUID": "1.3", "SeriesInstanceUID": "1.3.1", "PatientID": "4712"}
    house.come(line, "1.3.1.1", **other, PatientName="Other^Patient")
    assert house.told() == []  # it may still bring more
    assert house.waiting() == 2
    line.leave(Outcome.RELEASED)
    first, second = house.told()
    assert event_of(first) == event_of(second) == "DICOM Instances Transferred"
    assert [study_of(one) for one in (first, second)] == ["1.2", "1.3"]
    assert patient_of(first) == ("4711", "Müller^Jörg")
    assert patient_of(second) == ("4712", "Other^Patient")
    assert [one.get("NumberOfInstances") for one in first.iter("SOPClass")] == ["3"]
    sender = first.find("ActiveParticipant")
    assert (sender.get("UserID"), sender.get("NetworkAccessPointID")) == ("CT1", "10.1.1.20")
    assert house.waiting() == 0
    assert len(house.told()) == 2


def test_what_comes_again_is_told_as_such(house: House) -> None:
    for _ in range(2):
        line = house.associate()
        house.come(line, "1.2.3.1")
        line.leave(Outcome.RELEASED)
    actions_ = [one.find("EventIdentification").get("EventActionCode") for one in house.told()]
    assert actions_ == ["C", "R"]


def test_an_association_that_ended_with_the_receiver_is_told_when_it_starts(house: House) -> None:
    line = house.associate()
    house.come(line, "1.2.3.1")  # and then kill -9: nobody closes it
    assert house.told() == []
    house.clock.forward(5)
    with house.ledger.transaction() as tx:
        presence.start(tx, "receive", 1)
    told = house.told()
    assert counted(told) == {"Application Activity": 1, "DICOM Instances Transferred": 1}
    transfer = next(one for one in told if study_of(one))
    assert details(transfer)["Description"] == "association left behind"


def test_an_association_without_an_end_is_told_after_a_day(house: House) -> None:
    house.come(house.associate(), "1.2.3.1")
    house.clock.forward(23 * 3600)
    assert house.told() == []
    house.clock.forward(2 * 3600)
    assert len(house.told()) == 1


def test_an_analysis_and_its_deliveries(house: House) -> None:
    line = house.associate()
    house.come(line, "1.2.3.1")
    line.leave(Outcome.RELEASED)
    house.analysed()
    settle(house.ledger, taken(house.ledger), Done())
    settle(house.ledger, taken(house.ledger), Refuse("STATUS_C000", "the archive refused"))
    told = house.told()
    assert [event_of(one) for one in told] == [
        "DICOM Instances Transferred",
        "DICOM Instances Accessed",
        "Begin Transferring DICOM Instances",
        "DICOM Instances Transferred",
        "Begin Transferring DICOM Instances",
        "DICOM Instances Transferred",
    ]
    assert {patient_of(one) for one in told} == {("4711", "Müller^Jörg")}
    arrived, refused = told[3], told[5]
    destination = arrived.findall("ActiveParticipant")[1]
    assert destination.get("UserID") == "archive"
    assert destination.get("AlternativeUserID") == "AETITLES=PACS"
    assert destination.get("NetworkAccessPointID") == "10.1.1.10"
    assert len(list(arrived.iter("Instance"))) == 1
    outcome = refused.find("EventIdentification")
    assert outcome.get("EventOutcomeIndicator") == "8"
    assert "STATUS_C000" in outcome.findtext("EventOutcomeDescription")


def test_acts_name_who_did_them(house: House) -> None:
    line = house.associate()
    house.come(line, "1.2.3.1")
    line.leave(Outcome.RELEASED)
    house.told()
    with house.ledger.transaction() as tx:
        steering.pause(tx, "archive", "otto", "maintenance")
        steering.resume(tx, "archive", "otto")
        assert actions.release_study(tx, "1.2", "otto", "nothing is held") is False
    told = house.told()[1:]
    assert [type_of(one) for one in told] == ["Use of Restricted Function"] * 2
    assert "otto" in {one.get("UserID") for one in told[0].findall("ActiveParticipant")}
    assert "DESTINATION_PAUSED: archive by otto" in details(told[0])["Alert Description"]


def test_a_purge_still_names_the_patient(house: House) -> None:
    line = house.associate()
    house.come(line, "1.2.3.1", "1.2.3.2")
    line.leave(Outcome.RELEASED)
    house.clock.forward(61)
    close(house.ledger)
    with house.ledger.transaction() as tx:
        assert steering.cancel_job(tx, 1, "otto")
    house.told()
    house.clock.forward(15 * 86400)
    assert retain(house.context) == 1
    assert not list(house.spool.stored_instances())
    note = house.spool.root / "audit" / "1.2.json"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    deleted = house.told()[-1]
    assert event_of(deleted) == "DICOM Study Deleted"
    assert patient_of(deleted) == ("4711", "Müller^Jörg")
    assert [one.get("NumberOfInstances") for one in deleted.iter("SOPClass")] == ["2"]
    assert not note.exists()  # nobody needs it any more


def test_what_cannot_be_noted_goes_all_the_same(house: House) -> None:
    """As on a full disk, which a purge is to relieve."""
    line = house.associate()
    house.come(line, "1.2.3.1")
    line.leave(Outcome.RELEASED)
    house.told()
    (house.spool.root / "audit").write_text("no folder")
    remove = remover(house.context)
    for path in list(house.spool.stored_instances()):
        remove(path)
    assert not list(house.spool.stored_instances())
    (house.spool.root / "audit").unlink()


def test_without_bytes_the_study_stands_alone(house: House) -> None:
    line = house.associate()
    house.come(line, "1.2.3.1")
    line.leave(Outcome.RELEASED)
    for path in house.spool.stored_instances():
        house.spool.remove(path)
    (message,) = house.told()
    assert study_of(message) == "1.2"
    assert patient_of(message) is None
    assert "not known any more" in details(message)["Patient"]


def test_patients_are_named_only_where_that_is_wanted(
    tmp_path: Path, ledger: Ledger, clock: Any
) -> None:
    house = House(tmp_path, ledger, clock, patients=False)
    line = house.associate()
    house.come(line, "1.2.3.1")
    line.leave(Outcome.RELEASED)
    (message,) = house.told()
    assert patient_of(message) is None
    assert "Patient" not in details(message)
    assert b"ller" not in (house.trail / "audit.log").read_bytes()


def test_without_a_trail_nothing_is_recorded(tmp_path: Path, ledger: Ledger, clock: Any) -> None:
    house = House(tmp_path, ledger, clock, file=None)
    assert house.ledger.audit_room == 0
    line = house.associate()
    house.come(line, "1.2.3.1")
    line.leave(Outcome.RELEASED)
    with ledger.transaction() as tx:
        steering.pause(tx, "archive", "otto")
        assert audit_sinks.listing(tx) is None
    assert rows(ledger, audit) == []
    assert house.told() == []


def test_the_ledger_names_no_patient(house: House) -> None:
    line = house.associate()
    house.come(line, "1.2.3.1")
    line.leave(Outcome.RELEASED)
    with house.ledger.transaction() as tx:
        steering.pause(tx, "archive", "otto")
    for row in rows(house.ledger, audit):
        assert "4711" not in str(row)
        assert "ller" not in str(row)


# What cannot be kept


def test_a_record_goes_with_what_it_is_about(house: House) -> None:
    with pytest.raises(LedgerError), house.ledger.transaction() as tx:
        steering.pause(tx, "archive", "otto")
        assert len(tx.connection.execute(audit.select()).all()) == 1
        raise LedgerError("it fails after all")
    assert house.waiting() == 0


def test_a_place_that_fails_is_tried_again_and_everything_arrives_in_order(house: House) -> None:
    house.trail.parent.mkdir(exist_ok=True)
    house.trail.write_text("no folder")
    for number in range(250):
        record(house.ledger, "USER_CHANGED", by="otto", detail=f"number {number:03}")
    assert keep_in_files(house.context) == 0
    assert keep_in_files(house.context) == 0  # it is left alone for a while
    assert [row.code for row in rows(house.ledger, event)] == ["AUDIT_RETRY"]
    with house.ledger.transaction() as tx:
        facts = audit_sinks.listing(tx)
    assert facts is not None
    assert (facts["waiting"], facts["sinks"][0]["failures"]) == (250, 1)
    for _ in range(8):
        house.clock.forward(130)
        assert keep_in_files(house.context) == 0
    codes = [row.code for row in rows(house.ledger, event)]
    assert codes == ["AUDIT_RETRY", "AUDIT_AWAY"]  # a person is called once
    house.trail.unlink()
    house.clock.forward(130)
    assert keep_in_files(house.context) == 250
    said = [details(one)["Alert Description"] for one in messages_in(house.trail)]
    assert said == [f"USER_CHANGED: number {number:03}" for number in range(250)]
    open_still = [row.code for row in rows(house.ledger, event) if row.resolved_at is None]
    assert open_still == ["AUDIT_RETRY", "AUDIT_BACK"]
    assert house.waiting() == 0


def test_what_waits_is_bounded_and_what_is_lost_is_counted(
    tmp_path: Path, ledger: Ledger, clock: Any
) -> None:
    house = House(tmp_path, ledger, clock, max_waiting=1000)
    many = [
        {
            "at": datetime.now(UTC),
            "node_id": "node-1",
            "kind": "USER_CHANGED",
            "by": "",
            "detail": "",
        }
    ] * 1001
    with ledger.transaction() as tx:
        tx.connection.execute(insert(audit), many)
    line = house.associate()
    house.come(line, "1.2.3.1", "1.2.3.2")  # reception goes on
    record(ledger, "USER_CHANGED", detail="one more")
    line.leave(Outcome.RELEASED)
    assert house.waiting() == 1002
    assert [row.code for row in rows(ledger, event) if row.level == "attention"] == ["AUDIT_FULL"]
    last = house.told()[-1]
    assert type_of(last) == "Audit Recording Stopped"
    assert "(2 times)" in details(last)["Alert Description"]
    record(ledger, "USER_CHANGED", detail="there is room again")
    assert "room again" in details(house.told()[-1])["Alert Description"]


def test_a_ledger_that_is_away_stops_nobody(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with house.ledger.engine.begin() as connection:
        audit.drop(connection)
    try:
        record(house.ledger, "SIGNED_IN", by="otto")
    finally:
        with house.ledger.engine.begin() as connection:
            audit.create(connection)
    assert "AUDIT_NOT_RECORDED" in caplog.text


def test_a_long_queue_makes_nothing_slow(tmp_path: Path, clock: Any) -> None:
    """What is filed and waits for a repository may be much; SQLite's own steps are counted."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite", "node-1", clock, audit_room=100_000)
    upgrade(ledger)
    row = {"at": NOW, "node_id": "node-1", "kind": "USER_CHANGED", "by": "", "detail": ""}
    with ledger.transaction() as tx:
        nodes.register_node(tx, "DICOMNODE", "key-1")
        tx.connection.execute(insert(audit), [row | {"filed_at": NOW}] * 50_000)
    thousands = 0

    def count() -> None:
        nonlocal thousands
        thousands += 1

    with ledger.transaction() as tx:
        sqlite = tx.connection.connection.driver_connection
        assert sqlite is not None
        sqlite.set_progress_handler(count, 1000)
        outbox.record(tx, "USER_CHANGED")
        assert len(auditing.waiting(tx, "file", 100)) == 1
        assert len(auditing.waiting(tx, "syslog", 10)) == 10
        sqlite.set_progress_handler(None, 0)
    ledger.close()
    assert thousands < 10


# Files


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., AuditFiles]:
    def make(**policy: Any) -> AuditFiles:
        return AuditFiles(tmp_path / "audit", AuditFile(**policy))

    return make


NOW = datetime(2026, 3, 1, tzinfo=UTC)


def line(number: int, at: datetime = NOW) -> bytes:
    return b'<a n="%d" EventDateTime="%s"/>' % (number, at.isoformat().encode())


def test_files_are_for_the_node_alone(files: Callable[..., AuditFiles]) -> None:
    kept = files()
    kept.write([line(1)], NOW)
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(kept.current.stat().st_mode) == 0o600


def test_half_a_line_is_cut_off(files: Callable[..., AuditFiles]) -> None:
    kept = files()
    kept.write([line(1)], NOW)
    with kept.current.open("ab") as file:
        file.write(b'<a n="2" Event')
    kept.write([line(2), line(3)], NOW)
    assert kept.current.read_bytes().splitlines() == [line(1), line(2), line(3)]


def test_files_are_closed_by_size_and_by_age(files: Callable[..., AuditFiles]) -> None:
    kept = files(max_bytes=4096, max_days=2)
    kept.write([line(number) for number in range(100)], NOW)
    kept.write([line(100)], NOW)
    kept.write([line(101)], NOW + timedelta(days=1))
    kept.write([line(102)], NOW + timedelta(days=3))
    closed = sorted(path.name for path in kept.folder.glob("audit-*.log"))
    assert closed == ["audit-20260301T000000Z-0.log", "audit-20260304T000000Z-0.log"]
    written = [
        one
        for path in (*sorted(kept.folder.glob("audit-*.log")), kept.current)
        for one in path.read_bytes().splitlines()
    ]
    assert written == [line(number) for number in range(103)]
    assert kept.remove_old(NOW + timedelta(days=9999)) == []  # never, unless it is said when


def test_old_files_go_when_it_is_said_and_that_is_audited(
    tmp_path: Path, ledger: Ledger, clock: Any
) -> None:
    house = House(tmp_path, ledger, clock, file={"max_days": 1, "keep_days": 5})
    house.trail.mkdir()
    old, young = house.trail / "audit-1.log", house.trail / "audit-2.log"
    for path, days in ((old, 6), (young, 4)):
        path.touch()
        at = datetime.now(UTC).timestamp() - days * 86400
        os.utime(path, (at, at))
    assert remove_old_files(house.context) == 1
    assert (old.exists(), young.exists()) == (False, True)
    (message,) = house.told()
    assert type_of(message) == "Object Security Attributes Changed"
    (about,) = message.findall("ParticipantObjectIdentification")
    assert about.get("ParticipantObjectID") == f"file://{old}"


def test_a_sink_that_is_gone_from_the_configuration_is_forgotten(house: House) -> None:
    with house.ledger.transaction() as tx:
        outbox.record(tx, "USER_CHANGED")
        audit_sinks.failed(tx, "syslog", "away", Backoff(), 0.0, timedelta(hours=1))
    house.told()
    with house.ledger.transaction() as tx:
        facts = audit_sinks.listing(tx)
    assert facts is not None
    assert [one["name"] for one in facts["sinks"]] == ["file"]


def test_two_places_both_get_everything(house: House) -> None:
    with house.ledger.transaction() as tx:
        outbox.record(tx, "USER_CHANGED")
        (one,) = auditing.waiting(tx, "file", 10)
        auditing.kept(tx, "file", [one.id])
        assert auditing.sweep(tx, ("file", "syslog")) == 0
        assert auditing.waiting(tx, "file", 10) == []
        assert len(auditing.waiting(tx, "syslog", 10)) == 1
        auditing.kept(tx, "syslog", [one.id])
        assert auditing.sweep(tx, ("file", "syslog")) == 1


def test_associations_are_not_needed_for_what_is_left_of_them(house: House) -> None:
    line = house.associate()
    house.come(line, "1.2.3.1")
    line.leave(Outcome.RELEASED)
    with house.ledger.transaction() as tx:
        tx.connection.execute(audit.update().values(association_id=99))
        assert tx.connection.execute(association.select()).first() is not None
    assert len(house.told()) == 1
