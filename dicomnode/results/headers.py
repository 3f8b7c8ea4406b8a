"""Headers of the source made fit to be copied into results.

Real headers hurt: type 2 attributes are missing, dates are malformed, character sets misspelt. What
says who the patient and which the study is, is copied exactly or the series is refused; of the rest
what is invalid is mapped or left blank, and said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds, validate_value

from dicomnode.errors import Refusal
from dicomnode.patient_and_study import BESIDES, PATIENT_AND_STUDY, TYPE_2
from dicomnode.quiet import quiet_pydicom
from dicomnode.results.character_sets import REPLACEMENT, choose_character_set
from dicomnode.scan import Scan, SliceSource

IDENTITY = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "AccessionNumber",
    "StudyInstanceUID",
)
"""Copied exactly or refused."""
_COPIED = (
    *PATIENT_AND_STUDY,
    # The equipment of the source, named in Contributing Equipment.
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "DeviceSerialNumber",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "InstitutionAddress",
    "StationName",
)
_DEIDENTIFICATION = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
_CODE_SEQUENCES = ("DeidentificationMethodCodeSequence", "ProcedureCodeSequence")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A scan whose headers can be copied into results."""

    scan: Scan
    headers: tuple[Dataset, ...]
    """One a slice, in slice order: what a reference needs, with the patient and the study. Frames
    of one instance have its SOP Instance UID in common; `scan.sources` tells them apart."""
    extra: Dataset
    """Attributes of the patient and study for every result beyond those of `headers`."""
    requests: tuple[Dataset, ...]
    """Items of Request Attributes Sequence: what the images were asked for with."""
    identity: Dataset
    """`IDENTITY`, exactly as in the source."""
    acquisition: Dataset
    """Header of the first slice (`Scan.header`): how the images were made."""
    findings: tuple[str, ...]
    """What was mapped or left blank; no patient data."""


def prepare(scan: Scan) -> Source:
    """Make the headers of `scan` fit to be copied into results.

    Raises:
        Refusal: INVALID_IDENTIFIERS, where identity is not even text; BAD_CHARACTER_SET, where text
            that identifies patient or study would change.
    """
    with quiet_pydicom():
        original = scan.header
        _check_representations(original)
        findings: list[str] = []
        common = Dataset()
        for keyword in _COPIED:
            element = _clean(original, keyword, findings)
            # An empty attribute that may be left out can break a condition of the standard.
            if element is not None and not element.is_empty:
                common.add(element)
        for keyword in TYPE_2:
            if keyword not in common:
                setattr(common, keyword, "")
        _say_method(common)
        extra = Dataset()
        for keyword in BESIDES:
            element = _clean(original, keyword, findings)
            if element is not None:
                extra.add(element)
        requests = _clean(original, "RequestAttributesSequence", findings)
        identity = Dataset()
        for keyword in IDENTITY:
            if keyword in original:
                identity.add(original[keyword])
        character_set = choose_character_set(original, identity)
        if character_set is not None:
            common.SpecificCharacterSet = character_set
        headers = tuple(_slice_header(scan, source, common) for source in scan.sources)
        return Source(
            scan=scan,
            headers=headers,
            extra=extra,
            requests=tuple(requests.value) if requests is not None else (),
            identity=identity,
            acquisition=original,
            findings=tuple(findings),
        )


def _check_representations(original: Dataset) -> None:
    """Refuse identity in a value representation of another kind: what it says is anybody's guess.

    Raises:
        Refusal: INVALID_IDENTIFIERS.
    """
    for keyword in IDENTITY:
        element = original.get_item(keyword)
        if element is not None and element.VR not in (None, "UN", dictionary_VR(keyword)):
            raise Refusal(
                "INVALID_IDENTIFIERS",
                f"{keyword} is written as {element.VR} instead of {dictionary_VR(keyword)}.",
            )


def _say_method(common: Dataset) -> None:
    """Name a De-identification Method where the flag stands alone: neither may be lost."""
    stated = any(keyword in common for keyword in _DEIDENTIFICATION)
    if common.get("PatientIdentityRemoved") == "YES" and not stated:
        common.DeidentificationMethod = "Not stated by the source"


