"""Jobs: made when a study closes, leased, fenced by the attempt, tried again, put aside."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from ledger_kit import (
    LEASE,
    POLICY,
    QUIET_SECONDS,
    analysed,
    claim,
    claimed,
    close,
    come,
    deliver_all,
    each,
    events,
    fail,
    finish,
    header,
    receive,
    rows,
    states,
    to_demo,
)

from dicomnode.domain.assembly import Close
from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.domain.plans import ModelOptions
from dicomnode.domain.records import Job, SeriesFacts
from dicomnode.domain.routing import Choice
from dicomnode.ledger import Ledger, actions, associations, closing, completing, jobs, nodes
from dicomnode.ledger.tables import delivery, event, job, result, series, study

CRASH = Retry("WORKER_CRASHED", "the process ended")


@pytest.fixture
def queued(ledger: Ledger, clock: Any) -> None:
    """A study of one series is closed."""
    receive(ledger, header("1.1"), header("1.2"))
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1


# Closing


def test_a_study_closes_when_it_is_due_and_not_before(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1"))
    clock.forward(QUIET_SECONDS - 1)
    receive(ledger, header("1.2"))
    clock.forward(QUIET_SECONDS - 0.001)
    assert close(ledger) == 0
    assert states(ledger, study) == ["OPEN"]
    clock.forward(0.001)
    assert close(ledger) == 1
    (row,) = rows(ledger, study)
    assert (row.state, row.due_at, row.closed_at) == ("CLOSED", None, clock.now)
    assert close(ledger) == 0
    assert events(ledger)[-1] == ("STUDY_CLOSED", "info")


def test_the_study_that_waits_longest_closes_first(ledger: Ledger, clock: Any) -> None:
    receive(ledger, header("1.1", study="1.8"))
    clock.forward(1)
    receive(ledger, header("1.2", study="1.7"))
    clock.forward(QUIET_SECONDS)
    with ledger.transaction() as tx:
        assert isinstance(closing.close_due_study(tx, each(to_demo), POLICY), Close)
    assert states(ledger, study) == ["CLOSED", "OPEN"]


def test_what_the_rules_are_asked(ledger: Ledger, clock: Any) -> None:
    with ledger.transaction() as tx:
        association = associations.open_association(
            tx, calling_ae="SCANNER", called_ae="DICOMNODE", address="127.0.0.1"
        )
    with ledger.transaction() as tx:
        come(tx, header("1.1"), association)
        come(tx, header("1.2"), association)
        come(tx, header("1.3", made_by_this_software=True), association)
    clock.forward(QUIET_SECONDS)
    asked: list[SeriesFacts] = []

    def choose(facts: SeriesFacts) -> Choice:
        asked.append(facts)
        return Choice(model=None, rule=None, destinations=(), why="because")

    with ledger.transaction() as tx:
        closing.close_due_study(tx, each(choose), POLICY)
    (facts,) = asked
    assert (facts.modality, facts.body_part, facts.description) == ("CT", "CHEST", "thorax")
    assert facts.sop_class_uids == ("1.2.840.10008.5.1.4.1.1.2",)
    assert (facts.series_uid, facts.series_number, facts.instances) == ("1.2.3", 1, 2)
    assert (facts.slice_thickness_mm, facts.calling_aes) == (1.0, ("SCANNER",))
    assert [(row.chosen_model, row.choice) for row in rows(ledger, series)] == [(None, "because")]
    assert rows(ledger, job) == []


def test_a_series_is_analysed_once_by_a_model(ledger: Ledger, clock: Any, queued: None) -> None:
    receive(ledger, header("1.5", series="1.2.9"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    assert [(row.model_id, row.generation) for row in rows(ledger, job)] == [("demo", 1)] * 2
    assert len({row.series_id for row in rows(ledger, job)}) == 2
    details = [row.detail for row in rows(ledger, event) if row.code == "STUDY_CLOSED"]
    assert details == ["1 jobs queued; QUIET: nothing more came"] * 2


def test_only_the_node_that_has_the_bytes_closes_and_claims(
    ledger: Ledger, ledger_url: str, clock: Any
) -> None:
    receive(ledger, header())
    clock.forward(QUIET_SECONDS)
    other = Ledger(ledger_url, "node-2", clock)
    with other.transaction() as tx:
        nodes.register_node(tx, "OTHER", "key-1")
    assert close(other) == 0
    assert close(ledger) == 1
    assert claim(other) is None
    assert claim(ledger) is not None
    other.close()


# Claiming


def test_a_claim_says_all_that_an_analysis_needs(ledger: Ledger, clock: Any, queued: None) -> None:
    leased = claimed(ledger)
    assert leased == Job(
        id=leased.id,
        attempt=1,
        study_id=leased.study_id,
        series_id=leased.series_id,
        study_uid=header().study_uid,
        series_uid=header().series_uid,
        model_id="demo",
        generation=1,
        identity_revision=0,
        destinations=("archive",),
        options=ModelOptions(mode="exact", structures=("liver",)),
        monoenergetic=False,
        analysed_at=clock.now,
        paths=("instances/1.2/1.2.3/1.1.dcm", "instances/1.2/1.2.3/1.2.dcm"),
    )
    (row,) = rows(ledger, job)
    assert (row.state, row.worker, row.lease_until) == ("LEASED", "node-1:work", clock.now + LEASE)
    assert events(ledger)[-1] == ("JOB_CLAIMED", "info")
    assert claim(ledger) is None


def test_a_worker_leaves_models_to_others(ledger: Ledger, clock: Any, queued: None) -> None:
    assert claim(ledger, not_models=("demo", "huge")) is None
    job = claim(ledger, not_models=("huge",))
    assert job is not None
    assert job.model_id == "demo"


def test_a_heartbeat_keeps_the_lease(ledger: Ledger, clock: Any, queued: None) -> None:
    leased = claimed(ledger)
    clock.forward(20)
    with ledger.transaction() as tx:
        assert jobs.heartbeat(tx, leased, LEASE, "predict", 0.25)
    clock.forward(20)
    assert _take_back(ledger) == 0
    (row,) = rows(ledger, job)
    assert (row.stage, row.progress, row.state) == ("predict", 0.25, "LEASED")


def _take_back(ledger: Ledger, *, max_failures: int = 3, worker: str | None = None) -> int:
    with ledger.transaction() as tx:
        return jobs.take_back(
            tx,
            Retry("WORKER_LOST", "silent"),
            max_failures=max_failures,
            wait=timedelta(0),
            worker=worker,
        )


def test_a_lease_that_ran_out_is_taken_back(ledger: Ledger, clock: Any, queued: None) -> None:
    claimed(ledger)
    clock.forward(LEASE.total_seconds())
    assert _take_back(ledger) == 0, "not a moment too soon"
    clock.forward(0.001)
    assert _take_back(ledger) == 1
    (row,) = rows(ledger, job)
    assert (row.state, row.failures, row.reason) == ("QUEUED", 1, "WORKER_LOST")
    assert events(ledger)[-1] == ("JOB_RETRY", "warning")
    assert claimed(ledger).attempt == 2


def test_what_a_dead_worker_held_is_taken_back_at_once(
    ledger: Ledger, clock: Any, queued: None
) -> None:
    claimed(ledger)
    assert _take_back(ledger, worker="node-1:other") == 0
    assert _take_back(ledger, worker="node-1:work") == 1
    assert states(ledger, job) == ["QUEUED"]


@pytest.mark.parametrize("way", ["finish", "fail", "heartbeat"])
def test_a_worker_that_lost_its_job_changes_nothing(
    ledger: Ledger, clock: Any, queued: None, way: str
) -> None:
    """The attempt is the fence: the late answer of the first worker meets the second's lease."""
    lost = claimed(ledger)
    clock.forward(LEASE.total_seconds() + 1)
    _take_back(ledger)
    second = claimed(ledger)
    before = rows(ledger, job), rows(ledger, event)
    if way == "finish":
        assert not finish(ledger, lost)
    elif way == "fail":
        assert not fail(ledger, lost, CRASH)
    else:
        with ledger.transaction() as tx:
            assert not jobs.heartbeat(tx, lost, LEASE, "predict", 0.9)
    assert (rows(ledger, job), rows(ledger, event)) == before
    assert rows(ledger, result) == rows(ledger, delivery) == []
    assert finish(ledger, second)


