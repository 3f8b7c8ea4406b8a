"""What lies in quarantine: listed, put back through the same admission, or discarded by a person.

Putting back changes no decision. What was refused because its sender had announced another instance
is taken as the one that its own data set says it is; what is still refused stays where it is.
Everything may happen twice: the ledger first, then the files.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicomnode import instances
from dicomnode.domain.admission import NO_LEDGER, NO_SPACE, Decision, Fate
from dicomnode.errors import LedgerError
from dicomnode.instances import UnreadableError, file_prefix, same_image, split_file
from dicomnode.ledger import Ledger, actions, associations
from dicomnode.quiet import quiet_pydicom
from dicomnode.services.common import Context, secret_in
from dicomnode.services.desk import Desk, Item, Seat
from dicomnode.services.messages import Compare, Store
from dicomnode.settings import Settings
from dicomnode.spool import Spool

NAME = "quarantine"
NAMES = re.compile(r"[0-9a-f]{32}")
"""Of files in quarantine."""
UNREADABLE = "CANNOT_UNDERSTAND"
MOST_LISTED = 200
_META_BYTES = 1 << 16
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A file in quarantine."""

    name: str
    since: str
    """ISO 8601, UTC."""
    size: int
    code: str
    """Why it is there."""
    detail: str
    status: int | None
    """DICOM status that its sender heard."""
    calling_ae: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """What became of a file that was to be put back."""

    is_gone: bool
    """It is in quarantine no more."""
    code: str
    detail: str


def listing(spool: Spool, most: int = MOST_LISTED) -> dict[str, Any]:
    """Return the newest files in quarantine, how many there are, and their bytes in all."""
    found = sorted(_stats(spool), key=lambda one: (-one[1].st_mtime_ns, one[0]))
    return {
        "files": [asdict(_kept(spool, name, stat)) for name, stat in found[:most]],
        "count": len(found),
        "bytes": sum(stat.st_size for _, stat in found),
    }


def count(spool: Spool) -> int:
    """Return how many files there are; looks at no file, so that it may be asked often."""
    with os.scandir(spool.quarantine) as entries:
        return sum(entry.name.endswith(".dcm") for entry in entries)


def _stats(spool: Spool) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(spool.quarantine) as entries:
        for entry in entries:
            name = entry.name.removesuffix(".dcm")
            if name != entry.name and NAMES.fullmatch(name):
                try:
                    yield name, entry.stat()
                except FileNotFoundError:  # it left while we looked
                    continue


def _kept(spool: Spool, name: str, stat: os.stat_result) -> Kept:
    note = _note(spool, name)
    status = note.get("status")
    return Kept(
        name=name,
        since=datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(),
        size=stat.st_size,
        code=str(note.get("code", "QUARANTINE_NOTE_UNREADABLE")),
        detail=str(note.get("detail", "")),
        status=status if isinstance(status, int) else None,
        calling_ae=str(note.get("calling_ae", "")),
        sop_instance_uid=str(note.get("sop_instance_uid", "")),
    )


