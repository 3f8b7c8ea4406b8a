"""What the tick role lets go: input and results by age and state, quarantine by its bound, events.

The decisions are in `domain.retention`. The ledger says first that bytes are gone, then they go.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from dicomnode.domain.retention import Quarantined, cutoff, leaves_quarantine
from dicomnode.ledger import retention
from dicomnode.services.common import Context

log = logging.getLogger(__name__)

EVERY_SECONDS = 600.0
_CHUNK = 500


def retain(context: Context) -> int:
    """Purge what is old and needed no more; return how many studies and result sets went."""
    count = _purge_input(context) + _purge_results(context)
    _bound_quarantine(context)
    _compact(context)
    return count


def finish_purges(context: Context) -> int:
    """Remove what is recorded as purged and still has bytes: the role ended in the midst."""
    spool, count = context.spool, 0
    for names in _chunks(sorted(path.name for path in spool.instances.iterdir())):
        with context.ledger.transaction() as tx:
            ids = retention.purged_studies(tx, names)
        for study_id in ids:
            _remove_study(context, study_id)
        count += len(ids)
    folders = sorted(path.name for path in spool.results.iterdir() if path.name.isdecimal())
    for names in _chunks(folders):
        with context.ledger.transaction() as tx:
            jobs = retention.purged_results(tx, [int(name) for name in names])
        for job_id in jobs:
            spool.remove_results(job_id)
        count += len(jobs)
    if count:
        log.info("PURGES_FINISHED", extra={"fields": {"count": count}})
    return count


def _chunks(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _CHUNK):
        yield names[start : start + _CHUNK]


def _purge_input(context: Context) -> int:
    policy, must = context.settings.retention, context.settings.must_commit
    with context.ledger.transaction() as tx:
        before = cutoff(policy.input_days, tx.now)
        old = [] if before is None else retention.old_studies(tx, before)
    count = 0
    for study_id in old:
        if context.stop.is_set():
            break
        with context.ledger.transaction() as tx:
            why = retention.purge_study(tx, study_id, policy, must)
        if why is None:
            _remove_study(context, study_id)
            count += 1
    return count


def _remove_study(context: Context, study_id: int) -> None:
    with context.ledger.transaction() as tx:
        retention.removing_study(tx, study_id, context.spool.remove)


def _purge_results(context: Context) -> int:
    policy, must = context.settings.retention, context.settings.must_commit
    with context.ledger.transaction() as tx:
        before = cutoff(policy.results_days, tx.now)
        old = [] if before is None else retention.old_results(tx, before)
    count = 0
    for job_id in old:
        if context.stop.is_set():
            break
        with context.ledger.transaction() as tx:
            why = retention.purge_results(tx, job_id, policy, must)
        if why is None:
            context.spool.remove_results(job_id)
            count += 1
    return count


def _bound_quarantine(context: Context) -> None:
    notes = {path: _note(path) for path in context.spool.quarantine.glob("*.json")}
    uids = {str(note["sop_instance_uid"]) for note in notes.values() if "sop_instance_uid" in note}
    held: set[str] = set()
    for names in _chunks(sorted(uids)):
        with context.ledger.transaction() as tx:
            held |= retention.in_held_studies(tx, names)
    items = [
        item
        for path, note in notes.items()
        if (item := _item(path, is_held=note.get("sop_instance_uid") in held)) is not None
    ]
    with context.ledger.transaction() as tx:
        gone = leaves_quarantine(items, context.settings.retention, tx.now)
        if gone:
            size = sum(one.size for one in gone)
            tx.event(
                "QUARANTINE_PURGED", level="warning", detail=f"{len(gone)} files, {size} bytes"
            )
    for one in gone:
        for suffix in (".dcm", ".json"):  # the note last: without it the bytes would be nobody's
            (context.spool.quarantine / one.name).with_suffix(suffix).unlink(missing_ok=True)


def _note(path: Path) -> dict[str, object]:
    try:
        note = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        log.warning("QUARANTINE_NOTE_UNREADABLE", extra={"fields": {"detail": str(error)[:200]}})
        return {}
    return note if isinstance(note, dict) else {}


def _item(path: Path, *, is_held: bool) -> Quarantined | None:
    """Return what lies in quarantine under a note; None where it is on its way in or out."""
    try:
        found = path.with_suffix(".dcm").stat()
    except FileNotFoundError:
        return None
    return Quarantined(
        name=path.name,
        size=found.st_size,
        since=datetime.fromtimestamp(found.st_mtime, UTC),
        of_held_study=is_held,
    )


def _compact(context: Context) -> None:
    while not context.stop.is_set():
        with context.ledger.transaction() as tx:
            before = cutoff(context.settings.retention.events_days, tx.now)
            gone = 0 if before is None else retention.compact(tx, before)
        if not gone:
            return