def test_the_time_of_analysis_is_that_of_the_first_attempt(
    ledger: Ledger, clock: Any, queued: None
) -> None:
    """It stands in the results: a second attempt must give the same bytes."""
    first = claimed(ledger)
    fail(ledger, first, CRASH)
    clock.forward(1000)
    assert claimed(ledger).analysed_at == first.analysed_at


# Ends


def test_a_result_set_is_recorded_once_with_its_deliveries(
    ledger: Ledger, clock: Any, queued: None
) -> None:
    leased = claimed(ledger)
    assert finish(ledger, leased, to=("archive", "second"), findings=("two slices left out",))
    assert not finish(ledger, leased), "the first recorded result set is immutable"
    (done,) = rows(ledger, job)
    assert (done.state, done.findings, done.timings) == (
        "DONE",
        ["two slices left out"],
        {"predict": 1.5},
    )
    assert [(row.kind, row.position) for row in rows(ledger, result)] == [("seg", 0), ("sr", 1)]
    assert sorted((row.destination, row.position, row.state) for row in rows(ledger, delivery)) == [
        ("archive", 0, "PENDING"),
        ("archive", 1, "PENDING"),
        ("second", 0, "PENDING"),
        ("second", 1, "PENDING"),
    ]
    assert events(ledger)[-2:] == [("JOB_DONE", "info"), ("FINDING", "warning")]


