"""Read from an instance's bytes what admission needs, with pydicom alone and without its pixels.

Whatever is read here came from a peer and may be malformed in any way; every fault is an
`UnreadableError` that says what and where, and never shows a value.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import struct
import zlib
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import _read_file_meta_info as read_file_meta
from pydicom.filereader import read_dataset, read_preamble
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dicomnode import signs
from dicomnode.domain.identifiers import (
    InstanceUID,
    InvalidUIDError,
    PatientKey,
    SeriesUID,
    SOPClassUID,
    StudyUID,
    TransferSyntaxUID,
    parse_uid,
)
from dicomnode.domain.plans import MANUFACTURER
from dicomnode.domain.records import Header
from dicomnode.errors import DicomnodeError
from dicomnode.image_facts import FactsReader, place_of

log = logging.getLogger(__name__)

_facts = FactsReader()

_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_MAX_INFLATED = 1 << 30
"""Bytes of a deflated data set at most: a thousand times its size fits into it, in memory."""
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


class UnreadableError(DicomnodeError):
    """The data set cannot be read, or what identifies it is missing or malformed."""


def file_prefix(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """Return preamble and File Meta Information for a data set received by C-STORE (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance)
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = pydicom.uid.PYDICOM_IMPLEMENTATION_UID
    buffer = DicomBytesIO()
    pydicom.filewriter.write_file_meta_info(buffer, meta, enforce_standard=True)
    return b"\0" * 128 + b"DICM" + buffer.getvalue()


def split_file(data: bytes) -> tuple[str, int]:
    """Return the transfer syntax of a DICOM file and where its data set begins (PS3.10 7.1).

    Raises:
        UnreadableError: there is no File Meta Information that says it.
    """
    buffer = BytesIO(data)
    try:
        read_preamble(buffer, force=False)
        meta = read_file_meta(buffer)
        return str(meta.TransferSyntaxUID), buffer.tell()
    except Exception as error:  # hostile bytes can raise anything in a parser
        raise UnreadableError(f"no File Meta Information ({type(error).__name__})") from error


def read_header(data: bytes, transfer_syntax: str, key: bytes) -> Header:
    """Read a data set without File Meta Information up to its pixels.

    Args:
        data: the encoded data set, as it came in a C-STORE request.
        transfer_syntax: of the accepted Presentation Context.
        key: hashes the patient's identity.

    Raises:
        UnreadableError: it does not parse, or a UID is missing or malformed.
    """
    try:
        syntax = UID(transfer_syntax)
        raw = _inflate(data) if syntax == DeflatedExplicitVRLittleEndian else data
        buffer = _Stream(raw)
        dataset = read_dataset(
            buffer,
            is_implicit_VR=syntax.is_implicit_VR,
            is_little_endian=syntax.is_little_endian,
            stop_when=_at_pixels,
        )
        if buffer.is_cut:
            raise UnreadableError("the data set ends within an element")
        pixels = memoryview(raw)[buffer.tell() :]
        return _header(dataset, pixels, syntax, key)
    except UnreadableError:
        raise
    except Exception as error:  # hostile bytes can raise anything in a parser
        raise UnreadableError(f"the data set does not parse ({type(error).__name__})") from error


def same_pixels(one: bytes, other: bytes) -> bool | None:
    """Whether two files of one SOP Instance decode to the same pixels.

    Returns:
        None where one of them cannot be decoded here.
    """
    try:
        decoded = [pydicom.dcmread(BytesIO(data)).pixel_array for data in (one, other)]
    except Exception:  # hostile bytes can raise anything in a decoder
        log.warning("PIXELS_NOT_COMPARED", exc_info=True)
        return None
    return decoded[0].shape == decoded[1].shape and bool((decoded[0] == decoded[1]).all())


class _Stream(BytesIO):
    """Knows whether more was asked for than there is: pydicom takes a value cut short as it is."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._short: list[int] = []

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is not None and len(data) < size:
            self._short.append(len(data))
        return data

    @property
    def is_cut(self) -> bool:
        """Whether the end was found elsewhere than where the next element would have begun."""
        return self._short not in ([], [0])


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in _PIXEL_TAGS


def _inflate(data: bytes) -> bytes:
    """Inflate a deflated data set (PS3.5 section A.5), bounded."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    raw = inflater.decompress(data, _MAX_INFLATED)
    if inflater.unconsumed_tail:
        raise UnreadableError(f"the deflated data set is larger than {_MAX_INFLATED} bytes")
    if not inflater.eof:
        raise UnreadableError("the deflated data set ends too early")
    return raw


def _header(dataset: Dataset, pixels: memoryview, syntax: UID, key: bytes) -> Header:
    image = _facts.read(dataset)  # first: it remembers by the values that are not yet converted
    thickness = _number(dataset, "SliceThickness")
    number = _number(dataset, "SeriesNumber")
    return Header(
        study_uid=StudyUID(_uid(dataset, "StudyInstanceUID")),
        series_uid=SeriesUID(_uid(dataset, "SeriesInstanceUID")),
        sop_instance_uid=InstanceUID(_uid(dataset, "SOPInstanceUID")),
        sop_class_uid=SOPClassUID(_uid(dataset, "SOPClassUID")),
        transfer_syntax_uid=TransferSyntaxUID(str(syntax)),
        patient_key=PatientKey(_keyed(key, _texts(dataset, _IDENTITY[:2]))),
        identity_digest=_keyed(key, _texts(dataset, _IDENTITY)),
        pixel_digest=hashlib.sha256(_pixel_value(pixels, syntax)).hexdigest(),
        geometry_digest=_digest(_numbers(dataset, _GEOMETRY)),
        modality=_text(dataset, "Modality")[:16],
        series_number=None if number is None else int(number),
        series_description=_text(dataset, "SeriesDescription")[:64],
        body_part=_text(dataset, "BodyPartExamined")[:16],
        slice_thickness_mm=thickness,
        made_by_this_software=_is_ours(dataset),
        image=image,
        place_mm=place_of(dataset),
        **signs.read(dataset),
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


def _pixel_value(rest: memoryview, syntax: UID) -> memoryview:
    """Return the value of the pixel data element at the start of `rest`.

    Encapsulated values (undefined length) and everything behind them count whole.

    Raises:
        UnreadableError: the element is longer than the data set.
    """
    if len(rest) < 8:
        return rest[:0]
    order = "<" if syntax.is_little_endian else ">"
    if syntax.is_implicit_VR:
        start, length = 8, struct.unpack_from(order + "I", rest, 4)[0]
    elif len(rest) >= 12:
        start, length = 12, struct.unpack_from(order + "I", rest, 8)[0]
    else:
        raise UnreadableError("the data set ends within the pixel data element")
    if length == 0xFFFFFFFF:
        return rest[start:]
    if length > len(rest) - start:
        raise UnreadableError(
            f"the pixel data element says {length} bytes, the data set ends after"
            f" {len(rest) - start}"
        )
    return rest[start : start + length]


def _is_ours(dataset: Dataset) -> bool:
    equipment = dataset.get("ContributingEquipmentSequence") or ()
    return any(item.get("Manufacturer") == MANUFACTURER for item in equipment)
