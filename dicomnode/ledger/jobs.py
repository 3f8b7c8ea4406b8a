"""Jobs: leased by a worker, fenced by the attempt number.

They are made in `choosing`; what a finished one leaves is in `completing`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, exists, func, select

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.choosing import BETTER_CHOSEN
from dicomnode.domain.economy import SHORTAGES
from dicomnode.domain.identifiers import SeriesUID, StudyUID
from dicomnode.domain.lifecycle import CLOSED, DONE, HELD, LEASED, QUEUED
from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.domain.plans import ModelOptions
from dicomnode.domain.records import Job
from dicomnode.domain.turns import Turn, turn
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import (
    instance,
    job,
    node,
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
