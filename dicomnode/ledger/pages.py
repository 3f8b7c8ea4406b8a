"""What the operator's page and its API show of studies. Plain data, ready for JSON.

Lists are paged by key: the place after which a page begins is the last row of the page before,
so that every page of a hundred thousand studies costs the same.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from dicomnode.domain.admission import ATTENTION
from dicomnode.ledger import overview
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import (
    association,
    delivery,
    event,
    instance,
    job,
    result,
    series,
    study,
)

Facts = dict[str, Any]

PAGE_ROWS = 50
MOST_ROWS = 200
MOST_EVENTS = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class BadPlaceError(ValueError):
    """A text that names no place in a list."""


def place_of(at: datetime, row_id: int) -> str:
    """Return a row's place in a list, as text."""
    return f"{(at - _EPOCH) // _MICROSECOND}-{row_id}"


def parse_place(text: str) -> tuple[datetime, int]:
    """Return the time and the id that a place stands for.

    Raises:
        BadPlaceError: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,16})-([0-9]{1,18})", text)
    if found is None:
        raise BadPlaceError("expected a place as in `next`")
    return _EPOCH + timedelta(microseconds=int(found[1])), int(found[2])


def studies(
    tx: Transaction,
    *,
    state: str | None = None,
    attention: bool = False,
    uid: str | None = None,
    after: str | None = None,
    limit: int = PAGE_ROWS,
) -> Facts:
    """Return a page of studies, the one with the newest image first.

    Args:
        state: only those in this state.
        attention: only those with an event that needs a person.
        uid: only those whose Study Instance UID begins so.
        after: the `next` of the page before.
        limit: rows.

    Returns:
        `studies`, and `next`: where the following page begins; None after the last one.

    Raises:
        BadPlaceError: `after` is no place.
    """
    where: list[ColumnElement[bool]] = []
    if state:
        where.append(study.c.state == state)
    if uid:
        where.append(study.c.study_uid.startswith(uid, autoescape=True))
    if attention:
        open_events = select(event.c.study_id).where(
            event.c.level == ATTENTION, event.c.resolved_at.is_(None), event.c.study_id.is_not(None)
        )
        where.append(study.c.id.in_(open_events))
    if after:
        at, row_id = parse_place(after)
        where.append(and_(study.c.last_at <= at, or_(study.c.last_at < at, study.c.id < row_id)))
    rows = tx.connection.execute(
        select(
            study.c.id,
            study.c.study_uid,
            study.c.state,
            study.c.hold_reason,
            study.c.first_at,
            study.c.last_at,
            study.c.closed_by,
        )
        .where(*where)
        .order_by(study.c.last_at.desc(), study.c.id.desc())
        .limit(limit + 1)
    ).all()
    shown = rows[:limit]
    more = _beside(tx, [row.id for row in shown])
    return {
        "studies": [
            {
                "study_uid": row.study_uid,
                "state": row.state,
                "hold_reason": row.hold_reason,
                "first_at": row.first_at.isoformat(),
                "last_at": row.last_at.isoformat(),
                "closed_by": row.closed_by,
                **more[row.id],
            }
            for row in shown
        ],
        "next": place_of(shown[-1].last_at, shown[-1].id) if len(rows) > limit else None,
    }


def _beside(tx: Transaction, ids: list[int]) -> dict[int, Facts]:
    """Return what the list says beside each of these studies' own columns."""
    found: dict[int, Facts] = {
        one: {"series": 0, "modalities": [], "instances": 0, "jobs": {}, "deliveries": {},
              "attention": []}
        for one in ids
    }  # fmt: skip
    for study_id, modality, count in tx.connection.execute(
        select(series.c.study_id, series.c.modality, func.count())
        .where(series.c.study_id.in_(ids))
        .group_by(series.c.study_id, series.c.modality)
        .order_by(series.c.modality)
    ):
        found[study_id]["series"] += count
        found[study_id]["modalities"].append(modality)
    for study_id, count in tx.connection.execute(
        select(series.c.study_id, func.count())
        .join(instance, instance.c.series_id == series.c.id)
        .where(series.c.study_id.in_(ids))
        .group_by(series.c.study_id)
    ):
        found[study_id]["instances"] = count
    for study_id, state, count in tx.connection.execute(
        select(job.c.study_id, job.c.state, func.count())
        .where(job.c.study_id.in_(ids))
        .group_by(job.c.study_id, job.c.state)
    ):
        found[study_id]["jobs"][state] = count
    for study_id, state, count in tx.connection.execute(
        select(job.c.study_id, delivery.c.state, func.count())
        .join(delivery, delivery.c.job_id == job.c.id)
        .where(job.c.study_id.in_(ids))
        .group_by(job.c.study_id, delivery.c.state)
    ):
        found[study_id]["deliveries"][state] = count
    for study_id, code in tx.connection.execute(
        select(event.c.study_id, event.c.code)
        .where(event.c.study_id.in_(ids), event.c.level == ATTENTION, event.c.resolved_at.is_(None))
        .order_by(event.c.id)
    ):
        found[study_id]["attention"].append(code)
    return found


