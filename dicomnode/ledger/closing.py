"""Closing studies: the facts that the verdict needs, and what a verdict does."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, func, select

from dicomnode.domain.assembly import (
    OPEN_TOO_LONG,
    Answer,
    AssemblyPolicy,
    Close,
    EndGroup,
    OpenStudy,
    SeriesHere,
    Wait,
    has_ended,
    verdict,
)
from dicomnode.domain.lifecycle import OPEN
from dicomnode.ledger import answers, fetches
from dicomnode.ledger.choosing import Chooser, queue_jobs
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import instance, job, result, series, study


def close_due_study(
    tx: Transaction, chooser: Chooser, policy: AssemblyPolicy
) -> Close | Wait | None:
    """Look at one study that may be complete: close it and queue its jobs, or look again later.

    Returns:
        What was decided; None where there was none to look at.
    """
    row = tx.connection.execute(
        select(study)
        .where(study.c.state == OPEN, study.c.look_at <= tx.now, study.c.node_id == tx.node_id)
        .order_by(study.c.look_at)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    ).first()
    if row is None:
        return None
    decided = verdict(_facts(tx, row), policy, tx.now)
    if isinstance(decided, Wait):
        tx.connection.execute(
            study.update().where(study.c.id == row.id).values(look_at=decided.until)
        )
        return decided
    queued = queue_jobs(tx, row, chooser, policy)
    tx.move(
        study, row.id, "close", closed_at=tx.now, closed_by=decided.why, due_at=None, look_at=None
    )
    tx.event(
        "STUDY_CLOSED",
        detail=f"{queued} jobs queued; {decided.why}: {decided.detail}",
        study=row.id,
    )
    if decided.why == OPEN_TOO_LONG:
        tx.event(
            OPEN_TOO_LONG,
            level="warning",
            detail=f"closed although instances still came: {decided.detail}",
            study=row.id,
        )
    if decided.short:
        tx.event(
            "COUNT_SHORT",
            level="warning",
            detail=f"an archive has {decided.short} instances more of the series that came",
            study=row.id,
        )
    return decided


def _facts(tx: Transaction, row: Row[Any]) -> OpenStudy:
    own = set(
        tx.connection.execute(
            select(result.c.series_uid)
            .join(job, job.c.id == result.c.job_id)
            .where(job.c.study_id == row.id)
        ).scalars()
    )
    return OpenStudy(
        opened_at=row.opened_at,
        last_at=row.last_at,
        quiet_at=row.due_at,
        series=tuple(one for one in _series(tx, row.id) if one.series_uid not in own),
        answers=tuple(
            Answer(
                peer=found.peer,
                first_at=found.first_at,
                last_at=found.last_at,
                counts={uid: n for uid, n in found.counts.items() if n and uid not in own},
            )
            for found in answers.newest(tx, row)
            if found.counts is not None
        ),
        fetched_at=row.fetched_at,
        is_fetching=fetches.is_under_way(tx, row.study_uid),
    )


def _series(tx: Transaction, study_id: int) -> list[SeriesHere]:
    rows = tx.connection.execute(
        select(
            series.c.id,
            series.c.series_uid,
            series.c.modality,
            func.count(instance.c.id).label("instances"),
            func.coalesce(func.sum(instance.c.counts), 0).label("counting"),
        )
        .join(instance, instance.c.series_id == series.c.id)
        .where(series.c.study_id == study_id)
        .group_by(series.c.id, series.c.series_uid, series.c.modality)
    ).all()
    found = []
    for row in rows:
        is_image = row.modality == "CT" and row.counting > 0
        found.append(
            SeriesHere(
                series_uid=row.series_uid,
                instances=row.instances,
                is_image=is_image,
                ended=is_image and _has_ended(tx, row.id),
            )
        )
    return found


def _has_ended(tx: Transaction, series_id: int) -> bool:
    rows = tx.connection.execute(
        select(
            instance.c.end_group,
            func.count().label("instances"),
            func.count(func.distinct(instance.c.end_number)).label("distinct"),
            func.min(instance.c.end_number).label("first"),
            func.max(instance.c.end_number).label("last"),
            func.min(instance.c.end_total).label("least"),
            func.max(instance.c.end_total).label("most"),
        )
        .where(instance.c.series_id == series_id, instance.c.counts == 1)
        .group_by(instance.c.end_group)
    ).all()
    return has_ended(
        (
            EndGroup(
                instances=row.instances,
                distinct=row.distinct,
                first=row.first,
                last=row.last,
                least_total=row.least,
                most_total=row.most,
            )
            for row in rows
            if row.end_group is not None
        ),
        unstated=sum(row.instances for row in rows if row.end_group is None),
    )
