"""What goes by age, on both databases and with real files; and what comes again afterwards."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import (
    analysed,
    claim,
    claimed,
    close,
    deliver_all,
    events,
    fail,
    finish,
    rows,
    settle,
    states,
    taken,
)
from small_ct import CT, encoded, instance

from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.errors import PurgedError
from dicomnode.instances import file_prefix, read_file
from dicomnode.ledger import Ledger, actions
from dicomnode.ledger.tables import event, job, series, study
from dicomnode.ledger.tables import instance as instances
from dicomnode.services.common import Context
from dicomnode.services.desk import Desk, Item, Seat
from dicomnode.services.messages import Store
from dicomnode.services.recovery import check_spool
from dicomnode.services.retain import finish_purges, retain
from dicomnode.settings import Settings
from dicomnode.spool import Spool

DAY = 86400.0
KEY = b"k" * 32
SYNTAX = "1.2.840.10008.1.2.1"
SERIES = [f"1.2.3.{number}" for number in range(1, 4)]


class House:
    """A node's spool and ledger, and what comes to it through its desk."""

    def __init__(self, folder: Path, ledger: Ledger, clock: Any) -> None:
        self.clock = clock
        self.ledger = ledger
        self.spool = Spool(folder / "spool", "receive")
        self.spool.create()
        quiet = {"study_quiet_seconds": 60, "series_quiet_seconds": 60}
        self.context = Context(
            settings=Settings.model_validate(
                {
                    "storage": {"folder": folder},
                    "retention": {"input_days": 14, "results_days": 30, "events_days": 60},
                    "assembly": quiet,
                }
            ),
            spool=self.spool,
            ledger=ledger,
            patient_key=KEY,
            stop=threading.Event(),
        )
        self.desk = Desk(self.context)

    def come(self, *uids: str, **changes: Any) -> None:
        """Let instances of one series come."""
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
            reply = self.desk.serve([Item(Seat(), store)])[0].reply
            assert reply is not None
            assert getattr(reply, "status", None) == 0

    def analyse(self) -> int:
        """Close what is quiet and record results; return the job's id."""
        self.clock.forward(61)
        assert close(self.ledger) == 1
        done = claimed(self.ledger)
        folder = self.spool.results / str(done.id)
        folder.mkdir(parents=True)
        (folder / "seg.dcm").write_bytes(b"results")
        assert finish(self.ledger, done)
        return done.id

    def later(self, days: float) -> int:
        self.clock.forward(days * DAY)
        return retain(self.context)

    def files(self) -> list[str]:
        return [Path(path).stem for path in self.spool.stored_instances()]

    def codes(self) -> list[str]:
        return [code for code, _ in events(self.ledger)]


@pytest.fixture
def house(tmp_path: Path, ledger: Ledger, clock: Any) -> House:
    return House(tmp_path, ledger, clock)


def test_images_go_after_their_results_have_arrived_and_rows_stay(house: House) -> None:
    house.come(*SERIES)
    house.analyse()
    assert house.later(20) == 0  # old enough, but nothing has arrived
    assert house.files() == SERIES
    deliver_all(house.ledger)
    assert house.later(0.01) == 1
    assert house.files() == []
    assert not any(house.spool.instances.iterdir())
    assert [row.purged_at is not None for row in rows(house.ledger, instances)] == [True] * 3
    assert (house.spool.results / "1" / "seg.dcm").exists()
    assert house.later(0.01) == 0  # once is enough
    assert house.codes().count("PURGED") == 1

    assert house.later(11) == 1
    assert not (house.spool.results / "1").exists()
    assert house.codes().count("RESULTS_PURGED") == 1
    assert states(house.ledger, job) == ["DONE"]


def test_what_comes_again_after_a_purge_is_no_new_study(house: House) -> None:
    house.come(*SERIES)
    house.analyse()
    deliver_all(house.ledger)
    house.later(20)
    house.come(*SERIES)
    assert house.files() == SERIES  # kept, for whatever may be late
    house.clock.forward(61)
    close(house.ledger)
    assert claim(house.ledger) is None
    assert len(rows(house.ledger, job)) == 1
    assert len(rows(house.ledger, instances)) == 3
    assert "RESTORED" in house.codes()
    house.later(13)
    assert house.files() == SERIES
    house.later(2)  # and they go again, by their new age
    assert house.files() == []
    assert house.codes().count("PURGED") == 2


def test_a_late_slice_of_a_purged_series_is_never_analysed_alone(house: House) -> None:
    house.come(*SERIES)
    house.analyse()
    deliver_all(house.ledger)
    house.later(20)
    house.come("1.2.3.9")
    house.clock.forward(61)
    assert close(house.ledger) == 1
    assert claim(house.ledger) is None
    assert rows(house.ledger, series)[0].choice_code == "INPUT_PURGED"
    assert ("INPUT_PURGED", "attention") in events(house.ledger)

    house.come(*SERIES[:2])  # a part is not enough
    house.clock.forward(61)
    assert close(house.ledger) == 1
    assert claim(house.ledger) is None
    assert house.codes().count("INPUT_PURGED") == 1
    house.come(SERIES[2])
    house.clock.forward(61)
    assert close(house.ledger) == 1
    whole = claimed(house.ledger)
    assert whole.generation == 2
    assert [Path(path).stem for path in whole.paths] == [*SERIES, "1.2.3.9"]
    assert sorted(house.files()) == [*SERIES, "1.2.3.9"]


def test_the_late_slice_may_come_with_the_rest(house: House) -> None:
    house.come(*SERIES)
    house.analyse()
    deliver_all(house.ledger)
    house.later(20)
    house.come("1.2.3.0", *SERIES)
    house.clock.forward(61)
    assert close(house.ledger) == 1
    assert len(claimed(house.ledger).paths) == 4
    assert "INPUT_PURGED" not in house.codes()


