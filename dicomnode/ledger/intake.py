"""What the receiver asks and records: nodes, associations, instances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Row,
    Select,
    bindparam,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
)

from dicomnode.domain.admission import ATTENTION, Decision
from dicomnode.domain.assembly import AssemblyPolicy, look_at, plausible, quiet_at
from dicomnode.domain.identifiers import PatientKey, StudyUID, TransferSyntaxUID
from dicomnode.domain.images import encode
from dicomnode.domain.lifecycle import ARRIVED, DONE, HELD, LIVES, OPEN
from dicomnode.domain.records import RETENTION_EXPIRED, Header, StoredInstance
from dicomnode.errors import LedgerError
from dicomnode.ledger import deliveries
from dicomnode.ledger.core import Ledger, Transaction
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


# Built once: to build a statement costs more than to execute it, and these are for every instance.
_OWN, _REJECTED, _PATIENT = "own", "rejected", "patient"


def _is(column: ColumnElement[Any], name: str, *, one: bool) -> ColumnElement[bool]:
    """A list in a statement costs as much again as all the rest of it."""
    if one:
        return column == bindparam(name)
    return column.in_(bindparam(name, expanding=True))


def _known_statement(*, one: bool) -> Select[Any]:
    return (
        select(
            instance.c.sop_instance_uid,
            instance.c.digest,
            instance.c.pixel_digest,
            instance.c.geometry_digest,
            instance.c.identity_digest,
            instance.c.transfer_syntax_uid,
            instance.c.path,
            instance.c.purged_at,
            study.c.study_uid,
        )
        .join(series, series.c.id == instance.c.series_id)
        .join(study, study.c.id == series.c.study_id)
        .where(_is(instance.c.sop_instance_uid, "instances", one=one))
    )


def _others_statement(*, one: bool) -> CompoundSelect[Any]:
    own, rejected = result.c.sop_instance_uid, rejection.c.sop_instance_uid
    return union_all(
        select(literal(_OWN).label("what"), own.label("uid"), null().label("key")).where(
            _is(own, "instances", one=one)
        ),
        select(literal(_REJECTED), rejected, null()).where(
            _is(rejected, "instances", one=one), rejection.c.code != RETENTION_EXPIRED
        ),
        select(literal(_PATIENT), study.c.study_uid, study.c.patient_key).where(
            _is(study.c.study_uid, "studies", one=one)
        ),
    )


_KNOWN = {one: _known_statement(one=one) for one in (True, False)}
_OTHERS = {one: _others_statement(one=one) for one in (True, False)}
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
_INSERT = instance.insert()
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


_HEARD_OF = union_all(
    *(
        select(table.c.id).where(table.c.sop_instance_uid == bindparam("uid"))
        for table in (instance, result, rejection)
    )
)


def is_unheard_of(ledger: Ledger, sop_instance_uid: str) -> bool:
    """Whether nothing is known of an instance: not stored, no result, not named by a note.

    Raises:
        LedgerError: the ledger cannot be asked.
    """
    with ledger.reading() as connection:
        return connection.execute(_HEARD_OF, {"uid": sop_instance_uid}).first() is None


def known(tx: Transaction, header: Header) -> Known:
    """Return what the ledger knows that admission has to know."""
    return known_all(tx, [header])[0]


def known_all(tx: Transaction, headers: Sequence[Header]) -> list[Known]:
    """Return what the ledger knows of each of several instances."""
    one = len(headers) == 1
    sops = [header.sop_instance_uid for header in headers]
    studies = list({header.study_uid for header in headers})
    uids = (
        {"instances": sops[0], "studies": studies[0]}
        if one
        else {"instances": sops, "studies": studies}
    )
    found = {row.sop_instance_uid: row for row in tx.connection.execute(_KNOWN[one], uids)}
    others = tx.connection.execute(_OTHERS[one], uids).all()
    told = {(row.what, row.uid): row.key for row in others}
    return [_known(header, found.get(header.sop_instance_uid), told) for header in headers]


def _known(header: Header, row: Any, told: Mapping[tuple[str, str], str | None]) -> Known:
    patient = told.get((_PATIENT, header.study_uid))
    return Known(
        instance=None if row is None else _stored(row),
        path=None if row is None or row.purged_at is not None else row.path,
        study_patient=None if patient is None else PatientKey(patient),
        is_own_result=(_OWN, header.sop_instance_uid) in told,
        is_rejected=row is None and (_REJECTED, header.sop_instance_uid) in told,
    )


def _stored(row: Row[Any]) -> StoredInstance:
    return StoredInstance(
        study_uid=StudyUID(row.study_uid),
        digest=row.digest,
        pixel_digest=row.pixel_digest,
        geometry_digest=row.geometry_digest,
        identity_digest=row.identity_digest,
        transfer_syntax_uid=TransferSyntaxUID(row.transfer_syntax_uid),
        is_purged=row.purged_at is not None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """An instance whose bytes are stored, and what was decided on it."""

    header: Header
    decision: Decision
    digest: str
    size: int
    path: str
    association_id: int | None
    policy: AssemblyPolicy
    counts: bool
    """False keeps an instance that opens and triggers nothing."""


def add(tx: Transaction, header: Header, decision: Decision, **arrival: Any) -> None:
    """Record one instance; the keywords are those of `Arrival`."""
    add_all(tx, [Arrival(header=header, decision=decision, **arrival)])


def add_all(tx: Transaction, arrivals: Iterable[Arrival]) -> None:
    """Record instances, each with what its arrival means for its study.

    A late slice raises its series' generation and calls back what the old one had under way. What
    instances of one series have in common is recorded once: in a transaction time stands still.
    """
    places: dict[tuple[Any, ...], _Place] = {}
    rows = []
    holding: list[tuple[int, Decision]] = []
    for arrival in arrivals:
        header, counts = arrival.header, arrival.counts
        key = (header.study_uid, header.series_uid, arrival.policy, counts)
        place = places.get(key)
        if place is None:
            place = places[key] = _place(tx, arrival)
        rows.append(_row(tx, arrival, place))
        if not counts:
            tx.event(
                arrival.decision.code,
                level=arrival.decision.level,
                detail=arrival.decision.detail,
                study=place.study_id,
                series=place.series_id,
                association=arrival.association_id,
            )
        elif arrival.decision.hold_study:
            holding.append((place.study_id, arrival.decision))
    tx.connection.execute(_INSERT, rows)
    for study_id, decision in holding:
        hold(tx, study_id, decision)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an instance belongs."""

    study_id: int
    series_id: int
    generation: int


