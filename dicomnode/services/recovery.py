"""What the receive role settles when it starts: whatever a crash left between spool and ledger."""

from __future__ import annotations

import logging

from dicomnode import instances
from dicomnode.domain import admission
from dicomnode.domain.admission import Fate
from dicomnode.instances import UnreadableError
from dicomnode.ledger import intake
from dicomnode.services.common import Context

log = logging.getLogger(__name__)


def check_spool(context: Context) -> None:
    """Settle what a crash left: unfinished files, files without a row, rows without a file."""
    removed = context.spool.clear_tmp()
    if removed:
        log.info("TMP_CLEARED", extra={"fields": {"files": removed}})
    with context.ledger.transaction() as tx:
        rows = set(intake.stored_paths(tx))
    files = set(context.spool.stored_instances())
    lost = rows - files
    if lost:
        with context.ledger.transaction() as tx:
            tx.event_again(
                "BYTES_MISSING",
                level=admission.ATTENTION,
                detail=f"{len(lost)} instances of the ledger have no file in the spool",
            )
    for path in sorted(files - rows):
        _register(context, path)


def _register(context: Context, path: str) -> None:
    """Give a file its row: it was published, but its sender never heard so."""
    try:
        header, digest, size = instances.read_file(context.spool.path(path), context.patient_key)
    except UnreadableError as error:
        log.warning("FILE_WITHOUT_ROW", extra={"fields": {"path": path, "detail": str(error)}})
        return
    with context.ledger.transaction() as tx:
        known = intake.known(tx, header)
        decision = admission.decide(
            header,
            request_sop_class_uid=header.sop_class_uid,
            request_sop_instance_uid=header.sop_instance_uid,
            digest=digest,
            known=known.instance,
            study_patient=known.study_patient,
            is_own_result=known.is_own_result,
            is_rejected=known.is_rejected,
        )
        if decision.fate in (Fate.STORE, Fate.STORE_ASIDE):
            intake.add(
                tx,
                header,
                decision,
                digest=digest,
                size=size,
                path=path,
                association_id=None,
                policy=context.settings.assembly,
                counts=decision.fate is Fate.STORE,
            )
    log.info("FILE_REGISTERED", extra={"fields": {"path": path}})
