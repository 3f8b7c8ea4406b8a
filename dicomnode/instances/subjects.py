"""Whose a stored instance is, read from the beginning of its file, and no more of it."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from dicomnode.domain.audit_acts import Patient
from dicomnode.domain.subjects import Subject
from dicomnode.instances.fields import UnreadableError
from dicomnode.instances.files import read_meta
from dicomnode.quiet import quiet_pydicom

BEGINNING_BYTES = 1 << 20
"""Of a data set: group 0012 and Study Instance UID (0020,000D) lie in it."""
_AFTER = 0x0020000E
_DAMAGED = (ValueError, LookupError, NotImplementedError, BytesLengthException)
"""What pydicom raises at values that are none; NotImplementedError at unknown representations."""


def read_subject(path: Path) -> Subject:
    """Read whose an instance is.

    Raises:
        UnreadableError: the file is no DICOM file, or lacks what says it.
        OSError: the file cannot be read.
    """
    with quiet_pydicom():
        return _subject(_beginning(path))


def read_patient(path: Path) -> Patient:
    """Read whom an instance shows, as text in which wrong characters are replaced.

    Raises:
        UnreadableError: the file is no DICOM file.
        OSError: the file cannot be read.
    """
    with quiet_pydicom():
        dataset = _beginning(path)
        return Patient(
            id=_text(dataset, "PatientID"),
            issuer=_text(dataset, "IssuerOfPatientID"),
            name=_text(dataset, "PatientName"),
        )


def _beginning(path: Path) -> Dataset:
    with path.open("rb") as file:
        syntax, start = read_meta(file)
        file.seek(start)
        data = file.read(BEGINNING_BYTES)
    uid = UID(syntax)
    try:
        if uid.is_deflated:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, BEGINNING_BYTES)
        return read_dataset(
            BytesIO(data), uid.is_implicit_VR, uid.is_little_endian, stop_when=_is_past
        )
    except (EOFError, zlib.error, *_DAMAGED) as error:
        raise UnreadableError(f"whose it is cannot be read ({type(error).__name__})") from error


def _is_past(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) >= _AFTER


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        value = dataset.get(keyword)
    except _DAMAGED as error:
        raise UnreadableError(f"{keyword} cannot be read ({type(error).__name__})") from error
    return "" if value is None else str(value).strip()


def _subject(dataset: Dataset) -> Subject:
    def text(keyword: str) -> str:
        return _text(dataset, keyword)

    if not text("StudyInstanceUID"):
        raise UnreadableError("it names no study")
    return Subject(
        study_uid=text("StudyInstanceUID"),
        patient_id=text("PatientID"),
        issuer=text("IssuerOfPatientID"),
        birth_date=text("PatientBirthDate"),
        accession_number=text("AccessionNumber"),
        is_deidentified=text("PatientIdentityRemoved").upper() == "YES",
    )
