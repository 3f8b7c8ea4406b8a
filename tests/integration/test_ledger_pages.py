"""What the page asks of the ledger, and what a person does there, on both databases."""

from __future__ import annotations

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
    header,
    receive,
    rows,
    settle,
    states,
    take,
    taken,
)

from dicomnode.domain.outcomes import Backoff, Done, Refuse, Retry
from dicomnode.errors import LedgerError
from dicomnode.ledger import Ledger, actions, destinations, figures, pages, steering
from dicomnode.ledger.tables import delivery, event, job


def many(ledger: Ledger, clock: Any, count: int) -> list[str]:
    """Let studies come; return their UIDs, the newest first. Every third at the same moment."""
    for number in range(1, count + 1):
        uid = f"1.2.{number}"
        receive(ledger, header(f"{uid}.1.1", study=uid, series=f"{uid}.1"))
        if number % 3:
            clock.forward(1)
    return [f"1.2.{number}" for number in range(count, 0, -1)]


def listed(ledger: Ledger, **query: Any) -> dict[str, Any]:
    with ledger.looking() as tx:
        return pages.studies(tx, **query)


@pytest.mark.parametrize("limit", [1, 3, 4, 20])
def test_pages_hold_every_study_once_and_in_order(ledger: Ledger, clock: Any, limit: int) -> None:
    uids = many(ledger, clock, 10)
    found: list[str] = []
    after = None
    for _ in range(20):
        page = listed(ledger, after=after, limit=limit)
        assert len(page["studies"]) <= limit
        found += [row["study_uid"] for row in page["studies"]]
        after = page["next"]
        if after is None:
            break
        # What comes meanwhile stands on the first page and moves nothing on the others.
        uid = f"9.{len(found)}"
        receive(ledger, header(uid, study=uid, series=uid))
    assert [uid for uid in found if not uid.startswith("9.")] == uids


def test_studies_are_found_by_state_begin_of_uid_and_attention(ledger: Ledger, clock: Any) -> None:
    many(ledger, clock, 12)
    assert {row["study_uid"] for row in listed(ledger, uid="1.2.1")["studies"]} == {
        "1.2.1", "1.2.10", "1.2.11", "1.2.12",
    }  # fmt: skip
    receive(ledger, header("1.2.5.1.2", study="1.2.5", series="1.2.5.1", patient_key="other"))
    assert [row["study_uid"] for row in listed(ledger, state="HELD")["studies"]] == ["1.2.5"]
    (row,) = listed(ledger, attention=True)["studies"]
    assert row["attention"] == ["TWO_PATIENTS"]
    assert (row["series"], row["instances"], row["modalities"]) == (1, 2, ["CT"])


@pytest.mark.parametrize("place", ["x", "1", "-1-2", "1-", "1-2-3", "99999999999999999-1"])
def test_a_place_that_is_none_is_refused(ledger: Ledger, place: str) -> None:
    with pytest.raises(pages.BadPlaceError):
        listed(ledger, after=place)


def test_a_study_shows_its_course_from_association_to_archive(ledger: Ledger, clock: Any) -> None:
    done = analysed(ledger, clock)
    deliver_all(ledger)
    with ledger.looking() as tx:
        facts = pages.study_facts(tx, "1.2")
        assert pages.study_facts(tx, "1.9") is None
        assert pages.first_file(tx, "1.2") == "instances/1.2/1.2.3/1.2.3.1.dcm"
    assert facts is not None
    (found,) = facts["jobs"]
    assert found["id"] == done.id
    assert [one["kind"] for one in found["results"]] == ["seg", "sr"]
    assert {one["state"] for one in found["deliveries"]} == {"DELIVERED"}
    codes = [one["code"] for one in facts["events"]]
    assert codes == [
        "STUDY_BEGAN", "STUDY_CLOSED", "JOB_CLAIMED", "JOB_DONE", "DELIVERED", "DELIVERED",
    ]  # fmt: skip
    assert facts["series"][0]["chosen_model"] == "demo"


