"""What the ledger knows of instances, as admission and recovery ask it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Row,
    Select,
    bindparam,
    literal,
    null,
    select,
    union_all,
)

from dicomnode.domain.identifiers import PatientKey, StudyUID, TransferSyntaxUID
from dicomnode.domain.records import RETENTION_EXPIRED, Header, StoredInstance
from dicomnode.ledger.asking import Question
from dicomnode.ledger.core import Ledger, Transaction
from dicomnode.ledger.tables import (
    instance,
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
_HEARD_OF = union_all(
    *(
        select(table.c.id).where(table.c.sop_instance_uid == bindparam("uid"))
        for table in (instance, result, rejection)
    )
)


def heard_of(ledger: Ledger) -> Question:
    """Return the question whether anything is known of a SOP Instance UID.

    It may be stored, a result of this node, or named by a rejection note.
    """
    return Question(ledger, _HEARD_OF)


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


def stored_paths(tx: Transaction) -> list[str]:
    """Return the paths of all instances of this node whose bytes should be in its spool."""
    rows = tx.connection.execute(
        select(instance.c.path).where(
            instance.c.node_id == tx.node_id, instance.c.purged_at.is_(None)
        )
    )
    return list(rows.scalars())