def study_facts(tx: Transaction, study_uid: str) -> Facts | None:
    """Return all that is known of a study, or None: series, jobs, results, deliveries, events."""
    row = tx.connection.execute(select(study).where(study.c.study_uid == study_uid)).first()
    if row is None:
        return None
    jobs = _plain_rows(tx, _jobs().where(job.c.study_id == row.id).order_by(job.c.id))
    results = defaultdict(list)
    for one in _plain_rows(tx, _results(row.id)):
        results[one.pop("job_id")].append(one)
    deliveries = defaultdict(list)
    for one in _plain_rows(tx, _deliveries(row.id)):
        deliveries[one["job_id"]].append(one)
    for one in jobs:
        one["results"] = results[one["id"]]
        one["deliveries"] = deliveries[one["id"]]
    events = _plain_rows(
        tx,
        select(
            event.c.id, event.c.at, event.c.level, event.c.code, event.c.detail, event.c.count,
            event.c.job_id, event.c.delivery_id, event.c.resolved_at, series.c.series_number,
        )
        .join(series, series.c.id == event.c.series_id, isouter=True)
        .where(event.c.study_id == row.id)
        .order_by(event.c.id.desc())
        .limit(MOST_EVENTS),
    )  # fmt: skip
    shown = ("study_uid", "state", "hold_reason", "first_at", "last_at", "study_at", "due_at",
             "closed_at", "closed_by", "identity_revision")  # fmt: skip
    return {
        **{name: overview.plain(row._mapping[name]) for name in shown},
        "series": overview.series_of(tx, study_uid),
        "jobs": jobs,
        "events": events[::-1],
        "associations": _plain_rows(tx, _associations(row.id)),
    }


def first_file(tx: Transaction, study_uid: str) -> str | None:
    """Return where one of a study's images lies in the spool, or None."""
    found = tx.connection.execute(
        select(instance.c.path)
        .join(series, series.c.id == instance.c.series_id)
        .join(study, study.c.id == series.c.study_id)
        .where(study.c.study_uid == study_uid, instance.c.purged_at.is_(None))
        .order_by(instance.c.id)
        .limit(1)
    )
    return found.scalar()


def result_file(tx: Transaction, result_id: int) -> Facts | None:
    """Return kind, SOP Instance UID, place in the spool and study of a result, or None."""
    found = _plain_rows(
        tx,
        select(
            result.c.kind, result.c.sop_instance_uid, result.c.path, result.c.job_id,
            study.c.study_uid,
        )
        .join(job, job.c.id == result.c.job_id)
        .join(study, study.c.id == job.c.study_id)
        .where(result.c.id == result_id),
    )  # fmt: skip
    return found[0] if found else None


def study_of_job(tx: Transaction, job_id: int) -> str | None:
    """Return the Study Instance UID of a job, or None."""
    found = tx.connection.execute(
        select(study.c.study_uid).join(job, job.c.study_id == study.c.id).where(job.c.id == job_id)
    )
    return found.scalar()


def failures(tx: Transaction, limit: int = PAGE_ROWS) -> list[Facts]:
    """Return jobs that were refused or are in quarantine, newest first."""
    found = _jobs().where(job.c.state.in_(("REFUSED", "QUARANTINED")))
    return _plain_rows(tx, found.order_by(job.c.updated_at.desc()).limit(limit))


