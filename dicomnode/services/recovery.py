"""What is settled between spool and ledger: after a crash when `receive` starts, and after a loss.

A ledger that was lost, or is older than the spool, knows nothing of what was analysed since. To
analyse it again would put a second result set into the archive. So a study for which results lie in
the spool that the ledger does not know is held, and a person decides.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from dicomnode import instances
from dicomnode.domain import admission
from dicomnode.domain.admission import Decision, Fate
from dicomnode.errors import LedgerError
from dicomnode.instances import UnreadableError, seals
from dicomnode.ledger import associations, intake, jobs, knowing
from dicomnode.services.common import Context
from dicomnode.services.desk import Desk, Item, Seat
from dicomnode.services.messages import Store, Stored

log = logging.getLogger(__name__)

TOLD_SECONDS = 1.0
"""Within which a living acceptor tells of a file that it has sealed."""

RESULTS_UNKNOWN = Decision(
    status=admission.SUCCESS,
    fate=Fate.STORE,
    code="RESULTS_UNKNOWN",
    level=admission.ATTENTION,
    detail="results of it lie in the spool that the ledger does not know: it was lost, or is older",
    hold_study=True,
)


@dataclass(slots=True)
class Recovered:
    """What was found and done."""

    registered: int = 0
    """Files that got their row."""
    unreadable: list[str] = field(default_factory=list)
    """Files that get none: they do not parse."""
    lost: int = 0
    """Rows whose bytes are not there."""
    held: int = 0
    """Studies with results that the ledger does not know."""


def recover(context: Context, desk: Desk) -> Recovered:
    """Bring spool and ledger together after a loss; the roles must not run.

    Rows without bytes become those of purged instances: what is sent again is kept again.
    """
    found = check_spool(context, desk, unknown_results=True)
    rows = _rows(context)
    lost = sorted(rows - set(context.spool.stored_instances()))
    for start in range(0, len(lost), 500):
        with context.ledger.transaction() as tx:
            found.lost += intake.bytes_lost(tx, lost[start : start + 500])
    return found


def check_spool(context: Context, desk: Desk, *, unknown_results: bool = False) -> Recovered:
    """Settle what a crash left: unfinished files, files without a row, rows without a file.

    Args:
        context: of the role.
        desk: that gives instances their rows.
        unknown_results: also results of jobs that the ledger has, but not as done, are taken for
            ones that it has forgotten; else only those of jobs that it has not.
    """
    found = Recovered()
    removed, registered = context.spool.clear_tmp(), 0
    for path in context.spool.left_arriving():
        if _register_sealed(context, desk, path):
            registered += 1
            continue
        removed += path.stat().st_size > 0
        path.unlink()
    if registered:
        log.info("SEALED_FILES_REGISTERED", extra={"fields": {"files": registered}})
    if removed:
        log.info("TMP_CLEARED", extra={"fields": {"files": removed}})
    rows = _rows(context)
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
        if _register(context, without_row):
            registered += 1
        elif context.spool.path(without_row).exists():
            found.unreadable.append(without_row)
    found.registered = registered
    found.held = _hold_unknown(context, every=unknown_results)
    return found


def register_orphans(context: Context, desk: Desk) -> None:
    """Give sealed files their rows of which an acceptor that died has not told the desk.

    Others tell of theirs sooner than `TOLD_SECONDS`; a file that the desk hears of twice is one.

    Raises:
        LedgerError: a row cannot be written now.
    """
    registered = 0
    for path in context.spool.left_arriving():
        with suppress(FileNotFoundError):  # it has its row by now, or its sender has gone
            about = path.stat()
            # The clock may have been set since.
            if about.st_size and abs(time.time() - about.st_mtime) > TOLD_SECONDS:
                registered += _register_sealed(context, desk, path)
    if registered:
        log.info("SEALED_FILES_REGISTERED", extra={"fields": {"files": registered}})


def _rows(context: Context) -> set[str]:
    with context.ledger.transaction() as tx:
        return set(knowing.stored_paths(tx))


def _hold_unknown(context: Context, *, every: bool) -> int:
    """Hold the studies of which results lie in the spool that the ledger does not know."""
    spool = context.spool
    folders = {int(one.name): one for one in spool.results.iterdir() if one.name.isdecimal()}
    with context.ledger.transaction() as tx:
        known = jobs.known(tx, folders, only_done=every)
    held = 0
    for job_id in sorted(folders.keys() - known):
        study_uid = _study_of(context, folders[job_id])
        if study_uid is None:
            continue
        with context.ledger.transaction() as tx:
            held += intake.hold_study(tx, study_uid, RESULTS_UNKNOWN)
        # A job of the same number is to come.
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        folders[job_id].rename(spool.results / f"unknown-{job_id}-{stamp}")
        log.warning("RESULTS_UNKNOWN", extra={"fields": {"job": job_id, "study_uid": study_uid}})
    return held


def _study_of(context: Context, folder: Path) -> str | None:
    """Return the Study Instance UID of the results in a folder; None where there are none."""
    for path in sorted(folder.glob("*.dcm")):
        try:
            return instances.read_file(path, context.patient_key)[0].study_uid
        except UnreadableError as error:
            log.warning("BYTES_CHANGED", extra={"fields": {"detail": str(error)}})
    return None


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
    with context.ledger.transaction() as tx:  # a ledger that was restored may not know it
        came_over = associations.known_association(tx, seal.association_id)
    desk.serve([Item(Seat(id=came_over), Stored(store))])
    if desk.owes_rows:
        raise LedgerError("an acknowledged instance cannot be given its row")
    return True


def _register(context: Context, path: str) -> bool:
    """Give a file its row: it was published, but its sender never heard so. False where not."""
    try:
        header, digest, size = instances.read_file(context.spool.path(path), context.patient_key)
    except UnreadableError as error:
        log.warning("FILE_WITHOUT_ROW", extra={"fields": {"path": path, "detail": str(error)}})
        return False
    with context.ledger.transaction() as tx:
        known = knowing.known(tx, header)
        if known.instance is not None and known.instance.is_purged:
            context.spool.remove(path)  # what a purge did not come to
            return False
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
    return True
