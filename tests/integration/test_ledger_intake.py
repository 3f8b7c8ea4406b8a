"""What comes in: instances, series, studies, and what their arrival does to jobs and deliveries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ledger_kit import (
    POLICY,
    QUIET_SECONDS,
    analysed,
    claim,
    claimed,
    close,
    come,
    deliver_all,
    events,
    finish,
    header,
    receive,
    rows,
    settle,
    states,
    take,
    taken,
)

from dicomnode.domain.identifiers import InstanceUID, PatientKey, StudyUID
from dicomnode.errors import ConflictError, LedgerError
from dicomnode.ledger import Ledger, associations, intake, knowing, nodes, tables
from dicomnode.ledger.tables import association, delivery, event, instance, job, series, study


def test_an_instance_makes_its_study_and_its_series(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1"), header("1.2"), header("1.3", series="1.2.4"))
    (one,) = rows(ledger, study)
    assert (one.study_uid, one.state, one.node_id) == ("1.2", "OPEN", "node-1")
    assert [(row.series_uid, row.generation) for row in rows(ledger, series)] == [
        ("1.2.3", 1),
        ("1.2.4", 1),
    ]
    stored = rows(ledger, instance)
    assert [row.sop_instance_uid for row in stored] == ["1.1", "1.2", "1.3"]
    assert all(row.counts == 1 and row.received_at == clock.now for row in stored)
    assert events(ledger) == [("STUDY_BEGAN", "info")]


def test_state_and_event_are_one_transaction(ledger: Ledger) -> None:
    """Law 2: whatever breaks between the two takes both with it."""

    class BrokenError(Exception):
        pass

    with pytest.raises(BrokenError), ledger.transaction() as tx:
        come(tx, header())
        raise BrokenError
    assert rows(ledger, instance) == rows(ledger, study) == rows(ledger, event) == []


def test_an_event_is_logged_only_when_it_is_committed(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(RuntimeError), ledger.transaction() as tx:
        tx.event("NEVER_WAS")
        raise RuntimeError
    with ledger.transaction() as tx:
        tx.event("WAS", detail="so", level="warning")
        assert "WAS" not in caplog.messages
    assert caplog.messages == ["WAS"]


def test_one_sop_instance_uid_has_one_row(ledger: Ledger) -> None:
    """The index that makes two associations with the same instance come out right."""
    receive(ledger, header())
    with pytest.raises(ConflictError), ledger.transaction() as tx:
        decision = come(tx, header("1.9"))
        intake.add(
            tx,
            header(study="1.7"),
            decision,
            digest="d",
            size=1,
            path="elsewhere",
            association_id=None,
            policy=POLICY,
            counts=True,
        )
    assert len(rows(ledger, instance)) == 1
    assert len(rows(ledger, study)) == 1


# Associations and nodes


def test_an_association_and_what_it_brought(ledger: Ledger, clock: Any) -> None:
    with ledger.transaction() as tx:
        number = associations.open_association(
            tx, calling_ae="MODALITY", called_ae="DICOMNODE", address="127.0.0.1"
        )
    clock.forward(5)
    with ledger.transaction() as tx:
        associations.close_association(tx, number, outcome="RELEASED", instances=3, size=99)
    (row,) = rows(ledger, association)
    assert (row.outcome, row.instances, row.bytes) == ("RELEASED", 3, 99)
    assert (row.closed_at - row.opened_at).total_seconds() == 5
    assert events(ledger) == []
    with ledger.transaction() as tx:
        associations.close_association(tx, number, outcome="ABORTED", instances=3, size=99)
    assert events(ledger) == [("ASSOCIATION_ABORTED", "warning")]


def test_what_repeats_is_counted_not_repeated(ledger: Ledger, clock: Any) -> None:
    for detail in ("a", "a", "b", "a"):
        clock.forward(1)
        with ledger.transaction() as tx:
            tx.event_again("DISK_FULL", level="attention", detail=detail)
    assert [(row.detail, row.count) for row in rows(ledger, event)] == [("a", 3), ("b", 1)]
    assert rows(ledger, event)[0].at == clock.now


def test_a_node_may_come_back_with_its_key(ledger: Ledger, clock: Any) -> None:
    clock.forward(10)
    with ledger.transaction() as tx:
        nodes.register_node(tx, "RENAMED", "key-1")
    (row,) = rows(ledger, tables.node)
    assert (row.ae_title, row.started_at) == ("RENAMED", clock.now)


def test_a_node_with_another_key_is_refused(ledger: Ledger, ledger_url: str) -> None:
    """Its hashes of the same patients would never match the others'."""
    with (
        pytest.raises(LedgerError, match="patient key is not the one"),
        ledger.transaction() as tx,
    ):
        nodes.register_node(tx, "DICOMNODE", "key-2")
    other = Ledger(ledger_url, "node-2")
    with (
        pytest.raises(LedgerError, match="node-1 hashes patients with another key"),
        other.transaction() as tx,
    ):
        nodes.register_node(tx, "OTHER", "key-2")
    with other.transaction() as tx:
        nodes.register_node(tx, "OTHER", "key-1")
    other.close()
    assert len(rows(ledger, tables.node)) == 2


