"""Requestors that were refused for who they are: how often, when last, and what would let them in.

Whoever reaches the port can write here, so everything is bounded: texts, and rows a node. Where
there are too many, those that tried least and longest ago make room: a scanner that tries a
thousand titles does not push out the modality that calls every minute.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from dicomnode.domain.associations import AssociationRequest, AssociationRules, Rejected, decide
from dicomnode.domain.remedies import remedy
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import stranger

MAX_STRANGERS = 200
"""Rows a node."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """Who was refused, as it is recorded: printable and short, whatever the peer has sent."""

    calling_ae: str
    called_ae: str
    address: str
    certificate_sha256: str

    @classmethod
    def of(cls, request: AssociationRequest) -> Stranger:
        """Return who asks."""
        return cls(
            _printable(request.calling_ae),
            _printable(request.called_ae),
            request.address[:64],
            request.certificate_sha256 or "",
        )


def _printable(title: str) -> str:
    shown = "".join(c if " " <= c <= "~" else "?" for c in title.strip(" "))
    return shown[:16]


def record(tx: Transaction, who: Stranger, code: str, times: int = 1) -> None:
    """Count refusals of a requestor."""
    key = {
        "node_id": tx.node_id,
        "calling_ae": who.calling_ae,
        "called_ae": who.called_ae,
        "address": who.address,
        "certificate_sha256": who.certificate_sha256,
    }
    same = [stranger.c[name] == value for name, value in key.items()]
    again = (
        stranger.update()
        .where(*same)
        .values(count=stranger.c.count + times, last_at=tx.now, code=code)
    )
    if tx.connection.execute(again).rowcount:
        return
    _make_room(tx)
    values = {"code": code, "count": times, "first_at": tx.now, "last_at": tx.now}
    if not tx.insert_once(stranger, **key, **values):
        tx.connection.execute(again)  # another process was first


def _make_room(tx: Transaction) -> None:
    mine = stranger.c.node_id == tx.node_id
    count = tx.connection.execute(select(func.count()).select_from(stranger).where(mine))
    too_many = count.scalar_one() - MAX_STRANGERS + 1
    if too_many > 0:
        least = (
            select(stranger.c.id)
            .where(mine)
            .order_by(stranger.c.count, stranger.c.last_at, stranger.c.id)
            .limit(too_many)
        )
        ids = tx.connection.execute(least).scalars().all()
        tx.connection.execute(stranger.delete().where(stranger.c.id.in_(ids)))


def listing(tx: Transaction, rules: AssociationRules, limit: int) -> list[dict[str, Any]]:
    """Return who was refused and would be again, newest first, with what would let it in.

    Whom the configuration lets in by now is left out, and whom a person has acknowledged.
    """
    rows = tx.connection.execute(
        select(stranger)
        .where(stranger.c.node_id == tx.node_id, stranger.c.acknowledged_at.is_(None))
        .order_by(stranger.c.last_at.desc(), stranger.c.id.desc())
    )
    return list(_would_be_refused(rows, rules))[:limit]


def _would_be_refused(rows: Iterable[Any], rules: AssociationRules) -> Iterable[dict[str, Any]]:
    for row in rows:
        request = AssociationRequest(
            calling_ae=row.calling_ae,
            called_ae=row.called_ae,
            address=row.address,
            certificate_sha256=row.certificate_sha256 or None,
        )
        found = decide(request, rules)
        if isinstance(found, Rejected):
            yield {
                "calling_ae": row.calling_ae,
                "called_ae": row.called_ae,
                "address": row.address,
                "certificate_sha256": row.certificate_sha256 or None,
                "code": found.reason.code,
                "why": found.reason.meaning,
                "count": row.count,
                "first_at": row.first_at.isoformat(),
                "last_at": row.last_at.isoformat(),
                "remedy": remedy(request, found, rules),
            }


def acknowledge(tx: Transaction, calling_ae: str | None, who: str) -> int:
    """Take requestors off the list for good, by calling AE title; None: all that are on it.

    Returns:
        How many. The same title from another address is listed anew.
    """
    which = [stranger.c.node_id == tx.node_id, stranger.c.acknowledged_at.is_(None)]
    if calling_ae is not None:
        which.append(stranger.c.calling_ae == _printable(calling_ae))
    changed = tx.connection.execute(
        stranger.update().where(*which).values(acknowledged_at=tx.now)
    ).rowcount
    if changed:
        detail = f"by {who}: {changed} requestors that were refused"
        tx.event("ACKNOWLEDGED", detail=detail, by=who)
    return changed
