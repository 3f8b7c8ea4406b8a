"""Withdrawing results that were delivered: marked first, then named by a rejection note.

Marks are made by a person (`withdraw`), by notes of others (`ledger.rejections`) and here,
where a destination has the results that replace them. A note is a result like any other, of the
job whose results it rejects: stored before it is sent, sent for days if need be.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.identifiers import InstanceUID, SeriesUID, SOPClassUID
from dicomnode.domain.lifecycle import PENDING
from dicomnode.domain.plans import REJECTION, SR
from dicomnode.domain.records import StoredResult
from dicomnode.domain.withdrawal import SUPERSEDED
from dicomnode.ledger import deliveries
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import delivery, job, result, study

BY_HAND = "by hand"
"""In place of a note's UID: none can be made, and a person was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A result that a destination has and that is to be withdrawn there."""

    delivery_id: int
    kind: str
    sop_class_uid: SOPClassUID
    sop_instance_uid: InstanceUID
    series_uid: SeriesUID
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A rejection note that is to be made: of one job's results at one destination."""

    job_id: int
    study_id: int
    destination: str
    reason: str
    at: datetime
    """When it was decided."""
    named: tuple[Named, ...]


def withdraw(
    tx: Transaction,
    study_uid: str,
    *,
    job_id: int | None,
    who: str,
    why: str,
    reason: str,
    by_note: Collection[str],
) -> int:
    """Withdraw a study's results in the name of a person, or those of one job of it.

    Args:
        why: in the person's words.
        reason: of `domain.withdrawal`.
        by_note: destinations that take rejection notes; elsewhere a person has to remove them.

    Returns:
        How many results were not marked before.
    """
    # Locked first, as intake does: what is recorded meanwhile is seen, or sees this.
    study_id = tx.connection.execute(
        select(study.c.id).where(study.c.study_uid == study_uid).with_for_update(key_share=True)
    ).scalar()
    of_job = [] if job_id is None else [job.c.id == job_id]
    jobs = tx.connection.execute(
        select(job.c.id).where(job.c.study_id == study_id, *of_job).order_by(job.c.id)
    ).scalars()
    total = 0
    for one in jobs.all():
        marked = mark(tx, one, reason)
        if not marked:
            continue
        total += marked
        cancelled = deliveries.cancel_job(tx, one, reason)
        detail = f"by {who}: {why} ({marked} results, {cancelled} deliveries stopped)"
        about = {"study": study_id, "job": one}
        tx.event("RESULTS_WITHDRAWN", level="warning", detail=detail, by=who, **about)
        for name in _destinations_with(tx, one):
            if name not in by_note:
                detail = f"{name} takes no rejection notes: have the results removed there"
                tx.event(
                    "WITHDRAW_BY_HAND", level=ATTENTION, detail=detail, study=study_id, job=one
                )
    return total


def mark(tx: Transaction, job_id: int, reason: str) -> int:
    """Mark the results of a job for withdrawal; return how many were not marked before."""
    marked = tx.connection.execute(
        result.update()
        .where(
            result.c.job_id == job_id, result.c.withdraw_at.is_(None), result.c.kind != REJECTION
        )
        .values(withdraw_at=tx.now, withdraw_reason=reason)
    )
    return marked.rowcount


def _destinations_with(tx: Transaction, job_id: int) -> list[str]:
    rows = tx.connection.execute(
        select(delivery.c.destination)
        .where(delivery.c.job_id == job_id, delivery.c.arrived_at.is_not(None))
        .distinct()
        .order_by(delivery.c.destination)
    )
    return list(rows.scalars())


def mark_superseded(tx: Transaction, by_note: Collection[str]) -> int:
    """Mark the results that a newer set has replaced at a destination that takes notes.

    Returns:
        How many result sets.
    """
    replaced = (
        select(job.c.id)
        .join(delivery, delivery.c.job_id == job.c.id)
        .join(result, result.c.id == delivery.c.result_id)
        .where(
            delivery.c.node_id == tx.node_id,
            delivery.c.destination.in_(sorted(by_note)),
            delivery.c.arrived_at.is_not(None),
            result.c.withdraw_at.is_(None),
            result.c.kind != REJECTION,
            _replaced_there(),
        )
        .distinct()
        .order_by(job.c.id)
    )
    return sum(
        mark(tx, one, SUPERSEDED) > 0 for one in tx.connection.execute(replaced).scalars().all()
    )


def _replaced_there() -> ColumnElement[bool]:
    """Whether the delivery's destination has the report of a newer generation."""
    newer, newer_result, newer_delivery = job.alias(), result.alias(), delivery.alias()
    return exists().where(
        newer.c.series_id == job.c.series_id,
        newer.c.model_id == job.c.model_id,
        newer.c.generation > job.c.generation,
        newer_result.c.job_id == newer.c.id,
        newer_result.c.kind == SR,
        newer_delivery.c.result_id == newer_result.c.id,
        newer_delivery.c.destination == delivery.c.destination,
        newer_delivery.c.arrived_at.is_not(None),
    )


