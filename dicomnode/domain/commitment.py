"""Storage commitment: what a report says of each object, and what follows (PS3.4 annex J)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from dicomnode.domain.lifecycle import CANCELLED, COMMITTED, SUBSTITUTED

PUSH_MODEL = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class."""
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its well-known SOP Instance."""
REQUEST = 1
"""Action Type ID of Request Storage Commitment (PS3.4 J.3.2.1)."""
MAX_RESENDS = 5
INVALID_ARGUMENT_VALUE = 0x0115
"""Status of the answer to a report on a transaction that nobody has begun (PS3.7 annex C)."""
SOP_CLASS_NOT_SUPPORTED = 0x0122
CLASS_INSTANCE_CONFLICT = 0x0119
DUPLICATE_TRANSACTION_UID = 0x0131
NO_SUCH_OBJECT = 0x0112
FINAL = frozenset({SOP_CLASS_NOT_SUPPORTED, CLASS_INSTANCE_CONFLICT})
"""Failure Reasons (0008,1197) that another try would not mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What an archive reports (PS3.4 J.3.3)."""

    transaction_uid: str
    committed: frozenset[str]
    """SOP Instance UIDs."""
    failed: tuple[tuple[str, int], ...]
    """SOP Instance UID and Failure Reason."""


class Verdict(Enum):
    """What follows for an object."""

    COMMITTED = "committed"
    RESEND = "resend"
    ASK_AGAIN = "ask again"
    REFUSED = "refused"


def judge(report: CommitmentReport, sop_instance_uid: str, attempts: int) -> tuple[Verdict, str]:
    """Say what a report means for an object of its transaction, and why.

    An object that is reported as both, or not at all, is not committed.

    Args:
        report: of the archive.
        sop_instance_uid: of the object.
        attempts: how often commitment of it has been asked for.
    """
    reasons = dict(report.failed)
    reason = reasons.get(sop_instance_uid)
    if reason is None and sop_instance_uid in report.committed:
        return Verdict.COMMITTED, ""
    why = "the report does not name it" if reason is None else f"failure reason 0x{reason:04X}"
    if reason in FINAL:
        return Verdict.REFUSED, why
    if attempts >= MAX_RESENDS:
        return Verdict.REFUSED, f"{why}, {attempts} times"
    if reason == DUPLICATE_TRANSACTION_UID:
        return Verdict.ASK_AGAIN, why
    return Verdict.RESEND, why


def may_be_purged(states: Collection[str]) -> bool:
    """Whether the input of results may be purged, as far as commitment goes.

    Args:
        states: of all deliveries of these results to destinations with `commitment: required`.
    """
    return set(states) <= {COMMITTED, CANCELLED, SUBSTITUTED}


def answer_for(sop_class_uid: str, found: tuple[str, bool] | None) -> int | None:
    """Say whether this node commits to an instance; None: it does, else the Failure Reason.

    Args:
        sop_class_uid: as it was asked for.
        found: the SOP Class of what this node has, and whether its bytes are those that it stored;
            None: it has none.
    """
    if found is None:
        return NO_SUCH_OBJECT
    sop_class, is_intact = found
    if sop_class != sop_class_uid:
        return CLASS_INSTANCE_CONFLICT
    return None if is_intact else 0x0110
