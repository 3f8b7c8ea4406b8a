"""Bytes of one DICOM file -> a data set whose parts we need are known to be readable.

The bytes come from a peer and are hostile: whatever pydicom raises on them ends as a `Refusal`, and
no text of the file goes into its detail.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomnode.errors import Refusal
from dicomnode.quiet import quiet_pydicom

_READ = (
    # All that imaging looks at: pydicom converts values when they are asked for, and raises then.
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "AccessionNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "LossyImageCompression",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "ConvolutionKernel",
    "KVP",
    "SliceThickness",
    "PixelData",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """One file: its data set, and what the file meta information says of it."""

    dataset: Dataset
    sop_class_uid: str
    """From the data set; where blank there, from the file meta information."""
    transfer_syntax: UID


def parse(data: bytes) -> Parsed:
    """Read a DICOM file (PS3.10), also one without preamble if it names its SOP Class.

    Raises:
        Refusal: UNPARSEABLE.
    """
    with quiet_pydicom():
        try:
            return _parse(data)
        except Refusal:
            raise
        except Exception as error:  # noqa: BLE001 - pydicom raises a dozen types on damaged files
            raise Refusal(
                "UNPARSEABLE", f"A file of {len(data)} bytes is not DICOM ({type(error).__name__})."
            ) from None


def _parse(data: bytes) -> Parsed:
    dataset = pydicom.dcmread(BytesIO(data), force=data[128:132] != b"DICM")
    for keyword in _READ:
        dataset.get(keyword)
    meta = dataset.file_meta
    sop_class = text(dataset, "SOPClassUID") or str(meta.get("MediaStorageSOPClassUID", ""))
    if not sop_class:
        raise Refusal(
            "UNPARSEABLE", f"A file of {len(data)} bytes is not DICOM: it names no SOP Class."
        )
    return Parsed(
        dataset=dataset,
        sop_class_uid=sop_class.rstrip(" \0"),
        transfer_syntax=meta.get("TransferSyntaxUID") or _guessed_syntax(dataset),
    )


def _guessed_syntax(dataset: Dataset) -> UID:
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def text(dataset: Dataset, keyword: str) -> str:
    """Return the value of `keyword` as text without its padding; "" where absent or blank."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the values of `keyword`, which may have one or several, as upper-case texts."""
    value = dataset.get(keyword)
    if value is None:
        return ()
    parts = [value] if isinstance(value, str) else list(value)
    return tuple(str(part).strip(" \0").upper() for part in parts)


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return exactly `count` finite numbers of `keyword`, or None."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    parts = [value] if isinstance(value, (int, float, str)) else list(value)
    try:
        found = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        return None
    if len(found) != count or not all(abs(number) < 1e6 for number in found):
        return None
    return found
