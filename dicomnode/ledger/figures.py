"""How much, how fast, how long: queues, the last day by the hour, and the times of each step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Table, func, select

from dicomnode.domain.lifecycle import ARRIVED, DONE, HELD, LEASED, OPEN, PENDING, QUEUED, SENDING
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import (
    association,
    delivery,
    event,
    job,
    retrieval,
    series,
    study,
    worker,
)

Facts = dict[str, Any]

HOURS = 24
STEPS = ("closing", "queue", "analysis", "delivery", "total")
"""closing: from the series' last image to its job; queue: until its analysis begins; analysis:
until its results lie in the spool; delivery: until an object of them is stored; total: from the
last image until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """How long one step took for one job or one delivery."""

    step: str
    seconds: float
    key: tuple[str, int, int]
    """What was counted: the table, the row, the attempt."""


def by_state(tx: Transaction, table: Table) -> dict[str, int]:
    """Return how many rows of studies, jobs or fetches stand in each state."""
    counted = select(table.c.state, func.count()).group_by(table.c.state).order_by(table.c.state)
    return {row[0]: row[1] for row in tx.connection.execute(counted)}


def states(tx: Transaction) -> dict[str, dict[str, int]]:
    """Return how many studies, jobs and fetches stand in each state."""
    return {
        "studies": by_state(tx, study),
        "jobs": by_state(tx, job),
        "fetches": by_state(tx, retrieval),
    }


def deliveries_by(tx: Transaction) -> dict[str, dict[str, int]]:
    """Return how many deliveries stand in each state, by destination."""
    found: dict[str, dict[str, int]] = {}
    for state, name, count in tx.connection.execute(
        select(delivery.c.state, delivery.c.destination, func.count())
        .group_by(delivery.c.state, delivery.c.destination)
        .order_by(delivery.c.destination, delivery.c.state)
    ):
        found.setdefault(name, {})[state] = count
    return found


def queues(tx: Transaction) -> list[Facts]:
    """Return what waits and since when: studies that may grow, jobs, deliveries, what is held."""
    asked: tuple[tuple[str, Table, ColumnElement[Any], tuple[str, ...]], ...] = (
        ("open_studies", study, study.c.first_at, (OPEN,)),
        ("held_studies", study, study.c.last_at, (HELD,)),
        ("queued_jobs", job, job.c.created_at, (QUEUED,)),
        ("running_jobs", job, job.c.created_at, (LEASED,)),
        ("deliveries", delivery, delivery.c.created_at, (PENDING, SENDING)),
        ("held_deliveries", delivery, delivery.c.created_at, (HELD,)),
    )
    found = []
    for name, table, since, wanted in asked:
        count, oldest = tx.connection.execute(
            select(func.count(), func.min(since)).where(table.c.state.in_(wanted))
        ).one()
        seconds = None if oldest is None else max(0.0, (tx.now - oldest).total_seconds())
        found.append(
            {
                "queue": name,
                "depth": count,
                "since": None if oldest is None else oldest.isoformat(),
                "oldest_seconds": seconds,
            }
        )
    return found


def arrivals(tx: Transaction) -> Facts:
    """Return when something last came, and how many associations are open."""
    last = tx.connection.execute(select(func.max(study.c.last_at))).scalar()
    # One that the receiver could not close any more stays without an end: only a day's count.
    recent = association.c.opened_at > tx.now - timedelta(days=1)
    still_open = tx.connection.execute(
        select(func.count())
        .select_from(association)
        .where(association.c.closed_at.is_(None), recent)
    ).scalar_one()
    seconds = None if last is None else max(0.0, (tx.now - last).total_seconds())
    return {
        "last_at": None if last is None else last.isoformat(),
        "seconds_ago": seconds,
        "open_associations": still_open,
    }


