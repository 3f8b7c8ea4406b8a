"""Rejection notes: what they stop, what is analysed anew, and whom they are believed."""

from __future__ import annotations

from typing import Any

import pytest
from ledger_kit import (
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
    states,
    take,
    taken,
)

from dicomnode.domain.identifiers import InstanceUID
from dicomnode.domain.records import Header, Rejection
from dicomnode.ledger import Ledger
from dicomnode.ledger.tables import delivery, instance, job, rejection, result, series, study

QUALITY, SAFETY, WORKLIST, EXPIRED = "113001", "113037", "113038", "113039"


def note(*named: str, code: str = QUALITY, uid: str = "1.8.1", **changes: Any) -> Header:
    """Return the header of a rejection note in the study of the instances."""
    uids = tuple(InstanceUID(one) for one in named)
    return header(
        uid,
        series="1.8",
        modality="KO",
        rejection=Rejection(code=code, instances=uids),
        **changes,
    )


def reject(ledger: Ledger, given: Header, *, trusted: bool = True) -> None:
    with ledger.transaction() as tx:
        assert come(tx, given, trusted=trusted).status == 0


def closed(ledger: Ledger, clock: Any, *headers: Header) -> None:
    receive(ledger, *headers)
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1


def levels(ledger: Ledger, code: str) -> list[str]:
    return [level for found, level in events(ledger) if found == code]


THREE = (header("1.1"), header("1.2"), header("1.3"))


@pytest.mark.parametrize("code", [QUALITY, SAFETY, WORKLIST, EXPIRED])
def test_a_whole_series_that_is_rejected_is_not_analysed(
    ledger: Ledger, clock: Any, code: str
) -> None:
    receive(ledger, *THREE)
    reject(ledger, note("1.1", "1.2", "1.3", code=code))
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    chosen = {row.series_uid: row for row in rows(ledger, series)}["1.2.3"]
    assert (chosen.chosen_model, chosen.choice) == (None, "all its instances were rejected")
    assert jobs_of(ledger) == []
    assert [row.rejected for row in rows(ledger, instance)[:3]] == [f"REJECTED_{code}"] * 3
    assert levels(ledger, "REJECTED") == ["attention"]


def jobs_of(ledger: Ledger, uid: str = "1.2.3") -> list[Any]:
    (wanted,) = [row.id for row in rows(ledger, series) if row.series_uid == uid]
    return [row for row in rows(ledger, job) if row.series_id == wanted]


@pytest.mark.parametrize("code", [QUALITY, SAFETY, WORKLIST])
def test_what_is_left_of_an_analysed_series_is_analysed_anew(
    ledger: Ledger, clock: Any, code: str
) -> None:
    first = analysed(ledger, clock, *THREE)
    assert deliver_all(ledger) == 2
    reject(ledger, note("1.2", code=code))
    assert [row.withdraw_reason for row in rows(ledger, result)] == [f"REJECTED_{code}"] * 2
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    again = next(one for one in iter(lambda: claimed(ledger), None) if one.series_id == 1)
    assert (again.generation, first.generation) == (2, 1)
    assert [path.rsplit("/", 1)[1] for path in again.paths] == ["1.1.dcm", "1.3.dcm"]


def test_what_is_left_after_retention_has_expired_is_not(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, *THREE)
    reject(ledger, note("1.2", code=EXPIRED))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    assert [(row.generation, row.state) for row in jobs_of(ledger)] == [(1, "DONE")]
    assert states(ledger, delivery) == ["CANCELLED"] * 2


def test_a_note_stops_what_is_under_way(ledger: Ledger, clock: Any) -> None:
    closed(ledger, clock, *THREE)
    leased = claimed(ledger)
    reject(ledger, note("1.1", "1.2", "1.3", code=SAFETY))
    assert not finish(ledger, leased)
    assert rows(ledger, result) == []
    (row,) = jobs_of(ledger)
    assert (row.state, row.reason) == ("CANCELLED", "REJECTED_113037")
    clock.forward(QUIET_SECONDS)
    close(ledger)
    assert len(jobs_of(ledger)) == 1


def test_what_is_under_way_to_an_archive_is_stopped(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, *THREE)
    taken(ledger)
    reject(ledger, note("1.1"))
    assert states(ledger, delivery) == ["CANCELLED"] * 2
    assert take(ledger) is None


def test_another_series_of_the_study_is_left_alone(ledger: Ledger, clock: Any) -> None:
    closed(ledger, clock, *THREE, header("1.4", series="1.2.4"))
    reject(ledger, note("1.1"))
    assert [row.state for row in jobs_of(ledger, "1.2.4")] == ["QUEUED"]
    assert [row.state for row in jobs_of(ledger)] == ["CANCELLED"]