# Again


def test_a_duplicate_is_an_event_and_nothing_else(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header())
    before = rows(ledger, study)
    clock.forward(30)
    receive(ledger, header())
    assert len(rows(ledger, instance)) == 1
    assert rows(ledger, study) == before, "a duplicate keeps no study open"
    assert events(ledger)[-1] == ("DUPLICATE", "info")
    assert rows(ledger, event)[-1].study_id == before[0].id


def test_another_identity_holds_the_study_and_what_is_not_delivered(
    ledger: Ledger, clock: Any
) -> None:
    analysed(ledger, clock)
    receive(ledger, header(identity_digest="corrected"))
    (held,) = rows(ledger, study)
    assert (held.state, held.hold_reason, held.identity_revision) == ("HELD", "IDENTITY_CHANGED", 1)
    assert states(ledger, delivery) == ["HELD", "HELD"]
    assert take(ledger) is None
    assert events(ledger)[-1] == ("IDENTITY_CHANGED", "attention")


def test_a_held_study_asks_for_attention_once(ledger: Ledger) -> None:
    """A corrected series is hundreds of instances; each leaves its trace, one asks for a person."""
    receive(ledger, *(header(f"1.{number}") for number in range(1, 4)))
    receive(ledger, *(header(f"1.{number}", identity_digest="new") for number in range(1, 4)))
    assert [level for code, level in events(ledger) if code == "IDENTITY_CHANGED"] == [
        "attention",
        "info",
        "info",
    ]


def test_a_corrected_study_uid_holds_the_study_that_has_the_instance(ledger: Ledger) -> None:
    receive(ledger, header(), header(study="1.99"))
    assert [(row.study_uid, row.state) for row in rows(ledger, study)] == [("1.2", "HELD")]


