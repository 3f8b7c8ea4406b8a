"""What a person may do to the ledger: release, requeue, acknowledge. Each leaves an event.

All are safe to repeat: done twice they do nothing the second time, and say so.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, case, select

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.content import CONTENT_HELD
from dicomnode.domain.lifecycle import HELD, REFUSED
from dicomnode.domain.subjects import IDENTITY_DIFFERS
from dicomnode.errors import PurgedError
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.retention import lacks_bytes
from dicomnode.ledger.tables import delivery, event, job, result, study


def release_study(tx: Transaction, study_uid: str, who: str, reason: str) -> bool:
    """Release a study that is held, or results of it: it closes again, its deliveries go on.

    Returns:
        Whether anything of it was held.
    """
    row = tx.connection.execute(
        select(study).where(study.c.study_uid == study_uid).with_for_update(key_share=True)
    ).first()
    again = {"hold_reason": None, "opened_at": tx.now, "due_at": tx.now, "look_at": tx.now}
    if row is None:
        return False
    released = tx.move(study, row.id, "release", **again)
    held = select(delivery.c.id).join(job, job.c.id == delivery.c.job_id)
    for delivery_id in (
        tx.connection.execute(held.where(job.c.study_id == row.id, delivery.c.state == HELD))
        .scalars()
        .all()
    ):
        tx.move(
            delivery,
            delivery_id,
            "release",
            reason=None,
            overridden=case((delivery.c.reason == IDENTITY_DIFFERS, 1), else_=0),
            due_at=tx.now,
            updated_at=tx.now,
        )
        released = True
    if not released:
        return False
    # It goes on as whose the first copy of its images says.
    tx.connection.execute(
        job.update().where(job.c.study_id == row.id).values(identity_revision=row.identity_revision)
    )
    settled = (row.hold_reason or CONTENT_HELD, CONTENT_HELD, IDENTITY_DIFFERS)
    _resolve(tx, event.c.study_id == row.id, event.c.code.in_(settled))
    tx.event("STUDY_RELEASED", detail=f"by {who}: {reason}", study=row.id, by=who)
    return True


def requeue_job(tx: Transaction, job_id: int, who: str) -> bool:
    """Have a refused or quarantined job analysed once more, with a new count of failures.

    Returns:
        Whether it was refused or in quarantine.

    Raises:
        PurgedError: instances of its series are purged.
    """
    of_job = tx.connection.execute(select(job.c.series_id).where(job.c.id == job_id)).scalar()
    if of_job is not None and lacks_bytes(tx, of_job):
        raise PurgedError(f"job {job_id}: instances are purged; send the series again, then this")
    moved = tx.move(
        job,
        job_id,
        "requeue",
        failures=0,
        shortages=[],
        reason=None,
        detail="",
        due_at=tx.now,
        updated_at=tx.now,
        results_purged_at=None,
    )
    if moved:
        _resolve(tx, event.c.job_id == job_id, event.c.code.in_(("JOB_REFUSED", "JOB_QUARANTINED")))
        study_id = _study_of(tx, job_id)
        tx.event("JOB_REQUEUED", detail=f"by {who}", job=job_id, study=study_id, by=who)
    return moved


def requeue_delivery(tx: Transaction, delivery_id: int, who: str) -> int:
    """Send a refused delivery once more, and what was refused with it; or a delivered one again.

    What has been withdrawn, or is to be, is not sent.

    Returns:
        How many objects are to be sent.

    Raises:
        PurgedError: the results are purged.
    """
    row = tx.connection.execute(
        select(delivery, result.c.withdraw_at, job.c.results_purged_at)
        .join(result, result.c.id == delivery.c.result_id)
        .join(job, job.c.id == delivery.c.job_id)
        .where(delivery.c.id == delivery_id)
    ).first()
    if row is None or row.withdraw_at is not None:
        return 0
    if row.results_purged_at is not None:
        raise PurgedError(f"delivery {delivery_id}: the results of job {row.job_id} are purged")
    of_the_set = select(delivery.c.id).where(
        delivery.c.job_id == row.job_id,
        delivery.c.destination == row.destination,
        delivery.c.state == REFUSED,
    )
    ids = {delivery_id, *tx.connection.execute(of_the_set).scalars()}
    count = sum(
        tx.move(
            delivery,
            one,
            "requeue",
            reason=None,
            detail="",
            due_at=tx.now,
            created_at=tx.now,
            updated_at=tx.now,
            commitment_id=None,
            commit_attempt=0,
            commit_at=None,
        )
        for one in sorted(ids)
    )
    if count:
        _resolve(tx, event.c.delivery_id.in_(ids), event.c.code == "DELIVERY_REFUSED")
        tx.event(
            "DELIVERY_REQUEUED",
            detail=f"by {who}: {count} objects to {row.destination}",
            study=_study_of(tx, row.job_id),
            job=row.job_id,
            delivery=delivery_id,
            by=who,
        )
    return count


def acknowledge(tx: Transaction, event_ids: Sequence[int], who: str) -> int:
    """Take events off the list of what needs attention; without ids, all of them.

    Returns:
        How many.
    """
    which = [event.c.id.in_(event_ids)] if event_ids else []
    count = _resolve(tx, event.c.level == ATTENTION, *which)
    if count:
        tx.event("ACKNOWLEDGED", detail=f"by {who}: {count} events", by=who)
    return count


_QUARANTINING = (
    "CANNOT_UNDERSTAND", "DATA_SET_DOES_NOT_MATCH", "PIXELS_DIFFER", "PIXELS_NOT_COMPARED",
)  # fmt: skip


def settle_quarantined(tx: Transaction, name: str) -> int:
    """Take what says that a file is in quarantine off the list; return how many.

    A study that is held for it stays held, and on the list: that is settled by releasing it.
    """
    return _resolve(
        tx,
        event.c.code.in_(_QUARANTINING),
        event.c.detail.endswith(f"bytes kept in quarantine/{name}.dcm"),  # as the receiver says it
    )


def _resolve(tx: Transaction, *which: ColumnElement[bool]) -> int:
    changed = tx.connection.execute(
        event.update().where(event.c.resolved_at.is_(None), *which).values(resolved_at=tx.now)
    )
    return changed.rowcount


def _study_of(tx: Transaction, job_id: int) -> int | None:
    return tx.connection.execute(select(job.c.study_id).where(job.c.id == job_id)).scalar()
