"""Whose results a job's are: where they belong in a folder."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from dicomnode.domain.identifiers import SeriesUID, StudyUID
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import job, series, study


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What an analysis was of."""

    study_uid: StudyUID
    series_uid: SeriesUID
    """Of the source."""
    model_id: str


def place_of(tx: Transaction, job_id: int) -> Place:
    """Return what a job was of."""
    row = tx.connection.execute(
        select(study.c.study_uid, series.c.series_uid, job.c.model_id)
        .join(study, study.c.id == job.c.study_id)
        .join(series, series.c.id == job.c.series_id)
        .where(job.c.id == job_id)
    ).one()
    return Place(
        study_uid=StudyUID(row.study_uid),
        series_uid=SeriesUID(row.series_uid),
        model_id=row.model_id,
    )