def test_a_note_of_anybody_else_is_kept_and_has_no_effect(ledger: Ledger, clock: Any) -> None:
    closed(ledger, clock, *THREE)
    reject(ledger, note("1.1"), trusted=False)
    assert rows(ledger, rejection) == []
    assert [row.counts for row in rows(ledger, instance)] == [1] * 4
    assert [row.state for row in jobs_of(ledger)] == ["QUEUED"]
    assert levels(ledger, "REJECTION_NOT_TRUSTED") == ["attention"]


def test_the_same_note_counts_when_it_comes_again_from_who_is_trusted(
    ledger: Ledger, clock: Any
) -> None:
    closed(ledger, clock, *THREE)
    reject(ledger, note("1.1"), trusted=False)
    reject(ledger, note("1.1"))
    assert [row.state for row in jobs_of(ledger)] == ["CANCELLED"]
    assert levels(ledger, "REJECTION_NOT_TRUSTED") == ["attention"]


def test_the_same_note_again_does_nothing_twice(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, *THREE)
    for _ in range(2):
        reject(ledger, note("1.1"))
    reject(ledger, note("1.1", uid="1.8.2"))  # nor does another one that says the same
    assert levels(ledger, "REJECTED") == ["attention"]
    clock.forward(QUIET_SECONDS)
    close(ledger)
    assert [row.generation for row in jobs_of(ledger)] == [1, 2]


def test_an_instance_that_comes_after_its_rejection_triggers_nothing(
    ledger: Ledger, clock: Any
) -> None:
    reject(ledger, note("1.1", "1.3"))
    closed(ledger, clock, header("1.1"), header("1.2"))
    assert [row.counts for row in rows(ledger, instance)] == [1, 0, 1]
    job_of_rest = next(
        one for one in iter(lambda: claimed(ledger), None) if "1.2.3" in one.paths[0]
    )
    assert len(job_of_rest.paths) == 1
    generations = [row.generation for row in rows(ledger, series)]
    receive(ledger, header("1.3"))
    assert [row.generation for row in rows(ledger, series)] == generations
    assert states(ledger, study) == ["CLOSED"]
    assert levels(ledger, "REJECTED_BEFORE") == ["info"] * 2


def test_but_one_whose_retention_had_expired_counts(ledger: Ledger, clock: Any) -> None:
    reject(ledger, note("1.1", code=EXPIRED))
    receive(ledger, header("1.1"))
    assert [row.counts for row in rows(ledger, instance)] == [1, 1]


def test_a_late_slice_and_a_rejection_of_one_study(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, *THREE)
    receive(ledger, header("1.4"))
    reject(ledger, note("1.1"))
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    assert [row.generation for row in jobs_of(ledger)] == [1, 2]
    while (leased := claim(ledger)) is not None:
        if leased.series_id == 1:
            names = [path.rsplit("/", 1)[1] for path in leased.paths]
            assert names == ["1.2.dcm", "1.3.dcm", "1.4.dcm"]


def test_a_note_may_name_instances_of_several_studies_and_unknown_ones(
    ledger: Ledger, clock: Any
) -> None:
    receive(ledger, header("1.1"), header("2.1", study="2.2", series="2.2.3"))
    reject(ledger, note("1.1", "2.1", "9.9"))
    assert levels(ledger, "REJECTED") == ["attention"] * 2
    assert [row.counts for row in rows(ledger, instance)] == [0, 0, 1]


def test_a_note_on_a_held_study_leaves_it_held(ledger: Ledger, clock: Any) -> None:
    receive(ledger, *THREE, header("1.4", patient_key="other"))  # type: ignore[arg-type]
    reject(ledger, note("1.1"))
    assert states(ledger, study) == ["HELD"]
    assert [row.counts for row in rows(ledger, instance)] == [0, 1, 1, 1, 1]


def test_a_note_on_our_own_results_stops_their_set(ledger: Ledger, clock: Any) -> None:
    done = analysed(ledger, clock, *THREE)
    reject(ledger, note(f"2.25.{done.id}.0"))
    assert states(ledger, delivery) == ["CANCELLED"] * 2
    assert all(row.withdraw_at == clock.now for row in rows(ledger, result))
    assert levels(ledger, "RESULT_REJECTED") == ["attention"]
    clock.forward(QUIET_SECONDS)
    close(ledger)
    assert len(jobs_of(ledger)) == 1


def test_a_long_note_is_honoured_whole(ledger: Ledger, clock: Any) -> None:
    uids = [f"1.9.{number}" for number in range(1200)]
    receive(ledger, header(uids[0]), header(uids[1199]), header("1.1"))
    reject(ledger, note(*uids))
    assert [row.counts for row in rows(ledger, instance)] == [0, 0, 1, 1]
    assert len(rows(ledger, rejection)) == 1200
