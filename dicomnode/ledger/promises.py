"""Storage commitment that this node gives: asked for, looked into, kept, reported, released.

What is promised is not purged until a person releases it: whoever was promised deletes its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, exists, select

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.lifecycle import ASKED, HELD
from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import instance, promise, series, study


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A request for commitment that waits for its report."""

    id: int
    peer: str
    """Its name in the configuration."""
    transaction_uid: str
    references: tuple[tuple[str, str], ...]
    """SOP Class and SOP Instance UIDs."""
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An instance that has its bytes here."""

    id: int
    sop_class_uid: str
    path: str
    digest: str


def ask(
    tx: Transaction, peer: str, transaction_uid: str, references: Sequence[tuple[str, str]]
) -> None:
    """Record a request; the same one twice is one."""
    tx.insert_once(
        promise,
        node_id=tx.node_id,
        peer=peer,
        transaction_uid=transaction_uid,
        state=ASKED,
        references=[list(one) for one in references],
        asked_at=tx.now,
        due_at=tx.now,
        attempt=0,
        detail="",
    )


def next_due(tx: Transaction) -> Promise | None:
    """Return the request whose turn it is to be reported on, or None."""
    row = tx.connection.execute(
        select(promise)
        .where(
            promise.c.state == ASKED, promise.c.node_id == tx.node_id, promise.c.due_at <= tx.now
        )
        .order_by(promise.c.due_at, promise.c.id)
        .limit(1)
    ).first()
    if row is None:
        return None
    return Promise(
        id=row.id,
        peer=row.peer,
        transaction_uid=row.transaction_uid,
        references=tuple((sop_class, sop_instance) for sop_class, sop_instance in row.references),
        attempt=row.attempt + 1,
    )


def kept(tx: Transaction, sop_instance_uids: Collection[str]) -> Mapping[str, Kept]:
    """Return those of these instances whose bytes this node should have, by SOP Instance UID.

    None of a study that is held: its instances came with two identities, and one lies aside.
    """
    found: dict[str, Kept] = {}
    uids = sorted(sop_instance_uids)
    for start in range(0, len(uids), 500):
        rows = tx.connection.execute(
            select(instance)
            .join(series, series.c.id == instance.c.series_id)
            .join(study, study.c.id == series.c.study_id)
            .where(
                instance.c.sop_instance_uid.in_(uids[start : start + 500]),
                study.c.state != HELD,
                *_here(tx),
            )
        )
        for row in rows:
            found[row.sop_instance_uid] = Kept(
                id=row.id, sop_class_uid=row.sop_class_uid, path=row.path, digest=row.digest
            )
    return found


def _here(tx: Transaction) -> tuple[ColumnElement[bool], ...]:
    return (
        instance.c.node_id == tx.node_id,
        instance.c.purged_at.is_(None),
        instance.c.rejected.is_(None),
    )


def keep(tx: Transaction, ids: Collection[int]) -> set[int]:
    """Exempt instances from purging; return which are: of the rest the bytes have gone meanwhile.

    It is on disk before anybody is told.
    """
    done: set[int] = set()
    wanted = sorted(ids)
    for start in range(0, len(wanted), 500):
        these = instance.c.id.in_(wanted[start : start + 500])
        tx.connection.execute(instance.update().where(these, *_here(tx)).values(promised_at=tx.now))
        rows = tx.connection.execute(select(instance.c.id).where(these, *_here(tx)))
        done |= set(rows.scalars())
    return done


def told(tx: Transaction, given: Promise, committed: int, failed: int) -> None:
    """Record that the peer has been told."""
    detail = f"{given.peer}: {committed} instances kept, {failed} not"
    values = {"attempt": given.attempt, "answered_at": tx.now, "detail": detail}
    if tx.move(promise, given.id, "answer", **values):
        tx.event("PROMISED", level="warning" if failed else "info", detail=detail)


def put_off(
    tx: Transaction, given: Promise, outcome: Retry | Refuse, wait: timedelta, most: timedelta
) -> None:
    """Record that the peer could not be told; after too long nobody tries again.

    What was promised stays exempt from purging: the peer may have heard.
    """
    detail = f"{outcome.code}: {outcome.detail}"
    asked_at = tx.connection.execute(
        select(promise.c.asked_at).where(promise.c.id == given.id)
    ).scalar_one()
    if tx.now - asked_at >= most:
        if tx.move(promise, given.id, "fail", attempt=given.attempt, detail=detail):
            tx.event("PROMISE_NOT_TOLD", level=ATTENTION, detail=f"{given.peer}: {detail}")
        return
    tx.connection.execute(
        promise.update()
        .where(promise.c.id == given.id)
        .values(attempt=given.attempt, due_at=tx.now + wait, detail=detail)
    )


def release(tx: Transaction, study_uid: str, who: str, reason: str) -> int:
    """Let instances of a study be purged although they were promised; return how many."""
    row = tx.connection.execute(select(study.c.id).where(study.c.study_uid == study_uid)).first()
    if row is None:
        return 0
    of_study = select(series.c.id).where(series.c.study_id == row.id)
    released = tx.connection.execute(
        instance.update()
        .where(instance.c.series_id.in_(of_study), instance.c.promised_at.is_not(None))
        .values(promised_at=None)
    ).rowcount
    if released:
        detail = f"by {who}: {released} instances: {reason}"
        tx.event("PROMISE_RELEASED", detail=detail, study=row.id, by=who)
    return released


def is_promised(tx: Transaction, study_id: int) -> bool:
    """Whether this node has committed to keeping instances of a study."""
    of_study: Any = select(series.c.id).where(series.c.study_id == study_id)
    found = exists().where(instance.c.series_id.in_(of_study), instance.c.promised_at.is_not(None))
    return bool(tx.connection.execute(select(found)).scalar_one())