def _note(spool: Spool, name: str) -> dict[str, Any]:
    try:
        note = json.loads((spool.quarantine / f"{name}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def discard(spool: Spool, ledger: Ledger, name: str, who: str, reason: str) -> bool:
    """Delete a file for good; return whether it was there.

    Raises:
        LedgerError: nothing has happened.
    """
    path = spool.quarantine / f"{name}.dcm"
    if not NAMES.fullmatch(name) or not path.is_file():
        return False
    kept = _kept(spool, name, path.stat())
    with ledger.transaction() as tx:
        actions.settle_quarantined(tx, name)
        detail = f"{name} ({kept.code}, {kept.size} bytes) by {who}: {reason}"
        tx.event("QUARANTINE_DISCARDED", detail=detail, by=who)
    _remove(spool, name)
    return True


def put_back(settings: Settings, ledger: Ledger, name: str, who: str) -> PutBack | None:
    """Take a file in again, through the same admission; None where there is no such file.

    Raises:
        LedgerError: the ledger or the disk cannot take it now; it stays in quarantine.
        RoleIsRunningError: somebody else puts something back at this moment.
    """
    try:
        return _put_back(settings, ledger, name, who)
    except OSError as error:
        raise LedgerError(f"the spool cannot be used: {error}") from error


def _put_back(settings: Settings, ledger: Ledger, name: str, who: str) -> PutBack | None:
    spool = Spool(settings.spool_folder, NAME)
    with spool.only(NAME):
        spool.clear_tmp()
        for left in spool.left_arriving():  # of one that died at it; the original is still there
            left.unlink()
        path = spool.quarantine / f"{name}.dcm"
        if not NAMES.fullmatch(name) or not path.is_file():
            return None
        context = Context(
            settings=settings,
            spool=spool,
            ledger=ledger,
            patient_key=secret_in(settings.patient_key_file),
            stop=threading.Event(),
        )
        decision = _admit(context, path, _note(spool, name).get("association_id"))
        is_gone = decision.fate is not Fate.QUARANTINE
        with ledger.transaction() as tx:
            if is_gone:
                actions.settle_quarantined(tx, name)
            code = "QUARANTINE_RELEASED" if is_gone else "QUARANTINE_STAYS"
            said = f"{decision.code} {decision.detail}".strip()
            tx.event(code, detail=f"{name} by {who}: {said}", by=who)
        if is_gone:
            _remove(spool, name)
        return PutBack(is_gone=is_gone, code=decision.code, detail=decision.detail)


def _admit(context: Context, path: Path, association_id: object) -> Decision:
    """Have a file decided on as if it came now, and stored if that is the decision."""
    spool = context.spool
    if spool.free_bytes() < context.settings.limits.min_free_bytes:
        raise LedgerError(NO_SPACE.detail)
    try:
        with quiet_pydicom(), path.open("rb") as file:
            header, digest, size = instances.read_file(path, context.patient_key)
            _, start = split_file(file.read(_META_BYTES))
    except UnreadableError as error:
        return Decision(
            status=0, fate=Fate.QUARANTINE, code=UNREADABLE, level="info", detail=str(error)
        )
    prefix = file_prefix(header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid)
    copy = spool.write_arriving(_bytes_of(path, prefix, start))
    try:
        with context.ledger.transaction() as tx:
            known = association_id if isinstance(association_id, int) else None
            seat = Seat(id=associations.known_association(tx, known))
        store = Store(
            header=header,
            sop_class_uid=header.sop_class_uid,
            sop_instance_uid=header.sop_instance_uid,
            digest=digest,
            size=size,
            tmp=copy.name,
        )
        desk = Desk(context)
        answer = _ask(desk, seat, store)
        if isinstance(answer, Compare):
            same = same_image(copy, spool.path(answer.path), decode=answer.decode)
            answer = _ask(desk, seat, replace(store, compared=True, same_image=same))
        if not isinstance(answer, Decision) or answer == NO_LEDGER:
            raise LedgerError("it could not be stored; the log says why")
        return answer
    finally:
        copy.unlink(missing_ok=True)


def _ask(desk: Desk, seat: Seat, store: Store) -> object:
    item = Item(seat, store)
    desk.serve([item])
    return item.reply


def _bytes_of(path: Path, prefix: bytes, start: int) -> Iterator[bytes]:
    """Yield a file with other File Meta Information: what its request said may be wrong."""
    yield prefix
    with path.open("rb") as file:
        file.seek(start)
        while piece := file.read(_PIECE):
            yield piece


def _remove(spool: Spool, name: str) -> None:
    for suffix in (".dcm", ".json"):  # the note last: without it the bytes would be nobody's
        (spool.quarantine / f"{name}{suffix}").unlink(missing_ok=True)