def due(tx: Transaction, by_note: Collection[str]) -> tuple[Due, ...]:
    """Return the rejection notes that are to be made now.

    Args:
        by_note: destinations that take them.
    """
    rows = tx.connection.execute(
        select(
            delivery.c.id,
            delivery.c.job_id,
            delivery.c.destination,
            job.c.study_id,
            result.c.kind,
            result.c.sop_class_uid,
            result.c.sop_instance_uid,
            result.c.series_uid,
            result.c.path,
            result.c.withdraw_reason,
            result.c.withdraw_at,
        )
        .join(result, result.c.id == delivery.c.result_id)
        .join(job, job.c.id == delivery.c.job_id)
        .where(
            delivery.c.node_id == tx.node_id,
            delivery.c.destination.in_(sorted(by_note)),
            delivery.c.arrived_at.is_not(None),
            delivery.c.withdrawn_by.is_(None),
            result.c.withdraw_at.is_not(None),
            or_(
                result.c.withdraw_reason != SUPERSEDED,
                # Never withdrawn before the destination has what replaces it.
                and_(result.c.withdraw_reason == SUPERSEDED, _replaced_there()),
            ),
        )
        .order_by(delivery.c.job_id, delivery.c.destination, delivery.c.position)
    )
    grouped: dict[tuple[int, str, str], Due] = {}
    for row in rows:
        key = (row.job_id, row.destination, row.withdraw_reason)
        before = grouped[key].named if key in grouped else ()
        grouped[key] = Due(
            job_id=row.job_id,
            study_id=row.study_id,
            destination=row.destination,
            reason=row.withdraw_reason,
            at=row.withdraw_at,
            named=(
                *before,
                Named(
                    delivery_id=row.id,
                    kind=row.kind,
                    sop_class_uid=SOPClassUID(row.sop_class_uid),
                    sop_instance_uid=InstanceUID(row.sop_instance_uid),
                    series_uid=SeriesUID(row.series_uid),
                    path=row.path,
                ),
            ),
        )
    return tuple(grouped.values())


def record(tx: Transaction, one: Due, note: StoredResult) -> bool:
    """Record a note whose bytes are in the spool, and that it is to be delivered.

    Two destinations that have the same results get the same note.

    Returns:
        Whether all that it names was still without a note.
    """
    ids = [item.delivery_id for item in one.named]
    tx.connection.execute(select(job.c.id).where(job.c.id == one.job_id).with_for_update())
    open_still = tx.connection.execute(
        select(func.count()).where(delivery.c.id.in_(ids), delivery.c.withdrawn_by.is_(None))
    ).scalar_one()
    if open_still != len(ids):
        return False
    last = tx.connection.execute(
        select(func.max(result.c.position)).where(result.c.job_id == one.job_id)
    ).scalar_one()
    tx.insert_once(
        result,
        job_id=one.job_id,
        kind=note.kind,
        position=last + 1,
        sop_class_uid=note.sop_class_uid,
        sop_instance_uid=note.sop_instance_uid,
        series_uid=note.series_uid,
        transfer_syntax_uid=note.transfer_syntax_uid,
        path=note.path,
        digest=note.digest,
        size=note.size,
        summary=note.summary,
        refers_to=[],
        created_at=tx.now,
    )
    row = tx.connection.execute(
        select(result.c.id, result.c.position).where(
            result.c.sop_instance_uid == note.sop_instance_uid
        )
    ).one()
    tx.insert_once(
        delivery,
        result_id=row.id,
        job_id=one.job_id,
        node_id=tx.node_id,
        destination=one.destination,
        position=row.position,
        state=PENDING,
        attempt=0,
        detail="",
        due_at=tx.now,
        created_at=tx.now,
        updated_at=tx.now,
    )
    tx.connection.execute(
        delivery.update().where(delivery.c.id.in_(ids)).values(withdrawn_by=note.sop_instance_uid)
    )
    tx.event(
        "REJECTION_NOTE_QUEUED",
        detail=f"{one.reason}: {len(ids)} results are withdrawn at {one.destination}",
        study=one.study_id,
        job=one.job_id,
    )
    return True


def cannot(tx: Transaction, one: Due, detail: str) -> None:
    """Say once that no note can be made."""
    tx.connection.execute(
        delivery.update()
        .where(delivery.c.id.in_([item.delivery_id for item in one.named]))
        .values(withdrawn_by=BY_HAND)
    )
    tx.event(
        "WITHDRAW_BY_HAND",
        level=ATTENTION,
        detail=f"{one.destination}: {detail}: have the results removed there",
        study=one.study_id,
        job=one.job_id,
    )
