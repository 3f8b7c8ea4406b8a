"""What is withdrawn, at whom, when, and once."""

from __future__ import annotations

from typing import Any

from ledger_kit import (
    QUIET_SECONDS,
    analysed,
    claimed,
    close,
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

from dicomnode.domain.identifiers import InstanceUID, SeriesUID, SOPClassUID, TransferSyntaxUID
from dicomnode.domain.outcomes import Done, Refuse
from dicomnode.domain.plans import REJECTION
from dicomnode.domain.records import Job, StoredResult
from dicomnode.domain.withdrawal import SUPERSEDED, WITHDRAWN
from dicomnode.ledger import Ledger, actions, deliveries, withdrawals
from dicomnode.ledger.tables import delivery, event, result
from dicomnode.ledger.withdrawals import Due

ARCHIVE = frozenset({"archive"})
BOTH = frozenset({"archive", "other"})


def withdraw(ledger: Ledger, job: int | None = None, by_note: frozenset[str] = ARCHIVE) -> int:
    with ledger.transaction() as tx:
        return withdrawals.withdraw(
            tx, "1.2", job_id=job, who="me", why="wrong side", reason=WITHDRAWN, by_note=by_note
        )


def due(ledger: Ledger, by_note: frozenset[str] = ARCHIVE) -> tuple[Due, ...]:
    with ledger.transaction() as tx:
        withdrawals.mark_superseded(tx, by_note)
        return withdrawals.due(tx, by_note)


def record(ledger: Ledger, one: Due, uid: str = "2.25.999") -> bool:
    note = StoredResult(
        kind=REJECTION,
        position=0,
        sop_class_uid=SOPClassUID("1.2.840.10008.5.1.4.1.1.88.59"),
        sop_instance_uid=InstanceUID(uid),
        series_uid=SeriesUID("2.25.998"),
        transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2.1"),
        path=f"results/{one.job_id}/{uid}.dcm",
        digest="d",
        size=1,
        summary={"rejected": len(one.named)},
    )
    with ledger.transaction() as tx:
        return withdrawals.record(tx, one, note)


def newer(ledger: Ledger, clock: Any, to: tuple[str, ...] = ("archive",)) -> Job:
    receive(ledger, header("1.9"))
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    job = claimed(ledger)
    assert finish(ledger, job, to=to)
    return job


def uids(one: Due) -> set[str]:
    return {item.sop_instance_uid for item in one.named}


def test_nothing_is_due_without_a_reason(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    deliver_all(ledger)
    assert due(ledger) == ()


def test_a_person_withdraws_what_is_there_and_stops_what_is_not(ledger: Ledger, clock: Any) -> None:
    job = analysed(ledger, clock)
    settle(ledger, taken(ledger))
    assert withdraw(ledger) == 2
    assert withdraw(ledger) == 0
    assert states(ledger, delivery) == ["DELIVERED", "CANCELLED"]
    (one,) = due(ledger)
    assert (one.job_id, one.destination, one.reason) == (job.id, "archive", WITHDRAWN)
    assert uids(one) == {f"2.25.{job.id}.0"}
    assert one.at == clock.now
    assert record(ledger, one)
    assert due(ledger) == ()
    note = taken(ledger)
    assert note.kind == REJECTION
    settle(ledger, note)
    assert states(ledger, delivery) == ["DELIVERED", "CANCELLED", "DELIVERED"]
    assert ("RESULTS_WITHDRAWN", "warning") in events(ledger)
    assert ("REJECTION_NOTE_QUEUED", "info") in events(ledger)
    assert take(ledger) is None


def test_what_never_left_needs_no_note(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    assert withdraw(ledger) == 2
    assert states(ledger, delivery) == ["CANCELLED", "CANCELLED"]
    assert due(ledger) == ()


def test_only_the_job_that_is_named(ledger: Ledger, clock: Any) -> None:
    job = analysed(ledger, clock)
    deliver_all(ledger)
    assert withdraw(ledger, job=job.id + 1) == 0
    assert withdraw(ledger, job=job.id) == 2


def test_where_no_notes_are_taken_a_person_is_told(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, to=("archive", "other"))
    deliver_all(ledger)
    settle(ledger, taken(ledger, "other"))
    assert withdraw(ledger) == 2
    told = [row.detail for row in rows(ledger, event) if row.code == "WITHDRAW_BY_HAND"]
    assert len(told) == 1
    assert told[0].startswith("other ")
    assert [one.destination for one in due(ledger)] == ["archive"]


def test_the_old_goes_when_the_new_is_there_and_not_before(ledger: Ledger, clock: Any) -> None:
    first = analysed(ledger, clock, header("1.1"))
    deliver_all(ledger)
    newer(ledger, clock)
    assert due(ledger) == ()
    settle(ledger, taken(ledger))
    assert due(ledger) == (), "the new segmentation is there, its report is not"
    settle(ledger, taken(ledger))
    (one,) = due(ledger)
    assert (one.job_id, one.reason) == (first.id, SUPERSEDED)
    assert uids(one) == {f"2.25.{first.id}.0", f"2.25.{first.id}.1"}


def test_each_destination_has_its_own_turn(ledger: Ledger, clock: Any) -> None:
    first = analysed(ledger, clock, header("1.1"), to=("archive", "other"))
    for name in sorted(BOTH):
        while (one := take(ledger, name)) is not None:
            settle(ledger, one)
    newer(ledger, clock, to=("archive", "other"))
    deliver_all(ledger)
    (here,) = due(ledger, BOTH)
    assert (here.job_id, here.destination) == (first.id, "archive")
    assert record(ledger, here)
    while (one := take(ledger, "other")) is not None:
        settle(ledger, one)
    (there,) = due(ledger, BOTH)
    assert there.destination == "other"
    assert record(ledger, there), "the same results, so the same note"
    assert [row.kind for row in rows(ledger, result)].count(REJECTION) == 1
    assert taken(ledger, "other").kind == REJECTION
    assert taken(ledger).kind == REJECTION


def test_what_arrives_after_it_was_cancelled_is_withdrawn_too(ledger: Ledger, clock: Any) -> None:
    job = analysed(ledger, clock)
    sending = taken(ledger)
    assert withdraw(ledger) == 2
    assert due(ledger) == ()
    settle(ledger, sending, Done())
    (one,) = due(ledger)
    assert uids(one) == {f"2.25.{job.id}.0"}


def test_a_note_is_recorded_once_and_not_cancelled(ledger: Ledger, clock: Any) -> None:
    job = analysed(ledger, clock)
    deliver_all(ledger)
    withdraw(ledger)
    (one,) = due(ledger)
    assert record(ledger, one)
    assert not record(ledger, one)
    with ledger.transaction() as tx:
        assert deliveries.cancel_job(tx, job.id, SUPERSEDED) == 0
    assert taken(ledger).kind == REJECTION


def test_a_refused_note_is_told_and_sent_again_on_demand(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    deliver_all(ledger)
    withdraw(ledger)
    (one,) = due(ledger)
    record(ledger, one)
    note = taken(ledger)
    settle(ledger, note, Refuse("SOP_CLASS_NOT_SUPPORTED", "no"), status=0x0122)
    assert ("DELIVERY_REFUSED", "attention") in events(ledger)
    assert states(ledger, delivery) == ["DELIVERED", "DELIVERED", "REFUSED"]
    with ledger.transaction() as tx:
        assert actions.requeue_delivery(tx, note.id, "me") == 1
    assert taken(ledger).kind == REJECTION


def test_what_is_withdrawn_is_not_sent_again(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    deliver_all(ledger)
    withdraw(ledger)
    first = rows(ledger, delivery)[0].id
    with ledger.transaction() as tx:
        assert actions.requeue_delivery(tx, first, "me") == 0
    assert states(ledger, delivery) == ["DELIVERED", "DELIVERED"]


def test_without_a_file_a_person_is_told_once(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    deliver_all(ledger)
    withdraw(ledger)
    (one,) = due(ledger)
    with ledger.transaction() as tx:
        withdrawals.cannot(tx, one, "gone")
    assert due(ledger) == ()
    assert ("WITHDRAW_BY_HAND", "attention") in events(ledger)
