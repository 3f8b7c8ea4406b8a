"""Which facts close a study, which series of it are analysed, and in which order."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from ledger_kit import (
    POLICY,
    QUIET_SECONDS,
    analysed,
    claimed,
    close,
    come,
    events,
    fail,
    header,
    receive,
    rows,
    states,
    to_demo,
)

from dicomnode.domain.assembly import AssemblyPolicy
from dicomnode.domain.identifiers import SeriesUID
from dicomnode.domain.outcomes import Retry
from dicomnode.domain.records import EndSign, Header, SeriesFacts
from dicomnode.domain.routing import Choice
from dicomnode.ledger import Ledger, actions, answers, associations
from dicomnode.ledger.tables import answer, job, series, study

GRACE = POLICY.end_grace_seconds


def why(ledger: Ledger) -> list[str | None]:
    return [row.closed_by for row in rows(ledger, study)]


def told(ledger: Ledger, counts: dict[str, int], peer: str = "PACS", study_id: int = 1) -> None:
    """Have an archive tell what it has."""
    with ledger.transaction() as tx:
        question = answers.Question(study_id=study_id, study_uid="1.2", asked_at=tx.now)
        answers.record(tx, question, peer, {SeriesUID(uid): n for uid, n in counts.items()})


# The end of a series


def numbered(number: int, total: int, group: str = "A1", **changes: Any) -> Header:
    end = EndSign(group=group, total=total, number=number)
    return header(f"1.{group[1:]}.{number}", end=end, **changes)


def test_a_series_that_says_it_is_complete_closes_after_the_grace(
    ledger: Ledger, clock: Any
) -> None:
    receive(ledger, *(numbered(number, 3) for number in (2, 1, 3)))
    clock.forward(GRACE - 0.001)
    assert close(ledger) == 0
    clock.forward(0.001)
    assert close(ledger) == 1
    assert why(ledger) == ["SERIES_ENDED"]


@pytest.mark.parametrize(
    "headers",
    [
        [numbered(1, 3), numbered(3, 3)],
        [numbered(1, 2), numbered(3, 2)],
        [numbered(1, 2), numbered(2, 2), header("1.9")],
        [numbered(1, 2), numbered(2, 2), header("1.9", series="1.2.4")],
        [numbered(1, 1), numbered(1, 2, "A2")],
    ],
    ids=["one is missing", "gap", "unstated", "another series", "another acquisition"],
)
def test_otherwise_it_waits_for_the_quiet_time(
    ledger: Ledger, clock: Any, headers: list[Header]
) -> None:
    receive(ledger, *headers)
    clock.forward(QUIET_SECONDS - 1)
    assert close(ledger) == 0
    clock.forward(1)
    assert close(ledger) == 1
    assert why(ledger) == ["QUIET"]


def test_a_document_beside_it_has_no_end_and_needs_none(ledger: Ledger, clock: Any) -> None:
    receive(ledger, numbered(1, 1), header("1.9", series="1.2.4", modality="SR"))
    clock.forward(GRACE)
    assert close(ledger) == 1


# Quiet time of peers


def test_a_study_waits_for_the_slowest_of_its_peers(ledger: Ledger, clock: Any) -> None:
    slow = replace(POLICY, study_quiet_seconds=300.0)
    with ledger.transaction() as tx:
        come(tx, header("1.1"), policy=slow)
    clock.forward(1)
    receive(ledger, header("1.2", series="1.2.4"))
    clock.forward(298)
    assert close(ledger) == 0
    clock.forward(1)
    assert close(ledger) == 1


def test_a_closed_study_has_forgotten_the_slow_peer(ledger: Ledger, clock: Any) -> None:
    with ledger.transaction() as tx:
        come(tx, header("1.1"), policy=replace(POLICY, study_quiet_seconds=300.0))
    clock.forward(300)
    assert close(ledger) == 1
    receive(ledger, header("1.2"))
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1


# Nothing waits for ever


def test_a_study_into_which_something_trickles_closes_and_goes_on(
    ledger: Ledger, clock: Any
) -> None:
    policy = AssemblyPolicy(max_open_seconds=100.0)
    closed = 0
    for number in range(1, 15):
        with ledger.transaction() as tx:
            come(tx, header(f"1.{number}"), policy=policy)
        clock.forward(10)
        closed += close(ledger, policy)
    assert closed == 1
    assert why(ledger) == ["OPEN_TOO_LONG"]
    assert ("OPEN_TOO_LONG", "warning") in events(ledger)
    assert [row.generation for row in rows(ledger, series)] == [2]
    clock.forward(60)
    assert close(ledger, policy) == 1
    assert why(ledger) == ["QUIET"]


def test_a_study_that_is_released_closes_at_once(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1"), header("1.2", patient_key="other"))  # type: ignore[arg-type]
    clock.forward(100_000)
    assert close(ledger) == 0
    with ledger.transaction() as tx:
        assert actions.release_study(tx, "1.2", "somebody", "settled")
    assert close(ledger) == 1
    assert why(ledger) == ["QUIET"]


# What archives have


def test_a_known_count_closes_at_once(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1"), header("1.2"), header("1.3", series="1.2.4", modality="SR"))
    clock.forward(5)
    told(ledger, {"1.2.3": 2, "1.2.4": 1})
    clock.forward(29.999)
    told(ledger, {"1.2.3": 2, "1.2.4": 1})
    assert close(ledger) == 0
    clock.forward(0.001)
    told(ledger, {"1.2.3": 2, "1.2.4": 1})
    assert close(ledger) == 1
    assert why(ledger) == ["KNOWN_COUNT"]
    assert len(rows(ledger, answer)) == 1


def test_an_archive_that_is_still_being_filled_closes_nothing(ledger: Ledger, clock: Any) -> None:
    """It forwards one by one what it gets: it has never more than has come here."""
    for number in range(1, 8):
        receive(ledger, header(f"1.{number}"))
        told(ledger, {"1.2.3": number})
        clock.forward(30)
        assert close(ledger) == 0
    told(ledger, {"1.2.3": 7})
    assert close(ledger) == 1
    assert why(ledger) == ["KNOWN_COUNT"]


def test_what_an_archive_has_more_is_waited_for(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1"))
    clock.forward(5)
    told(ledger, {"1.2.3": 2})
    clock.forward(300)
    assert close(ledger) == 0
    receive(ledger, header("1.2"))
    told(ledger, {"1.2.3": 2})
    assert close(ledger) == 1
    assert why(ledger) == ["KNOWN_COUNT"]


def test_but_not_for_ever(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1"))
    told(ledger, {"1.2.3": 2})
    clock.forward(QUIET_SECONDS + POLICY.count_wait_seconds)
    assert close(ledger) == 1
    assert why(ledger) == ["QUIET"]
    assert events(ledger)[-1] == ("COUNT_SHORT", "warning")


def test_our_own_results_in_the_archive_are_left_out(ledger: Ledger, clock: Any) -> None:
    done = analysed(ledger, clock, header("1.1"))
    receive(ledger, header("1.2"))
    ours = f"2.25.{done.id}"
    told(ledger, {"1.2.3": 2, ours: 2})
    clock.forward(30)
    told(ledger, {"1.2.3": 2, ours: 2})
    assert close(ledger) == 1
    assert why(ledger) == ["KNOWN_COUNT"]


def test_what_was_answered_before_the_study_was_opened_again_is_no_answer(
    ledger: Ledger, clock: Any
) -> None:
    receive(ledger, header("1.1"))
    told(ledger, {"1.2.3": 2})
    clock.forward(30)
    told(ledger, {"1.2.3": 2})
    clock.forward(QUIET_SECONDS + POLICY.count_wait_seconds)
    assert close(ledger) == 1
    receive(ledger, header("1.2"))
    told(ledger, {"1.2.3": 2})
    assert close(ledger) == 0
    assert len(rows(ledger, answer)) == 2


def test_an_answer_that_comes_too_late_opens_nothing(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, header("1.1"))
    told(ledger, {"1.2.3": 2})
    assert states(ledger, study) == ["CLOSED"]
    assert close(ledger) == 0


def asked(ledger: Ledger, ae: str = "PACS") -> list[str]:
    """Return the studies that a peer is to be asked for, one after the other, without answers."""
    found = []
    while True:
        with ledger.transaction() as tx:
            question = answers.next_question(tx, "pacs", ae, POLICY)
            if question is None:
                return found
            answers.record_none(tx, question, "pacs", Retry("NO_CONNECTION", "away"))
        found.append(question.study_uid)


def from_peer(ledger: Ledger, ae: str, *headers: Header) -> None:
    with ledger.transaction() as tx:
        association = associations.open_association(
            tx, calling_ae=ae, called_ae="DICOMNODE", address="127.0.0.1"
        )
    for given in headers:
        with ledger.transaction() as tx:
            come(tx, given, association)


def test_an_archive_is_asked_for_what_it_sent_and_is_still(ledger: Ledger, clock: Any) -> None:
    from_peer(ledger, "PACS", header("1.1"), header("2.1", study="1.3", series="1.3.1"))
    from_peer(ledger, "CT1", header("3.1", study="1.4", series="1.4.1"))
    clock.forward(4.9)
    assert asked(ledger) == []
    from_peer(ledger, "CT1", header("1.2"))
    clock.forward(0.1)
    assert asked(ledger) == ["1.3"]
    clock.forward(5)
    assert asked(ledger) == ["1.2"]
    clock.forward(25)
    assert asked(ledger) == ["1.3"]  # it was asked for 30 seconds ago
    clock.forward(5)
    assert asked(ledger) == ["1.2"]
    assert asked(ledger, "CT2") == []
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 3
    assert asked(ledger) == []


def test_an_archive_without_an_answer_delays_nothing(ledger: Ledger, clock: Any) -> None:
    from_peer(ledger, "PACS", header("1.1"))
    clock.forward(5)
    assert asked(ledger) == ["1.2"]
    clock.forward(QUIET_SECONDS - 5)
    assert close(ledger) == 1
    assert why(ledger) == ["QUIET"]
    assert ("COUNT_UNKNOWN", "warning") in events(ledger)


def test_a_question_without_an_answer_is_no_answer(ledger: Ledger, clock: Any) -> None:
    from_peer(ledger, "PACS", header("1.1"))
    clock.forward(5)
    told(ledger, {"1.2.3": 1}, "pacs")
    clock.forward(30)
    assert asked(ledger) == ["1.2"]
    assert close(ledger) == 0
    told(ledger, {"1.2.3": 1}, "pacs")
    assert close(ledger) == 1
    assert why(ledger) == ["KNOWN_COUNT"]


# Priors


@pytest.mark.parametrize(
    ("age_days", "any_age", "fetched", "is_analysed"),
    [
        (2, False, False, True),
        (4, False, False, False),
        (4, True, False, True),
        (4, False, True, True),
        (None, False, False, True),
        (-2, False, False, True),  # no study is of the day after tomorrow
        (50_000, False, False, True),  # nor of 1889
    ],
)
def test_a_prior_is_kept_and_not_analysed(
    ledger: Ledger,
    clock: Any,
    age_days: int | None,
    any_age: bool,
    fetched: bool,
    is_analysed: bool,
) -> None:
    study_at = None if age_days is None else clock.now - timedelta(days=age_days)
    receive(ledger, header("1.1", study_at=study_at))
    if fetched:
        with ledger.transaction() as tx:
            tx.connection.execute(study.update().values(fetched_at=tx.now))
    clock.forward(QUIET_SECONDS)
    assert close(ledger, choose=lambda facts: replace(to_demo(facts), any_age=any_age)) == 1
    (row,) = rows(ledger, series)
    assert bool(rows(ledger, job)) is is_analysed
    assert row.chosen_model == ("demo" if is_analysed else None)
    if not is_analysed:
        assert row.choice == (
            "rule 'all', but the study was 4 days old when it came: kept, not analysed"
        )


def test_what_waits_here_does_not_grow_old(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1", study_at=clock.now - timedelta(days=2)))
    clock.forward(5 * 86400)  # the node was down
    assert close(ledger) == 1
    assert states(ledger, job) == ["QUEUED"]


# Whose turn it is


def queue(ledger: Ledger, clock: Any, *headers: Header) -> None:
    receive(ledger, *headers)
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == len(headers)


def of_study(number: int, **changes: Any) -> Header:
    uid = f"1.2.{number}"
    return header(f"{uid}.1.1", study=uid, series=f"{uid}.1", **changes)


def claims(ledger: Ledger, count: int) -> list[int]:
    return [int(claimed(ledger).study_uid.rsplit(".", 1)[1]) for _ in range(count)]


def test_stat_first_then_the_newest_study_and_every_fourth_time_the_oldest_job(
    ledger: Ledger, clock: Any
) -> None:
    day = timedelta(days=1)
    queue(
        ledger,
        clock,
        of_study(1, study_at=clock.now - 2 * day),
        of_study(2, study_at=clock.now - day),
        of_study(3),  # counts as of now
        of_study(4, study_at=clock.now - 2.5 * day, requested_priority="STAT"),
        of_study(5, study_at=clock.now - 1.5 * day),
    )
    assert claims(ledger, 5) == [4, 3, 2, 1, 5]


def test_a_rule_may_say_stat(ledger: Ledger, clock: Any) -> None:
    def choose(facts: SeriesFacts) -> Choice:
        return replace(to_demo(facts), stat=facts.description == "stroke")

    receive(ledger, of_study(1, series_description="stroke"), of_study(2))
    clock.forward(QUIET_SECONDS)
    assert close(ledger, choose=choose) == 2
    assert claims(ledger, 2) == [1, 2]


def test_nobody_starves_behind_what_is_more_urgent(ledger: Ledger, clock: Any) -> None:
    queue(ledger, clock, of_study(1), of_study(2))
    seen = []
    for number in range(10, 18):  # before every claim something urgent comes
        queue(ledger, clock, of_study(number, requested_priority="STAT"))
        seen += claims(ledger, 1)
    assert seen.index(1) == 3
    assert seen.index(2) == 7


def test_a_retry_is_not_before_its_time_even_if_it_is_the_oldest(
    ledger: Ledger, clock: Any
) -> None:
    queue(ledger, clock, of_study(1))
    fail(ledger, claimed(ledger), Retry("WORKER_CRASHED", "so"), wait=1000)
    queue(ledger, clock, *(of_study(number) for number in range(2, 6)))
    assert 1 not in claims(ledger, 4)
