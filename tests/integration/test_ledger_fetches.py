"""What a fetch means for its study: it waits while it is under way, and closes when it ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from ledger_kit import POLICY, QUIET_SECONDS, close, events, header, receive, rows, states

from dicomnode.domain.identifiers import PatientKey, SeriesUID, StudyUID
from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry
from dicomnode.domain.retrieval import SubOperations, Wanted
from dicomnode.ledger import Ledger, fetches, overview
from dicomnode.ledger.tables import job, retrieval, study

WANTED = Wanted(study_uid=StudyUID("1.2"))
YEARS = timedelta(days=3000)


def begin(ledger: Ledger, wanted: Wanted = WANTED) -> int:
    with ledger.transaction() as tx:
        return fetches.begin(tx, wanted, "somebody")


def beat(ledger: Ledger, fetch_id: int, completed: int = 0) -> None:
    with ledger.transaction() as tx:
        fetches.beat(
            tx,
            fetch_id,
            peer="PACS",
            method="MOVE",
            expected=2,
            operations=SubOperations(remaining=2 - completed, completed=completed),
        )


def finish(ledger: Ledger, fetch_id: int, outcome: Outcome | None = None) -> None:
    with ledger.transaction() as tx:
        fetches.finish(tx, fetch_id, outcome or Done())


def test_a_study_that_was_fetched_closes_at_once(ledger: Ledger) -> None:
    fetch_id = begin(ledger)
    receive(ledger, header("1.1"), header("1.2"))
    beat(ledger, fetch_id, completed=2)
    assert close(ledger) == 0
    finish(ledger, fetch_id)
    assert close(ledger) == 1
    assert [row.closed_by for row in rows(ledger, study)] == ["FETCHED"]
    assert len(rows(ledger, job)) == 1
    (row,) = rows(ledger, retrieval)
    assert (row.state, row.peer, row.method, row.requested_by) == (
        "FETCHED",
        "PACS",
        "MOVE",
        "somebody",
    )
    assert (row.expected, row.remaining, row.completed) == (2, 0, 2)
    assert ("STUDY_FETCHED", "info") in events(ledger)


def test_quiet_time_does_not_close_what_is_being_fetched(ledger: Ledger, clock: Any) -> None:
    """An archive may read from tape for longer than that between two instances."""
    fetch_id = begin(ledger)
    receive(ledger, header("1.1"))
    for _ in range(4):
        clock.forward(QUIET_SECONDS / 2)
        beat(ledger, fetch_id, completed=1)
        assert close(ledger) == 0
    receive(ledger, header("1.2"))
    finish(ledger, fetch_id)
    assert close(ledger) == 1
    assert [row.generation for row in rows(ledger, job)] == [1]


def test_a_fetch_without_a_sign_of_life_holds_nothing_up(ledger: Ledger, clock: Any) -> None:
    begin(ledger)
    receive(ledger, header("1.1"))
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 0
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    with ledger.transaction() as tx:
        (shown,) = overview.overview(tx)["fetches"]
    assert (shown["state"], shown["silent"]) == ("FETCHING", True)
    with ledger.transaction() as tx:
        assert fetches.take_back(tx) == 1
        assert fetches.take_back(tx) == 0
    (row,) = rows(ledger, retrieval)
    assert (row.state, row.reason) == ("FAILED", "FETCH_LOST")


def test_no_fetch_keeps_a_study_open_for_ever(ledger: Ledger, clock: Any) -> None:
    fetch_id = begin(ledger)
    receive(ledger, header("1.1"))
    for _ in range(int(POLICY.max_open_seconds / 50)):
        clock.forward(50)
        beat(ledger, fetch_id)
    assert close(ledger) == 1
    assert states(ledger, retrieval) == ["FETCHING"]


def test_a_prior_that_is_fetched_is_analysed(ledger: Ledger, clock: Any) -> None:
    fetch_id = begin(ledger)
    receive(ledger, header("1.1", study_at=clock.now - YEARS))
    finish(ledger, fetch_id)
    assert close(ledger) == 1
    assert len(rows(ledger, job)) == 1


def test_a_prior_that_was_kept_is_analysed_once_it_is_fetched(ledger: Ledger, clock: Any) -> None:
    """Nothing new comes: all that the archive sends is a duplicate."""
    old = header("1.1", study_at=clock.now - YEARS)
    receive(ledger, old)
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    assert rows(ledger, job) == []
    for _ in range(2):  # and to do it again is harmless
        fetch_id = begin(ledger)
        receive(ledger, old)
        finish(ledger, fetch_id)
        assert close(ledger) == 1
        assert len(rows(ledger, job)) == 1
    assert states(ledger, study) == ["CLOSED"]


@pytest.mark.parametrize("outcome", [Retry("PARTLY_FETCHED", "1 failed"), Refuse("ANY", "why")])
def test_a_fetch_that_failed_changes_nothing_of_the_study(
    ledger: Ledger, clock: Any, outcome: Outcome
) -> None:
    fetch_id = begin(ledger)
    receive(ledger, header("1.1", study_at=clock.now - YEARS))
    finish(ledger, fetch_id, outcome)
    (row,) = rows(ledger, retrieval)
    assert (row.state, row.reason) == ("FAILED", outcome.code)
    assert ("FETCH_FAILED", "warning") in events(ledger)
    assert close(ledger) == 0
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    assert [row.closed_by for row in rows(ledger, study)] == ["QUIET"]
    assert rows(ledger, job) == []


def test_what_comes_after_a_fetch_is_waited_for(ledger: Ledger, clock: Any) -> None:
    fetch_id = begin(ledger)
    receive(ledger, header("1.1"))
    finish(ledger, fetch_id)
    clock.forward(1)
    receive(ledger, header("1.2"))
    assert close(ledger) == 0
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    assert [row.closed_by for row in rows(ledger, study)] == ["QUIET"]


def test_a_held_study_stays_held(ledger: Ledger) -> None:
    receive(ledger, header("1.1"), header("1.2", patient_key=PatientKey("another")))
    finish(ledger, begin(ledger))
    assert close(ledger) == 0
    assert states(ledger, study) == ["HELD"]


def test_nothing_of_the_study_may_be_here(ledger: Ledger) -> None:
    series = Wanted(study_uid=StudyUID("1.9"), series_uid=SeriesUID("1.9.1"))
    finish(ledger, begin(ledger, series), Refuse("UNKNOWN_STUDY", "nothing of it"))
    (row,) = rows(ledger, retrieval)
    assert (row.study_uid, row.series_uid, row.state) == ("1.9", "1.9.1", "FAILED")
    assert rows(ledger, study) == []


def test_an_end_is_recorded_once(ledger: Ledger) -> None:
    """As when it was taken for lost meanwhile: its process had only been stopped for a while."""
    fetch_id = begin(ledger)
    finish(ledger, fetch_id, Retry("NO_RESPONSE", "no answer"))
    finish(ledger, fetch_id)
    beat(ledger, fetch_id)
    assert states(ledger, retrieval) == ["FAILED"]
    assert [code for code, _ in events(ledger)].count("STUDY_FETCHED") == 0


def test_what_lies_here_is_counted_by_series(ledger: Ledger) -> None:
    receive(ledger, header("1.1"), header("1.2"), header("1.3", series="1.2.4"))
    receive(ledger, header("1.4", study="1.5", series="1.5.1"))
    with ledger.transaction() as tx:
        assert fetches.instances_here(tx, "1.2") == {"1.2.3": 2, "1.2.4": 1}
        assert fetches.instances_here(tx, "1.9") == {}
        assert fetches.own_series(tx, ["1.2.3"]) == set()
