"""The lives of studies, jobs, deliveries, commitments and fetches, as tables.

An event names the states it may start from and the one state it ends in. The ledger turns a row of
these tables into one UPDATE whose WHERE clause is the fence; no state changes in any other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a life."""

    sources: frozenset[str]
    target: str


def _table(rows: Mapping[str, tuple[set[str], str]]) -> Mapping[str, Step]:
    return MappingProxyType(
        {event: Step(frozenset(sources), target) for event, (sources, target) in rows.items()}
    )


OPEN = "OPEN"
CLOSED = "CLOSED"
HELD = "HELD"

STUDY = _table(
    {
        "arrive": ({OPEN, CLOSED}, OPEN),
        "close": ({OPEN}, CLOSED),
        "hold": ({OPEN, CLOSED, HELD}, HELD),
        "release": ({HELD}, OPEN),
    }
)

QUEUED = "QUEUED"
LEASED = "LEASED"
DONE = "DONE"
REFUSED = "REFUSED"
QUARANTINED = "QUARANTINED"
CANCELLED = "CANCELLED"

JOB = _table(
    {
        "claim": ({QUEUED}, LEASED),
        "done": ({LEASED}, DONE),
        "retry": ({LEASED}, QUEUED),
        "refuse": ({LEASED}, REFUSED),
        "quarantine": ({LEASED}, QUARANTINED),
        "cancel": ({QUEUED, LEASED, REFUSED, QUARANTINED}, CANCELLED),
        "requeue": ({REFUSED, QUARANTINED}, QUEUED),
    }
)

PENDING = "PENDING"
SENDING = "SENDING"
DELIVERED = "DELIVERED"
COMMITTED = "COMMITTED"
SUBSTITUTED = "SUBSTITUTED"
ARRIVED = (DELIVERED, COMMITTED)
"""States of a delivery whose object is at its destination, as far as that has said."""

DELIVERY = _table(
    {
        "claim": ({PENDING}, SENDING),
        "delivered": ({SENDING}, DELIVERED),
        "retry": ({SENDING}, PENDING),
        "refuse": ({PENDING, SENDING}, REFUSED),
        "substitute": ({PENDING, SENDING}, SUBSTITUTED),
        "cancel": ({PENDING, SENDING, HELD, REFUSED}, CANCELLED),
        "hold": ({PENDING, SENDING}, HELD),
        "release": ({HELD}, PENDING),
        "requeue": ({REFUSED, SUBSTITUTED, DELIVERED, COMMITTED}, PENDING),
        "commit": ({DELIVERED}, COMMITTED),
        "resend": ({DELIVERED}, PENDING),
    }
)

FAILED = "FAILED"

ASKED = "ASKED"
ANSWERED = "ANSWERED"
SILENT = "SILENT"

COMMITMENT = _table(
    {
        "answer": ({ASKED, SILENT}, ANSWERED),
        "silence": ({ASKED}, SILENT),
        "refuse": ({ASKED}, REFUSED),
    }
)

PROMISE = _table({"answer": ({ASKED}, ANSWERED), "fail": ({ASKED}, FAILED)})

FETCHING = "FETCHING"
FETCHED = "FETCHED"

RETRIEVAL = _table(
    {
        "fetched": ({FETCHING}, FETCHED),
        "fail": ({FETCHING}, FAILED),
    }
)

LIVES: Mapping[str, Mapping[str, Step]] = MappingProxyType(
    {
        "study": STUDY,
        "job": JOB,
        "delivery": DELIVERY,
        "commitment": COMMITMENT,
        "promise": PROMISE,
        "retrieval": RETRIEVAL,
    }
)
