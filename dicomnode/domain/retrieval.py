"""What is fetched, for how long at most, and what it came to. Nobody is asked here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dicomnode.domain.identifiers import SeriesUID, StudyUID
from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry

SUCCESS = 0x0000
WARNING = 0xB000
"""Sub-operations complete, one or more of them with failure or warning (PS3.4 C.4.2.1.5)."""
MOVE_DESTINATION_UNKNOWN = 0xA801
CANCELLED = 0xFE00
NOT_AUTHORIZED = 0x0124
SOP_CLASS_NOT_SUPPORTED = 0x0122
PROCESSING_FAILURE = 0x0110


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """How long a fetch may take."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    silence_seconds: float = 300.0
    """Between two messages of the archive; it may have to read from tape."""
    max_seconds: float = 7200.0
    """For one study."""

    def __post_init__(self) -> None:
        for name in ("silence_seconds", "max_seconds"):
            if not 0 < getattr(self, name) <= 86400:
                raise ValueError(f"{name} must be more than 0 and at most 86400 seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be fetched."""

    study_uid: StudyUID
    series_uid: SeriesUID | None = None
    """Only this series of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubOperations:
    """Numbers of Sub-operations (PS3.7 C.4.2, C.4.3): a C-STORE of one instance each."""

    remaining: int | None = None
    """None where the archive does not say."""
    completed: int = 0
    failed: int = 0
    warning: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """The archive's last word on a retrieve."""

    status: int
    operations: SubOperations
    failed_uids: tuple[str, ...] = ()
    """Failed SOP Instance UID List (0008,0058); archives may leave it out."""


def judge(retrieved: Retrieved) -> Outcome:
    """Say what the final status of a C-MOVE or C-GET means (PS3.4 C.4.2.1.5 and C.4.3.1.4)."""
    status, operations = retrieved.status, retrieved.operations
    code = f"STATUS_{status:04X}"
    if status == MOVE_DESTINATION_UNKNOWN:
        detail = (
            "the archive does not know this node's AE title as a destination: register it there"
        )
        return Refuse("MOVE_DESTINATION_UNKNOWN", detail)
    if status == CANCELLED:
        return Retry("CANCELLED", "the retrieve was given up")
    if status in (SUCCESS, WARNING) and not operations.failed and not retrieved.failed_uids:
        if not operations.warning:
            return Done()
        detail = f"{operations.warning} instances were stored with a warning"
        return Done("FETCHED_WITH_WARNING", detail)
    if operations.failed or retrieved.failed_uids or status == WARNING:
        return Retry("PARTLY_FETCHED", _partly(retrieved))
    if status == NOT_AUTHORIZED:
        return Refuse("NOT_AUTHORIZED", "the archive does not authorise this node to retrieve")
    if status == SOP_CLASS_NOT_SUPPORTED:
        return Refuse("CONTEXT_REFUSED", "the archive does not offer this retrieve")
    if status & 0xFF00 == 0xA700 or status == PROCESSING_FAILURE:
        return Retry(code, "the archive is out of resources or failed")
    if status & 0xF000 == 0xC000:  # Orthanc answers so where one instance was refused here
        return Retry(code, "the archive was unable to process it, or stopped at the first failure")
    return Refuse(code, "the archive refused the retrieve")


def _partly(retrieved: Retrieved) -> str:
    operations = retrieved.operations
    failed = max(operations.failed, len(retrieved.failed_uids))
    text = f"{failed} instances failed, {operations.completed + operations.warning} came"
    if retrieved.status not in (SUCCESS, WARNING):
        text += f"; status 0x{retrieved.status:04X}"
    return text
