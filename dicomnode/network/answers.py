"""What an archive answers to a query, read with distrust: C-FIND identifiers and QIDO-RS items.

Both are data sets of the same attributes (PS3.4 C.6, PS3.18 10.6.3). Every value is checked;
identity is in the records only if it was asked for.
"""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from dicomnode.domain.holdings import Identity, SeriesRecord, StudyRecord
from dicomnode.domain.identifiers import (
    InvalidUIDError,
    SeriesUID,
    SOPClassUID,
    StudyUID,
    parse_uid,
)
from dicomnode.domain.outcomes import Refuse, Retry

MAX_TEXT = 1024
IDENTITY = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")


class FailedError(Exception):
    """A query ended without an answer that can be used."""

    def __init__(self, outcome: Retry | Refuse) -> None:
        super().__init__(outcome.code)
        self.outcome = outcome


def _value(answer: Dataset, keyword: str) -> Any:
    try:
        return answer.get(keyword)
    except Exception as error:  # hostile bytes can raise anything in a parser
        detail = f"{keyword} is not readable ({type(error).__name__})"
        raise FailedError(Refuse("UNUSABLE_ANSWER", detail)) from error


def text_of(answer: Dataset, keyword: str) -> str:
    """Return a value as a text without control characters, whatever the peer has put there."""
    value = _value(answer, keyword)
    text = "" if value is None else str(value)
    return "".join(c for c in text if c.isprintable()).strip()[:MAX_TEXT]


def _texts(answer: Dataset, keyword: str) -> tuple[str, ...]:
    value = _value(answer, keyword)
    many = [value] if isinstance(value, str) else list(value or ())
    return tuple(sorted({str(one).strip() for one in many if str(one).strip()}))


def _number(answer: Dataset, keyword: str) -> int | None:
    text = text_of(answer, keyword)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def uid_of(answer: Dataset, keyword: str) -> str:
    """Return a UID.

    Raises:
        FailedError: it is none.
    """
    try:
        return parse_uid(text_of(answer, keyword))
    except InvalidUIDError as error:
        raise FailedError(Refuse("UNUSABLE_ANSWER", f"{keyword}: {error}")) from error


def classes_of(answer: Dataset, keyword: str) -> tuple[SOPClassUID, ...]:
    """Return the SOP Class UIDs of an attribute."""
    found = []
    for text in _texts(answer, keyword):
        try:
            found.append(SOPClassUID(parse_uid(text)))
        except InvalidUIDError:
            continue  # what no UID is names no class
    return tuple(found)


def study_record(answer: Dataset, *, identity: bool) -> StudyRecord:
    """Return what an answer says of a study.

    Raises:
        FailedError: it cannot be used.
    """
    return StudyRecord(
        study_uid=StudyUID(uid_of(answer, "StudyInstanceUID")),
        study_date=text_of(answer, "StudyDate"),
        accession_number=text_of(answer, "AccessionNumber"),
        modalities=_texts(answer, "ModalitiesInStudy"),
        sop_class_uids=classes_of(answer, "SOPClassesInStudy"),
        instances=_number(answer, "NumberOfStudyRelatedInstances"),
        identity=Identity(
            patient_id=text_of(answer, "PatientID"),
            issuer=text_of(answer, "IssuerOfPatientID"),
            patient_name=text_of(answer, "PatientName"),
            birth_date=text_of(answer, "PatientBirthDate"),
        )
        if identity
        else None,
    )


def series_record(answer: Dataset, asked: StudyUID) -> SeriesRecord:
    """Return what an answer says of a series.

    Raises:
        FailedError: it cannot be used.
    """
    # Some peers leave out the Study UID that they were given.
    study = uid_of(answer, "StudyInstanceUID") if text_of(answer, "StudyInstanceUID") else asked
    return SeriesRecord(
        study_uid=StudyUID(study),
        series_uid=SeriesUID(uid_of(answer, "SeriesInstanceUID")),
        modality=text_of(answer, "Modality")[:16],
        series_number=text_of(answer, "SeriesNumber")[:16],
        instances=_number(answer, "NumberOfSeriesRelatedInstances"),
    )


def only_study(found: list[StudyRecord], study_uid: str) -> StudyRecord | None:
    """Return the study that was asked for; None where the archive does not know it.

    Raises:
        FailedError: the archive has it more than once.
    """
    asked = [record for record in found if record.study_uid == study_uid]
    if len(asked) > 1:
        raise FailedError(Refuse("UNUSABLE_ANSWER", "the peer has the study more than once"))
    return asked[0] if asked else None
