"""What to answer to an instance that a peer wants stored: the table of admission.

A decision is a DICOM status, what becomes of the bytes, and the event to record. Statuses of
C-STORE: PS3.4 section B.2.3 and PS3.7 annex C.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dicomnode.domain.identifiers import PatientKey
from dicomnode.domain.records import Header, StoredInstance

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DATA_SET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
PLACED_BY_FRAME = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{last}"
    for last in ("2.1", "2.2", "4.1", "4.4", "128.1", "130", "66.4", "66.7", "30", "6.2")
)
"""SOP Classes whose functional groups say where each frame is: Enhanced and Legacy Converted
Enhanced CT, MR and PET, Segmentations, Parametric Map, Enhanced US Volume (PS3.3)."""

PIXELS_DIFFER = 0xC001
"""Ours: the SOP Instance UID came before with other pixels or another place."""

INFO = "info"
WARNING = "warning"
ATTENTION = "attention"


class Fate(StrEnum):
    """What becomes of the bytes."""

    STORE = "store"
    STORE_ASIDE = "store aside"
    """Kept in its series, but it opens and triggers nothing."""
    DROP = "drop"
    """The same content is already stored."""
    RESTORE = "restore"
    """The same content was stored and is purged: the bytes are kept again."""
    QUARANTINE = "quarantine"
    DISCARD = "discard"
    """Nothing of it is kept: the peer was told so and keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to the peer, the fate of the bytes, and the event."""

    status: int
    fate: Fate
    code: str
    level: str
    detail: str
    hold_study: bool = False


def _decision(
    status: int, fate: Fate, code: str, level: str, detail: str, *, hold_study: bool = False
) -> Decision:
    return Decision(
        status=status, fate=fate, code=code, level=level, detail=detail, hold_study=hold_study
    )


NO_SPACE = _decision(
    OUT_OF_RESOURCES,
    Fate.DISCARD,
    "DISK_FULL",
    WARNING,
    "refused: less disk space is free than limits.min_free_bytes",
)
NO_LEDGER = _decision(
    OUT_OF_RESOURCES, Fate.DISCARD, "STORAGE_FAILED", WARNING, "refused: it could not be stored"
)
TOO_LARGE = _decision(
    OUT_OF_RESOURCES,
    Fate.DISCARD,
    "INSTANCE_TOO_LARGE",
    WARNING,
    "refused: the data set is larger than limits.max_instance_bytes",
)


STORED = _decision(SUCCESS, Fate.STORE, "STORED", INFO, "")
RESTORED = _decision(
    SUCCESS, Fate.RESTORE, "RESTORED", INFO, "its bytes had been purged, and are here again"
)


def unparseable(detail: str) -> Decision:
    """The data set cannot be read, or its UIDs are missing or malformed."""
    return _decision(CANNOT_UNDERSTAND, Fate.QUARANTINE, "CANNOT_UNDERSTAND", ATTENTION, detail)


def decide(
    header: Header,
    *,
    request_sop_class_uid: str,
    request_sop_instance_uid: str,
    digest: str,
    known: StoredInstance | None,
    study_patient: PatientKey | None,
    is_own_result: bool,
    is_rejected: bool = False,
    same_image: bool | None = None,
) -> Decision:
    """Decide on a readable instance.

    Args:
        header: what the data set says.
        request_sop_class_uid: Affected SOP Class UID of the C-STORE request.
        request_sop_instance_uid: Affected SOP Instance UID of the C-STORE request.
        digest: BLAKE3 of the data set's bytes.
        known: what is stored under this SOP Instance UID, if anything is.
        study_patient: whose the study is by what came before, if anything came.
        is_own_result: the SOP Instance UID is one of a result of this node.
        is_rejected: a rejection note of a trusted peer named it before it came.
        same_image: where it `needs_comparing`, whether the decoded pixels and the frames' places
            equal the known ones; None where that was not or could not be found out.
    """
    if (
        header.sop_instance_uid != request_sop_instance_uid
        or header.sop_class_uid != request_sop_class_uid
    ):
        return _decision(
            DATA_SET_DOES_NOT_MATCH,
            Fate.QUARANTINE,
            "DATA_SET_DOES_NOT_MATCH",
            ATTENTION,
            "the data set's SOP Class or Instance UID is not the request's",
        )
    if is_own_result:
        return _decision(
            SUCCESS, Fate.DROP, "OWN_RESULT", INFO, "one of this node's results was routed back"
        )
    if known is not None:
        return _decide_again(header, digest, known, same_image)
    if is_rejected:
        return _decision(
            SUCCESS, Fate.STORE_ASIDE, "REJECTED_BEFORE", INFO, "a rejection note had named it"
        )
    if header.made_by_this_software:
        return _decision(
            SUCCESS, Fate.STORE_ASIDE, "FOREIGN_RESULT", INFO, "a result of another dicomnode"
        )
    if study_patient is not None and study_patient != header.patient_key:
        return _decision(
            SUCCESS,
            Fate.STORE,
            "TWO_PATIENTS",
            ATTENTION,
            "one Study Instance UID came with two patients; the study is held",
            hold_study=True,
        )
    return STORED


def needs_comparing(header: Header, digest: str, known: StoredInstance | None) -> bool:
    """Whether `decide` can only tell the images apart if both are opened and compared.

    Two encodings have to be decoded. Where each frame has a place of its own, the digest of the
    geometry knows nothing of it.
    """
    if known is None or digest == known.digest or header.geometry_digest != known.geometry_digest:
        return False
    if header.pixel_digest != known.pixel_digest:
        return header.transfer_syntax_uid != known.transfer_syntax_uid
    return header.sop_class_uid in PLACED_BY_FRAME


def _decide_again(
    header: Header, digest: str, known: StoredInstance, same_image: bool | None
) -> Decision:
    if digest == known.digest:
        if known.is_purged:
            return RESTORED
        return _decision(SUCCESS, Fate.DROP, "DUPLICATE", INFO, "the same bytes came again")
    is_open = needs_comparing(header, digest, known)
    if header.identity_digest != known.identity_digest or header.study_uid != known.study_uid:
        return _decision(
            SUCCESS,
            Fate.QUARANTINE,
            "IDENTITY_CHANGED",
            ATTENTION,
            "the instance came again with another identity; the study is held",
            hold_study=True,
        )
    if is_open and same_image is None:
        return _decision(
            SUCCESS,
            Fate.QUARANTINE,
            "PIXELS_NOT_COMPARED",
            ATTENTION,
            "the instance came again in a form that cannot be compared; the first copy is used",
        )
    differs = not same_image if is_open else header.pixel_digest != known.pixel_digest
    if differs or header.geometry_digest != known.geometry_digest:
        return _decision(
            PIXELS_DIFFER,
            Fate.QUARANTINE,
            "PIXELS_DIFFER",
            ATTENTION,
            "the SOP Instance UID came before with other pixels or another geometry",
        )
    if known.is_purged:
        return RESTORED
    return _decision(
        SUCCESS, Fate.DROP, "DUPLICATE_HEADER", INFO, "the same pixels came with another header"
    )