def test_figures_say_what_waits_what_went_and_how_long_it_took(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    clock.forward(5)
    first = taken(ledger)
    settle(ledger, first)
    with ledger.looking() as tx:
        queues = {row["queue"]: row for row in figures.queues(tx)}
        day = figures.day(tx)
        assert figures.states(tx)["jobs"] == {"DONE": 1}
        assert figures.deliveries_by(tx) == {"archive": {"DELIVERED": 1, "PENDING": 1}}
        assert figures.arrivals(tx)["seconds_ago"] == 65
    assert (queues["deliveries"]["depth"], queues["deliveries"]["oldest_seconds"]) == (1, 5)
    assert queues["queued_jobs"]["oldest_seconds"] is None
    assert day["hours"][-1] | {"hour": ""} == {
        "hour": "", "instances": 0, "jobs": 1, "deliveries": 1,
    }  # fmt: skip
    took = {row["step"]: row["median"] for row in day["latency"]}
    assert took == {"closing": 60, "queue": 0, "analysis": 0, "delivery": 5, "total": 65}


def test_what_is_older_than_a_day_is_not_in_it(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    clock.forward(25 * 3600)
    with ledger.looking() as tx:
        day = figures.day(tx)
    assert sum(hour["jobs"] for hour in day["hours"]) == 0
    assert all(row["count"] == 0 for row in day["latency"])


def test_looking_waits_for_nobody(ledger: Ledger) -> None:
    with ledger.transaction() as writing:
        writing.event("STUDY_BEGAN")
        with ledger.looking() as tx:
            assert figures.last_events(tx, 5) == []
    with ledger.looking() as tx:
        assert len(figures.last_events(tx, 5)) == 1


def test_looking_cannot_write(ledger: Ledger) -> None:
    with pytest.raises(LedgerError), ledger.looking() as tx:
        tx.event("STUDY_BEGAN")
    with ledger.transaction() as writing:  # the same connection writes again
        writing.event("STUDY_BEGAN")


# Acts


def test_a_job_is_cancelled_once_and_its_worker_records_nothing(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header())
    clock.forward(60)
    close(ledger)
    running = claimed(ledger)
    with ledger.transaction() as tx:
        assert steering.cancel_job(tx, running.id, "olga", "wrong patient table")
        assert not steering.cancel_job(tx, running.id, "olga", "wrong patient table")
    assert not finish(ledger, running)
    assert states(ledger, job) == ["CANCELLED"]
    assert claim(ledger) is None
    said = [row.detail for row in rows(ledger, event) if row.code == "JOB_CANCELLED"]
    assert said == ["by olga: wrong patient table"]


def test_cancelling_a_refused_job_settles_its_attention(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header())
    clock.forward(60)
    close(ledger)
    fail(ledger, claimed(ledger), Refuse("NOT_HU", "no"))
    with ledger.transaction() as tx:
        assert steering.cancel_job(tx, 1, "olga")
    assert pages_attention(ledger) == []


def pages_attention(ledger: Ledger) -> list[str]:
    with ledger.looking() as tx:
        return [row["code"] for row in pages.attention(tx)]


def test_cancelled_deliveries_leave_nothing_that_waits_for_ever(ledger: Ledger, clock: Any) -> None:
    done = analysed(ledger, clock, to=("archive", "other"))
    settle(ledger, taken(ledger), Refuse("NOT_AUTHORIZED", "no"))
    with ledger.transaction() as tx:
        assert steering.cancel_deliveries(tx, done.id, "archive", "olga", "moved") > 0
        assert steering.cancel_deliveries(tx, done.id, "archive", "olga", "moved") == 0
    assert take(ledger) is None
    by = {(row.destination, row.state) for row in rows(ledger, delivery)}
    assert by == {("archive", "CANCELLED"), ("other", "PENDING")}
    assert pages_attention(ledger) == []


def test_a_result_set_is_sent_again_to_one_destination(ledger: Ledger, clock: Any) -> None:
    done = analysed(ledger, clock, to=("archive", "other"))
    assert deliver_all(ledger) == 2
    clock.forward(20 * 86400)  # longer than anything is tried
    with ledger.transaction() as tx:
        assert steering.send_again(tx, done.id, "archive", "olga") == 2
        assert steering.send_again(tx, done.id, "archive", "olga") == 0
        assert steering.send_again(tx, 99, "archive", "olga") == 0
    assert taken(ledger).kind == "seg"
    assert {row.state for row in rows(ledger, delivery) if row.destination == "other"} == {
        "PENDING"
    }


def test_a_paused_destination_is_left_alone_until_it_is_resumed(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    with ledger.transaction() as tx:
        assert destinations.may_be_called(tx, "archive")
        assert steering.pause(tx, "archive", "olga", "archive is being moved")
        assert not steering.pause(tx, "archive", "olga", "archive is being moved")
    clock.forward(3600)
    with ledger.transaction() as tx:
        assert not destinations.may_be_called(tx, "archive")
        (row,) = destinations.listing(tx)
        assert (row["paused_by"], row["waiting"]) == ("olga", 2)
        assert steering.resume(tx, "archive", "olga")
        assert not steering.resume(tx, "archive", "olga")
        assert destinations.may_be_called(tx, "archive")
    codes = [code for code, _ in events(ledger) if code.startswith("DESTINATION")]
    assert codes == ["DESTINATION_PAUSED", "DESTINATION_RESUMED"]


def test_a_pause_outlives_what_the_sender_notes(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    with ledger.transaction() as tx:
        steering.pause(tx, "archive", "olga")
        for outcome in (Retry("NO_CONNECTION", "no"), Done()):
            destinations.note(tx, "archive", outcome, None, Backoff(), 0.5)
            assert not destinations.may_be_called(tx, "archive")


def test_the_waiting_jobs_and_the_failed_ones_are_listed(ledger: Ledger, clock: Any) -> None:
    many(ledger, clock, 3)
    clock.forward(60)
    close(ledger)
    fail(ledger, claimed(ledger), Refuse("NOT_HU", "no rescale"))
    claimed(ledger)
    with ledger.looking() as tx:
        assert [row["state"] for row in pages.waiting(tx)] == ["LEASED", "QUEUED"]
        (failed,) = pages.failures(tx)
        assert (failed["reason"], failed["detail"]) == ("NOT_HU", "no rescale")
        (told,) = pages.attention(tx)
        assert (told["code"], told["reason"], told["job_state"]) == (
            "JOB_REFUSED", "NOT_HU", "REFUSED",
        )  # fmt: skip
        assert pages.how_much_attention(tx) == {"JOB_REFUSED": 1}
    with ledger.transaction() as tx:
        actions.requeue_job(tx, failed["id"], "olga")
    assert pages_attention(ledger) == []
