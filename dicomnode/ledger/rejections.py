"""What a rejection note does to the ledger (IHE RAD TF, Imaging Object Change Management).

A note of a peer that is trusted takes the instances it names out of every analysis, stops what was
under way with them and marks the results that were made of them for withdrawal. A note of anybody
else is kept, told to a person, and has no effect.

Images rejected for quality, for the patient's safety or for a wrong worklist entry are wrong: what
is left of their series is another content, and is analysed as a new generation. Images whose
retention has expired are not wrong, only gone: what is left of their series is nothing to analyse
anew, and one that comes for the first time after such a note counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select

from dicomnode.domain.admission import ATTENTION, SUCCESS, Decision, Fate
from dicomnode.domain.assembly import AssemblyPolicy
from dicomnode.domain.identifiers import InstanceUID
from dicomnode.domain.lifecycle import DONE
from dicomnode.domain.records import RETENTION_EXPIRED, Header, Rejection
from dicomnode.ledger import deliveries, withdrawals
from dicomnode.ledger.arrivals import arrive, is_taken_up
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import instance, job, rejection, result, series, study

_AT_ONCE = 500
"""UIDs in one statement: SQLite bounds its variables."""


@dataclass(slots=True)
class _Effect:
    """What a note did, for its event."""

    instances: int = 0
    series: int = 0
    stopped: int = 0
    cancelled: int = 0
    withdrawn: int = 0

    def __str__(self) -> str:
        return (
            f"{self.instances} instances of {self.series} series taken out, {self.stopped} jobs and"
            f" {self.cancelled} deliveries stopped, {self.withdrawn} results to be withdrawn"
        )


def consider(
    tx: Transaction, header: Header, decision: Decision, policy: AssemblyPolicy, *, trusted: bool
) -> None:
    """Do what an instance that has come demands, if it is a rejection note.

    The same note may come again: from a peer that is trusted, after one that is not.
    """
    note = header.rejection
    if (
        note is None
        or decision.status != SUCCESS
        or decision.fate not in (Fate.STORE, Fate.DROP)
        or header.made_by_this_software
    ):
        return
    if trusted:
        _honour(tx, note, header.sop_instance_uid, policy)
    elif decision.fate is Fate.STORE:
        study_id = tx.connection.execute(
            select(study.c.id).where(study.c.study_uid == header.study_uid)
        ).scalar()
        tx.event(
            "REJECTION_NOT_TRUSTED",
            level=ATTENTION,
            detail=f"{note.code} for {len(note.instances)} instances, from a peer without"
            " authority: kept, without effect",
            study=study_id,
        )


def _honour(
    tx: Transaction, note: Rejection, note_uid: InstanceUID, policy: AssemblyPolicy
) -> None:
    named: list[Any] = []
    for some in _chunks(note.instances):
        known = set(
            tx.connection.execute(
                select(rejection.c.sop_instance_uid).where(
                    rejection.c.note_uid == note_uid, rejection.c.sop_instance_uid.in_(some)
                )
            ).scalars()
        )
        fresh = [
            {"sop_instance_uid": uid, "note_uid": note_uid, "code": note.code, "at": tx.now}
            for uid in some
            if uid not in known
        ]
        if not fresh:
            continue
        tx.connection.execute(rejection.insert(), fresh)
        named += tx.connection.execute(
            select(instance.c.id, instance.c.series_id, series.c.study_id)
            .join(series, series.c.id == instance.c.series_id)
            .where(instance.c.sop_instance_uid.in_([one["sop_instance_uid"] for one in fresh]))
            .where(instance.c.counts == 1)
        ).all()
        _reject_results(tx, note, some)
    for study_id in sorted({row.study_id for row in named}):
        _reject_in_study(tx, note, study_id, [r for r in named if r.study_id == study_id], policy)


def _reject_in_study(
    tx: Transaction,
    note: Rejection,
    study_id: int,
    named: Sequence[Row[Any]],
    policy: AssemblyPolicy,
) -> None:
    # Locked as intake does, before anything of it is changed.
    study_row = tx.connection.execute(
        select(study).where(study.c.id == study_id).with_for_update(key_share=True)
    ).one()
    effect = _Effect(instances=len(named))
    for some in _chunks([row.id for row in named]):
        tx.connection.execute(
            instance.update()
            .where(instance.c.id.in_(some))
            .values(counts=0, rejected=f"REJECTED_{note.code}")
        )
    begins_anew = False
    for series_id in sorted({row.series_id for row in named}):
        effect.series += 1
        begins_anew |= _reject_in_series(tx, note, series_id, effect)
    if begins_anew:
        arrive(tx, study_id, study_row, policy, is_image=True)
    tx.event("REJECTED", level=ATTENTION, detail=f"{note.code}: {effect}", study=study_id)


def _reject_in_series(tx: Transaction, note: Rejection, series_id: int, effect: _Effect) -> bool:
    """Stop what was made of a series; return whether a new generation of it begins."""
    series_row = tx.connection.execute(select(series).where(series.c.id == series_id)).one()
    anew = note.code != RETENTION_EXPIRED and is_taken_up(tx, series_row)
    reason = f"REJECTED_{note.code}"
    for row in tx.connection.execute(
        select(job.c.id, job.c.state).where(job.c.series_id == series_id)
    ).all():
        if row.state != DONE:
            effect.stopped += tx.move(job, row.id, "cancel", reason=reason, updated_at=tx.now)
        effect.cancelled += deliveries.cancel_job(tx, row.id, reason)
        effect.withdrawn += withdrawals.mark(tx, row.id, reason)
    if anew:
        tx.connection.execute(
            series.update()
            .where(series.c.id == series_id)
            .values(generation=series_row.generation + 1)
        )
    return anew


def _reject_results(tx: Transaction, note: Rejection, uids: Sequence[InstanceUID]) -> None:
    """Stop the result sets of which the note rejects an object: an archive says they are wrong."""
    rows = tx.connection.execute(
        select(result.c.job_id, job.c.study_id)
        .join(job, job.c.id == result.c.job_id)
        .where(result.c.sop_instance_uid.in_(uids), result.c.withdraw_at.is_(None))
        .distinct()
    ).all()
    for row in rows:
        reason = f"REJECTED_{note.code}"
        cancelled = deliveries.cancel_job(tx, row.job_id, reason)
        withdrawn = withdrawals.mark(tx, row.job_id, reason)
        tx.event(
            "RESULT_REJECTED",
            level=ATTENTION,
            detail=f"{note.code}: {cancelled} deliveries stopped, {withdrawn} results to be"
            " withdrawn",
            study=row.study_id,
            job=row.job_id,
        )


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]
