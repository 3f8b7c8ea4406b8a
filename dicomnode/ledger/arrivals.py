"""Which study and series an instance belongs to, and what its coming means for them.

They are made where they are missing; a closed study opens, and a late slice begins a generation
of its series. The instance itself is recorded by `intake`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CursorResult,
    Row,
    bindparam,
    exists,
    func,
    or_,
    select,
)

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.assembly import AssemblyPolicy, look_at, plausible, quiet_at
from dicomnode.domain.lifecycle import ARRIVED, DONE, HELD, LIVES, OPEN
from dicomnode.domain.records import Header
from dicomnode.ledger import deliveries
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import (
    delivery,
    job,
    series,
    study,
)

_PLACE = (
    select(
        study.c.id.label("study_id"),
        study.c.state,
        study.c.opened_at,
        study.c.due_at,
        study.c.purged_at,
        series.c.id,
        series.c.generation,
        series.c.modality,
        exists()
        .where(job.c.series_id == series.c.id, job.c.generation == series.c.generation)
        .label("taken_up"),
    )
    .join(series, series.c.study_id == study.c.id)
    .where(
        study.c.study_uid == bindparam("study_uid"), series.c.series_uid == bindparam("series_uid")
    )
    # With key_share others may still insert rows that refer to the study, such as events: those who
    # hold a lock that is needed here would otherwise wait for this one, and nobody could go on.
    .with_for_update(key_share=True, of=study)
)
_SERIES_CAME = (
    series.update()
    .where(series.c.id == bindparam("series"))
    .values(last_at=bindparam("now"), generation=bindparam("generation_now"))
)
_CAME: dict[str, Any] = {
    "last_at": bindparam("last"),
    "opened_at": bindparam("opened"),
    "due_at": bindparam("due"),
    "look_at": bindparam("look"),
}
_HELD_CAME = study.update().where(study.c.id == bindparam("row")).values(**_CAME)
_ARRIVE = LIVES[study.name]["arrive"]
_STUDY_CAME = _HELD_CAME.where(
    or_(*(study.c.state == source for source in sorted(_ARRIVE.sources)))
).values(state=_ARRIVE.target, closed_at=None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance belongs."""

    study_id: int
    series_id: int
    generation: int


def place_for(tx: Transaction, header: Header, policy: AssemblyPolicy, *, counts: bool) -> Place:
    """Make study and series if they are missing, and record that something came for them.

    Args:
        tx: the transaction; it holds the study's row from here on.
        header: of an instance that is new.
        policy: when its study closes.
        counts: False for what opens and triggers nothing.
    """
    row = _find(tx, header).first()
    if row is None:
        study_row = _study(tx, header, counts=counts)
        _series(tx, header, study_row.id)
        row = _find(tx, header).one()
    generation = row.generation
    if counts:
        if row.taken_up:
            generation += 1
            _supersede(tx, row.study_id, row.id, generation)
        tx.connection.execute(
            _SERIES_CAME, {"series": row.id, "now": tx.now, "generation_now": generation}
        )
        arrive(tx, row.study_id, row, policy, is_image=row.modality == "CT")
    if row.purged_at is not None:
        _has_bytes_again(tx, row.study_id)
    return Place(row.study_id, row.id, generation)


def came_again(tx: Transaction, header: Header, policy: AssemblyPolicy) -> None:
    """Record that the bytes of an instance came that had been purged; no generation begins."""
    row = _find(tx, header).one()
    arrive(tx, row.study_id, row, policy, is_image=row.modality == "CT")
    _has_bytes_again(tx, row.study_id)


def _find(tx: Transaction, header: Header) -> CursorResult[Any]:
    uids = {"study_uid": header.study_uid, "series_uid": header.series_uid}
    return tx.connection.execute(_PLACE, uids)


def _has_bytes_again(tx: Transaction, study_id: int) -> None:
    tx.connection.execute(study.update().where(study.c.id == study_id).values(purged_at=None))


def _study(tx: Transaction, header: Header, *, counts: bool) -> Row[Any]:
    created = tx.insert_once(
        study,
        study_uid=header.study_uid,
        node_id=tx.node_id,
        patient_key=header.patient_key,
        identity_digest=header.identity_digest,
        state=OPEN,
        first_at=tx.now,
        last_at=tx.now,
        study_at=plausible(header.study_at, tx.now),
        opened_at=tx.now,
        due_at=tx.now,
        look_at=tx.now,
    )
    # With key_share others may still insert rows that refer to the study, such as events: those who
    # hold a lock that is needed here would otherwise wait for this one, and nobody could go on.
    row = tx.connection.execute(
        select(study).where(study.c.study_uid == header.study_uid).with_for_update(key_share=True)
    ).one()
    if created:
        tx.event("STUDY_BEGAN", study=row.id)
        if not counts:
            tx.move(study, row.id, "close", closed_at=tx.now, due_at=None, look_at=None)
    return row


def _series(tx: Transaction, header: Header, study_id: int) -> None:
    tx.insert_once(
        series,
        study_id=study_id,
        series_uid=header.series_uid,
        modality=header.modality,
        series_number=header.series_number,
        description=header.series_description,
        body_part=header.body_part,
        slice_thickness_mm=header.slice_thickness_mm,
        requested_priority=header.requested_priority,
        last_at=tx.now,
    )


def is_taken_up(tx: Transaction, series_row: Row[Any]) -> bool:
    """Whether a job exists for what the series held so far."""
    return bool(
        tx.connection.execute(
            select(
                exists().where(
                    job.c.series_id == series_row.id, job.c.generation == series_row.generation
                )
            )
        ).scalar_one()
    )


def _supersede(tx: Transaction, study_id: int, series_id: int, generation: int) -> None:
    old = tx.connection.execute(
        select(job.c.id, job.c.state).where(
            job.c.series_id == series_id, job.c.generation < generation
        )
    ).all()
    delivered = 0
    for row in old:
        if row.state != DONE:
            tx.move(job, row.id, "cancel", reason="SUPERSEDED", updated_at=tx.now)
        deliveries.cancel_job(tx, row.id, "SUPERSEDED")
        delivered += tx.connection.execute(
            select(func.count())
            .select_from(delivery)
            .where(delivery.c.job_id == row.id, delivery.c.state.in_(ARRIVED))
        ).scalar_one()
    tx.event(
        "LATE_SLICE",
        level=ATTENTION if delivered else "info",
        detail=f"generation {generation} begins; {delivered} delivered objects are superseded",
        study=study_id,
        series=series_id,
    )


def arrive(
    tx: Transaction, study_id: int, study_row: Row[Any], policy: AssemblyPolicy, *, is_image: bool
) -> None:
    """Record that something came for a study of this state and these times."""
    opens = study_row.due_at is None  # it was closed
    opened_at = tx.now if opens else study_row.opened_at
    quiet = quiet_at(tx.now, policy, is_image=is_image, before=study_row.due_at)
    values = {
        "row": study_id,
        "last": tx.now,
        "opened": opened_at,
        "due": quiet,
        "look": look_at(tx.now, opened_at, quiet, policy),
    }
    tx.connection.execute(_HELD_CAME if study_row.state == HELD else _STUDY_CAME, values)
