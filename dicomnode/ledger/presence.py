"""Which processes are at work: each role says now and then that it lives and what it does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import exists, select

from dicomnode.ledger import outbox
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import worker

Facts = dict[str, Any]

SILENT_AFTER = timedelta(seconds=30)
"""A role that has given no sign of life for so long is taken for dead."""


def worker_id(tx: Transaction, role: str) -> str:
    """Return the id of this node's one process of a role."""
    return f"{tx.node_id}:{role}"


def beat(
    tx: Transaction, role: str, pid: int, doing: str, gpus: Sequence[Facts] | None = None
) -> None:
    """Record that a role's process lives, and how its GPUs fare if it has any."""
    row_id = worker_id(tx, role)
    values = {"pid": pid, "doing": doing, "gpus": list(gpus or ()), "seen_at": tx.now}
    created = tx.insert_once(
        worker, id=row_id, node_id=tx.node_id, role=role, started_at=tx.now, **values
    )
    if not created:
        tx.connection.execute(worker.update().where(worker.c.id == row_id).values(**values))


def start(tx: Transaction, role: str, pid: int) -> None:
    """Record that a role's process has started."""
    beat(tx, role, pid, "starting")
    tx.connection.execute(
        worker.update().where(worker.c.id == worker_id(tx, role)).values(started_at=tx.now)
    )
    outbox.record(tx, "ROLE_STARTED", facts={"role": role})


def leave(tx: Transaction, role: str) -> None:
    """Record that a role's process ends in good order."""
    tx.connection.execute(worker.delete().where(worker.c.id == worker_id(tx, role)))
    outbox.record(tx, "ROLE_ENDED", facts={"role": role})


def is_alive(tx: Transaction, role: str) -> bool:
    """Whether this node's process of a role gave a sign of life lately."""
    return bool(
        tx.connection.execute(
            select(
                exists().where(
                    worker.c.id == worker_id(tx, role), worker.c.seen_at >= tx.now - SILENT_AFTER
                )
            )
        ).scalar_one()
    )


def gpus(tx: Transaction) -> list[Facts]:
    """Return the GPUs of this node as its role `work` saw them lately; none where it is silent."""
    found = tx.connection.execute(
        select(worker.c.gpus).where(
            worker.c.id == worker_id(tx, "work"), worker.c.seen_at >= tx.now - SILENT_AFTER
        )
    ).scalar()
    return list(found or ())
