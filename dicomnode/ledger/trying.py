"""A stored study as the rules would see it if it came now. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from sqlalchemy import or_, select

from dicomnode.domain.assembly import AssemblyPolicy
from dicomnode.domain.records import SeriesFacts
from dicomnode.domain.routing import Choice
from dicomnode.ledger.choosing import of_age, series_facts
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import series, study


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStudy:
    """A study as the rules see it."""

    study_uid: str
    series: Mapping[str, SeriesFacts]
    """By Series Instance UID."""
    allowed: partial[Choice]
    """Takes a choice, and returns none where the study was too old when it came."""


def stored_study(tx: Transaction, uid: str, policy: AssemblyPolicy) -> StoredStudy | None:
    """Return the facts of a study by its UID or that of one of its series; None: not known."""
    of_series = select(series.c.study_id).where(series.c.series_uid == uid)
    row = tx.connection.execute(
        select(study).where(or_(study.c.study_uid == uid, study.c.id.in_(of_series)))
    ).first()
    if row is None:
        return None
    rows = tx.connection.execute(select(series).where(series.c.study_id == row.id)).all()
    return StoredStudy(
        study_uid=row.study_uid,
        series=series_facts(tx, row.id, rows),
        allowed=partial(of_age, study_row=row, policy=policy),
    )