def _slice_header(scan: Scan, source: SliceSource, common: Dataset) -> Dataset:
    result = Dataset()
    result.update(common)
    fields = source.fields
    result.SOPClassUID = source.sop_class_uid
    result.SOPInstanceUID = source.sop_instance_uid
    result.Modality = scan.modality
    for keyword in ("SeriesInstanceUID", "FrameOfReferenceUID", "PositionReferenceIndicator"):
        setattr(result, keyword, "\\".join(fields.get(keyword, ())))
    result.Rows, result.Columns = scan.volume.shape[1:]
    for keyword in ("ImagePositionPatient", "PixelSpacing"):
        setattr(result, keyword, [_decimal(value) for value in fields[keyword]])
    # One orientation for all: rounding differences between slices break references.
    result.ImageOrientationPatient = [format_number_as_ds(value) for value in scan.orientation]
    thickness = _positive((fields.get("SliceThickness") or ("",))[0])
    result.SliceThickness = thickness or f"{scan.spacing_mm[0]:.6g}"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        values = list(fields.get(keyword, ())) if scan.lossy else []
        if values and _is_valid(dictionary_VR(keyword), values):
            setattr(result, keyword, values)
    result.LossyImageCompression = "01" if scan.lossy else "00"
    return result


def _decimal(value: str) -> str:
    """Return a number as it was written, or in another form where that is no Decimal String."""
    return value if _is_valid("DS", value) else format_number_as_ds(float(value))


def value_of(header: Dataset, keyword: str) -> Any:
    """Return the value of `keyword`; None where it is absent, empty or damaged."""
    element = _writable(header, keyword) if keyword in header else None
    return None if element is None or element.is_empty else element.value


def slice_thickness(header: Dataset) -> str | None:
    """Return Slice Thickness in mm, or None where it is missing or not positive."""
    return _positive(value_of(header, "SliceThickness"))


def _positive(value: Any) -> str | None:
    try:
        found = float(value or 0)
    except (TypeError, ValueError):
        return None
    return f"{found:.6g}" if found > 0 else None


def _clean(original: Dataset, keyword: str, findings: list[str]) -> DataElement | None:
    """Return the element for the results, or None where it is absent or was left out."""
    if keyword not in original:
        return None
    element = _writable(original, keyword)
    if element is None:
        findings.append(f"{keyword} of the source is damaged and was left out.")
        return None
    if keyword in IDENTITY:
        return _placeholder(element)
    if REPLACEMENT in str(element.value):
        findings.append(f"{keyword} of the source is not in its character set and was left out.")
        return None
    if keyword in _CODE_SEQUENCES and not all(
        all(item.get(name) for name in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
        for item in element.value
    ):
        findings.append(f"{keyword} of the source is incomplete and was left out.")
        return None
    if element.VR == "SQ" or element.is_empty:
        return element
    mended = _MENDERS.get(keyword, _same)(str(element.value)) if element.VM == 1 else None
    value = element.value if mended in (None, str(element.value)) else mended
    if mended == "" or not _is_valid(element.VR, value):
        findings.append(f"{keyword} of the source is invalid and was left blank.")
        return None
    if value is not element.value:
        findings.append(f"{keyword} of the source was written in another form.")
        return DataElement(element.tag, element.VR, value)
    return element


def _writable(original: Dataset, keyword: str) -> DataElement | None:
    """Return the element if it, with all that it holds, can be read and written again."""
    alone = Dataset()
    try:
        element = original[keyword]
        alone.add(element)
        pydicom.dcmwrite(BytesIO(), alone, implicit_vr=False, little_endian=True)
    except Exception:  # noqa: BLE001 - pydicom raises a dozen types on damaged values
        return None
    return element


def _placeholder(element: DataElement) -> DataElement:
    # highdicom parses birth dates; the exact value is put in its place afterwards.
    if element.VR == "DA" and not _is_valid("DA", element.value):
        return DataElement(element.tag, "DA", "")
    return element


def _is_valid(representation: str, value: object) -> bool:
    values = value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]
    try:
        for item in values:
            validate_value(representation, item, pydicom.config.RAISE)
            if representation == "DA":
                datetime.strptime(str(item), "%Y%m%d")  # noqa: DTZ007 - a date has no zone
    except (TypeError, ValueError):
        return False
    return True


def _same(value: str) -> str:
    return value


def _sex(value: str) -> str:
    letter = value.strip().upper()
    return letter if letter in ("M", "F", "O") else ""


def _digits(pattern: str) -> Callable[[str], str]:
    # The forms of ACR-NEMA, "2020.01.31" and "12:30:59", are still met.
    def mend(value: str) -> str:
        return re.sub(r"[.:]", "", value) if re.fullmatch(pattern, value.strip()) else value

    return mend


_MENDERS: dict[str, Callable[[str], str]] = {
    "PatientSex": _sex,
    "StudyDate": _digits(r"\d{4}\.\d{2}\.\d{2}"),
    "StudyTime": _digits(r"\d{2}:\d{2}(:\d{2})?"),
}
