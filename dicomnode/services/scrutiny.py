"""The last look at a result before it goes: its bytes, who may get it, and whose the study is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from dicomnode.domain.destinations import may_go
from dicomnode.domain.holdings import StudyRecord
from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.domain.plans import FILES
from dicomnode.domain.records import Delivery
from dicomnode.domain.subjects import IDENTITY_DIFFERS, Subject, differences
from dicomnode.domain.web import OF_THE_DESTINATION
from dicomnode.instances import UnreadableError
from dicomnode.instances.subjects import read_subject
from dicomnode.services.common import Context

Ask = Callable[[str], StudyRecord | Retry | Refuse | None]
"""Ask the destination whose the study of a Study Instance UID is; None: it does not know it."""


class Scrutiny:
    """Looks at what goes to one destination over one association.

    Each study's identity is compared once: merges and corrections happen while jobs wait.

    Args:
        context: of the role.
        destination: its name.
        ask: the destination; None where it cannot be asked.
    """

    def __init__(self, context: Context, destination: str, ask: Ask | None) -> None:
        self._context = context
        self._terms = context.settings.destinations[destination]
        self._ask = ask
        self._same: set[int] = set()

    def of(self, delivery: Delivery) -> Refuse | Retry | None:
        """Say why a result may not go, or not now; None if it may."""
        path = self._context.spool.path(delivery.path)
        fault = _fault(path, delivery.digest)
        if fault is not None or delivery.kind in FILES:
            return fault
        try:
            subject = read_subject(path)
        except UnreadableError as error:
            return Refuse("BYTES_CHANGED", str(error))
        refusal = may_go(self._terms.kind, is_deidentified=subject.is_deidentified)
        if refusal is not None:
            return refusal
        if self._ask is None or not self._terms.compare_identity:
            return None
        if delivery.overridden or delivery.study_id in self._same:
            return None
        differs = _compare(subject, self._ask(subject.study_uid))
        if differs is None:
            self._same.add(delivery.study_id)
        return differs


def _compare(subject: Subject, found: StudyRecord | Retry | Refuse | None) -> Refuse | Retry | None:
    """Compare whose a study is; a destination that does not know it has no objection."""
    if isinstance(found, Retry) and found.code in OF_THE_DESTINATION:
        return found
    if isinstance(found, Refuse | Retry):
        return Retry("IDENTITY_NOT_COMPARED", f"{found.code}: {found.detail}")
    different = () if found is None else differences(subject, found)
    if different:
        return Refuse(IDENTITY_DIFFERS, f"the archive has another {' and '.join(different)}")
    return None


def _fault(path: Path, digest: str) -> Refuse | None:
    """Say why a file is not the result that was recorded, or None if it is."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return Refuse("BYTES_MISSING", "the result is not in the spool")
    if found != digest:
        return Refuse("BYTES_CHANGED", "the result in the spool is not the one that was recorded")
    return None
