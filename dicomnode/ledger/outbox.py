"""Records for the audit trail, written in the transaction of what they are about.

They name studies, jobs and deliveries by their rows and no patient. `auditing` reads them again
when a message is made of them. Without room for them (`Ledger.audit_room`) nothing is written.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.audit import clean
from dicomnode.domain.audit_acts import AUDITED, LOST
from dicomnode.errors import LedgerError
from dicomnode.ledger.tables import audit, study

if TYPE_CHECKING:
    from dicomnode.ledger.core import Ledger, Transaction

log = logging.getLogger(__name__)

RECEIVED = "RECEIVED"
Noted = set[tuple[int, int]]
"""Associations and studies of which it is recorded that one brought something of the other."""
MOST_NOTED = 10_000
MOST_DETAIL = 1024

_INSERT = audit.insert()
# The youngest less the oldest: no row is counted, and none is missed.
_OF_NODE = audit.c.node_id == bindparam("node")
_SPAN = select(
    # Apart: of the two in one query SQLite reads every row.
    select(func.max(audit.c.id)).where(_OF_NODE).scalar_subquery()
    - select(func.min(audit.c.id)).where(_OF_NODE).scalar_subquery()
)
_RECEIVED = {
    name: dialect.insert(audit).on_conflict_do_nothing()
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}


def record(tx: Transaction, kind: str, *, by: str = "", detail: str = "", **about: Any) -> None:
    """Record an act, if there is an audit trail and acts of its kind stand in it.

    Args:
        tx: of what it is about.
        kind: of `domain.audit_acts`.
        by: the person who did it; empty: nobody but the node.
        detail: one sentence, without patient data.
        about: `study_id`, `job_id`, `delivery_id`, and `facts`.
    """
    if not tx.audit_room or kind not in AUDITED or not _has_room(tx):
        return
    values = {"at": tx.now, "node_id": tx.node_id, "kind": kind}
    said = {"by": clean(by), "detail": clean(detail, MOST_DETAIL)}
    tx.connection.execute(_INSERT, {**values, **said, **about})


def record_now(
    ledger: Ledger,
    kind: str,
    *,
    by: str = "",
    detail: str = "",
    study_uid: str | None = None,
    **facts: Any,
) -> None:
    """Record an act that changes nothing else in the ledger.

    A ledger that is away is logged, and stops nobody from what he does.
    """
    if not ledger.audit_room:
        return
    try:
        with ledger.transaction() as tx:
            found = None
            if study_uid is not None:
                known = select(study.c.id).where(study.c.study_uid == study_uid)
                found = tx.connection.execute(known).scalar()
            record(tx, kind, by=by, detail=detail, study_id=found, facts=facts)
    except LedgerError:
        log.exception("AUDIT_NOT_RECORDED", extra={"fields": {"kind": kind}})


def received(tx: Transaction, association_id: int | None, study_id: int) -> None:
    """Record once that something of a study came over an association.

    How much it was is counted when the association has ended, and not here.
    """
    if not tx.audit_room or association_id is None:
        return
    key = (association_id, study_id)
    if key in tx.noted or key in tx.noted_before or not _has_room(tx):
        return
    tx.noted.add(key)
    values = {"at": tx.now, "node_id": tx.node_id, "kind": RECEIVED, "by": "", "detail": ""}
    tx.connection.execute(
        _RECEIVED[tx.connection.dialect.name],
        {**values, "association_id": association_id, "study_id": study_id, "count": 1},
    )


def remember(before: Noted, noted: Noted) -> None:
    """Keep in mind what has been recorded and need not be looked for again; not for ever."""
    if noted:
        if len(before) > MOST_NOTED:
            before.clear()
        before |= noted


def _has_room(tx: Transaction) -> bool:
    """Whether another record may wait; if not, it is counted as lost."""
    span = tx.connection.execute(_SPAN, {"node": tx.node_id}).scalar()
    if span is None or span < tx.audit_room:
        return True
    counted = tx.connection.execute(
        audit.update()
        .where(
            audit.c.node_id == tx.node_id,
            audit.c.kind == LOST,
            audit.c.filed_at.is_(None),
            audit.c.sent_at.is_(None),
        )
        .values(count=audit.c.count + 1)
    )
    if counted.rowcount == 0:
        tx.connection.execute(
            _INSERT,
            {
                "at": tx.now,
                "node_id": tx.node_id,
                "kind": LOST,
                "by": "",
                "detail": "records came while there was no room for them (audit.max_waiting)",
            },
        )
        tx.event(
            "AUDIT_FULL",
            level=ATTENTION,
            detail=f"{tx.audit_room} records wait for the audit trail; no more are recorded",
        )
    return False
