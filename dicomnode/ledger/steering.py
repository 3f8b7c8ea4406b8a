"""What a person may do beside `actions`: cancel, send to one destination again, pause one.

Each leaves an event with the person's name and is safe to repeat: done twice it does nothing the
second time, and says so.
"""

from __future__ import annotations

from sqlalchemy import select

from dicomnode.domain.lifecycle import ARRIVED, HELD, PENDING, REFUSED, SENDING
from dicomnode.ledger import actions
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import delivery, destination, event, job

CANCELLED_BY_USER = "CANCELLED_BY_USER"


def cancel_job(tx: Transaction, job_id: int, who: str, reason: str = "") -> bool:
    """Cancel an analysis that waits, runs, was refused or is in quarantine; for good.

    Its worker hears of it with its next sign of life, and records nothing.

    Returns:
        Whether there was something to cancel.
    """
    values = {"reason": CANCELLED_BY_USER, "lease_until": None, "updated_at": tx.now}
    if not tx.move(job, job_id, "cancel", **values):
        return False
    _resolve(tx, event.c.job_id == job_id, event.c.code.in_(("JOB_REFUSED", "JOB_QUARANTINED")))
    study_id = tx.connection.execute(select(job.c.study_id).where(job.c.id == job_id)).scalar()
    tx.event("JOB_CANCELLED", detail=_by(who, reason), study=study_id, job=job_id, by=who)
    return True


def cancel_deliveries(tx: Transaction, job_id: int, name: str, who: str, reason: str = "") -> int:
    """Cancel what has not arrived of a result set at one destination; for good.

    All of it: an object that waits for a cancelled one would wait for ever.

    Returns:
        How many objects.
    """
    open_states = (PENDING, SENDING, HELD, REFUSED)
    ids = _of_set(tx, job_id, name, open_states)
    values = {"reason": CANCELLED_BY_USER, "updated_at": tx.now}
    count = sum(tx.move(delivery, one, "cancel", **values) for one in ids)
    if count:
        _resolve(tx, event.c.delivery_id.in_(ids), event.c.code == "DELIVERY_REFUSED")
        detail = f"{_by(who, reason)}: {count} objects to {name}"
        _record(tx, "DELIVERY_CANCELLED", job_id, detail, who)
    return count


def send_again(tx: Transaction, job_id: int, name: str, who: str) -> int:
    """Send a result set to one destination once more: what arrived there and what was refused.

    Returns:
        How many objects are to be sent.

    Raises:
        PurgedError: the results are purged.
    """
    ids = _of_set(tx, job_id, name, (*ARRIVED, REFUSED))
    # What was refused goes with the first of them, and is then no longer what it was.
    return sum(actions.requeue_delivery(tx, one, who) for one in ids)


def pause(tx: Transaction, name: str, who: str, reason: str = "") -> bool:
    """Send nothing more to a destination until `resume`; what is on its way arrives.

    Returns:
        Whether it was not paused before.
    """
    values = {"paused_at": tx.now, "paused_by": who}
    if not tx.insert_once(destination, node_id=tx.node_id, name=name, **values):
        changed = tx.connection.execute(
            destination.update()
            .where(
                destination.c.node_id == tx.node_id,
                destination.c.name == name,
                destination.c.paused_at.is_(None),
            )
            .values(**values)
        )
        if not changed.rowcount:
            return False
    tx.event("DESTINATION_PAUSED", level="warning", detail=f"{name} {_by(who, reason)}", by=who)
    return True


def resume(tx: Transaction, name: str, who: str) -> bool:
    """Send to a paused destination again; return whether it was paused."""
    changed = tx.connection.execute(
        destination.update()
        .where(
            destination.c.node_id == tx.node_id,
            destination.c.name == name,
            destination.c.paused_at.is_not(None),
        )
        .values(paused_at=None, paused_by="")
    )
    if changed.rowcount:
        tx.event("DESTINATION_RESUMED", detail=f"{name} by {who}", by=who)
    return bool(changed.rowcount)


def _of_set(tx: Transaction, job_id: int, name: str, states: tuple[str, ...]) -> list[int]:
    found = tx.connection.execute(
        select(delivery.c.id)
        .where(
            delivery.c.job_id == job_id,
            delivery.c.destination == name,
            delivery.c.state.in_(states),
        )
        .order_by(delivery.c.position)
    )
    return list(found.scalars())


def _resolve(tx: Transaction, *which: object) -> None:
    tx.connection.execute(
        event.update()
        .where(event.c.resolved_at.is_(None), *which)  # type: ignore[arg-type]
        .values(resolved_at=tx.now)
    )


def _record(tx: Transaction, code: str, job_id: int, detail: str, who: str) -> None:
    study_id = tx.connection.execute(select(job.c.study_id).where(job.c.id == job_id)).scalar()
    tx.event(code, detail=detail, study=study_id, job=job_id, by=who)


def _by(who: str, reason: str) -> str:
    return f"by {who}: {reason}" if reason else f"by {who}"