def _place(tx: Transaction, arrival: Arrival) -> _Place:
    """Make study and series if they are missing, and record that something came for them."""
    header, counts = arrival.header, arrival.counts
    uids = {"study_uid": header.study_uid, "series_uid": header.series_uid}
    row = tx.connection.execute(_PLACE, uids).first()
    if row is None:
        study_row = _study(tx, header, counts=counts)
        _series(tx, header, study_row.id)
        row = tx.connection.execute(_PLACE, uids).one()
    generation = row.generation
    if counts:
        if row.taken_up:
            generation += 1
            _supersede(tx, row.study_id, row.id, generation)
        tx.connection.execute(
            _SERIES_CAME, {"series": row.id, "now": tx.now, "generation_now": generation}
        )
        arrive(tx, row.study_id, row, arrival.policy, is_image=row.modality == "CT")
    if row.purged_at is not None:
        _has_bytes_again(tx, row.study_id)
    return _Place(row.study_id, row.id, generation)


def _has_bytes_again(tx: Transaction, study_id: int) -> None:
    tx.connection.execute(study.update().where(study.c.id == study_id).values(purged_at=None))


def restore(tx: Transaction, arrival: Arrival) -> None:
    """Record that the bytes of a purged instance are here again: in this encoding, from now on.

    Its study closes once more, so that what waited for these bytes goes on; no generation begins.
    """
    header = arrival.header
    uids = {"study_uid": header.study_uid, "series_uid": header.series_uid}
    row = tx.connection.execute(_PLACE, uids).one()
    tx.connection.execute(
        instance.update()
        .where(instance.c.sop_instance_uid == header.sop_instance_uid)
        .values(
            purged_at=None,
            digest=arrival.digest,
            pixel_digest=header.pixel_digest,
            transfer_syntax_uid=header.transfer_syntax_uid,
            size=arrival.size,
            path=arrival.path,
            association_id=arrival.association_id,
            node_id=tx.node_id,
            received_at=tx.now,
        )
    )
    arrive(tx, row.study_id, row, arrival.policy, is_image=row.modality == "CT")
    _has_bytes_again(tx, row.study_id)
    record_only(tx, header, arrival.decision, arrival.association_id)


def _row(tx: Transaction, arrival: Arrival, place: _Place) -> dict[str, Any]:
    header, code = arrival.header, arrival.decision.code
    end = header.end
    return {
        "series_id": place.series_id,
        "association_id": arrival.association_id,
        "node_id": tx.node_id,
        "sop_instance_uid": header.sop_instance_uid,
        "sop_class_uid": header.sop_class_uid,
        "transfer_syntax_uid": header.transfer_syntax_uid,
        "digest": arrival.digest,
        "pixel_digest": header.pixel_digest,
        "geometry_digest": header.geometry_digest,
        "identity_digest": header.identity_digest,
        "size": arrival.size,
        "path": arrival.path,
        "generation": place.generation,
        "counts": int(arrival.counts),
        "rejected": code if code == "REJECTED_BEFORE" else None,
        "facts": encode(header.image),
        "place_mm": header.place_mm,
        "end_group": None if end is None else end.group,
        "end_total": None if end is None else end.total,
        "end_number": None if end is None else end.number,
        "received_at": tx.now,
    }


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


def hold_study(tx: Transaction, study_uid: str, decision: Decision) -> bool:
    """Hold a study by its UID; False where there is no such study."""
    found = tx.connection.execute(
        select(study.c.id).where(study.c.study_uid == study_uid).with_for_update(key_share=True)
    ).scalar()
    if found is None:
        return False
    hold(tx, found, decision)
    return True


def known_association(tx: Transaction, association_id: int | None) -> int | None:
    """Return the id of an association if the ledger has it."""
    return tx.connection.execute(
        select(association.c.id).where(association.c.id == association_id)
    ).scalar()


def bytes_lost(tx: Transaction, paths: Sequence[str]) -> int:
    """Take instances whose files are gone for purged ones, each study with an event; how many."""
    rows = tx.connection.execute(
        select(series.c.study_id, func.count())
        .join(instance, instance.c.series_id == series.c.id)
        .where(instance.c.path.in_(paths), instance.c.purged_at.is_(None))
        .group_by(series.c.study_id)
    ).all()
    tx.connection.execute(
        instance.update()
        .where(instance.c.path.in_(paths), instance.c.node_id == tx.node_id)
        .values(purged_at=tx.now)
    )
    for study_id, count in rows:
        detail = f"{count} instances have no file any more: send the study again"
        tx.event("BYTES_LOST", level=ATTENTION, detail=detail, study=study_id)
    return sum(count for _, count in rows)


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


def stored_paths(tx: Transaction) -> list[str]:
    """Return the paths of all instances of this node whose bytes should be in its spool."""
    rows = tx.connection.execute(
        select(instance.c.path).where(
            instance.c.node_id == tx.node_id, instance.c.purged_at.is_(None)
        )
    )
    return list(rows.scalars())
