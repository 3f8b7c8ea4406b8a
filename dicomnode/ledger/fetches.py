"""Fetches: who asked for what, how far it is, and what its end means for the study."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import exists, func, select

from dicomnode.domain.lifecycle import CLOSED, FETCHING, OPEN
from dicomnode.domain.outcomes import Done, Outcome
from dicomnode.domain.retrieval import SubOperations, Wanted
from dicomnode.ledger import outbox
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import instance, result, retrieval, series, study

LOST_AFTER = timedelta(seconds=60)
"""A fetch says that it lives every few seconds; after so long its process is gone."""


def begin(tx: Transaction, wanted: Wanted, who: str) -> int:
    """Record that somebody wants something fetched; return the fetch's id."""
    return tx.insert(
        retrieval,
        node_id=tx.node_id,
        study_uid=wanted.study_uid,
        series_uid=wanted.series_uid,
        state=FETCHING,
        requested_by=who,
        requested_at=tx.now,
        seen_at=tx.now,
    )


def take_back(tx: Transaction) -> int:
    """Fail what processes had under way that died; return how many."""
    lost = tx.connection.execute(
        select(retrieval.c.id).where(
            retrieval.c.node_id == tx.node_id,
            retrieval.c.state == FETCHING,
            retrieval.c.seen_at < tx.now - LOST_AFTER,
        )
    ).scalars()
    return sum(
        tx.move(
            retrieval,
            fetch_id,
            "fail",
            reason="FETCH_LOST",
            detail="the process that fetched ended in the midst",
            ended_at=tx.now,
        )
        for fetch_id in lost.all()
    )


def beat(
    tx: Transaction,
    fetch_id: int,
    *,
    peer: str,
    method: str | None,
    expected: int | None,
    operations: SubOperations,
) -> None:
    """Record that a fetch is under way, from whom and how, and how far it is."""
    tx.connection.execute(
        retrieval.update()
        .where(retrieval.c.id == fetch_id, retrieval.c.state == FETCHING)
        .values(
            seen_at=tx.now,
            peer=peer,
            method=method,
            expected=expected,
            remaining=operations.remaining,
            completed=operations.completed,
            failed=operations.failed,
            warning=operations.warning,
        )
    )


def finish(tx: Transaction, fetch_id: int, outcome: Outcome) -> None:
    """Record what a fetch came to.

    A study that was fetched is complete, and is analysed whatever its age: it is looked at again,
    even if it had been closed.
    """
    row = tx.connection.execute(select(retrieval).where(retrieval.c.id == fetch_id)).one()
    is_done = isinstance(outcome, Done)
    detail = outcome.warning if isinstance(outcome, Done) else outcome.detail
    moved = tx.move(
        retrieval,
        fetch_id,
        "fetched" if is_done else "fail",
        reason=None if outcome.code == "DONE" else outcome.code,
        detail=detail,
        ended_at=tx.now,
        seen_at=tx.now,
    )
    if not moved:
        return
    found = tx.connection.execute(
        select(study.c.id, study.c.state)
        .where(study.c.study_uid == row.study_uid)
        .with_for_update(key_share=True)
    ).first()
    from_whom = f"from {row.peer or 'no peer'} for {row.requested_by}"
    tx.event(
        "STUDY_FETCHED" if is_done else "FETCH_FAILED",
        level="info" if outcome.code == "DONE" else "warning",
        detail=f"{from_whom}: {outcome.code} {detail}".rstrip(),
        study=None if found is None else found.id,
    )
    facts = {"retrieval": fetch_id, "failed": not is_done}
    outbox.record(tx, "QUERIED", by=row.requested_by, detail=outcome.code, facts=facts)
    if found is None:
        return
    if found.state == CLOSED and is_done:
        opened = {"closed_at": None, "opened_at": tx.now, "due_at": tx.now, "look_at": tx.now}
        tx.move(study, found.id, "arrive", fetched_at=tx.now, **opened)
        return
    if is_done:
        tx.connection.execute(
            study.update().where(study.c.id == found.id).values(fetched_at=tx.now)
        )
    tx.connection.execute(
        study.update().where(study.c.id == found.id, study.c.state == OPEN).values(look_at=tx.now)
    )


def is_under_way(tx: Transaction, study_uid: str) -> bool:
    """Whether a study is being fetched just now."""
    return bool(
        tx.connection.execute(
            select(
                exists().where(
                    retrieval.c.study_uid == study_uid,
                    retrieval.c.state == FETCHING,
                    retrieval.c.seen_at >= tx.now - LOST_AFTER,
                )
            )
        ).scalar_one()
    )


def instances_here(tx: Transaction, study_uid: str) -> dict[str, int]:
    """Return how many instances of each series of a study lie here, by Series Instance UID."""
    rows = tx.connection.execute(
        select(series.c.series_uid, func.count(instance.c.id))
        .join(instance, instance.c.series_id == series.c.id)
        .join(study, study.c.id == series.c.study_id)
        .where(study.c.study_uid == study_uid)
        .group_by(series.c.series_uid)
    )
    return {row[0]: row[1] for row in rows}


def own_series(tx: Transaction, series_uids: list[str]) -> set[str]:
    """Return which of the series are results of this node, which are not kept again."""
    found = tx.connection.execute(
        select(result.c.series_uid).where(result.c.series_uid.in_(series_uids)).distinct()
    )
    return set(found.scalars())
