"""What admission and the rules need of a data set's header, of its own values alone.

Two parts, because the instances of a series agree in nearly everything: what is the same in all of
them is read once. Every value came from a peer; a fault never shows one.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypedDict

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from dicomnode.domain.identifiers import (
    InstanceUID,
    InvalidUIDError,
    PatientKey,
    SeriesUID,
    SOPClassUID,
    StudyUID,
    parse_uid,
)
from dicomnode.domain.images import ImageFacts
from dicomnode.domain.plans import MANUFACTURER
from dicomnode.domain.records import EndSign, Rejection
from dicomnode.errors import DicomnodeError
from dicomnode.instances import signs
from dicomnode.instances.image_facts import KEYWORDS as IMAGE_KEYWORDS
from dicomnode.instances.image_facts import facts_of, place_of

_IDENTITY = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "AccessionNumber")
_GEOMETRY = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "FrameOfReferenceUID",
    "RescaleSlope",
    "RescaleIntercept",
)
SERIES_KEYWORDS = tuple(
    dict.fromkeys(
        (
            "SpecificCharacterSet",
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "SOPClassUID",
            *_IDENTITY,
            "Modality",
            "SeriesNumber",
            "SeriesDescription",
            "BodyPartExamined",
            "SliceThickness",
            "ContributingEquipmentSequence",
            *signs.SERIES_KEYWORDS,
            *IMAGE_KEYWORDS,
        )
    )
)
"""What `series_fields` looks at, at the top of the data set."""


class UnreadableError(DicomnodeError):
    """The data set cannot be read, or what identifies it is missing or malformed."""


class SeriesFields(TypedDict):
    """Fields of a `Header` that nearly all instances of a series share."""

    study_uid: StudyUID
    series_uid: SeriesUID
    sop_class_uid: SOPClassUID
    patient_key: PatientKey
    identity_digest: str
    modality: str
    series_number: int | None
    series_description: str
    body_part: str
    slice_thickness_mm: float | None
    made_by_this_software: bool
    image: ImageFacts
    study_at: datetime | None
    requested_priority: str


class InstanceFields(TypedDict):
    """Fields of a `Header` that are an instance's own."""

    sop_instance_uid: InstanceUID
    geometry_digest: str
    place_mm: float | None
    end: EndSign | None
    rejection: Rejection | None


def series_fields(dataset: Dataset, key: bytes) -> SeriesFields:
    """Read what the instances of a series share.

    Raises:
        UnreadableError: a UID is missing or malformed.
    """
    thickness = _number(dataset, "SliceThickness")
    number = _number(dataset, "SeriesNumber")
    return SeriesFields(
        study_uid=StudyUID(_uid(dataset, "StudyInstanceUID")),
        series_uid=SeriesUID(_uid(dataset, "SeriesInstanceUID")),
        sop_class_uid=SOPClassUID(_uid(dataset, "SOPClassUID")),
        patient_key=PatientKey(_keyed(key, _texts(dataset, _IDENTITY[:2]))),
        identity_digest=_keyed(key, _texts(dataset, _IDENTITY)),
        modality=_text(dataset, "Modality")[:16],
        series_number=None if number is None else int(number),
        series_description=_text(dataset, "SeriesDescription")[:64],
        body_part=_text(dataset, "BodyPartExamined")[:16],
        slice_thickness_mm=thickness,
        made_by_this_software=_is_ours(dataset),
        image=facts_of(dataset),
        study_at=signs.study_at(dataset),
        requested_priority=signs.priority(dataset),
    )


def instance_fields(dataset: Dataset) -> InstanceFields:
    """Read what is an instance's own.

    Raises:
        UnreadableError: its UID is missing or malformed.
    """
    return InstanceFields(
        sop_instance_uid=InstanceUID(_uid(dataset, "SOPInstanceUID")),
        geometry_digest=_digest(_numbers(dataset, _GEOMETRY)),
        place_mm=place_of(dataset),
        end=signs.end(dataset),
        rejection=signs.rejection(dataset),
    )


def _uid(dataset: Dataset, keyword: str) -> str:
    element = dataset.get_item(keyword)
    if element is None:
        raise UnreadableError(f"{keyword} {Tag(keyword)} is missing")
    value = element.value
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    try:
        return parse_uid(text)
    except InvalidUIDError as error:
        raise UnreadableError(f"{keyword} {Tag(keyword)}: {error}") from error


def _text(dataset: Dataset, keyword: str) -> str:
    """Return a value as text without padding and control characters; empty where there is none."""
    value = dataset.get(keyword)
    if value is None:
        return ""
    return "".join(c for c in str(value) if c.isprintable()).strip()


def _number(dataset: Dataset, keyword: str) -> float | None:
    try:
        value = float(dataset.get(keyword))
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and abs(value) < 2**31 else None


def _texts(dataset: Dataset, keywords: Iterable[str]) -> list[str]:
    return [_text(dataset, keyword).rstrip("^") for keyword in keywords]


def _numbers(dataset: Dataset, keywords: Iterable[str]) -> list[str]:
    """Return values as text in which 1, 1.0 and 1.00 are the same."""
    found = []
    for keyword in keywords:
        value: Any = dataset.get(keyword)
        parts = value if isinstance(value, (list, tuple, MultiValue)) else [value]
        for part in parts:
            try:
                found.append(repr(float(part)))
            except (TypeError, ValueError):
                found.append(str(part or ""))
        found.append(keyword)
    return found


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _keyed(key: bytes, parts: list[str]) -> str:
    return hmac.new(key, "\0".join(parts).encode(), hashlib.sha256).hexdigest()


def _is_ours(dataset: Dataset) -> bool:
    equipment = dataset.get("ContributingEquipmentSequence") or ()
    return any(item.get("Manufacturer") == MANUFACTURER for item in equipment)