def test_a_demonstration_is_not_delivered_where_it_may_not_go(
    ledger: Ledger, clock: Any, queued: None
) -> None:
    assert finish(ledger, claimed(ledger), to=(), not_allowed=("archive",))
    assert rows(ledger, delivery) == []
    assert len(rows(ledger, result)) == 2
    assert events(ledger)[-1] == ("DEMO_NOT_ALLOWED", "attention")


def test_a_retry_waits(ledger: Ledger, clock: Any, queued: None) -> None:
    assert fail(ledger, claimed(ledger), CRASH, wait=10)
    (row,) = rows(ledger, job)
    assert (row.state, row.failures, row.reason) == ("QUEUED", 1, "WORKER_CRASHED")
    assert row.due_at == clock.now + timedelta(seconds=10)
    clock.forward(9.9)
    assert claim(ledger) is None
    clock.forward(0.1)
    assert claimed(ledger).attempt == 2


def test_a_job_that_keeps_failing_goes_into_quarantine(
    ledger: Ledger, clock: Any, queued: None
) -> None:
    for _ in range(3):
        fail(ledger, claimed(ledger), CRASH, max_failures=3, wait=0)
    (row,) = rows(ledger, job)
    assert (row.state, row.failures, row.detail) == ("QUARANTINED", 3, "the process ended")
    assert events(ledger)[-1] == ("JOB_QUARANTINED", "attention")
    assert claim(ledger) is None


def test_what_was_short_is_known_at_the_next_attempt(
    ledger: Ledger, clock: Any, queued: None
) -> None:
    seen = []
    for code in ("OUT_OF_MEMORY", "WORKER_CRASHED", "TIMEOUT", "STOPPED"):
        attempt = claimed(ledger)
        seen.append(attempt.shortages)
        assert fail(ledger, attempt, Retry(code, "no more"), max_failures=9, wait=0)
    memory, both = ("OUT_OF_MEMORY",), ("OUT_OF_MEMORY", "TIMEOUT")
    assert [*seen, claimed(ledger).shortages] == [(), memory, memory, both, both]
    said = [row.detail for row in rows(ledger, event) if row.code == "JOB_RETRY"]
    assert [text.endswith("; with less next, where that helps") for text in said] == [
        True, False, True, False
    ]  # fmt: skip


