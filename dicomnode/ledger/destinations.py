"""How destinations fare: left alone while they are away, and everything due when they are back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.health import ALARM_AFTER, WELL, Health, after
from dicomnode.domain.lifecycle import HELD, LEASED, PENDING, QUEUED, SENDING
from dicomnode.domain.outcomes import Backoff, Outcome
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import delivery, destination, event, job, series


def health(tx: Transaction, name: str) -> Health:
    """Return how a destination of this node fares."""
    row = tx.connection.execute(_own(tx, name)).first()
    if row is None or row.failures == 0:
        return WELL
    return Health(
        failures=row.failures,
        failing_since=row.failing_since,
        retry_at=row.retry_at,
        reason=row.reason,
        detail=row.detail,
        last_delivery=row.last_delivery,
    )


def _own(tx: Transaction, name: str) -> Any:
    return select(destination).where(
        destination.c.node_id == tx.node_id, destination.c.name == name
    )


def may_be_called(tx: Transaction, name: str) -> bool:
    """Whether a destination is neither paused nor left alone at present."""
    if tx.connection.execute(_own(tx, name).where(destination.c.paused_at.is_not(None))).first():
        return False
    retry_at = health(tx, name).retry_at
    return retry_at is None or retry_at <= tx.now


def note(
    tx: Transaction,
    name: str,
    outcome: Outcome,
    delivery_id: int | None,
    backoff: Backoff,
    jitter: float,
) -> Health:
    """Record what an attempt says of the destination itself; return how it fares now.

    One that was away is sent all that waits, at once.
    """
    before = health(tx, name)
    now = after(before, outcome, delivery_id, tx.now, backoff, jitter)
    values: dict[str, Any] = {
        "failures": now.failures,
        "failing_since": now.failing_since,
        "retry_at": now.retry_at,
        "reason": now.reason,
        "detail": now.detail,
        "last_delivery": now.last_delivery,
    }
    if now.failures == 0:
        values |= {"seen_at": tx.now, "alarmed_at": None}
    if not tx.insert_once(destination, node_id=tx.node_id, name=name, **values):
        tx.connection.execute(
            destination.update()
            .where(destination.c.node_id == tx.node_id, destination.c.name == name)
            .values(**values)
        )
    if now.is_away:
        if not before.is_away:
            detail = f"{name}: {now.reason}: {now.detail}"
            tx.event("DESTINATION_AWAY", level="warning", detail=detail)
        _alarm(tx, name, now)
    elif before.is_away:
        _welcome_back(tx, name)
    return now


def _alarm(tx: Transaction, name: str, now: Health) -> None:
    """Call a person once where a destination has been away for long."""
    if now.failing_since is None or tx.now - now.failing_since < ALARM_AFTER:
        return
    alarmed = tx.connection.execute(
        destination.update()
        .where(
            destination.c.node_id == tx.node_id,
            destination.c.name == name,
            destination.c.alarmed_at.is_(None),
        )
        .values(alarmed_at=tx.now)
    )
    if alarmed.rowcount:
        since = f"since {now.failing_since:%Y-%m-%d %H:%M} UTC"
        detail = f"{name} {since}: {now.reason}: {now.detail}"
        tx.event("DESTINATION_STILL_AWAY", level=ATTENTION, detail=detail)


def _welcome_back(tx: Transaction, name: str) -> None:
    waiting = delivery.update().where(
        delivery.c.destination == name,
        delivery.c.node_id == tx.node_id,
        delivery.c.state == PENDING,
        delivery.c.due_at > tx.now,
    )
    tx.connection.execute(waiting.values(due_at=tx.now))
    tx.connection.execute(
        event.update()
        .where(
            event.c.code == "DESTINATION_STILL_AWAY",
            event.c.node_id == tx.node_id,
            event.c.resolved_at.is_(None),
            event.c.detail.startswith(f"{name} ", autoescape=True),
        )
        .values(resolved_at=tx.now)
    )
    tx.event("DESTINATION_BACK", detail=name)


def call_late(tx: Transaction, name: str, within: timedelta) -> int:
    """Call a person for results that have not arrived in time; return how many result sets.

    Each once. Counted from the series' last image; what is not analysed yet is late as well.
    """
    last = tx.now - within
    late: dict[int, str] = {}
    waits = tx.connection.execute(
        select(delivery.c.id, delivery.c.job_id, delivery.c.state, delivery.c.reason)
        .join(job, job.c.id == delivery.c.job_id)
        .join(series, series.c.id == job.c.series_id)
        .where(
            delivery.c.destination == name,
            delivery.c.node_id == tx.node_id,
            delivery.c.state.in_((PENDING, SENDING, HELD)),
            delivery.c.late_at.is_(None),
            series.c.last_at <= last,
        )
    ).all()
    for row in waits:
        tx.connection.execute(
            delivery.update().where(delivery.c.id == row.id).values(late_at=tx.now)
        )
        late.setdefault(row.job_id, " ".join(filter(None, (row.state, row.reason))))
    unfinished = tx.connection.execute(
        select(job.c.id, job.c.state, job.c.destinations)
        .join(series, series.c.id == job.c.series_id)
        .where(
            job.c.state.in_((QUEUED, LEASED)),
            job.c.node_id == tx.node_id,
            job.c.late_at.is_(None),
            series.c.last_at <= last,
        )
    ).all()
    late |= {
        one.id: f"the analysis is {one.state}" for one in unfinished if name in one.destinations
    }
    return sum(_late(tx, job_id, name, within, why) for job_id, why in late.items())


def _late(tx: Transaction, job_id: int, name: str, within: timedelta, why: str) -> int:
    """Say it once a job: a delivery of a job that was late already is not late anew."""
    first = tx.connection.execute(
        job.update().where(job.c.id == job_id, job.c.late_at.is_(None)).values(late_at=tx.now)
    )
    if not first.rowcount:
        return 0
    study_id = tx.connection.execute(select(job.c.study_id).where(job.c.id == job_id)).scalar()
    minutes = f"{within.total_seconds() / 60:g} minutes"
    detail = f"not at {name} within {minutes} after the last image: {why}"
    tx.event("RESULT_LATE", level=ATTENTION, detail=detail, study=study_id, job=job_id)
    return 1


def listing(tx: Transaction) -> list[dict[str, Any]]:
    """Return how destinations fare, and how much waits for each; plain data."""
    waiting: dict[str, tuple[int, datetime]] = {
        row.destination: (row.waiting, row.oldest)
        for row in tx.connection.execute(
            select(
                delivery.c.destination,
                func.count().label("waiting"),
                func.min(delivery.c.created_at).label("oldest"),
            )
            .where(delivery.c.state.in_((PENDING, SENDING)))
            .group_by(delivery.c.destination)
        )
    }
    rows = {row.name: row for row in tx.connection.execute(select(destination))}
    found = []
    for name in sorted({*rows, *waiting}):
        row = rows.get(name)
        count, oldest = waiting.get(name, (0, None))
        found.append(
            {
                "name": name,
                "waiting": count,
                "oldest": oldest.isoformat() if oldest else None,
                "failures": row.failures if row else 0,
                "failing_since": _iso(row.failing_since) if row else None,
                "retry_at": _iso(row.retry_at) if row else None,
                "reason": row.reason if row else None,
                "detail": row.detail if row else "",
                "seen_at": _iso(row.seen_at) if row else None,
                "paused_at": _iso(row.paused_at) if row else None,
                "paused_by": row.paused_by if row else "",
            }
        )
    return found


def _iso(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()
