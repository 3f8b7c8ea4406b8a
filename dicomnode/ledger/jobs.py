"""Jobs: leased by a worker, fenced by the attempt number. They are made in `ledger.choosing`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Row, exists, func, select

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.alternatives import first_choice
from dicomnode.domain.choosing import BETTER_CHOSEN
from dicomnode.domain.content import CONTENT_HELD
from dicomnode.domain.economy import SHORTAGES
from dicomnode.domain.findings import Finding
from dicomnode.domain.identifiers import SeriesUID, StudyUID
from dicomnode.domain.lifecycle import ARRIVED, CLOSED, DONE, HELD, LEASED, PENDING, QUEUED
from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.domain.plans import SR, ModelOptions, Predecessor
from dicomnode.domain.records import Job, StoredResult
from dicomnode.domain.turns import Turn, turn
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import (
    delivery,
    instance,
    job,
    node,
    result,
    series,
    study,
)


def claim(
    tx: Transaction, worker: str, lease: timedelta, not_models: Collection[str] = ()
) -> Job | None:
    """Lease the job whose turn it is (`domain.turns`), or return None.

    Args:
        worker: who claims.
        lease: for how long.
        not_models: models that are left to other workers.
    """
    whose_turn = turn(
        tx.connection.execute(select(node.c.claims).where(node.c.id == tx.node_id)).scalar() or 0
    )
    order: tuple[ColumnElement[Any], ...] = (job.c.created_at.asc(), job.c.id.asc())
    if whose_turn is Turn.MOST_URGENT:
        recency = func.coalesce(study.c.study_at, study.c.first_at)
        order = (job.c.urgency.asc(), recency.desc(), job.c.id.asc())
    row = tx.connection.execute(
        select(job, study.c.study_uid, series.c.series_uid)
        .join(study, study.c.id == job.c.study_id)
        .join(series, series.c.id == job.c.series_id)
        .where(
            job.c.state == QUEUED,
            job.c.due_at <= tx.now,
            job.c.node_id == tx.node_id,
            study.c.state != HELD,
            job.c.model_id.not_in(sorted(not_models)),
        )
        .order_by(*order)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True, of=job)
    ).first()
    if row is None:
        return None
    tx.connection.execute(
        node.update().where(node.c.id == tx.node_id).values(claims=node.c.claims + 1)
    )
    attempt = row.attempt + 1
    analysed_at: datetime = row.analysed_at or tx.now
    tx.move(
        job,
        row.id,
        "claim",
        attempt=attempt,
        lease_until=tx.now + lease,
        worker=worker,
        stage="starting",
        progress=0.0,
        analysed_at=analysed_at,
        updated_at=tx.now,
    )
    tx.event("JOB_CLAIMED", detail=f"attempt {attempt}", study=row.study_id, job=row.id)
    paths = tx.connection.execute(
        select(instance.c.path)
        .where(
            instance.c.series_id == row.series_id,
            instance.c.generation <= row.generation,
            instance.c.counts == 1,
        )
        .order_by(instance.c.sop_instance_uid)
    ).scalars()
    return Job(
        id=row.id,
        attempt=attempt,
        study_id=row.study_id,
        series_id=row.series_id,
        study_uid=StudyUID(row.study_uid),
        series_uid=SeriesUID(row.series_uid),
        model_id=row.model_id,
        generation=row.generation,
        identity_revision=row.identity_revision,
        destinations=tuple(row.destinations),
        options=_options(row.options),
        monoenergetic=bool(row.monoenergetic),
        analysed_at=analysed_at,
        paths=tuple(paths),
        shortages=tuple(row.shortages),
    )


def _options(stored: dict[str, Any]) -> ModelOptions:
    return ModelOptions(**{**stored, "structures": tuple(stored["structures"])})


def predecessors(tx: Transaction, claimed: Job) -> tuple[Predecessor, ...]:
    """Return what this job's report replaces: the newest report that was delivered.

    Destinations may have it in several forms, each an instance of its own: all are replaced.
    """
    rows = tx.connection.execute(
        select(
            result.c.series_uid,
            result.c.sop_class_uid,
            result.c.sop_instance_uid,
            result.c.position,
            job.c.generation,
        )
        .join(job, job.c.id == result.c.job_id)
        .join(delivery, delivery.c.result_id == result.c.id)
        .where(
            job.c.series_id == claimed.series_id,
            job.c.model_id == claimed.model_id,
            job.c.generation < claimed.generation,
            result.c.kind == SR,
            delivery.c.state.in_(ARRIVED),
        )
        .distinct()
        .order_by(job.c.generation.desc(), result.c.position)
    ).all()
    return tuple(
        Predecessor(
            study_uid=claimed.study_uid,
            series_uid=row.series_uid,
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
        )
        for row in rows
        if row.generation == rows[0].generation
    )


def known(tx: Transaction, job_ids: Collection[int], *, only_done: bool) -> set[int]:
    """Return which of these jobs the ledger has; or has as done."""
    wanted = select(job.c.id).where(job.c.id.in_(sorted(job_ids)))
    if only_done:
        wanted = wanted.where(job.c.state == DONE)
    return set(tx.connection.execute(wanted).scalars())


def heartbeat(tx: Transaction, claimed: Job, lease: timedelta, stage: str, progress: float) -> bool:
    """Extend the lease and record the progress; False means that the job is no longer ours."""
    changed = tx.connection.execute(
        job.update()
        .where(job.c.id == claimed.id, job.c.attempt == claimed.attempt, job.c.state == LEASED)
        .values(lease_until=tx.now + lease, stage=stage, progress=progress, updated_at=tx.now)
    )
    return changed.rowcount == 1


def finish(
    tx: Transaction,
    claimed: Job,
    results: Sequence[StoredResult],
    *,
    deliver_to: Mapping[str, Sequence[str]],
    not_allowed: Sequence[str],
    label_map_path: str,
    label_map_digest: str,
    findings: Sequence[str],
    timings: dict[str, float],
    coded: Sequence[Finding] = (),
    held: Sequence[str] = (),
) -> bool:
    """Record the result set and its deliveries; False means that another attempt was first.

    Of a study that is held since the analysis began, the deliveries are held as well.

    Args:
        deliver_to: destinations, and the kinds of results that each gets.
        not_allowed: destinations of the rule that a demonstration model's results may not go to.
        coded: what the checks found; their sentences are among `findings`.
        held: codes of those for which the results wait for a person.
    """
    # Locked first, as intake does: who holds the study now sees these deliveries, or they see it.
    whole = tx.connection.execute(
        select(study.c.state, study.c.hold_reason)
        .where(study.c.id == claimed.study_id)
        .with_for_update(key_share=True)
    ).one()
    hold_reason = whole.hold_reason if whole.state == HELD else CONTENT_HELD if held else None
    done = tx.move(
        job,
        claimed.id,
        "done",
        job.c.attempt == claimed.attempt,
        lease_until=None,
        stage="done",
        progress=1.0,
        reason=None,
        detail="",
        findings=list(findings),
        coded=[{**asdict(seen), "held": seen.code in held} for seen in coded],
        timings=timings,
        label_map_path=label_map_path,
        label_map_digest=label_map_digest,
        updated_at=tx.now,
    )
    if not done:
        return False
    _insert_results(tx, claimed, results, deliver_to, hold_reason)

    record = partial(tx.event, study=claimed.study_id, series=claimed.series_id, job=claimed.id)
    record("JOB_DONE", detail=f"{len(results)} result instances")
    for name in not_allowed:
        detail = f"results of a demonstration model do not go to {name}, which is not loopback"
        record("DEMO_NOT_ALLOWED", level=ATTENTION, detail=detail)
    for name in (name for name, kinds in deliver_to.items() if not first_choice(results, kinds)):
        record("NOTHING_TO_DELIVER", detail=f"{name} takes none of the objects that were made")
    for seen in coded:
        level = "info" if seen.severity == "info" else "warning"
        record(seen.code, level=level, detail=seen.sentence)
    told = {seen.sentence for seen in coded}
    for sentence in (sentence for sentence in findings if sentence not in told):
        record("FINDING", level="warning", detail=sentence)
    if held:
        detail = f"{', '.join(held)}: the results wait for `dicomnode release`"
        record(CONTENT_HELD, level=ATTENTION, detail=detail)
    return True


def _insert_results(
    tx: Transaction,
    claimed: Job,
    results: Sequence[StoredResult],
    deliver_to: Mapping[str, Sequence[str]],
    hold_reason: str | None,
) -> None:
    goes = {
        name: {item.sop_instance_uid for item in first_choice(results, kinds)}
        for name, kinds in deliver_to.items()
    }
    for item in results:
        result_id = tx.insert(
            result,
            job_id=claimed.id,
            kind=item.kind,
            position=item.position,
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            series_uid=item.series_uid,
            transfer_syntax_uid=item.transfer_syntax_uid,
            path=item.path,
            digest=item.digest,
            size=item.size,
            summary=item.summary,
            refers_to=list(item.refers_to),
            created_at=tx.now,
        )
        for name in (name for name, uids in goes.items() if item.sop_instance_uid in uids):
            tx.insert(
                delivery,
                result_id=result_id,
                job_id=claimed.id,
                node_id=tx.node_id,
                destination=name,
                position=item.position,
                state=PENDING if hold_reason is None else HELD,
                reason=hold_reason,
                due_at=tx.now,
                created_at=tx.now,
                updated_at=tx.now,
            )


def fail(
    tx: Transaction,
    claimed: Job,
    outcome: Retry | Refuse,
    *,
    max_failures: int,
    wait: timedelta,
    counts: bool = True,
) -> bool:
    """Record an attempt that gave no results; False means that the job was no longer ours.

    Where the series was chosen among others, a refusal gives the turn to the next best: the study
    closes again, and the series that was refused is out of the choice.
    """
    # Locked first, as intake does.
    tx.connection.execute(
        select(study.c.id).where(study.c.id == claimed.study_id).with_for_update(key_share=True)
    )
    row = tx.connection.execute(select(job).where(job.c.id == claimed.id)).one()
    if row.attempt != claimed.attempt:
        return False
    if not _fail(tx, row, outcome, max_failures=max_failures, wait=wait, counts=counts):
        return False
    if isinstance(outcome, Refuse) and _others_wait(tx, row):
        again = {"opened_at": tx.now, "due_at": tx.now, "look_at": tx.now, "closed_at": None}
        if tx.move(study, row.study_id, "arrive", study.c.state == CLOSED, **again):
            tx.event(
                "NEXT_IN_TURN",
                detail="the study closes again, for the next best series",
                study=row.study_id,
                job=row.id,
            )
    return True


def _others_wait(tx: Transaction, row: Row[Any]) -> bool:
    """Whether another series of the study had to stand back in the choice."""
    stands_back = exists().where(
        series.c.study_id == row.study_id,
        series.c.id != row.series_id,
        series.c.choice_code == BETTER_CHOSEN,
    )
    return bool(tx.connection.execute(select(stands_back)).scalar_one())


def _fail(
    tx: Transaction,
    row: Row[Any],
    outcome: Retry | Refuse,
    *,
    max_failures: int,
    wait: timedelta,
    counts: bool,
) -> bool:
    failures = row.failures + int(counts)
    values: dict[str, Any] = {
        "failures": failures,
        "lease_until": None,
        "reason": outcome.code,
        "detail": outcome.detail,
        "updated_at": tx.now,
    }
    if isinstance(outcome, Refuse):
        step, code, level = "refuse", "JOB_REFUSED", ATTENTION
    elif failures >= max_failures:
        step, code, level = "quarantine", "JOB_QUARANTINED", ATTENTION
    else:
        step, code, level = "retry", "JOB_RETRY", "warning" if counts else "info"
        values["due_at"] = tx.now + wait
        if outcome.code in SHORTAGES:
            values["shortages"] = [*row.shortages, outcome.code]
    if not tx.move(job, row.id, step, job.c.attempt == row.attempt, **values):
        return False
    detail = f"{outcome.code}: {outcome.detail}"
    if "shortages" in values:
        detail += "; with less next, where that helps"
    tx.event(code, level=level, detail=detail, study=row.study_id, series=row.series_id, job=row.id)
    return True


def take_back(
    tx: Transaction,
    outcome: Retry,
    *,
    max_failures: int,
    wait: timedelta,
    worker: str | None = None,
) -> int:
    """Take back jobs of this node whose lease ran out; return how many.

    Args:
        worker: take back at once all that this worker holds, because it is known to be dead.
    """
    lost = job.c.lease_until < tx.now if worker is None else job.c.worker == worker
    rows = tx.connection.execute(
        select(job)
        .where(job.c.state == LEASED, job.c.node_id == tx.node_id, lost)
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    return sum(
        _fail(tx, row, outcome, max_failures=max_failures, wait=wait, counts=True) for row in rows
    )
