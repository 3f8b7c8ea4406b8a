"""Associations that peers open: when, who, and what they brought."""

from __future__ import annotations

from sqlalchemy import select

from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import association


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


def known_association(tx: Transaction, association_id: int | None) -> int | None:
    """Return the id of an association if the ledger has it."""
    return tx.connection.execute(
        select(association.c.id).where(association.c.id == association_id)
    ).scalar()
