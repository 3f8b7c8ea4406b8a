"""What goes in place of a refused object, applied to the deliveries of its result set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from dicomnode.domain.alternatives import INSTEAD
from dicomnode.domain.fallback import (
    REFERS_TO_REFUSED,
    REFUSED_CLASS,
    Candidate,
    Place,
    Standing,
    fall_back,
)
from dicomnode.domain.identifiers import SOPClassUID, TransferSyntaxUID
from dicomnode.domain.lifecycle import ARRIVED, PENDING, SENDING, SUBSTITUTED
from dicomnode.domain.outcomes import Refuse
from dicomnode.domain.plans import REJECTION
from dicomnode.domain.records import Delivery
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import delivery, result

_WANTED = func.coalesce(delivery.c.in_place_of, result.c.kind)
"""The kind of the profile that a delivery stands for."""


@dataclass(frozen=True, slots=True)
class Change:
    """A delivery that is not made, and what is delivered for it, if anything is."""

    delivery: int
    wanted: str
    other: Candidate | None
    position: int = 0
    """Of the other one."""

    @property
    def says(self) -> str:
        """The other object, in words; empty where there is none."""
        if self.other is None:
            return ""
        names = f", naming {' and '.join(self.other.refers_to)}" if self.other.refers_to else ""
        return f"{self.other.kind} ({self.other.sop_class_uid}{names}) goes in its place"


def decide(tx: Transaction, claimed: Delivery, refusal: Refuse) -> list[Change]:
    """Say what changes now that an object was refused; the first change is its own."""
    about_class = refusal.code in REFUSED_CLASS
    rows = _rows(tx, claimed)
    made = _made(tx, claimed.job_id)
    refused = {SOPClassUID(row.sop_class_uid) for row in rows if row.reason in REFUSED_CLASS}
    if about_class:
        refused.add(claimed.sop_class_uid)
    current: dict[str, Any] = {row.wanted: row for row in rows if row.state != SUBSTITUTED}
    standings = [
        Standing(wanted=wanted, result=row.result_id, place=_place(row, claimed, about_class))
        for wanted, row in current.items()
    ]
    positions = {item.id: position for item, position in made}
    found = fall_back([item for item, _ in made], standings, refused)
    changes = []
    for wanted, row in current.items():
        other = found.get(wanted)
        own = row.id == claimed.id
        stays = other is not None and other.id == row.result_id
        if own or (wanted in found and not stays):
            position = 0 if other is None else positions[other.id]
            changes.append(Change(row.id, wanted, other, position))
    return sorted(changes, key=lambda change: change.delivery != claimed.id)


def _rows(tx: Transaction, claimed: Delivery) -> list[Any]:
    found = tx.connection.execute(
        select(
            delivery.c.id,
            delivery.c.state,
            delivery.c.reason,
            delivery.c.result_id,
            result.c.sop_class_uid,
            _WANTED.label("wanted"),
        )
        .join(result, result.c.id == delivery.c.result_id)
        .where(
            delivery.c.job_id == claimed.job_id,
            delivery.c.destination == claimed.destination,
            result.c.kind != REJECTION,
        )
        .order_by(delivery.c.position, delivery.c.id)
    )
    return list(found.all())


def _made(tx: Transaction, job_id: int) -> list[tuple[Candidate, int]]:
    rows = tx.connection.execute(
        select(result)
        .where(result.c.job_id == job_id, result.c.kind != REJECTION)
        .order_by(result.c.position)
    )
    return [
        (
            Candidate(
                id=row.id,
                kind=row.kind,
                sop_class_uid=SOPClassUID(row.sop_class_uid),
                refers_to=tuple(row.refers_to),
            ),
            row.position,
        )
        for row in rows
    ]


def _place(row: Any, claimed: Delivery, about_class: bool) -> Place:
    if row.id == claimed.id:
        return Place.WAITS if about_class else Place.LOST
    if row.state in (*ARRIVED, SENDING):
        return Place.THERE
    return Place.WAITS if row.state == PENDING else Place.LOST


def apply(tx: Transaction, claimed: Delivery, changes: list[Change]) -> None:
    """Make the changes; the refused delivery itself has been moved already."""
    for change in changes:
        if change.delivery != claimed.id:
            detail = "it refers to an object that the destination refused"
            moved = tx.move(
                delivery,
                change.delivery,
                "refuse" if change.other is None else "substitute",
                reason=REFERS_TO_REFUSED,
                detail="; ".join(filter(None, (detail, change.says))),
                updated_at=tx.now,
            )
            if not moved:
                continue
        if change.other is not None:
            tx.insert_once(
                delivery,
                result_id=change.other.id,
                job_id=claimed.job_id,
                node_id=tx.node_id,
                destination=claimed.destination,
                in_place_of=change.wanted,
                position=change.position,
                state=PENDING,
                attempt=0,
                detail="",
                due_at=tx.now,
                created_at=tx.now,
                updated_at=tx.now,
            )


def contexts(tx: Transaction, destination: str) -> list[tuple[SOPClassUID, TransferSyntaxUID]]:
    """Return the distinct (SOP class, transfer syntax) pairs that may go to the destination now.

    Those of what waits, and of what would go in its place.
    """
    waits = (
        select(delivery.c.job_id, _WANTED.label("wanted"))
        .join(result, result.c.id == delivery.c.result_id)
        .where(delivery.c.destination == destination, delivery.c.state == PENDING)
        .distinct()
        .subquery("waits")
    )
    columns = (result.c.sop_class_uid, result.c.transfer_syntax_uid)
    rows = tx.connection.execute(
        select(*columns, result.c.kind, waits.c.wanted)
        .join(waits, waits.c.job_id == result.c.job_id)
        .distinct()
        .order_by(*columns)
    )
    pairs = {
        (SOPClassUID(row.sop_class_uid), TransferSyntaxUID(row.transfer_syntax_uid)): None
        for row in rows
        if row.kind in INSTEAD[row.wanted]
    }
    return list(pairs)
