"""What is old enough to go, and the record that it went: instances, results, events.

A purge has two steps, each with the study's row locked as intake locks it: first the ledger says
that the bytes are gone, then they go. What ends in between is finished at the next start; and an
instance that comes again meanwhile has bytes once more, which stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, delete, exists, func, or_, select

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.lifecycle import CANCELLED, CLOSED, DONE, HELD, REFUSED
from dicomnode.domain.retention import (
    DeliveryFacts,
    JobFacts,
    RetentionPolicy,
    StudyFacts,
    keeps_input,
    keeps_results,
)
from dicomnode.ledger import promises
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import association, delivery, event, instance, job, series, study

_AT_ONCE = 5000


def old_studies(tx: Transaction, before: datetime) -> list[int]:
    """Return the closed studies of this node that have bytes and were quiet since `before`."""
    rows = tx.connection.execute(
        select(study.c.id)
        .where(
            study.c.purged_at.is_(None),
            study.c.last_at <= before,
            study.c.state == CLOSED,
            study.c.node_id == tx.node_id,
        )
        .order_by(study.c.last_at)
    )
    return list(rows.scalars())


def purge_study(
    tx: Transaction, study_id: int, policy: RetentionPolicy, must_commit: Collection[str]
) -> str | None:
    """Record that the bytes of a study's instances are gone, if nobody needs them any more.

    Returns:
        Why it is kept; None: the bytes may be removed (`removing_study`).
    """
    row = _locked(tx, study_id)
    facts = StudyFacts(
        state=row.state,
        last_at=row.last_at,
        jobs=_jobs(tx, job.c.study_id == row.id),
        is_promised=promises.is_promised(tx, row.id),
    )
    why = keeps_input(facts, policy, must_commit, tx.now)
    if why is not None:
        return why
    here = instance.c.id.in_(_instances_of(study_id).where(instance.c.purged_at.is_(None)))
    count, size = tx.connection.execute(
        select(func.count(), func.coalesce(func.sum(instance.c.size), 0)).where(here)
    ).one()
    # What is promised at this very moment stays.
    tx.connection.execute(
        instance.update().where(here, instance.c.promised_at.is_(None)).values(purged_at=tx.now)
    )
    tx.connection.execute(study.update().where(study.c.id == study_id).values(purged_at=tx.now))
    tx.event("PURGED", detail=f"{count} instances, {size} bytes", study=study_id)
    return None


def removing_study(tx: Transaction, study_id: int, remove: Callable[[str], None]) -> str:
    """Have the bytes removed of what is recorded as purged, while nothing of it can come again.

    Returns:
        The Study Instance UID.
    """
    row = _locked(tx, study_id)
    purged = select(instance.c.path).join(series, series.c.id == instance.c.series_id)
    for path in tx.connection.execute(
        purged.where(
            series.c.study_id == study_id,
            instance.c.purged_at.is_not(None),
            instance.c.node_id == tx.node_id,
        )
    ).scalars():
        remove(path)
    return str(row.study_uid)


def purged_studies(tx: Transaction, study_uids: Collection[str]) -> list[int]:
    """Return which of these studies are recorded as purged."""
    rows = tx.connection.execute(
        select(study.c.id).where(
            study.c.study_uid.in_(sorted(study_uids)), study.c.purged_at.is_not(None)
        )
    )
    return list(rows.scalars())


def old_results(tx: Transaction, before: datetime) -> list[int]:
    """Return the jobs of this node that ended before and may have results in the spool."""
    rows = tx.connection.execute(
        select(job.c.id)
        .where(
            job.c.results_purged_at.is_(None),
            job.c.updated_at <= before,
            job.c.state.in_((DONE, REFUSED, CANCELLED)),
            job.c.node_id == tx.node_id,
        )
        .order_by(job.c.updated_at)
    )
    return list(rows.scalars())


def purge_results(
    tx: Transaction, job_id: int, policy: RetentionPolicy, must_commit: Collection[str]
) -> str | None:
    """Record that the bytes of a job's results are gone, if nobody needs them any more.

    Returns:
        Why they are kept; None: the bytes may be removed.
    """
    row = tx.connection.execute(select(job.c.study_id).where(job.c.id == job_id)).one()
    _locked(tx, row.study_id)
    (facts,) = _jobs(tx, job.c.id == job_id)
    why = keeps_results(facts, policy, must_commit, tx.now)
    if why is None:
        tx.connection.execute(
            job.update().where(job.c.id == job_id).values(results_purged_at=tx.now)
        )
        tx.event("RESULTS_PURGED", study=row.study_id, job=job_id)
    return why


def purged_results(tx: Transaction, job_ids: Collection[int]) -> list[int]:
    """Return which of these jobs are recorded as having no results in the spool any more."""
    rows = tx.connection.execute(
        select(job.c.id).where(job.c.id.in_(sorted(job_ids)), job.c.results_purged_at.is_not(None))
    )
    return list(rows.scalars())


def lacks_bytes(tx: Transaction, series_id: int) -> bool:
    """Whether instances of a series that count are purged: what is here must not be taken alone."""
    purged = exists().where(
        instance.c.series_id == series_id,
        instance.c.counts == 1,
        instance.c.purged_at.is_not(None),
    )
    return bool(tx.connection.execute(select(purged)).scalar_one())


def in_held_studies(tx: Transaction, sop_instance_uids: Collection[str]) -> set[str]:
    """Return which of these instances are of studies that are held."""
    rows = tx.connection.execute(
        select(instance.c.sop_instance_uid)
        .join(series, series.c.id == instance.c.series_id)
        .join(study, study.c.id == series.c.study_id)
        .where(study.c.state == HELD, instance.c.sop_instance_uid.in_(sorted(sop_instance_uids)))
    )
    return set(rows.scalars())


def compact(tx: Transaction, before: datetime) -> int:
    """Delete events from before, but what still needs a person; return how many, at most 5000.

    Associations go with them, where they brought nothing that the ledger knows.
    """
    settled = or_(event.c.level != ATTENTION, event.c.resolved_at.is_not(None))
    old = select(event.c.id).where(event.c.at < before, settled, event.c.node_id == tx.node_id)
    gone = tx.connection.execute(
        delete(event).where(event.c.id.in_(old.order_by(event.c.id).limit(_AT_ONCE)))
    ).rowcount
    referred = or_(
        exists().where(instance.c.association_id == association.c.id),
        exists().where(event.c.association_id == association.c.id),
    )
    tx.connection.execute(
        delete(association).where(
            association.c.closed_at < before, association.c.node_id == tx.node_id, ~referred
        )
    )
    if gone:
        tx.event_again("EVENTS_COMPACTED", level="info", detail="old events were deleted")
    return gone


def _locked(tx: Transaction, study_id: int) -> Row[Any]:
    return tx.connection.execute(
        select(study).where(study.c.id == study_id).with_for_update(key_share=True)
    ).one()


def _instances_of(study_id: int) -> Any:
    return (
        select(instance.c.id)
        .join(series, series.c.id == instance.c.series_id)
        .where(series.c.study_id == study_id)
    )


def _jobs(tx: Transaction, which: Any) -> tuple[JobFacts, ...]:
    jobs = tx.connection.execute(select(job.c.id, job.c.state, job.c.updated_at).where(which)).all()
    unseen = exists().where(
        and_(
            event.c.delivery_id == delivery.c.id,
            event.c.code == "DELIVERY_REFUSED",
            event.c.resolved_at.is_(None),
        )
    )
    of_jobs: dict[int, list[DeliveryFacts]] = {row.id: [] for row in jobs}
    for row in tx.connection.execute(
        select(
            delivery.c.job_id,
            delivery.c.destination,
            delivery.c.state,
            (~unseen).label("acknowledged"),
        )
        .join(job, job.c.id == delivery.c.job_id)
        .where(which)
    ):
        facts = DeliveryFacts(
            destination=row.destination, state=row.state, acknowledged=bool(row.acknowledged)
        )
        of_jobs[row.job_id].append(facts)
    return tuple(
        JobFacts(state=row.state, updated_at=row.updated_at, deliveries=tuple(of_jobs[row.id]))
        for row in jobs
    )
