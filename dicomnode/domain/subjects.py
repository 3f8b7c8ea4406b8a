"""Whose a study is: what a result says and what an archive says, compared just before sending."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from dicomnode.domain.holdings import StudyRecord

IDENTITY_DIFFERS = "IDENTITY_DIFFERS"
"""Code of the hold that follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whose a result is, as it says itself; not shown by `repr`."""

    study_uid: str
    patient_id: str = field(repr=False)
    issuer: str = field(repr=False)
    birth_date: str = field(repr=False)
    accession_number: str = field(repr=False)
    is_deidentified: bool
    """Patient Identity Removed (0012,0062) is YES."""


def differences(ours: Subject, theirs: StudyRecord) -> tuple[str, ...]:
    """Return the names of what differs between a result and the archive's study; never values.

    The Patient ID has to be the same. Issuer, birth date and accession number have to be where both
    state them: archives may leave them out of an answer, and orders are often assigned later.
    """
    if theirs.identity is None:
        return ("Patient ID",)
    pairs = (
        ("Issuer of Patient ID", ours.issuer, theirs.identity.issuer),
        ("Patient's Birth Date", _date(ours.birth_date), _date(theirs.identity.birth_date)),
        ("Accession Number", ours.accession_number, theirs.accession_number),
    )
    found = [name for name, own, other in pairs if own and other and own != other]
    if ours.patient_id != theirs.identity.patient_id:
        found.insert(0, "Patient ID")
    return tuple(found)


def _date(text: str) -> str:
    """Dates of ACR-NEMA have dots: 1950.01.01 (PS3.5 6.2)."""
    return re.sub(r"\D", "", text)
