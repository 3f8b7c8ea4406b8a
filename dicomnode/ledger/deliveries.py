"""Deliveries: one result instance to one destination, in the order of its result set."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, or_, select

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.identifiers import InstanceUID, SOPClassUID, StudyUID, TransferSyntaxUID
from dicomnode.domain.lifecycle import ARRIVED, CANCELLED, PENDING, REFUSED, SENDING, SUBSTITUTED
from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry
from dicomnode.domain.plans import REJECTION
from dicomnode.domain.records import Delivery
from dicomnode.ledger import outbox, substitution
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import delivery, job, result, series, study


def _due(tx: Transaction, destination: str) -> list[ColumnElement[bool]]:
    """The conditions of what may be sent now: due, and what stands before it has arrived."""
    before = delivery.alias("before")
    waits = exists().where(
        before.c.job_id == delivery.c.job_id,
        before.c.destination == delivery.c.destination,
        before.c.position < delivery.c.position,
        # What refers to a refused object was refused with it; the rest goes on. After what was
        # cancelled comes the note that withdraws the rest.
        before.c.state.not_in((*ARRIVED, REFUSED, SUBSTITUTED, CANCELLED)),
    )
    return [
        delivery.c.state == PENDING,
        delivery.c.destination == destination,
        delivery.c.due_at <= tx.now,
        delivery.c.node_id == tx.node_id,
        ~waits,
    ]


def is_due(tx: Transaction, destination: str) -> bool:
    """Whether something may be sent to the destination now."""
    return tx.connection.execute(select(exists().where(and_(*_due(tx, destination))))).scalar_one()


def claim(tx: Transaction, destination: str) -> Delivery | None:
    """Take the next delivery to a destination, the most urgent first, or return None."""
    row = tx.connection.execute(
        select(
            delivery,
            result,
            job.c.study_id,
            study.c.study_uid,
            delivery.c.id.label("delivery_id"),
        )
        .join(result, result.c.id == delivery.c.result_id)
        .join(job, job.c.id == delivery.c.job_id)
        .join(study, study.c.id == job.c.study_id)
        .where(*_due(tx, destination))
        .order_by(job.c.urgency, delivery.c.due_at, delivery.c.job_id, delivery.c.position)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True, of=delivery)
    ).first()
    if row is None:
        return None
    attempt = row.attempt + 1
    tx.move(
        delivery,
        row.delivery_id,
        "claim",
        attempt=attempt,
        updated_at=tx.now,
    )
    if attempt == 1:
        about = {"study_id": row.study_id, "job_id": row.job_id, "delivery_id": row.delivery_id}
        outbox.record(tx, "SENDING", **about)
    return Delivery(
        id=row.delivery_id,
        attempt=attempt,
        job_id=row.job_id,
        study_id=row.study_id,
        study_uid=StudyUID(row.study_uid),
        destination=destination,
        kind=row.kind,
        sop_class_uid=SOPClassUID(row.sop_class_uid),
        sop_instance_uid=InstanceUID(row.sop_instance_uid),
        transfer_syntax_uid=TransferSyntaxUID(row.transfer_syntax_uid),
        path=row.path,
        digest=row.digest,
        size=row.size,
        overridden=bool(row.overridden),
    )


def finish(
    tx: Transaction,
    claimed: Delivery,
    outcome: Outcome,
    *,
    status: int | None,
    wait: timedelta,
    give_up_after: timedelta,
    commit: bool = False,
) -> None:
    """Record what an attempt to deliver came to; `commit`: commitment is then asked for."""
    row = tx.connection.execute(select(delivery).where(delivery.c.id == claimed.id)).one()
    if isinstance(outcome, Retry) and tx.now - row.created_at >= give_up_after:
        outcome = _gave_up(outcome)
    values: dict[str, Any] = {"last_status": status, "updated_at": tx.now}
    changes = substitution.decide(tx, claimed, outcome) if isinstance(outcome, Refuse) else []
    other = changes[0].says if changes else ""
    detail = f"{outcome.code}: {outcome.detail}" if not isinstance(outcome, Done) else ""
    if isinstance(outcome, Done):
        step, level, code = "delivered", "info", "DELIVERED"
        values["arrived_at"] = tx.now
        values |= {"reason": outcome.code if outcome.warning else None, "detail": outcome.warning}
        if outcome.warning:
            level = ATTENTION if outcome.code == "COERCED" else "warning"
        values["commit_at"] = tx.now if commit else None
        detail = outcome.warning
    elif isinstance(outcome, Refuse) and other:
        step, level, code = "substitute", "warning", "SUBSTITUTED"
        detail += f"; {other}"
        values |= {"reason": outcome.code, "detail": f"{outcome.detail}; {other}"}
    elif isinstance(outcome, Refuse):
        step, level, code = "refuse", ATTENTION, "DELIVERY_REFUSED"
        values |= {"reason": outcome.code, "detail": outcome.detail}
    else:
        step, level, code = "retry", "warning", "DELIVERY_RETRY"
        values |= {"reason": outcome.code, "detail": outcome.detail, "due_at": tx.now + wait}
    detail = f"{claimed.kind} to {claimed.destination}" + (f": {detail}" if detail else "")

    def record(event_code: str, event_level: str) -> None:
        tx.event(
            event_code,
            level=event_level,
            detail=detail,
            study=claimed.study_id,
            job=claimed.job_id,
            delivery=claimed.id,
        )

    if tx.move(delivery, claimed.id, step, delivery.c.attempt == claimed.attempt, **values):
        record(code, level)
        substitution.apply(tx, claimed, changes)
    elif isinstance(outcome, Done):
        record("DELIVERED_AFTER_CANCEL", ATTENTION)
        # Cancelled or held it stays; but the destination has it, and it may have to be withdrawn.
        tx.connection.execute(
            delivery.update().where(delivery.c.id == claimed.id).values(arrived_at=tx.now)
        )


def _gave_up(outcome: Retry) -> Refuse:
    return Refuse("GAVE_UP", f"{outcome.code}: {outcome.detail}")


def wait_for_destination(
    tx: Transaction, destination: str, outcome: Retry, give_up_after: timedelta
) -> None:
    """Say of all that waits why it does; give up what has waited for too long.

    Where there is no association no object is to blame: none of them has had an attempt.
    """
    of_destination = (
        delivery.c.destination == destination,
        delivery.c.node_id == tx.node_id,
        delivery.c.state == PENDING,
    )
    tx.connection.execute(
        delivery.update()
        .where(*of_destination, delivery.c.due_at <= tx.now)
        .values(reason=outcome.code, detail=outcome.detail)
    )
    old = tx.connection.execute(
        select(delivery, result.c.kind, job.c.study_id)
        .join(result, result.c.id == delivery.c.result_id)
        .join(job, job.c.id == delivery.c.job_id)
        .where(*of_destination, delivery.c.created_at <= tx.now - give_up_after)
    ).all()
    refusal = _gave_up(outcome)
    for row in old:
        values = {"reason": refusal.code, "detail": refusal.detail, "updated_at": tx.now}
        if tx.move(delivery, row.id, "refuse", **values):
            tx.event(
                "DELIVERY_REFUSED",
                level=ATTENTION,
                detail=f"{row.kind} to {destination}: {refusal.code}: {refusal.detail}",
                study=row.study_id,
                job=row.job_id,
                delivery=row.id,
            )


def cancel_outdated(tx: Transaction, destination: str) -> int:
    """Cancel what waits for a destination and is of an older generation or identity; how many.

    Whoever makes it old has cancelled or held it already, in the same transaction; this is the
    last look before it goes.
    """
    old = (
        select(job.c.id)
        .join(series, series.c.id == job.c.series_id)
        .join(study, study.c.id == job.c.study_id)
        .where(
            or_(
                job.c.generation < series.c.generation,
                job.c.identity_revision < study.c.identity_revision,
            )
        )
    )
    return _step_all(
        tx,
        "cancel",
        "SUPERSEDED",
        delivery.c.destination == destination,
        delivery.c.node_id == tx.node_id,
        delivery.c.state == PENDING,
        delivery.c.job_id.in_(old),
        delivery.c.result_id.not_in(_notes()),
    )


def hold_for(tx: Transaction, claimed: Delivery, outcome: Refuse) -> int:
    """Hold what waits of a study for one destination until a person has looked; return how many."""
    of_study = select(job.c.id).where(job.c.study_id == claimed.study_id)
    held = _step_all(
        tx,
        "hold",
        outcome.code,
        delivery.c.job_id.in_(of_study),
        delivery.c.destination == claimed.destination,
        delivery.c.state.in_((PENDING, SENDING)),
        delivery.c.overridden == 0,
    )
    if held:
        detail = f"{held} objects for {claimed.destination}: {outcome.detail}"
        tx.event(outcome.code, level=ATTENTION, detail=detail, study=claimed.study_id)
    return held


def _step_all(tx: Transaction, step: str, reason: str, *where: ColumnElement[bool]) -> int:
    rows = tx.connection.execute(select(delivery.c.id).where(*where)).scalars().all()
    return sum(tx.move(delivery, row_id, step, reason=reason, updated_at=tx.now) for row_id in rows)


def _notes() -> Select[tuple[int]]:
    """Rejection notes: they are never cancelled, since what they withdraw has arrived."""
    return select(result.c.id).where(result.c.kind == REJECTION)


def cancel_job(tx: Transaction, job_id: int, reason: str) -> int:
    """Cancel what has not arrived of a job's results; return how many."""
    return _step_all(
        tx,
        "cancel",
        reason,
        delivery.c.job_id == job_id,
        delivery.c.result_id.not_in(_notes()),
        delivery.c.state.in_((PENDING, SENDING, "HELD", REFUSED)),
    )


def hold_study(tx: Transaction, study_id: int, reason: str) -> int:
    """Hold what has not arrived of a study's results; return how many."""
    of_study = select(job.c.id).where(job.c.study_id == study_id)
    return _step_all(
        tx,
        "hold",
        reason,
        delivery.c.job_id.in_(of_study),
        delivery.c.state.in_((PENDING, SENDING)),
    )


def take_back(tx: Transaction, destination: str | None = None) -> int:
    """Make deliveries of this node that were under way pending again; return how many.

    For who is the only sender and has nothing under way: all, or those to one destination. Whether
    the peer has the object is unknown; the same bytes are sent once more.
    """
    where = [delivery.c.state == SENDING, delivery.c.node_id == tx.node_id]
    if destination is not None:
        where.append(delivery.c.destination == destination)
    return _step_all(tx, "retry", "SENDER_LOST", *where)
