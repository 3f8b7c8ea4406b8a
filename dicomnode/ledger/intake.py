"""What the receiver asks and records: nodes, associations, instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, exists, func, select

from dicomnode.domain.admission import ATTENTION, Decision
from dicomnode.domain.assembly import AssemblyPolicy, look_at, plausible, quiet_at
from dicomnode.domain.identifiers import PatientKey, StudyUID, TransferSyntaxUID
from dicomnode.domain.images import encode
from dicomnode.domain.lifecycle import DELIVERED, DONE, HELD, OPEN
from dicomnode.domain.records import RETENTION_EXPIRED, Header, StoredInstance
from dicomnode.errors import LedgerError
from dicomnode.ledger import deliveries
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import (
    association,
    delivery,
    instance,
    job,
    node,
    rejection,
    result,
    series,
    study,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What admission has to know of an instance before it decides."""

    instance: StoredInstance | None
    path: str | None
    """Of that instance, relative to the spool; None where its bytes are purged."""
    study_patient: PatientKey | None
    is_own_result: bool
    is_rejected: bool = False
    """A rejection note named it before it came."""


def register_node(tx: Transaction, ae_title: str, patient_key_id: str) -> None:
    """Record that this node works on the ledger.

    Raises:
        LedgerError: another node hashes patients with another key: they would never match.
    """
    others = tx.connection.execute(
        select(node.c.id).where(node.c.patient_key_id != patient_key_id, node.c.id != tx.node_id)
    ).first()
    if others is not None:
        raise LedgerError(
            f"node {others.id} hashes patients with another key: nodes that share a ledger need the"
            " same storage.patient_key_file"
        )
    values = {"ae_title": ae_title, "patient_key_id": patient_key_id, "started_at": tx.now}
    if not tx.insert_once(node, id=tx.node_id, **values):
        known = tx.connection.execute(
            select(node.c.patient_key_id).where(node.c.id == tx.node_id)
        ).scalar_one()
        if known != patient_key_id:
            raise LedgerError(
                "the patient key is not the one this ledger was begun with: restore the file named"
                " by storage.patient_key_file"
            )
        tx.connection.execute(node.update().where(node.c.id == tx.node_id).values(**values))


def open_association(tx: Transaction, *, calling_ae: str, called_ae: str, address: str) -> int:
    """Record an association that a peer has opened; return its id."""
    return tx.insert(
        association,
        node_id=tx.node_id,
        calling_ae=calling_ae,
        called_ae=called_ae,
        address=address,
        opened_at=tx.now,
    )


def close_association(
    tx: Transaction, association_id: int, *, outcome: str, instances: int, size: int
) -> None:
    """Record how an association ended and what it brought."""
    tx.connection.execute(
        association.update()
        .where(association.c.id == association_id)
        .values(closed_at=tx.now, outcome=outcome, instances=instances, bytes=size)
    )
    if outcome != "RELEASED":
        tx.event(
            "ASSOCIATION_" + outcome,
            level="warning",
            detail=f"after {instances} instances",
            association=association_id,
        )


def known(tx: Transaction, header: Header) -> Known:
    """Return what the ledger knows that admission has to know."""
    found = tx.connection.execute(
        select(instance, study.c.study_uid)
        .join(series, series.c.id == instance.c.series_id)
        .join(study, study.c.id == series.c.study_id)
        .where(instance.c.sop_instance_uid == header.sop_instance_uid)
    ).first()
    # One statement for all: this is asked for every instance.
    others = tx.connection.execute(
        select(
            select(study.c.patient_key)
            .where(study.c.study_uid == header.study_uid)
            .scalar_subquery()
            .label("patient"),
            exists().where(result.c.sop_instance_uid == header.sop_instance_uid).label("own"),
            exists()
            .where(
                rejection.c.sop_instance_uid == header.sop_instance_uid,
                rejection.c.code != RETENTION_EXPIRED,
            )
            .label("rejected"),
        )
    ).one()
    return Known(
        instance=None if found is None else _stored(found),
        path=None if found is None or found.purged_at is not None else found.path,
        study_patient=None if others.patient is None else PatientKey(others.patient),
        is_own_result=others.own,
        is_rejected=found is None and others.rejected,
    )


def _stored(row: Row[Any]) -> StoredInstance:
    return StoredInstance(
        study_uid=StudyUID(row.study_uid),
        digest=row.digest,
        pixel_digest=row.pixel_digest,
        geometry_digest=row.geometry_digest,
        identity_digest=row.identity_digest,
        transfer_syntax_uid=TransferSyntaxUID(row.transfer_syntax_uid),
    )


