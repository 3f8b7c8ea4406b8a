"""Health of destinations, commitment asked for and commitment given: on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ledger_kit import (
    analysed,
    deliver_all,
    events,
    header,
    receive,
    rows,
    states,
    take,
    taken,
)

from dicomnode.domain.commitment import CommitmentReport
from dicomnode.domain.outcomes import Backoff, Done, Refuse, Retry
from dicomnode.domain.subjects import IDENTITY_DIFFERS
from dicomnode.ledger import Ledger, actions, commitments, deliveries, destinations, promises
from dicomnode.ledger.tables import commitment, delivery, instance, promise

BACKOFF = Backoff(first_seconds=10, ceiling_seconds=100)
AWAY = Retry("NO_CONNECTION", "the peer cannot be reached")
HOUR = timedelta(hours=1)


def delivered(ledger: Ledger, clock: Any) -> None:
    """Have two objects delivered of which commitment is to be asked for."""
    analysed(ledger, clock)
    while (one := take(ledger)) is not None:
        with ledger.transaction() as tx:
            values = {"wait": HOUR, "give_up_after": HOUR, "status": 0}
            deliveries.finish(tx, one, Done(), commit=True, **values)  # type: ignore[arg-type]


def begin(ledger: Ledger) -> commitments.Request | None:
    with ledger.transaction() as tx:
        due = commitments.is_due(tx, "archive")
        request = commitments.begin(tx, "archive", HOUR)
    assert due == (request is not None)
    return request


def begun(ledger: Ledger) -> commitments.Request:
    request = begin(ledger)
    assert request is not None
    return request


def answer(ledger: Ledger, uid: str, committed: set[str], *, by: str = "archive") -> int:
    report = CommitmentReport(transaction_uid=uid, committed=frozenset(committed), failed=())
    with ledger.transaction() as tx:
        return commitments.answered(tx, {by}, report, BACKOFF)


def test_commitment_from_the_request_to_the_end(ledger: Ledger, clock: Any) -> None:
    delivered(ledger, clock)
    request = begun(ledger)
    uids = {uid for _, uid in request.references}
    assert len(uids) == 2
    assert begin(ledger) is None, "each object is in one transaction at a time"
    assert answer(ledger, "1.2.3", uids) == 0x0115
    assert answer(ledger, request.transaction_uid, uids, by="other") == 0x0115
    assert states(ledger, delivery) == ["DELIVERED", "DELIVERED"]
    first, second = sorted(uids)
    assert answer(ledger, request.transaction_uid, {first}) == 0x0000
    assert states(ledger, delivery) == ["COMMITTED", "PENDING"]
    clock.forward(100)
    assert taken(ledger).sop_instance_uid == second, "what was not named is sent again"
    assert states(ledger, commitment) == ["ANSWERED"]


def test_silence_and_refusal_are_asked_again(ledger: Ledger, clock: Any) -> None:
    delivered(ledger, clock)
    first = begun(ledger)
    clock.forward(3601)
    with ledger.transaction() as tx:
        assert commitments.time_out(tx, "archive", BACKOFF) == 1
        assert commitments.time_out(tx, "archive", BACKOFF) == 0
    clock.forward(100)
    second = begun(ledger)
    with ledger.transaction() as tx:
        commitments.not_asked(tx, second, AWAY, BACKOFF, required=False)
    clock.forward(100)
    third = begun(ledger)
    assert len({first.transaction_uid, second.transaction_uid, third.transaction_uid}) == 3
    with ledger.transaction() as tx:
        refused = Refuse("CONTEXT_REFUSED", "no")
        commitments.not_asked(tx, third, refused, BACKOFF, required=False)
    clock.forward(10_000)
    assert begin(ledger) is None, "wanted only, and refused"
    assert states(ledger, commitment) == ["SILENT", "REFUSED", "REFUSED"]


def test_a_destination_s_health_and_its_return(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    with ledger.transaction() as tx:
        destinations.note(tx, "archive", AWAY, None, BACKOFF, 0.5)
        deliveries.wait_for_destination(tx, "archive", AWAY, timedelta(days=14))
        assert not destinations.may_be_called(tx, "archive")
        assert destinations.may_be_called(tx, "other")
    assert {row.reason for row in rows(ledger, delivery)} == {"NO_CONNECTION"}
    clock.forward(3700)
    with ledger.transaction() as tx:
        assert destinations.may_be_called(tx, "archive")
        destinations.note(tx, "archive", AWAY, None, BACKOFF, 0.5)
        (listed,) = destinations.listing(tx)
    assert (listed["name"], listed["waiting"], listed["failures"]) == ("archive", 2, 2)
    assert ("DESTINATION_STILL_AWAY", "attention") in events(ledger)
    with ledger.transaction() as tx:
        destinations.note(tx, "archive", Done(), 1, BACKOFF, 0.5)
        assert actions.acknowledge(tx, (), "me") == 0
    assert deliver_all(ledger) == 2


def test_late_held_and_outdated(ledger: Ledger, clock: Any) -> None:
    job = analysed(ledger, clock)
    clock.forward(3600)
    with ledger.transaction() as tx:
        assert destinations.call_late(tx, "archive", HOUR) == 1
        assert destinations.call_late(tx, "archive", HOUR) == 0
    one = taken(ledger)
    with ledger.transaction() as tx:
        assert deliveries.hold_for(tx, one, Refuse(IDENTITY_DIFFERS, "Patient ID")) == 2
        assert actions.release_study(tx, job.study_uid, "me", "it is right")
    assert taken(ledger).overridden
    receive(ledger, header("1.2.3.2"))  # a late slice
    with ledger.transaction() as tx:
        assert deliveries.cancel_outdated(tx, "archive") == 0, "that was done with the slice"
    assert states(ledger, delivery) == ["CANCELLED", "CANCELLED"]


def test_promises(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.2.3.1"), header("1.2.3.2"))
    asked = [("1.2.840.10008.5.1.4.1.1.2", uid) for uid in ("1.2.3.1", "1.2.3.2", "1.9")]
    with ledger.transaction() as tx:
        for _ in range(2):
            promises.ask(tx, "CT1", "1.7", asked)
        given = promises.next_due(tx)
        assert given is not None
        there = promises.kept(tx, {uid for _, uid in given.references})
        assert set(there) == {"1.2.3.1", "1.2.3.2"}
        first, second = there["1.2.3.1"].id, there["1.2.3.2"].id
        tx.connection.execute(
            instance.update().where(instance.c.id == second).values(purged_at=tx.now)
        )
        assert promises.keep(tx, {first, second}) == {first}, "the other has gone meanwhile"
        promises.put_off(tx, given, AWAY, timedelta(seconds=10), timedelta(days=14))
        assert promises.next_due(tx) is None
    clock.forward(10)
    with ledger.transaction() as tx:
        again = promises.next_due(tx)
        assert again is not None
        promises.told(tx, again, 1, 2)
        assert promises.next_due(tx) is None
        assert again.attempt == 2
    assert states(ledger, promise) == ["ANSWERED"]
    with ledger.transaction() as tx:
        assert promises.release(tx, "1.2", "me", "enough") == 1
        assert promises.release(tx, "1.9", "me", "unknown") == 0
