"""What a person may do: release, requeue, acknowledge; on both databases, and safe to repeat."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ledger_kit import (
    QUIET_SECONDS,
    claim,
    claimed,
    close,
    events,
    fail,
    finish,
    header,
    receive,
    rows,
    states,
    take,
)

from dicomnode.domain.content import CONTENT_HELD, SPINE_NOT_AT_BACK
from dicomnode.domain.findings import Finding
from dicomnode.domain.identifiers import PatientKey
from dicomnode.domain.outcomes import Refuse
from dicomnode.ledger import Ledger, actions, deliveries, overview
from dicomnode.ledger.tables import delivery, event, job, study

WHO = "somebody"


def attention(ledger: Ledger) -> list[str]:
    with ledger.transaction() as tx:
        return [row["code"] for row in overview.overview(tx)["attention"]]


def test_a_released_study_goes_on_where_it_was_held(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1"))
    receive(ledger, header("1.2", patient_key=PatientKey("somebody else")))
    clock.forward(2 * QUIET_SECONDS)
    assert close(ledger) == 0
    with ledger.transaction() as tx:
        assert actions.release_study(tx, "1.2", WHO, "one patient, two issuers")
    assert events(ledger)[-1] == ("STUDY_RELEASED", "info")
    assert rows(ledger, event)[-1].detail == "by somebody: one patient, two issuers"
    assert attention(ledger) == []
    assert close(ledger) == 1
    assert claim(ledger) is not None
    with ledger.transaction() as tx:
        assert not actions.release_study(tx, "1.2", WHO, "again")
        assert not actions.release_study(tx, "1.99", WHO, "unknown")


def test_results_held_for_their_content_are_sent_when_a_person_releases_them(
    ledger: Ledger, clock: Any
) -> None:
    receive(ledger, header())
    clock.forward(QUIET_SECONDS)
    close(ledger)
    seen = Finding(code=SPINE_NOT_AT_BACK, sentence="The spine lies in front.")
    assert finish(ledger, claimed(ledger), coded=(seen,), held=(seen.code,))
    assert states(ledger, delivery) == ["HELD", "HELD"]
    assert {row.reason for row in rows(ledger, delivery)} == {CONTENT_HELD}
    assert take(ledger) is None
    assert attention(ledger) == [CONTENT_HELD]
    assert (SPINE_NOT_AT_BACK, "warning") in events(ledger)
    assert ("FINDING", "warning") not in events(ledger)
    with ledger.transaction() as tx:
        assert actions.release_study(tx, "1.2", WHO, "a mirrored phantom")
    assert states(ledger, delivery) == ["PENDING", "PENDING"]
    assert attention(ledger) == []
    assert take(ledger) is not None
    with ledger.transaction() as tx:
        assert not actions.release_study(tx, "1.2", WHO, "again")


def test_deliveries_of_a_released_study_are_sent(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header())
    clock.forward(QUIET_SECONDS)
    close(ledger)
    finish(ledger, claimed(ledger))
    receive(ledger, header(identity_digest="corrected"))
    assert states(ledger, delivery) == ["HELD", "HELD"]
    assert take(ledger) is None
    with ledger.transaction() as tx:
        assert actions.release_study(tx, "1.2", WHO, "the archive has corrected it")
    assert states(ledger, delivery) == ["PENDING", "PENDING"]
    assert take(ledger) is not None
    (row,) = rows(ledger, study)
    assert (row.state, row.hold_reason) == ("OPEN", None)
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    assert claim(ledger) is None, "what has been analysed is not analysed again"


def test_a_refused_job_is_analysed_again(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header())
    clock.forward(QUIET_SECONDS)
    close(ledger)
    refused = claimed(ledger)
    fail(ledger, refused, Refuse("MODEL_NOT_AVAILABLE", "not installed"))
    assert attention(ledger) == ["JOB_REFUSED"]
    with ledger.transaction() as tx:
        assert actions.requeue_job(tx, refused.id, WHO)
        assert not actions.requeue_job(tx, refused.id, WHO)
        assert not actions.requeue_job(tx, 12345, WHO)
    assert attention(ledger) == []
    again = claimed(ledger)
    assert (again.id, again.attempt) == (refused.id, 2)
    (row,) = rows(ledger, job)
    assert (row.failures, row.reason) == (0, None)


def test_a_refused_result_set_is_sent_again_as_a_whole(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header())
    clock.forward(QUIET_SECONDS)
    close(ledger)
    finish(ledger, claimed(ledger))
    first = take(ledger)
    assert first is not None
    with ledger.transaction() as tx:
        deliveries.finish(
            tx,
            first,
            Refuse("SOP_CLASS_NOT_SUPPORTED", "no"),
            status=0x0122,
            wait=timedelta(0),
            give_up_after=timedelta(days=1),
        )
    assert states(ledger, delivery) == ["REFUSED", "REFUSED"]
    assert attention(ledger) == ["DELIVERY_REFUSED"]
    with ledger.transaction() as tx:
        assert actions.requeue_delivery(tx, first.id, WHO) == 2
        assert actions.requeue_delivery(tx, first.id, WHO) == 0
        assert actions.requeue_delivery(tx, 12345, WHO) == 0
    assert states(ledger, delivery) == ["PENDING", "PENDING"]
    assert attention(ledger) == []
    again = take(ledger)
    assert again is not None
    assert again.id == first.id


def test_what_was_seen_no_longer_needs_attention(ledger: Ledger) -> None:
    with ledger.transaction() as tx:
        tx.event("BYTES_MISSING", level="attention")
        tx.event("COERCED", level="attention")
        tx.event("STORED", level="info")
    first = rows(ledger, event)[0].id
    with ledger.transaction() as tx:
        assert actions.acknowledge(tx, [first], WHO) == 1
        assert actions.acknowledge(tx, [first], WHO) == 0
    assert attention(ledger) == ["COERCED"]
    with ledger.transaction() as tx:
        assert actions.acknowledge(tx, [], WHO) == 1
    assert attention(ledger) == []
