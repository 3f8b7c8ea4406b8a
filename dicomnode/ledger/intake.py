"""Taking instances in: what the receiver and recovery record of what came, or is gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    func,
    select,
)

from dicomnode.domain.admission import ATTENTION, SUCCESS, Decision
from dicomnode.domain.assembly import AssemblyPolicy
from dicomnode.domain.images import encode
from dicomnode.domain.records import Header
from dicomnode.ledger import deliveries, outbox
from dicomnode.ledger.arrivals import Place, came_again, place_for
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import (
    instance,
    series,
    study,
)

_INSERT = instance.insert()


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
    places: dict[tuple[Any, ...], Place] = {}
    rows = []
    holding: list[tuple[int, Decision]] = []
    for arrival in arrivals:
        header, counts = arrival.header, arrival.counts
        key = (header.study_uid, header.series_uid, arrival.policy, counts)
        place = places.get(key)
        if place is None:
            place = places[key] = place_for(tx, header, arrival.policy, counts=counts)
            outbox.received(tx, arrival.association_id, place.study_id)
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


def restore(tx: Transaction, arrival: Arrival) -> None:
    """Record that the bytes of a purged instance are here again: in this encoding, from now on.

    Its study closes once more, so that what waited for these bytes goes on; no generation begins.
    """
    header = arrival.header
    came_again(tx, header, arrival.policy)
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
    record_only(tx, header, arrival.decision, arrival.association_id)


def _row(tx: Transaction, arrival: Arrival, place: Place) -> dict[str, Any]:
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
    if study_id is not None and decision.status == SUCCESS:
        outbox.received(tx, association_id, study_id)
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