def add(
    tx: Transaction,
    header: Header,
    decision: Decision,
    *,
    digest: str,
    size: int,
    path: str,
    association_id: int | None,
    policy: AssemblyPolicy,
    counts: bool,
) -> None:
    """Record an instance whose bytes are stored, and what its arrival means for its study.

    A late slice raises its series' generation and calls back what the old one had under way.
    `counts=False` keeps an instance that opens and triggers nothing.
    """
    study_row = _study(tx, header, counts=counts)
    series_row = _series(tx, header, study_row.id)
    generation = series_row.generation
    if counts and is_taken_up(tx, series_row):
        generation += 1
        _supersede(tx, study_row.id, series_row, generation)
    end = header.end
    tx.connection.execute(
        instance.insert().values(
            series_id=series_row.id,
            association_id=association_id,
            node_id=tx.node_id,
            sop_instance_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            transfer_syntax_uid=header.transfer_syntax_uid,
            digest=digest,
            pixel_digest=header.pixel_digest,
            geometry_digest=header.geometry_digest,
            identity_digest=header.identity_digest,
            size=size,
            path=path,
            generation=generation,
            counts=int(counts),
            rejected=decision.code if decision.code == "REJECTED_BEFORE" else None,
            facts=encode(header.image),
            place_mm=header.place_mm,
            end_group=None if end is None else end.group,
            end_total=None if end is None else end.total,
            end_number=None if end is None else end.number,
            received_at=tx.now,
        )
    )
    if not counts:
        tx.event(
            decision.code,
            level=decision.level,
            detail=decision.detail,
            study=study_row.id,
            series=series_row.id,
            association=association_id,
        )
        return
    tx.connection.execute(
        series.update()
        .where(series.c.id == series_row.id)
        .values(last_at=tx.now, generation=generation)
    )
    arrive(tx, study_row, policy, is_image=series_row.modality == "CT")
    if decision.hold_study:
        hold(tx, study_row.id, decision)


def record_only(
    tx: Transaction, header: Header | None, decision: Decision, association_id: int | None
) -> None:
    """Record an instance that brings no new instance row: a duplicate, or one set aside."""
    row = None
    if header is not None:
        # A corrected Study UID concerns the study that the instance is stored in.
        row = tx.connection.execute(
            select(series.c.study_id, series.c.id)
            .join(instance, instance.c.series_id == series.c.id)
            .where(instance.c.sop_instance_uid == header.sop_instance_uid)
        ).first()
    study_id = None if row is None else row.study_id
    if decision.hold_study and study_id is not None:
        tx.connection.execute(
            study.update()
            .where(study.c.id == study_id)
            .values(identity_revision=study.c.identity_revision + 1)
        )
        hold(tx, study_id, decision)
        return
    tx.event(
        decision.code,
        level=decision.level,
        detail=decision.detail,
        study=study_id,
        series=None if row is None else row.id,
        association=association_id,
    )


def hold(tx: Transaction, study_id: int, decision: Decision) -> None:
    """Hold a study: nothing of it is analysed or delivered until a person has settled it."""
    first = tx.connection.execute(
        select(study.c.hold_reason).where(study.c.id == study_id)
    ).scalar()
    tx.move(study, study_id, "hold", hold_reason=decision.code)
    deliveries.hold_study(tx, study_id, decision.code)
    level = ATTENTION if first != decision.code else "info"  # one line a study needs attention
    tx.event(decision.code, level=level, detail=decision.detail, study=study_id)


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


def _series(tx: Transaction, header: Header, study_id: int) -> Row[Any]:
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
    return tx.connection.execute(
        select(series).where(
            series.c.study_id == study_id, series.c.series_uid == header.series_uid
        )
    ).one()


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


def _supersede(tx: Transaction, study_id: int, series_row: Row[Any], generation: int) -> None:
    old = tx.connection.execute(
        select(job.c.id, job.c.state).where(
            job.c.series_id == series_row.id, job.c.generation < generation
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
            .where(delivery.c.job_id == row.id, delivery.c.state == DELIVERED)
        ).scalar_one()
    tx.event(
        "LATE_SLICE",
        level=ATTENTION if delivered else "info",
        detail=f"generation {generation} begins; {delivered} delivered objects are superseded",
        study=study_id,
        series=series_row.id,
    )


def arrive(tx: Transaction, study_row: Row[Any], policy: AssemblyPolicy, *, is_image: bool) -> None:
    opens = study_row.due_at is None  # it was closed
    opened_at = tx.now if opens else study_row.opened_at
    quiet = quiet_at(tx.now, policy, is_image=is_image, before=study_row.due_at)
    values: dict[str, Any] = {
        "last_at": tx.now,
        "opened_at": opened_at,
        "due_at": quiet,
        "look_at": look_at(tx.now, opened_at, quiet, policy),
    }
    if study_row.state == HELD:
        tx.connection.execute(study.update().where(study.c.id == study_row.id).values(**values))
    else:
        tx.move(study, study_row.id, "arrive", closed_at=None, **values)


def stored_paths(tx: Transaction) -> list[str]:
    """Return the paths of all instances of this node whose bytes should be in its spool."""
    rows = tx.connection.execute(
        select(instance.c.path).where(
            instance.c.node_id == tx.node_id, instance.c.purged_at.is_(None)
        )
    )
    return list(rows.scalars())