def test_who_has_it_tried_again_begins_with_the_whole_plan(
    ledger: Ledger, clock: Any, queued: None
) -> None:
    for _ in range(2):
        fail(ledger, claimed(ledger), Retry("TIMEOUT", "too long"), max_failures=2, wait=0)
    (row,) = rows(ledger, job)
    assert (row.state, row.reason, row.shortages) == ("QUARANTINED", "TIMEOUT", ["TIMEOUT"])
    with ledger.transaction() as tx:
        assert actions.requeue_job(tx, row.id, "a person")
    assert claimed(ledger).shortages == ()


def test_a_job_whose_workers_keep_dying_goes_into_quarantine(
    ledger: Ledger, clock: Any, queued: None
) -> None:
    """A series that kills its worker must not do so for ever."""
    for _ in range(2):
        claimed(ledger)
        clock.forward(LEASE.total_seconds() + 1)
        assert _take_back(ledger, max_failures=2) == 1
    assert states(ledger, job) == ["QUARANTINED"]


def test_a_worker_that_is_told_to_stop_counts_no_failure(
    ledger: Ledger, clock: Any, queued: None
) -> None:
    for _ in range(5):
        stopped = Retry("STOPPED", "the worker was told to stop")
        assert fail(ledger, claimed(ledger), stopped, counts=False, wait=0)
    (row,) = rows(ledger, job)
    assert (row.state, row.failures, row.attempt) == ("QUEUED", 0, 5)
    assert events(ledger)[-1] == ("JOB_RETRY", "info")


def test_a_refusal_ends_the_job_with_its_reason(ledger: Ledger, clock: Any, queued: None) -> None:
    assert fail(ledger, claimed(ledger), Refuse("GANTRY_TILT", "tilted by 18 degrees"))
    (row,) = rows(ledger, job)
    assert (row.state, row.reason, row.detail) == ("REFUSED", "GANTRY_TILT", "tilted by 18 degrees")
    assert events(ledger)[-1] == ("JOB_REFUSED", "attention")
    assert claim(ledger) is None


# Predecessors


def _generation_2(ledger: Ledger, clock: Any) -> Job:
    receive(ledger, header("1.9"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    return claimed(ledger)


def test_the_first_report_has_no_predecessor(ledger: Ledger, clock: Any, queued: None) -> None:
    first = claimed(ledger)
    with ledger.transaction() as tx:
        assert completing.predecessors(tx, first) == ()


def test_a_report_names_the_delivered_one_that_it_replaces(ledger: Ledger, clock: Any) -> None:
    first = analysed(ledger, clock, header("1.1"))
    assert deliver_all(ledger) == 2
    second = _generation_2(ledger, clock)
    with ledger.transaction() as tx:
        (found,) = completing.predecessors(tx, second)
    assert (found.study_uid, found.series_uid) == ("1.2", f"2.25.{first.id}")
    assert (found.sop_class_uid, found.sop_instance_uid) == ("1.2.840.1", f"2.25.{first.id}.1")


def test_a_report_that_nobody_got_is_no_predecessor(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, header("1.1"))
    second = _generation_2(ledger, clock)
    with ledger.transaction() as tx:
        assert completing.predecessors(tx, second) == ()


def test_the_newest_delivered_report_is_the_predecessor(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, header("1.1"))
    deliver_all(ledger)
    second = _generation_2(ledger, clock)
    finish(ledger, second)
    deliver_all(ledger)
    receive(ledger, header("1.10"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    third = claimed(ledger)
    assert third.generation == 3
    with ledger.transaction() as tx:
        (found,) = completing.predecessors(tx, third)
    assert found.sop_instance_uid == f"2.25.{second.id}.1"
