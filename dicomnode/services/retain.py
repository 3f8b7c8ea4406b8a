"""What the tick role lets go: input and results by age and state, quarantine by its bound, events.

The decisions are in `domain.retention`. The ledger says first that bytes are gone, then they go.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from dicomnode.domain.retention import Quarantined, RetentionPolicy, cutoff, leaves_quarantine
from dicomnode.ledger import retention
from dicomnode.ledger.core import Transaction
from dicomnode.services.auditing import remover
from dicomnode.services.common import Context

log = logging.getLogger(__name__)

EVERY_SECONDS = 600.0
_CHUNK = 500
_T = TypeVar("_T", int, str)


def retain(context: Context) -> int:
    """Purge what is old and needed no more; return how many studies and result sets went."""
    policy = context.settings.retention
    count = _purge(
        context,
        policy.input_days,
        retention.old_studies,
        retention.purge_study,
        partial(_remove_study, context),
    )
    count += _purge(
        context,
        policy.results_days,
        retention.old_results,
        retention.purge_results,
        context.spool.remove_results,
    )
    _bound_quarantine(context)
    _compact(context)
    return count


def _purge(
    context: Context,
    days: float | None,
    old: Callable[[Transaction, datetime], Sequence[int]],
    purge: Callable[[Transaction, int, RetentionPolicy, Collection[str]], str | None],
    remove: Callable[[int], None],
) -> int:
    """Purge what is so old, one after the other, unless something speaks against it; how many."""
    policy, must = context.settings.retention, context.settings.must_commit
    with context.ledger.transaction() as tx:
        before = cutoff(days, tx.now)
        ids = [] if before is None else old(tx, before)
    count = 0
    for one in ids:
        if context.stop.is_set():
            break
        with context.ledger.transaction() as tx:
            why = purge(tx, one, policy, must)
        if why is None:
            remove(one)
            count += 1
    return count


def _remove_study(context: Context, study_id: int) -> None:
    with context.ledger.transaction() as tx:
        retention.removing_study(tx, study_id, remover(context))


def finish_purges(context: Context) -> int:
    """Remove what is recorded as purged and still has bytes: the role ended in the midst."""
    spool = context.spool
    studies = sorted(path.name for path in spool.instances.iterdir())
    jobs = sorted(int(path.name) for path in spool.results.iterdir() if path.name.isdecimal())
    count = _finish(context, studies, retention.purged_studies, partial(_remove_study, context))
    count += _finish(context, jobs, retention.purged_results, spool.remove_results)
    if count:
        log.info("PURGES_FINISHED", extra={"fields": {"count": count}})
    return count


def _finish(
    context: Context,
    there: Sequence[_T],
    purged: Callable[[Transaction, Sequence[_T]], Sequence[int]],
    remove: Callable[[int], None],
) -> int:
    count = 0
    for some in _chunks(there):
        with context.ledger.transaction() as tx:
            ids = purged(tx, some)
        for one in ids:
            remove(one)
        count += len(ids)
    return count


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


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
