"""The nodes that work on this ledger."""

from __future__ import annotations

from sqlalchemy import select

from dicomnode.errors import LedgerError
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import node


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