def test_a_held_study_and_a_quarantined_job_keep_their_images(house: House) -> None:
    house.come(*SERIES)
    house.clock.forward(61)
    close(house.ledger)
    for _ in range(3):
        done = claimed(house.ledger)
        fail(house.ledger, done, Retry("TIMEOUT", "too long"), wait=0)
    assert states(house.ledger, job) == ["QUARANTINED"]
    assert house.later(400) == 0
    assert house.files() == SERIES
    house.come("1.2.5.1", StudyInstanceUID="1.5", SeriesInstanceUID="1.5.1")
    house.come("1.2.5.2", StudyInstanceUID="1.5", SeriesInstanceUID="1.5.1", PatientID="4712")
    assert "HELD" in states(house.ledger, study)
    assert house.later(400) == 0
    assert len(house.files()) == 5


def test_a_refused_delivery_keeps_the_images_until_somebody_has_seen_it(house: House) -> None:
    house.come(*SERIES)
    house.analyse()
    settle(house.ledger, taken(house.ledger), Refuse("STATUS_C000", "no"), status=0xC000)
    deliver_all(house.ledger)
    assert house.later(20) == 0
    with house.ledger.transaction() as tx:
        assert actions.acknowledge(tx, (), "somebody")
    assert house.later(0.01) == 1


def test_a_purge_that_died_is_finished_at_the_next_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.come(*SERIES)
    house.analyse()
    deliver_all(house.ledger)

    def dies(_self: Spool, _relative: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Spool, "remove", dies)
        house.later(20)
    assert house.files() == SERIES
    assert finish_purges(house.context) == 1
    assert house.files() == []


def test_the_receiver_does_not_take_a_purged_file_for_a_new_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.come(*SERIES)
    house.analyse()
    deliver_all(house.ledger)
    with monkeypatch.context() as patched:
        patched.setattr(Spool, "remove", lambda *_: None)
        house.later(20)
    check_spool(house.context, house.desk)
    assert house.files() == []
    assert len(rows(house.ledger, instances)) == 3
    assert "BYTES_MISSING" not in house.codes()


def test_what_comes_between_record_and_removal_stays(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.come(*SERIES)
    house.analyse()
    deliver_all(house.ledger)
    with monkeypatch.context() as patched:
        patched.setattr(Spool, "remove", lambda *_: None)
        house.later(20)
    house.come(SERIES[0])
    finish_purges(house.context)
    assert SERIES[0] in house.files()


def test_what_needs_purged_bytes_is_told_so(house: House) -> None:
    house.come(*SERIES)
    house.clock.forward(61)
    close(house.ledger)
    refused = claimed(house.ledger)
    fail(house.ledger, refused, Refuse("NOT_HU", "no"))
    assert house.later(20) == 1
    with house.ledger.transaction() as tx, pytest.raises(PurgedError, match="send the series"):
        actions.requeue_job(tx, refused.id, "somebody")
    house.come(*SERIES)
    with house.ledger.transaction() as tx:
        assert actions.requeue_job(tx, refused.id, "somebody")


def test_a_delivery_whose_results_are_purged_is_not_sent_again(house: House) -> None:
    house.come(*SERIES)
    house.analyse()
    deliver_all(house.ledger)
    assert house.later(40) == 2
    with house.ledger.transaction() as tx, pytest.raises(PurgedError, match="purged"):
        actions.requeue_delivery(tx, 1, "somebody")


def in_quarantine(house: House, days: float, **note: str) -> Path:
    """Put something into quarantine so many days ago."""
    tmp = house.spool.write_tmp([b"x" * 100])
    path = house.spool.path(house.spool.put_into_quarantine(tmp, {"code": "X", **note}))
    then = house.clock.now.timestamp() - days * DAY
    os.utime(path, (then, then))
    return path


def test_quarantine_has_its_bound_and_keeps_what_is_of_a_held_study(house: House) -> None:
    house.come("1.2.3.1")
    house.come("1.2.3.2", PatientID="4712")
    assert states(house.ledger, study) == ["HELD"]
    held = in_quarantine(house, 100, sop_instance_uid="1.2.3.1")
    old = in_quarantine(house, 100)
    damaged = in_quarantine(house, 100)
    damaged.with_suffix(".json").write_text("{")
    new = in_quarantine(house, 1)
    house.later(0)
    assert [path.exists() for path in (held, old, damaged, new)] == [True, False, False, True]
    assert not old.with_suffix(".json").exists()
    assert json.loads(held.with_suffix(".json").read_text())["code"] == "X"
    assert ("QUARANTINE_PURGED", "warning") in events(house.ledger)


def test_old_events_go_and_those_that_need_a_person_stay(
    ledger: Ledger, clock: Any, house: House
) -> None:
    house.come(*SERIES)
    house.analyse()
    settle(house.ledger, taken(house.ledger), Refuse("STATUS_C000", "no"), status=0xC000)
    assert len(rows(ledger, event)) > 4
    house.later(61)
    kept = [code for code, level in events(ledger) if level == "attention"]
    assert set(kept) == {"DELIVERY_REFUSED"}
    assert "STUDY_BEGAN" not in house.codes()
    assert "EVENTS_COMPACTED" in house.codes()
    count = len(rows(ledger, event))
    house.later(0.1)
    assert len(rows(ledger, event)) == count


def test_a_study_whose_files_were_removed_by_hand_goes_without_a_fault(house: House) -> None:
    analysed(house.ledger, house.clock)
    deliver_all(house.ledger)
    assert house.later(20) == 1