def waiting(tx: Transaction, limit: int = PAGE_ROWS) -> list[Facts]:
    """Return jobs that are being analysed or wait for it, in the order in which they came."""
    found = _jobs().where(job.c.state.in_(("LEASED", "QUEUED")))
    return _plain_rows(tx, found.order_by(job.c.state, job.c.created_at).limit(limit))


def attention(tx: Transaction, limit: int = PAGE_ROWS) -> list[Facts]:
    """Return what needs a person, newest first."""
    return _plain_rows(
        tx,
        select(
            event.c.id, event.c.at, event.c.code, event.c.detail, event.c.count, event.c.job_id,
            event.c.delivery_id, study.c.study_uid, job.c.reason, job.c.state.label("job_state"),
            delivery.c.reason.label("delivery_reason"),
        )
        .join(study, study.c.id == event.c.study_id, isouter=True)
        .join(job, job.c.id == event.c.job_id, isouter=True)
        .join(delivery, delivery.c.id == event.c.delivery_id, isouter=True)
        .where(event.c.level == ATTENTION, event.c.resolved_at.is_(None))
        .order_by(event.c.id.desc())
        .limit(limit),
    )  # fmt: skip


def how_much_attention(tx: Transaction) -> dict[str, int]:
    """Return how many events need a person, by code."""
    rows = tx.connection.execute(
        select(event.c.code, func.count())
        .where(event.c.level == ATTENTION, event.c.resolved_at.is_(None))
        .group_by(event.c.code)
        .order_by(event.c.code)
    )
    return dict(Counter({row[0]: row[1] for row in rows}))


def _jobs() -> Select[Any]:
    return (
        select(
            job.c.id, study.c.study_uid, series.c.series_uid, series.c.series_number,
            series.c.description, job.c.model_id, job.c.generation, job.c.rule, job.c.state,
            job.c.attempt, job.c.failures, job.c.stage, job.c.progress, job.c.reason, job.c.detail,
            job.c.findings, job.c.timings, job.c.destinations, job.c.created_at, job.c.analysed_at,
            job.c.updated_at, job.c.due_at,
        )
        .join(study, study.c.id == job.c.study_id)
        .join(series, series.c.id == job.c.series_id)
    )  # fmt: skip


def _results(study_id: int) -> Select[Any]:
    return (
        select(
            result.c.id, result.c.job_id, result.c.kind, result.c.sop_instance_uid,
            result.c.sop_class_uid, result.c.series_uid, result.c.size, result.c.summary,
            result.c.withdraw_reason, result.c.path, result.c.created_at,
        )
        .join(job, job.c.id == result.c.job_id)
        .where(job.c.study_id == study_id)
        .order_by(result.c.job_id, result.c.position)
    )  # fmt: skip


def _deliveries(study_id: int) -> Select[Any]:
    return (
        select(
            delivery.c.id, delivery.c.job_id, delivery.c.result_id, delivery.c.destination,
            delivery.c.in_place_of, delivery.c.state, delivery.c.attempt, delivery.c.last_status,
            delivery.c.reason, delivery.c.detail, delivery.c.due_at, delivery.c.created_at,
            delivery.c.updated_at, result.c.kind,
        )
        .join(job, job.c.id == delivery.c.job_id)
        .join(result, result.c.id == delivery.c.result_id)
        .where(job.c.study_id == study_id)
        .order_by(delivery.c.job_id, delivery.c.destination, delivery.c.position)
    )  # fmt: skip


def _associations(study_id: int) -> Select[Any]:
    brought = (
        select(instance.c.association_id, func.count().label("of_this_study"))
        .join(series, series.c.id == instance.c.series_id)
        .where(series.c.study_id == study_id, instance.c.association_id.is_not(None))
        .group_by(instance.c.association_id)
        .subquery()
    )
    return (
        select(
            association.c.calling_ae, association.c.address, association.c.opened_at,
            association.c.closed_at, association.c.outcome, brought.c.of_this_study,
        )
        .join(brought, brought.c.association_id == association.c.id)
        .order_by(association.c.id)
    )  # fmt: skip


def _plain_rows(tx: Transaction, statement: Select[Any]) -> list[Facts]:
    return [
        {key: overview.plain(value) for key, value in row._mapping.items()}
        for row in tx.connection.execute(statement)
    ]