def test_two_patients_in_one_study_are_never_analysed(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1"))
    receive(ledger, header("1.2", patient_key=PatientKey("somebody else")))
    (held,) = rows(ledger, study)
    assert (held.state, held.hold_reason) == ("HELD", "TWO_PATIENTS")
    assert len(rows(ledger, instance)) == 2, "what was accepted is kept"
    clock.forward(10 * QUIET_SECONDS)
    assert close(ledger) == 0
    assert claim(ledger) is None
    assert rows(ledger, job) == []
    assert ("TWO_PATIENTS", "attention") in events(ledger)


def test_a_queued_job_of_a_held_study_is_not_claimed(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1"))
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    receive(ledger, header("1.1", identity_digest="new"))
    assert states(ledger, job) == ["QUEUED"]
    assert claim(ledger) is None


def test_a_study_held_while_it_is_analysed_delivers_nothing(ledger: Ledger, clock: Any) -> None:
    """The results are recorded, and wait for the person as the others do."""
    receive(ledger, header("1.1"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    running = claimed(ledger)
    receive(ledger, header("1.1", identity_digest="new"))
    assert finish(ledger, running)
    assert states(ledger, job) == ["DONE"]
    assert states(ledger, delivery) == ["HELD", "HELD"]
    assert take(ledger) is None


def test_an_object_on_its_way_when_the_study_is_held_is_said_to_have_arrived(
    ledger: Ledger, clock: Any
) -> None:
    analysed(ledger, clock)
    sending = taken(ledger)
    receive(ledger, header(identity_digest="new"))
    settle(ledger, sending)
    assert states(ledger, delivery) == ["HELD", "HELD"]
    assert events(ledger)[-1] == ("DELIVERED_AFTER_CANCEL", "attention")


# Own results


def test_an_own_result_that_comes_back_changes_nothing(ledger: Ledger, clock: Any) -> None:
    done = analysed(ledger, clock)
    deliver_all(ledger)
    before = rows(ledger, study), rows(ledger, series), rows(ledger, instance), rows(ledger, job)
    returned = header(f"2.25.{done.id}.0", series="2.25.9", modality="SEG")
    receive(ledger, returned)
    after = rows(ledger, study), rows(ledger, series), rows(ledger, instance), rows(ledger, job)
    assert after == before
    assert events(ledger)[-1] == ("OWN_RESULT", "info")


def test_a_result_of_another_node_opens_no_study(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1", made_by_this_software=True, modality="SEG"))
    (row,) = rows(ledger, study)
    assert (row.state, row.due_at) == ("CLOSED", None)
    assert [(row.counts, row.sop_instance_uid) for row in rows(ledger, instance)] == [(0, "1.1")]
    assert ("FOREIGN_RESULT", "info") in events(ledger)
    clock.forward(10 * QUIET_SECONDS)
    assert close(ledger) == 0


def test_a_result_of_another_node_reopens_no_study_and_joins_no_analysis(
    ledger: Ledger, clock: Any
) -> None:
    analysed(ledger, clock)
    receive(ledger, header("1.8", made_by_this_software=True))
    assert states(ledger, study) == ["CLOSED"]
    assert rows(ledger, series)[0].generation == 1
    receive(ledger, header("1.9"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    assert [path.rsplit("/", 1)[1] for path in claimed(ledger).paths] == ["1.2.3.1.dcm", "1.9.dcm"]


# Late slices


def test_a_late_slice_begins_one_new_generation_of_its_series(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1"), header("1.2", series="1.2.4"))
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    receive(ledger, header("1.3"), header("1.4"), header("1.5"))
    assert [(row.series_uid, row.generation) for row in rows(ledger, series)] == [
        ("1.2.3", 2),
        ("1.2.4", 1),
    ]
    assert states(ledger, study) == ["OPEN"]
    assert states(ledger, job) == ["CANCELLED", "QUEUED"], "the other series' job goes on"
    assert [code for code, _ in events(ledger)].count("LATE_SLICE") == 1
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    made = rows(ledger, job)
    assert [(row.series_id, row.generation, row.state) for row in made] == [
        (made[0].series_id, 1, "CANCELLED"),
        (made[1].series_id, 1, "QUEUED"),
        (made[0].series_id, 2, "QUEUED"),
    ]


def test_the_new_generation_is_analysed_with_all_slices(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    receive(ledger, header("1.2"))
    assert claim(ledger) is None
    clock.forward(QUIET_SECONDS)
    close(ledger)
    job = claimed(ledger)
    assert job.generation == 2
    assert job.paths == ("instances/1.2/1.2.3/1.1.dcm", "instances/1.2/1.2.3/1.2.dcm")


def test_a_late_slice_takes_the_job_from_its_worker(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    running = claimed(ledger)
    receive(ledger, header("1.2"))
    assert not finish(ledger, running)
    assert rows(ledger, tables.result) == rows(ledger, delivery) == []
    assert rows(ledger, job)[0].reason == "SUPERSEDED"


def test_a_late_slice_calls_back_what_is_not_delivered(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, header("1.1"))
    settle(ledger, taken(ledger))
    sending = taken(ledger)
    receive(ledger, header("1.2"))
    assert states(ledger, delivery) == ["DELIVERED", "CANCELLED"]
    assert states(ledger, job) == ["DONE"]
    assert events(ledger)[-1] == ("LATE_SLICE", "attention")
    assert rows(ledger, event)[-1].detail.endswith("1 delivered objects are superseded")
    settle(ledger, sending)
    assert events(ledger)[-1] == ("DELIVERED_AFTER_CANCEL", "attention")


def test_a_late_slice_before_anything_was_delivered_needs_nobody(
    ledger: Ledger, clock: Any
) -> None:
    analysed(ledger, clock, header("1.1"))
    receive(ledger, header("1.2"))
    assert states(ledger, delivery) == ["CANCELLED", "CANCELLED"]
    assert events(ledger)[-1] == ("LATE_SLICE", "info")


def test_another_series_of_a_closed_study_advances_nothing_but_itself(
    ledger: Ledger, clock: Any
) -> None:
    analysed(ledger, clock, header("1.1"))
    receive(ledger, header("1.5", series="1.2.9", modality="SR"))
    assert states(ledger, delivery) == ["PENDING", "PENDING"]
    assert {row.generation for row in rows(ledger, series)} == {1}
    clock.forward(QUIET_SECONDS)
    close(ledger)
    made = rows(ledger, job)
    assert [(row.series_id, row.state) for row in made] == [
        (rows(ledger, series)[0].id, "DONE"),
        (rows(ledger, series)[1].id, "QUEUED"),
    ]


# Odd but readable


def test_what_a_header_may_say_has_room_in_every_database(ledger: Ledger) -> None:
    """A limit that only one database knows would be an instance that is refused for ever."""
    longest = "9" * 64
    receive(
        ledger,
        replace(
            header(longest),
            study_uid=StudyUID("1." + "8" * 62),
            sop_instance_uid=InstanceUID(longest),
            modality="M" * 16,
            series_description="Ä" * 64,
            body_part="\U0001f480" * 16,
            series_number=-(2**31) + 1,
            slice_thickness_mm=1e308,
        ),
    )
    (row,) = rows(ledger, series)
    assert (row.description, row.series_number) == ("Ä" * 64, -(2**31) + 1)


def test_the_paths_that_should_be_in_the_spool(ledger: Ledger) -> None:
    receive(ledger, header("1.1"), header("1.2", made_by_this_software=True))
    with ledger.transaction() as tx:
        assert sorted(knowing.stored_paths(tx)) == [
            "instances/1.2/1.2.3/1.1.dcm",
            "instances/1.2/1.2.3/1.2.dcm",
        ]
