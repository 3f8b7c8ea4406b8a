"""Storage commitment of what was delivered: asked for, reported on, asked for again."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, select

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.commitment import (
    INVALID_ARGUMENT_VALUE,
    CommitmentReport,
    Verdict,
    judge,
)
from dicomnode.domain.lifecycle import ASKED, DELIVERED
from dicomnode.domain.outcomes import Backoff, Refuse, Retry
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import commitment, delivery, job, result

MOST_REFERENCES = 500
SILENT_TIMES = 3
"""An archive that has not reported so often in a row needs a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A transaction that has begun: the request for it is to be sent."""

    id: int
    transaction_uid: str
    references: tuple[tuple[str, str], ...]
    """SOP Class and SOP Instance UIDs."""


def _due(tx: Transaction, destination: str) -> ColumnElement[bool]:
    return and_(
        delivery.c.state == DELIVERED,
        delivery.c.destination == destination,
        delivery.c.node_id == tx.node_id,
        delivery.c.commitment_id.is_(None),
        delivery.c.commit_at <= tx.now,
    )


def is_due(tx: Transaction, destination: str) -> bool:
    """Whether commitment is to be asked for now."""
    return bool(tx.connection.execute(select(exists().where(_due(tx, destination)))).scalar_one())


def begin(tx: Transaction, destination: str, wait: timedelta) -> Request | None:
    """Begin a transaction for what is due, with a Transaction UID of its own, or return None.

    Args:
        tx: the ledger's transaction.
        destination: whose.
        wait: for the report; without one by then it is asked again.
    """
    rows = tx.connection.execute(
        select(delivery.c.id, result.c.sop_class_uid, result.c.sop_instance_uid)
        .join(result, result.c.id == delivery.c.result_id)
        .where(_due(tx, destination))
        .order_by(delivery.c.id)
        .limit(MOST_REFERENCES)
        .with_for_update(skip_locked=True, key_share=True, of=delivery)
    ).all()
    if not rows:
        return None
    uid = f"2.25.{uuid.uuid4().int}"
    begun = tx.insert(
        commitment,
        node_id=tx.node_id,
        destination=destination,
        transaction_uid=uid,
        state=ASKED,
        deliveries=[row.id for row in rows],
        asked_at=tx.now,
        due_at=tx.now + wait,
    )
    tx.connection.execute(
        delivery.update()
        .where(delivery.c.id.in_([row.id for row in rows]))
        .values(commitment_id=begun, commit_attempt=delivery.c.commit_attempt + 1)
    )
    references = tuple((row.sop_class_uid, row.sop_instance_uid) for row in rows)
    return Request(id=begun, transaction_uid=uid, references=references)


def not_asked(
    tx: Transaction, request: Request, outcome: Retry | Refuse, backoff: Backoff, *, required: bool
) -> None:
    """Record that the request did not reach the archive, or was refused.

    Args:
        tx: the ledger's transaction.
        request: that was to be sent.
        outcome: why it was not.
        backoff: until it is sent again, with another Transaction UID.
        required: if not, an archive that refuses is not asked again.
    """
    row = _get(tx, commitment.c.id == request.id)
    if not tx.move(commitment, row.id, "refuse", reason=outcome.code, detail=outcome.detail):
        return
    again = required or isinstance(outcome, Retry)
    first = _let_go(tx, row, backoff if again else None, outcome.code)
    if isinstance(outcome, Refuse) and first:
        tx.event(
            "COMMITMENT_NOT_OFFERED",
            level=ATTENTION if required else "warning",
            detail=f"{row.destination}: {outcome.code}: {outcome.detail}",
        )


def time_out(tx: Transaction, destination: str, backoff: Backoff) -> int:
    """Give up waiting for reports that are overdue, and ask again; return for how many."""
    rows = tx.connection.execute(
        select(commitment).where(
            commitment.c.state == ASKED,
            commitment.c.destination == destination,
            commitment.c.node_id == tx.node_id,
            commitment.c.due_at <= tx.now,
        )
    ).all()
    for row in rows:
        if not tx.move(commitment, row.id, "silence"):
            continue
        times = max((one.commit_attempt for one in _current(tx, row)), default=0)
        _let_go(tx, row, backoff, "COMMITMENT_SILENT")
        if times:
            level = ATTENTION if times == SILENT_TIMES else "warning"
            detail = f"no report from {row.destination}, {times} times: it is asked again"
            tx.event("COMMITMENT_SILENT", level=level, detail=detail)
    return len(rows)


def answered(
    tx: Transaction, destinations: Collection[str], report: CommitmentReport, backoff: Backoff
) -> int:
    """Take in a report; return the status of the answer to it.

    Safe to repeat. A report that comes after its transaction was given up still says what the
    archive has taken responsibility for; what it lacked then it may have by now.

    Args:
        tx: the ledger's transaction.
        destinations: that stand behind who reports.
        report: what it says.
        backoff: until failures are sent again.
    """
    row = _get(
        tx,
        commitment.c.transaction_uid == report.transaction_uid,
        commitment.c.node_id == tx.node_id,
    )
    if row is None or row.destination not in destinations:
        detail = f"from {' or '.join(sorted(destinations)) or 'no destination'}"
        tx.event_again("COMMITMENT_UNKNOWN", level="warning", detail=detail)
        return INVALID_ARGUMENT_VALUE
    tx.move(commitment, row.id, "answer", answered_at=tx.now)
    for one in _deliveries(tx, delivery.c.id.in_(row.deliveries)):
        verdict, why = judge(report, one.sop_instance_uid, one.commit_attempt)
        if verdict is Verdict.COMMITTED:
            _commit(tx, one)
        elif one.commitment_id == row.id and one.state == DELIVERED:
            _not_committed(tx, one, verdict, why, backoff)
    return 0x0000


def _commit(tx: Transaction, one: Any) -> None:
    values = {"commitment_id": None, "commit_at": None, "reason": None, "detail": ""}
    if tx.move(delivery, one.id, "commit", updated_at=tx.now, **values):
        _tell(tx, one, "COMMITTED", "info", "")


def _not_committed(tx: Transaction, one: Any, verdict: Verdict, why: str, backoff: Backoff) -> None:
    next_time = tx.now + backoff.after(one.commit_attempt, 0.5)
    if verdict is Verdict.RESEND:
        values = {"due_at": next_time, "reason": "NOT_COMMITTED", "detail": why}
        values |= {"commitment_id": None, "commit_at": None, "updated_at": tx.now}
        if tx.move(delivery, one.id, "resend", **values):
            _tell(tx, one, "NOT_COMMITTED", "warning", f"{why}: it is sent again")
        return
    refused = verdict is Verdict.REFUSED
    tx.connection.execute(
        delivery.update()
        .where(delivery.c.id == one.id)
        .values(
            commitment_id=None,
            commit_at=None if refused else next_time,
            reason="COMMITMENT_REFUSED" if refused else "NOT_COMMITTED",
            detail=why,
        )
    )
    if refused:
        _tell(tx, one, "COMMITMENT_REFUSED", ATTENTION, why)


def _tell(tx: Transaction, one: Any, code: str, level: str, why: str) -> None:
    tx.event(
        code,
        level=level,
        detail=f"{one.kind} at {one.destination}" + (f": {why}" if why else ""),
        study=one.study_id,
        job=one.job_id,
        delivery=one.id,
    )


def _let_go(tx: Transaction, row: Any, backoff: Backoff | None, reason: str) -> bool:
    """Take deliveries out of a transaction that came to nothing; whether it was their first."""
    first = False
    for one in _current(tx, row):
        first = first or one.commit_attempt <= 1
        due = None if backoff is None else tx.now + backoff.after(one.commit_attempt, 0.5)
        tx.connection.execute(
            delivery.update()
            .where(delivery.c.id == one.id)
            .values(commitment_id=None, commit_at=due, reason=reason)
        )
    return first


def _current(tx: Transaction, row: Any) -> Sequence[Any]:
    """Return the deliveries that still wait for the report of a transaction."""
    return _deliveries(tx, delivery.c.commitment_id == row.id, delivery.c.state == DELIVERED)


def _deliveries(tx: Transaction, *where: ColumnElement[bool]) -> Sequence[Any]:
    found = tx.connection.execute(
        select(delivery, result.c.kind, result.c.sop_instance_uid, job.c.study_id)
        .join(result, result.c.id == delivery.c.result_id)
        .join(job, job.c.id == delivery.c.job_id)
        .where(*where)
        .order_by(delivery.c.id)
    )
    return found.all()


def _get(tx: Transaction, *where: ColumnElement[bool]) -> Any:
    return tx.connection.execute(select(commitment).where(*where)).first()
