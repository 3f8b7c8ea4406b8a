"""Makes the rejection notes that are due, for `tick`: bytes into the spool, then the ledger."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicomnode.domain.plans import SR
from dicomnode.domain.records import StoredResult
from dicomnode.domain.withdrawal import why
from dicomnode.ledger import withdrawals
from dicomnode.ledger.withdrawals import Due, Named
from dicomnode.rejection_note import Rejected, write_note
from dicomnode.services.common import Context

log = logging.getLogger(__name__)


def withdraw_due(context: Context) -> int:
    """Make every note that is due; return how many.

    Raises:
        LedgerError: the ledger is away; the next tick tries again, as after the others.
        OSError: the spool cannot be used.
    """
    by_note = context.settings.by_note
    if not by_note:
        return 0
    with context.ledger.transaction() as tx:
        withdrawals.mark_superseded(tx, by_note)
        due = withdrawals.due(tx, by_note)
    return sum(_withdraw(context, one) for one in due)


def _withdraw(context: Context, one: Due) -> bool:
    header = _header(context, one.named)
    if header is None:
        with context.ledger.transaction() as tx:
            withdrawals.cannot(tx, one, "none of the results is in the spool")
        return False
    rejected = [
        Rejected(
            kind=item.kind,
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            series_uid=item.series_uid,
        )
        for item in one.named
    ]
    note = write_note(header, rejected, why(one.reason), one.at, context.settings.node.ae_title)
    path = context.spool.result_path(one.job_id, f"{note.sop_instance_uid}.dcm")
    context.spool.write(path, note.data)
    stored = StoredResult(
        kind=note.kind,
        position=0,
        sop_class_uid=note.sop_class_uid,
        sop_instance_uid=note.sop_instance_uid,
        series_uid=note.series_uid,
        transfer_syntax_uid=note.transfer_syntax_uid,
        path=path,
        digest=hashlib.sha256(note.data).hexdigest(),
        size=len(note.data),
        summary=note.summary,
    )
    with context.ledger.transaction() as tx:
        return withdrawals.record(tx, one, stored)


def _header(context: Context, named: Sequence[Named]) -> Dataset | None:
    """Return the patient and the study of a result, by the report if it is there."""
    for item in sorted(named, key=lambda item: item.kind != SR):
        path = context.spool.path(item.path)
        try:
            return pydicom.dcmread(path, stop_before_pixels=True)
        except FileNotFoundError:
            continue
        except InvalidDicomError:
            log.warning("BYTES_CHANGED", extra={"fields": {"result": item.sop_instance_uid}})
    return None
