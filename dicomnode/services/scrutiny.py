"""The last look at a result before it goes: its bytes, who may get it, and whose the study is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dicomnode.domain.destinations import may_go
from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.domain.plans import FILES
from dicomnode.domain.records import Delivery
from dicomnode.domain.subjects import IDENTITY_DIFFERS, Subject, differences
from dicomnode.instances import UnreadableError
from dicomnode.instances.subjects import read_subject
from dicomnode.network.query import find_study
from dicomnode.services.common import Context
from dicomnode.services.peers import call_of
from dicomnode.settings import Peer


class Scrutiny:
    """Looks at what goes to one destination over one association.

    Each study's identity is compared once: merges and corrections happen while jobs wait.
    """

    def __init__(self, context: Context, destination: str) -> None:
        self._context = context
        self._terms = context.settings.destinations[destination]
        self._peer = context.settings.peer_of(destination)
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
        if self._peer is None or not (self._peer.query and self._terms.compare_identity):
            return None
        if delivery.overridden or delivery.study_id in self._same:
            return None
        differs = self._compare(self._peer, subject)
        if differs is None:
            self._same.add(delivery.study_id)
        return differs

    def _compare(self, peer: Peer, subject: Subject) -> Refuse | Retry | None:
        """Ask the destination whose the study is; one that does not know it has no objection."""
        call = call_of(self._context.settings, peer)
        found = find_study(call, subject.study_uid, identity=True)
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
