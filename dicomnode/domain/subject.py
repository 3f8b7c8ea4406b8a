"""Who or what was scanned, by the headers: children, limbs and phantoms are flagged.

Models are trained on adults' trunks and heads; of others what they give is less sure. Texts of the
patient are looked at and never repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from dicomnode.domain.findings import Finding

UNDER_18 = "UNDER_18"
EXTREMITY_ONLY = "EXTREMITY_ONLY"
PHANTOM_SCAN = "PHANTOM_SCAN"
ADULT_YEARS = 18
_AGES = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
"""Units of an Age String (PS3.5 6.2) in a year."""
_LIMBS = re.compile(
    r"(UP(PER)?|LOW(ER)?)? ?(EXTREMITY|LIMB|LEG|ARM)|ANKLE|CALCANEUS|CALF|ELBOW|FEMUR|FINGER|FOOT"
    r"|FOREARM|HAND|HINDFOOT|HUMERUS|KNEE|METATARSUS|PATELLA|RADIUS|RADIUSULNA|SCAPHOID|THIGH|THUMB"
    r"|TIBIA|TIBIAFIBULA|TOE|ULNA|WRIST"
)
"""Of Body Part Examined (PS3.16 annex L), with the plural."""
_PHANTOM = re.compile(r"phantom(?! (limb|pain))|catphan|gammex", re.IGNORECASE)
_TEST = re.compile(
    r"\b(qa|qc)\b|quality (control|assurance)|water ?(cylinder|check)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What the headers say, as they say it."""

    age: str = ""
    """Patient's Age (0010,1010), e.g. 017Y."""
    birth_date: str = ""
    """Patient's Birth Date, YYYYMMDD."""
    study_date: str = ""
    body_part: str = ""
    """Body Part Examined."""
    quality_control: str = ""
    """Quality Control Image (0028,0300): YES, NO or BOTH."""
    patient: Sequence[str] = ()
    """Patient's Name and ID; a phantom is often called one."""
    descriptions: Sequence[str] = ()
    """Of study, series and protocol."""


def check_subject(subject: Subject) -> Iterator[Finding]:
    """Yield what the headers say of the patient that a reader of the results has to know."""
    years = age_years(subject)
    if years is not None and years < ADULT_YEARS:
        said = f"The patient is under {ADULT_YEARS}; models are trained on adults."
        yield Finding(code=UNDER_18, sentence=said, severity="warning")
    if re.fullmatch(f"({_LIMBS.pattern})S?", subject.body_part.strip().upper()):
        said = "The headers say that an arm or a leg was scanned."
        yield Finding(code=EXTREMITY_ONLY, sentence=said, severity="info")
    texts = " ".join((subject.body_part, *subject.descriptions))
    named = " ".join(subject.patient)
    control = subject.quality_control.strip().upper() in ("YES", "BOTH")
    if control or _TEST.search(texts) or _PHANTOM.search(f"{texts} {named}"):
        said = "The headers say that a phantom was scanned, not a patient."
        yield Finding(code=PHANTOM_SCAN, sentence=said, severity="warning")


def age_years(subject: Subject) -> float | None:
    """Return the age in years, by birth and study date, else as stated; None: not known."""
    born, studied = (_date(text) for text in (subject.birth_date, subject.study_date))
    if born is not None and studied is not None and studied >= born:
        before = (studied.month, studied.day) < (born.month, born.day)
        return float(studied.year - born.year - before)
    stated = re.fullmatch(r"(\d{1,3})([DWMY])", subject.age.strip())
    return None if stated is None else int(stated[1]) / _AGES[stated[2]]


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text.strip()) if re.fullmatch(r"\d{8}", text.strip()) else None
    except ValueError:
        return None
