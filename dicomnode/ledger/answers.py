"""What archives answer to the question how much they have of a study, and whom to ask next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, and_, case, exists, func, or_, select

from dicomnode.domain.assembly import ASK_AFTER_SECONDS, AssemblyPolicy
from dicomnode.domain.identifiers import SeriesUID
from dicomnode.domain.lifecycle import OPEN
from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import answer, association, instance, series, study


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A study to ask for."""

    study_id: int
    study_uid: str
    asked_at: datetime


def next_question(
    tx: Transaction, peer: str, calling_ae: str, policy: AssemblyPolicy
) -> Question | None:
    """Return the study that a peer is to be asked for next: whose last question is the oldest.

    Open, with something from that peer, still for a moment, and not asked for too shortly before.

    Args:
        peer: its name in the configuration, under which its answers are recorded.
        calling_ae: its AE title, under which it sends.
    """
    asked = (
        select(func.max(answer.c.asked_at))
        .where(
            answer.c.study_id == study.c.id,
            answer.c.peer == peer,
            answer.c.first_at >= study.c.opened_at,
        )
        .scalar_subquery()
    )
    sent_by_it = exists().where(
        and_(
            series.c.study_id == study.c.id,
            instance.c.series_id == series.c.id,
            association.c.id == instance.c.association_id,
            association.c.calling_ae == calling_ae,
        )
    )
    still = min(ASK_AFTER_SECONDS, policy.count_apart_seconds)
    earlier = tx.now - timedelta(seconds=policy.count_apart_seconds)
    row = tx.connection.execute(
        select(study.c.id, study.c.study_uid)
        .where(
            study.c.state == OPEN,
            study.c.node_id == tx.node_id,
            study.c.last_at <= tx.now - timedelta(seconds=still),
            or_(asked.is_(None), asked <= earlier),
            sent_by_it,
        )
        .order_by(func.coalesce(asked, study.c.opened_at), study.c.id)
        .limit(1)
    ).first()
    if row is None:
        return None
    return Question(study_id=row.id, study_uid=row.study_uid, asked_at=tx.now)


def record(tx: Transaction, question: Question, peer: str, counts: Mapping[SeriesUID, int]) -> None:
    """Record what a peer has of a study, by Series Instance UID; the study is looked at again.

    The same answer again makes the one before last longer, so that a row says from when to when
    nothing changed at the peer. An answer that comes when the study has closed is of no use.
    """
    row = _locked(tx, question)
    if row.state != OPEN:
        return
    newest = _newest(tx, row, peer)
    at = question.asked_at
    if newest is not None and newest.counts == dict(counts):
        tx.connection.execute(
            answer.update().where(answer.c.id == newest.id).values(last_at=at, asked_at=at)
        )
    else:
        _insert(tx, question, peer, {str(uid): count for uid, count in counts.items()})
    tx.connection.execute(
        study.update()
        .where(study.c.id == question.study_id)
        .values(look_at=case((study.c.look_at < tx.now, study.c.look_at), else_=tx.now))
    )


def record_none(tx: Transaction, question: Question, peer: str, why: Retry | Refuse) -> None:
    """Record that a peer was asked and gave no answer."""
    newest = _newest(tx, _locked(tx, question), peer)
    if newest is None:
        _insert(tx, question, peer, None)
    else:
        tx.connection.execute(
            answer.update().where(answer.c.id == newest.id).values(asked_at=question.asked_at)
        )
    tx.event_again("COUNT_UNKNOWN", level="warning", detail=f"{peer}: {why.code}: {why.detail}")


def newest(tx: Transaction, study_row: Row[Any]) -> list[Row[Any]]:
    """Return the newest answer of each peer since the study was opened."""
    found = tx.connection.execute(
        select(answer)
        .where(answer.c.study_id == study_row.id, answer.c.first_at >= study_row.opened_at)
        .order_by(answer.c.id)
    ).all()
    return list({one.peer: one for one in found}.values())


def _newest(tx: Transaction, study_row: Row[Any], peer: str) -> Row[Any] | None:
    return next((one for one in newest(tx, study_row) if one.peer == peer), None)


def _locked(tx: Transaction, question: Question) -> Row[Any]:
    return tx.connection.execute(
        select(study).where(study.c.id == question.study_id).with_for_update(key_share=True)
    ).one()


def _insert(tx: Transaction, question: Question, peer: str, counts: dict[str, int] | None) -> None:
    at = question.asked_at
    tx.connection.execute(
        answer.insert().values(
            study_id=question.study_id,
            peer=peer,
            first_at=at,
            last_at=at,
            asked_at=at,
            counts=counts,
        )
    )
