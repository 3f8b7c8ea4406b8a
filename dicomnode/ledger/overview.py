"""What `status` shows: what came, what went, what is stuck and why. Plain data, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, select

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.associations import AssociationRules
from dicomnode.domain.lifecycle import FETCHING
from dicomnode.ledger import audit_sinks, destinations, strangers
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.fetches import LOST_AFTER
from dicomnode.ledger.presence import SILENT_AFTER
from dicomnode.ledger.tables import (
    association,
    delivery,
    event,
    instance,
    job,
    node,
    result,
    retrieval,
    series,
    study,
    worker,
)

Facts = dict[str, Any]


def overview(tx: Transaction, *, limit: int = 20, rules: AssociationRules | None = None) -> Facts:
    """Return all that the status page says, newest first, at most `limit` rows a list.

    Args:
        tx: the transaction to look in.
        limit: rows a list.
        rules: whom the configuration lets in; without them nobody counts as a stranger.
    """
    return {
        "now": tx.now.isoformat(),
        "nodes": _rows(tx, select(node.c.id, node.c.ae_title, node.c.started_at)),
        "roles": [_role(row, tx.now) for row in tx.connection.execute(select(worker))],
        "counts": {
            "studies": _count_by(tx, study.c.state),
            "jobs": _count_by(tx, job.c.state),
            "deliveries": _count_by(tx, delivery.c.state),
            "instances": tx.connection.execute(
                select(func.count()).select_from(instance)
            ).scalar_one(),
        },
        "attention": _rows(
            tx,
            _events().where(event.c.level == ATTENTION, event.c.resolved_at.is_(None)).limit(limit),
        ),
        "destinations": destinations.listing(tx),
        "audit": audit_sinks.listing(tx),
        "strangers": [] if rules is None else strangers.listing(tx, rules, limit),
        "studies": _rows(tx, _studies(limit)),
        "series": _rows(tx, _series().order_by(series.c.last_at.desc()).limit(limit)),
        "jobs": _rows(tx, _jobs(limit)),
        "deliveries": _rows(tx, _deliveries(limit)),
        "fetches": [_fetch(row, tx.now) for row in tx.connection.execute(_fetches(limit))],
        "associations": _rows(
            tx, select(association).order_by(association.c.id.desc()).limit(limit)
        ),
    }


def silent_roles(tx: Transaction, roles: Sequence[str]) -> list[str]:
    """Return which of these roles of this node gave no sign of life of late, in their order."""
    rows = tx.connection.execute(select(worker).where(worker.c.node_id == tx.node_id))
    alive = {row.role for row in rows if tx.now - row.seen_at <= SILENT_AFTER}
    return [role for role in roles if role not in alive]


def listing(tx: Transaction, what: str, *, states: Sequence[str], limit: int) -> list[Facts]:
    """Return studies, jobs or deliveries, newest first.

    Args:
        tx: the transaction to look in.
        what: study, job or delivery.
        states: only in these; none: in all.
        limit: rows at most.
    """
    statement, column = {
        "study": (_studies(limit), study.c.state),
        "job": (_jobs(limit), job.c.state),
        "delivery": (_deliveries(limit), delivery.c.state),
    }[what]
    return _rows(tx, statement.where(column.in_(states)) if states else statement)


def events_of(tx: Transaction, study_uid: str) -> list[Facts]:
    """Return the events of a study, oldest first."""
    found = _events(newest_first=False).where(study.c.study_uid == study_uid)
    return _rows(tx, found)


def _events(*, newest_first: bool = True) -> Select[Any]:
    order: ColumnElement[Any] = event.c.id.desc() if newest_first else event.c.id
    return (
        select(
            event.c.id,
            event.c.at,
            event.c.level,
            event.c.code,
            event.c.detail,
            study.c.study_uid,
            series.c.series_uid,
            event.c.job_id,
            event.c.delivery_id,
        )
        .join(study, study.c.id == event.c.study_id, isouter=True)
        .join(series, series.c.id == event.c.series_id, isouter=True)
        .order_by(order)
    )


def _role(row: Row[Any], now: datetime) -> Facts:
    facts = _plain(row)
    facts["silent"] = now - row.seen_at > SILENT_AFTER
    return facts


def _fetches(limit: int) -> Select[Any]:
    return select(retrieval).order_by(retrieval.c.id.desc()).limit(limit)


def _fetch(row: Row[Any], now: datetime) -> Facts:
    facts = _plain(row)
    facts["silent"] = row.state == FETCHING and now - row.seen_at > LOST_AFTER
    return facts


def _studies(limit: int) -> Select[Any]:
    members = (
        select(func.count())
        .select_from(instance)
        .join(series, series.c.id == instance.c.series_id)
        .where(series.c.study_id == study.c.id)
        .scalar_subquery()
    )
    return (
        select(
            study.c.study_uid,
            study.c.state,
            study.c.hold_reason,
            study.c.first_at,
            study.c.last_at,
            study.c.due_at,
            study.c.look_at,
            study.c.closed_at,
            study.c.closed_by,
            members.label("instances"),
        )
        .order_by(study.c.last_at.desc())
        .limit(limit)
    )


def series_of(tx: Transaction, study_uid: str) -> list[Facts]:
    """Return the series of a study with what was decided on each, by Series Number."""
    found = _series().where(study.c.study_uid == study_uid)
    return _rows(tx, found.order_by(series.c.series_number, series.c.id))


def _series() -> Select[Any]:
    members = (
        select(func.count())
        .select_from(instance)
        .where(instance.c.series_id == series.c.id)
        .scalar_subquery()
    )
    return select(
        study.c.study_uid,
        series.c.series_uid,
        series.c.modality,
        series.c.series_number,
        series.c.description,
        series.c.generation,
        series.c.chosen_model,
        series.c.choice_code,
        series.c.choice,
        series.c.summary,
        members.label("instances"),
    ).join(study, study.c.id == series.c.study_id)


def _jobs(limit: int) -> Select[Any]:
    return (
        select(
            job.c.id,
            study.c.study_uid,
            series.c.series_uid,
            job.c.model_id,
            job.c.generation,
            job.c.state,
            job.c.attempt,
            job.c.failures,
            job.c.shortages,
            job.c.stage,
            job.c.progress,
            job.c.reason,
            job.c.detail,
            job.c.findings,
            job.c.coded,
            job.c.timings,
            job.c.created_at,
            job.c.analysed_at,
            job.c.updated_at,
            job.c.due_at,
        )
        .join(study, study.c.id == job.c.study_id)
        .join(series, series.c.id == job.c.series_id)
        .order_by(job.c.id.desc())
        .limit(limit)
    )


def _deliveries(limit: int) -> Select[Any]:
    return (
        select(
            delivery.c.id,
            delivery.c.job_id,
            delivery.c.destination,
            delivery.c.in_place_of,
            delivery.c.state,
            delivery.c.attempt,
            delivery.c.last_status,
            delivery.c.reason,
            delivery.c.detail,
            delivery.c.due_at,
            delivery.c.updated_at,
            result.c.kind,
            result.c.sop_instance_uid,
            result.c.withdraw_reason,
            delivery.c.withdrawn_by,
            result.c.size,
            result.c.summary,
        )
        .join(result, result.c.id == delivery.c.result_id)
        .order_by(delivery.c.id.desc())
        .limit(limit)
    )


def _count_by(tx: Transaction, column: ColumnElement[Any]) -> dict[str, int]:
    rows = tx.connection.execute(select(column, func.count()).group_by(column).order_by(column))
    return {row[0]: row[1] for row in rows}


def _rows(tx: Transaction, statement: Select[Any]) -> list[Facts]:
    return [_plain(row) for row in tx.connection.execute(statement)]


def plain(value: Any) -> Any:
    """Return a value of a row as JSON can hold it."""
    return value.isoformat() if isinstance(value, datetime) else value


def _plain(row: Row[Any]) -> Facts:
    return {key: plain(value) for key, value in row._mapping.items()}
