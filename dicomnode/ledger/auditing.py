"""What waits for the audit trail, told in full."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Column, Row, Select, and_, delete, exists, func, or_, select

from dicomnode.domain.audit_acts import FAILED, Act, Other
from dicomnode.domain.audit_policy import FILE, SYSLOG
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.outbox import RECEIVED
from dicomnode.ledger.presence import worker_id
from dicomnode.ledger.tables import (
    association,
    audit,
    delivery,
    instance,
    result,
    retrieval,
    series,
    study,
    worker,
)

LEFT_OPEN = timedelta(hours=24)
"""An association that has been open for so long has ended without saying so."""
_OF_RESULTS = ("JOB_DONE", "RESULTS_PURGED", "RESULTS_WITHDRAWN", "RESULT_REJECTED")
_DONE: dict[str, Column[Any]] = {FILE: audit.c.filed_at, SYSLOG: audit.c.sent_at}

Classes = tuple[tuple[str, int, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A record that is to become a message."""

    id: int
    act: Act
    """Without what only files say: the patient."""
    destination: str = ""
    """In the configuration."""
    paths: tuple[str, ...] = ()
    """Files of the spool that say whose the study is; the first that is there."""


def waiting(tx: Transaction, sink: str, limit: int) -> list[Waiting]:
    """Return what has not been kept at a place yet and can be told, the oldest first."""
    rows = tx.connection.execute(
        select(audit, association.c.closed_at, study.c.study_uid)
        .join(association, association.c.id == audit.c.association_id, isouter=True)
        .join(study, study.c.id == audit.c.study_id, isouter=True)
        .where(audit.c.node_id == tx.node_id, _DONE[sink].is_(None), _can_be_told(tx))
        .order_by(audit.c.id)
        .limit(limit)
    ).all()
    return [_told(tx, row) for row in rows]


def _can_be_told(tx: Transaction) -> Any:
    """What came over an association is told when that has ended, however it did."""
    receiver_began = (
        select(worker.c.started_at).where(worker.c.id == worker_id(tx, "receive")).scalar_subquery()
    )
    return or_(
        audit.c.kind != RECEIVED,
        association.c.id.is_(None),
        association.c.closed_at.is_not(None),
        association.c.opened_at < receiver_began,
        association.c.opened_at < tx.now - LEFT_OPEN,
    )


def _told(tx: Transaction, row: Row[Any]) -> Waiting:
    facts = row.facts or {}
    told: dict[str, Any] = {
        "kind": row.kind,
        "at": row.at,
        "by": row.by,
        "detail": row.detail,
        "count": row.count,
        "study_uid": row.study_uid,
        "failed": row.kind in FAILED or bool(facts.get("failed")),
        "role": facts.get("role", ""),
        "address": facts.get("address", ""),
        "subject": facts.get("subject", ""),
        "requestors": tuple((one[0], one[1], one[2]) for one in facts.get("requestors", ())),
    }
    destination = ""
    if row.kind == RECEIVED:
        told |= _reception(tx, row)
    elif row.delivery_id is not None:
        destination, told["classes"] = _delivered(tx, row.delivery_id)
    elif row.job_id is not None and row.kind in _OF_RESULTS:
        told["classes"] = _results(tx, row.job_id)
    elif row.kind == "PURGED":
        told["classes"] = _instances(tx, row.study_id)
    elif "retrieval" in facts:
        told |= _fetched(tx, facts["retrieval"])
        destination = told.pop("peer")
    paths = () if row.study_id is None else _paths(tx, row.study_id, row.association_id)
    return Waiting(id=row.id, act=Act(**told), destination=destination, paths=paths)


def _reception(tx: Transaction, row: Row[Any]) -> dict[str, Any]:
    over = tx.connection.execute(
        select(association).where(association.c.id == row.association_id)
    ).first()
    if over is None:
        return {}
    ended = over.outcome or "left behind"
    return {
        "at": over.closed_at or row.at,
        "other": Other(ae_title=over.calling_ae, address=over.address),
        "classes": _instances(tx, row.study_id, row.association_id),
        "detail": f"association {ended}" if ended != "RELEASED" else "",
    }


def _instances(tx: Transaction, study_id: int, association_id: int | None = None) -> Classes:
    came = [] if association_id is None else [instance.c.association_id == association_id]
    return _counted(
        tx,
        select(instance.c.sop_class_uid, func.count())
        .join(series, series.c.id == instance.c.series_id)
        .where(series.c.study_id == study_id, *came)
        .group_by(instance.c.sop_class_uid)
        .order_by(instance.c.sop_class_uid),
    )


def _counted(tx: Transaction, statement: Select[Any]) -> Classes:
    return tuple((row[0], row[1], ()) for row in tx.connection.execute(statement))


def _results(tx: Transaction, job_id: int) -> Classes:
    rows = tx.connection.execute(
        select(result.c.sop_class_uid, result.c.sop_instance_uid)
        .where(result.c.job_id == job_id)
        .order_by(result.c.position)
    )
    return tuple((row[0], 1, (row[1],)) for row in rows)


def _delivered(tx: Transaction, delivery_id: int) -> tuple[str, Classes]:
    row = tx.connection.execute(
        select(delivery.c.destination, result.c.sop_class_uid, result.c.sop_instance_uid)
        .join(result, result.c.id == delivery.c.result_id)
        .where(delivery.c.id == delivery_id)
    ).one()
    return row[0], ((row[1], 1, (row[2],)),)


def _fetched(tx: Transaction, fetch_id: int) -> dict[str, Any]:
    row = tx.connection.execute(select(retrieval).where(retrieval.c.id == fetch_id)).one()
    return {"study_uid": row.study_uid, "by": row.requested_by, "peer": row.peer or ""}


def _paths(tx: Transaction, study_id: int, association_id: int | None) -> tuple[str, ...]:
    """Return the first file of the study, before it one that came over the association.

    What is recorded as purged may still lie there for a moment.
    """
    first = (
        select(instance.c.path)
        .join(series, series.c.id == instance.c.series_id)
        .where(series.c.study_id == study_id)
        .order_by(instance.c.purged_at.is_not(None), instance.c.id)
        .limit(1)
    )
    asked = [first]
    if association_id is not None:
        asked.insert(0, first.where(instance.c.association_id == association_id))
    found = [tx.connection.execute(one).scalar() for one in asked]
    return tuple(dict.fromkeys(path for path in found if path is not None))


def kept(tx: Transaction, sink: str, ids: Sequence[int]) -> None:
    """Record that messages are kept at a place."""
    tx.connection.execute(
        audit.update().where(audit.c.id.in_(ids)).values({_DONE[sink].name: tx.now})
    )


def sweep(tx: Transaction, sinks: Collection[str]) -> int:
    """Delete the records that are kept wherever they should be; return how many."""
    if not sinks:
        return 0
    everywhere = and_(*(_DONE[sink].is_not(None) for sink in sinks))
    gone = delete(audit).where(audit.c.node_id == tx.node_id, everywhere)
    return tx.connection.execute(gone).rowcount


def names(tx: Transaction, study_uid: str) -> bool:
    """Whether a record of a study waits."""
    found = exists().where(audit.c.study_id == study.c.id, study.c.study_uid == study_uid)
    return bool(tx.connection.execute(select(found)).scalar_one())
