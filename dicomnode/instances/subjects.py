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

from dicomnode.domain.subjects import Subject
from dicomnode.instances.fields import UnreadableError
from dicomnode.instances.files import read_meta

BEGINNING_BYTES = 1 << 20
"""Of a data set: group 0012 and Study Instance UID (0020,000D) lie in it."""
_AFTER = 0x0020000E


def read_subject(path: Path) -> Subject:
    """Read whose an instance is.

    Raises:
        UnreadableError: the file is no DICOM file, or lacks what says it.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        syntax, start = read_meta(file)
        file.seek(start)
        data = file.read(BEGINNING_BYTES)
    uid = UID(syntax)
    try:
        if uid.is_deflated:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, BEGINNING_BYTES)
        dataset = read_dataset(
            BytesIO(data), uid.is_implicit_VR, uid.is_little_endian, stop_when=_is_past
        )
        return _subject(dataset)
    except (EOFError, ValueError, KeyError, zlib.error, BytesLengthException) as error:
        raise UnreadableError(f"whose it is cannot be read ({type(error).__name__})") from error


def _is_past(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) >= _AFTER


def _subject(dataset: Dataset) -> Subject:
    def text(keyword: str) -> str:
        value = dataset.get(keyword)
        return "" if value is None else str(value).strip()

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
