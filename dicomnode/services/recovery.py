"""What the receive role settles when it starts: whatever a crash left between spool and ledger."""

from __future__ import annotations

import logging
from pathlib import Path

from dicomnode import instances
from dicomnode.domain import admission
from dicomnode.domain.admission import Fate
from dicomnode.errors import LedgerError
from dicomnode.instances import UnreadableError, seals
from dicomnode.ledger import intake
from dicomnode.services.common import Context
from dicomnode.services.desk import Desk, Item, Seat
from dicomnode.services.messages import Store, Stored

log = logging.getLogger(__name__)


def check_spool(context: Context, desk: Desk) -> None:
    """Settle what a crash left: unfinished files, files without a row, rows without a file."""
    removed = registered = 0
    for path in context.spool.unfinished():
        if _register_sealed(context, desk, path):
            registered += 1
            continue
        removed += path.stat().st_size > 0
        path.unlink()
    if registered:
        log.info("SEALED_FILES_REGISTERED", extra={"fields": {"files": registered}})
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
    for without_row in sorted(files - rows):
        _register(context, without_row)


def _register_sealed(context: Context, desk: Desk, path: Path) -> bool:
    """Give a sealed file its row; its sender has heard Success. False where there is nothing such.

    Raises:
        LedgerError: the row cannot be written: this is no time to begin.
    """
    with path.open("rb") as file:
        seal = seals.decode(file.read(seals.PREAMBLE_BYTES))
    if seal is None:
        return False
    try:
        header, digest, size = instances.read_file(path, context.patient_key)
    except UnreadableError:
        return False  # its bytes were not all there when the seal was
    if (digest, size) != (seal.digest, seal.size):
        return False
    store = Store(
        header=header,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        digest=digest,
        size=size,
        tmp=path.name,
    )
    desk.serve([Item(Seat(id=seal.association_id), Stored(store))])
    if desk.owes_rows:
        raise LedgerError("an acknowledged instance cannot be given its row")
    return True


def _register(context: Context, path: str) -> None:
    """Give a file its row: it was published, but its sender never heard so."""
    try:
        header, digest, size = instances.read_file(context.spool.path(path), context.patient_key)
    except UnreadableError as error:
        log.warning("FILE_WITHOUT_ROW", extra={"fields": {"path": path, "detail": str(error)}})
        return
    with context.ledger.transaction() as tx:
        known = intake.known(tx, header)
        if known.instance is not None and known.instance.is_purged:
            context.spool.remove(path)  # what a purge did not come to
            return
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