def day(tx: Transaction) -> Facts:
    """Return the last 24 hours by the hour, oldest first, and how long each step took."""
    begin = tx.now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
    hours: list[Facts] = [
        {"hour": (begin + timedelta(hours=index)).isoformat(), "instances": 0, "jobs": 0,
         "deliveries": 0}
        for index in range(HOURS)
    ]  # fmt: skip

    def count(at: datetime, name: str, number: int) -> None:
        index = int((at - begin) / timedelta(hours=1))
        if 0 <= index < HOURS:
            hours[index][name] += number

    for at, number in tx.connection.execute(
        select(association.c.closed_at, association.c.instances).where(
            association.c.closed_at >= begin
        )
    ):
        count(at, "instances", number)
    for name, table, wanted in (("jobs", job, (DONE,)), ("deliveries", delivery, ARRIVED)):
        # The state is looked at here: asked for it, SQLite takes the index of the states, where
        # nearly all rows are the same, instead of the one of the times.
        for at, state in tx.connection.execute(
            select(table.c.updated_at, table.c.state).where(table.c.updated_at >= begin)
        ):
            count(at, name, state in wanted)
    seconds: dict[str, list[float]] = {step: [] for step in STEPS}
    for one in took(tx, begin):
        seconds[one.step].append(one.seconds)
    latency = [
        {"step": step, "count": len(values), "median": _quantile(values, 0.5),
         "p95": _quantile(values, 0.95)}
        for step, values in ((step, sorted(seconds[step])) for step in STEPS)
    ]  # fmt: skip
    return {"hours": hours, "latency": latency}


def took(tx: Transaction, since: datetime) -> Iterator[Took]:
    """Yield how long each step took of what has ended since a time."""
    return chain(_took_by_jobs(tx, since), _took_by_deliveries(tx, since))


def _took_by_jobs(tx: Transaction, since: datetime) -> Iterator[Took]:
    for row in tx.connection.execute(
        select(job.c.id, job.c.attempt, job.c.created_at, job.c.analysed_at, job.c.updated_at,
               job.c.state, series.c.last_at)
        .join(series, series.c.id == job.c.series_id)
        .where(job.c.updated_at >= since)
    ):  # fmt: skip
        if row.state != DONE:
            continue
        key = ("job", row.id, row.attempt)
        begun = row.analysed_at or row.created_at
        for step, start, end in (
            ("closing", row.last_at, row.created_at),
            ("queue", row.created_at, begun),
            ("analysis", begun, row.updated_at),
        ):
            yield Took(step=step, seconds=_between(start, end), key=key)


def _took_by_deliveries(tx: Transaction, since: datetime) -> Iterator[Took]:
    for row in tx.connection.execute(
        select(delivery.c.id, delivery.c.attempt, delivery.c.created_at, delivery.c.updated_at,
               delivery.c.state, series.c.last_at)
        .join(job, job.c.id == delivery.c.job_id)
        .join(series, series.c.id == job.c.series_id)
        .where(delivery.c.updated_at >= since)
    ):  # fmt: skip
        if row.state not in ARRIVED:
            continue
        key = ("delivery", row.id, row.attempt)
        for step, start in (("delivery", row.created_at), ("total", row.last_at)):
            yield Took(step=step, seconds=_between(start, row.updated_at), key=key)


def ended_associations(tx: Transaction, since: datetime) -> list[tuple[int, str, int, int]]:
    """Return id, outcome, instances and bytes of the associations that ended since a time."""
    rows = tx.connection.execute(
        select(
            association.c.id, association.c.outcome, association.c.instances, association.c.bytes
        ).where(association.c.closed_at >= since)
    )
    return [(row[0], row[1] or "", row[2], row[3]) for row in rows]


def roles(tx: Transaction) -> dict[str, float]:
    """Return for how many seconds each role of this node has given no sign of life."""
    rows = tx.connection.execute(
        select(worker.c.role, worker.c.seen_at).where(worker.c.node_id == tx.node_id)
    )
    return {row[0]: max(0.0, (tx.now - row[1]).total_seconds()) for row in rows}


def last_events(tx: Transaction, limit: int) -> list[Facts]:
    """Return the newest events, newest first."""
    rows = tx.connection.execute(
        select(event.c.id, event.c.at, event.c.level, event.c.code, event.c.detail,
               study.c.study_uid)
        .join(study, study.c.id == event.c.study_id, isouter=True)
        .order_by(event.c.id.desc())
        .limit(limit)
    )  # fmt: skip
    return [
        {"id": row.id, "at": row.at.isoformat(), "level": row.level, "code": row.code,
         "detail": row.detail, "study_uid": row.study_uid}
        for row in rows
    ]  # fmt: skip


def _between(start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds())


def _quantile(values: list[float], part: float) -> float | None:
    """Return the nearest-rank quantile of sorted values."""
    if not values:
        return None
    return values[min(len(values) - 1, max(0, round(part * len(values) + 0.5) - 1))]
