"""How the places fare that the audit trail is kept at, and how much waits for them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, delete, func, select

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.glance import audit_trail
from dicomnode.domain.outcomes import Backoff
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import audit, audit_sink, event


def may_be_tried(tx: Transaction, sink: str) -> bool:
    """Whether a place is not left alone at present."""
    row = _sink(tx, sink)
    return row is None or row.retry_at is None or row.retry_at <= tx.now


def well(tx: Transaction, sink: str) -> None:
    """Record that a place has taken messages."""
    before = _sink(tx, sink)
    values = {"failures": 0, "failing_since": None, "retry_at": None, "alarmed_at": None}
    _put(tx, sink, **values, seen_at=tx.now, detail="")
    if before is None or not before.failures:
        return
    tx.event("AUDIT_BACK", detail=sink)
    tx.connection.execute(
        event.update()
        .where(
            event.c.node_id == tx.node_id,
            event.c.code.in_(("AUDIT_AWAY", "AUDIT_FULL")),
            event.c.resolved_at.is_(None),
        )
        .values(resolved_at=tx.now)
    )


def failed(
    tx: Transaction, sink: str, detail: str, backoff: Backoff, jitter: float, alarm: timedelta
) -> None:
    """Record that a place could not be used; a person is called when that lasts."""
    row = _sink(tx, sink)
    failures = 1 + (row.failures if row is not None else 0)
    since = (row.failing_since if row is not None else None) or tx.now
    alarmed_at = row.alarmed_at if row is not None else None
    if failures == 1:
        tx.event("AUDIT_RETRY", level="warning", detail=f"{sink}: {detail}")
    if alarmed_at is None and tx.now - since >= alarm:
        alarmed_at = tx.now
        said = f"{sink} since {since:%Y-%m-%d %H:%M} UTC: {detail}"
        tx.event("AUDIT_AWAY", level=ATTENTION, detail=said)
    _put(
        tx,
        sink,
        failures=failures,
        failing_since=since,
        retry_at=tx.now + backoff.after(failures, jitter),
        alarmed_at=alarmed_at,
        detail=detail,
    )


def listing(tx: Transaction) -> dict[str, Any] | None:
    """Return how much waits and how each place fares; None where there is no audit trail."""
    mine = audit.c.node_id == tx.node_id
    count = tx.connection.execute(select(func.count(audit.c.id)).where(mine)).scalar_one()
    first = select(audit.c.at).where(mine).order_by(audit.c.id).limit(1)
    oldest = tx.connection.execute(first).scalar()
    rows = tx.connection.execute(
        select(audit_sink).where(audit_sink.c.node_id == tx.node_id).order_by(audit_sink.c.name)
    ).all()
    if not rows and not count:
        return None
    seconds = 0.0 if oldest is None else max(0.0, (tx.now - oldest).total_seconds())
    failing = tuple(f"{row.name}: {row.detail}" for row in rows if row.failures)
    answer = audit_trail(count, seconds, failing)
    return {
        "level": answer.level,
        "short": answer.short,
        "says": answer.says,
        "waiting": count,
        "oldest": None if oldest is None else oldest.isoformat(),
        "oldest_seconds": seconds,
        "sinks": [
            {
                "name": row.name,
                "failures": row.failures,
                "failing_since": row.failing_since and row.failing_since.isoformat(),
                "retry_at": row.retry_at and row.retry_at.isoformat(),
                "seen_at": row.seen_at and row.seen_at.isoformat(),
                "detail": row.detail,
            }
            for row in rows
        ],
    }


def forget_others(tx: Transaction, sinks: Collection[str]) -> None:
    """Forget how places fared that are no longer in the configuration."""
    tx.connection.execute(
        delete(audit_sink).where(
            audit_sink.c.node_id == tx.node_id, audit_sink.c.name.not_in(list(sinks))
        )
    )


def _sink(tx: Transaction, name: str) -> Row[Any] | None:
    return tx.connection.execute(
        select(audit_sink).where(audit_sink.c.node_id == tx.node_id, audit_sink.c.name == name)
    ).first()


def _put(tx: Transaction, name: str, **values: Any) -> None:
    if not tx.insert_once(audit_sink, node_id=tx.node_id, name=name, **values):
        tx.connection.execute(
            audit_sink.update()
            .where(audit_sink.c.node_id == tx.node_id, audit_sink.c.name == name)
            .values(**values)
        )
