"""What may be purged, decision by decision."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dicomnode.domain import lifecycle
from dicomnode.domain.lifecycle import (
    CANCELLED,
    CLOSED,
    COMMITTED,
    DELIVERED,
    DONE,
    HELD,
    LEASED,
    OPEN,
    PENDING,
    QUARANTINED,
    QUEUED,
    REFUSED,
    SENDING,
    SUBSTITUTED,
)
from dicomnode.domain.retention import (
    DeliveryFacts,
    JobFacts,
    Quarantined,
    RetentionPolicy,
    StudyFacts,
    keeps_input,
    keeps_results,
    leaves_quarantine,
)

NOW = datetime(2026, 1, 31, tzinfo=UTC)
OLD = NOW - timedelta(days=20)
POLICY = RetentionPolicy(input_days=14, results_days=14)
DELIVERIES = {target for step in lifecycle.DELIVERY.values() for target in [step.target]}
JOBS = {step.target for step in lifecycle.JOB.values()} | {QUEUED}


def study(*deliveries: DeliveryFacts, **changes: Any) -> StudyFacts:
    job = JobFacts(state=DONE, updated_at=OLD, deliveries=deliveries)
    return replace(StudyFacts(state=CLOSED, last_at=OLD, jobs=(job,)), **changes)


def to(state: str, **changes: Any) -> DeliveryFacts:
    return DeliveryFacts(destination="archive", state=state, **changes)


@pytest.mark.parametrize("state", sorted(DELIVERIES))
def test_input_goes_when_its_results_need_nothing_any_more(state: str) -> None:
    goes = keeps_input(study(to(DELIVERED), to(state)), POLICY, (), NOW) is None
    assert goes == (state in {DELIVERED, COMMITTED, SUBSTITUTED, CANCELLED})
    same = keeps_results(study(to(state)).jobs[0], POLICY, (), NOW) is None
    assert same == goes


@pytest.mark.parametrize("state", sorted(DELIVERIES))
def test_where_commitment_is_required_delivered_is_not_enough(state: str) -> None:
    kept = keeps_input(study(to(state)), POLICY, {"archive"}, NOW)
    assert (kept is None) == (state in {COMMITTED, SUBSTITUTED, CANCELLED})
    other = keeps_input(study(to(DELIVERED)), POLICY, {"another"}, NOW)
    assert other is None


def test_what_was_refused_goes_once_a_person_has_seen_it() -> None:
    assert keeps_input(study(to(REFUSED)), POLICY, (), NOW)
    assert keeps_input(study(to(REFUSED, acknowledged=True)), POLICY, (), NOW) is None
    for state in (PENDING, SENDING, HELD):
        assert keeps_input(study(to(state, acknowledged=True)), POLICY, (), NOW)


@pytest.mark.parametrize("state", sorted(JOBS))
def test_input_stays_while_a_job_may_need_it(state: str) -> None:
    jobs = (JobFacts(state=state, updated_at=OLD), JobFacts(state=DONE, updated_at=OLD))
    goes = keeps_input(study(jobs=jobs), POLICY, (), NOW) is None
    assert goes == (state in {DONE, REFUSED, CANCELLED})
    assert goes == (state not in {QUEUED, LEASED, QUARANTINED})
    assert (keeps_results(jobs[0], POLICY, (), NOW) is None) == goes


@pytest.mark.parametrize("state", [OPEN, HELD])
def test_input_of_an_open_or_held_study_stays(state: str) -> None:
    assert keeps_input(study(state=state), POLICY, (), NOW)


def test_what_this_node_has_committed_to_stays() -> None:
    assert keeps_input(study(is_promised=True), POLICY, (), NOW)


def test_age_decides_to_the_second_and_none_is_never() -> None:
    edge = NOW - timedelta(days=14)
    assert keeps_input(study(last_at=edge), POLICY, (), NOW) is None
    assert keeps_input(study(last_at=edge + timedelta(seconds=1)), POLICY, (), NOW)
    never = RetentionPolicy(input_days=None, results_days=None)
    assert keeps_input(study(last_at=datetime(1990, 1, 1, tzinfo=UTC)), never, (), NOW)
    assert keeps_results(study().jobs[0], never, (), NOW)


def test_a_study_that_nobody_analyses_goes_by_age() -> None:
    assert keeps_input(study(jobs=()), POLICY, (), NOW) is None


def item(name: str, days: float, size: int = 10, **changes: Any) -> Quarantined:
    return Quarantined(name=name, size=size, since=NOW - timedelta(days=days), **changes)


def names(*items: Quarantined, **policy: Any) -> list[str]:
    return [one.name for one in leaves_quarantine(items, RetentionPolicy(**policy), NOW)]


def test_quarantine_loses_what_is_old_and_of_too_much_the_oldest() -> None:
    items = [item("new", 1), item("old", 100), item("older", 200)]
    assert names(*items) == ["older", "old"]
    assert names(*items, quarantine_days=None) == []
    assert names(*items, quarantine_days=None, quarantine_max_bytes=29) == ["older"]
    assert names(*items, quarantine_days=None, quarantine_max_bytes=0) == ["older", "old", "new"]
    assert names(*items, quarantine_days=150) == ["older"]
    assert names(*items, quarantine_max_bytes=None) == ["older", "old"]


def test_quarantine_keeps_what_belongs_to_a_held_study() -> None:
    assert names(item("held", 200, of_held_study=True), item("old", 100)) == ["old"]
    assert names(item("held", 2, 10**12, of_held_study=True), item("new", 1)) == []


@pytest.mark.parametrize(
    "wrong", [{"input_days": 0}, {"events_days": -1.0}, {"quarantine_max_bytes": -1}]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetentionPolicy(**wrong)
