"""The values that decide about a slice: what is read of every image, as plain text.

A value is a tuple of texts without padding, whatever its representation; an attribute that is
absent or empty has no value. Nothing here raises on strange text: who needs a number gets one or
None.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping

import pydicom
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import TEXT_VR_DELIMS

from dicomnode.imaging.elements import Buffer, Encoding, elements

Fields = Mapping[str, tuple[str, ...]]
"""By keyword."""

KEYWORDS = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "Modality",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "AccessionNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PatientOrientation",
    "PixelSpacing",
    "SliceThickness",
    "Rows",
    "Columns",
    "NumberOfFrames",
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
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "ConvolutionKernel",
    "KVP",
    "PixelPresentation",
    "VolumetricProperties",
    "VolumeBasedCalculationTechnique",
    "SeriesDescription",
    "DerivationDescription",
    "ConcatenationUID",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
)
_NUMBERS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d", b"AT": "HH"}
_WORDS = frozenset((b"OB", b"OW", b"SQ", b"UN", b"OD", b"OF", b"OL", b"OV"))
_TEXT = frozenset((b"LO", b"SH", b"PN", b"UC", b"LT", b"ST", b"UT"))

Known = dict[tuple[int, bytes, bytes], tuple[str, ...]]
"""Values that were converted before: most are the same in every slice."""


def tags_of(keywords: Iterable[str]) -> dict[int, str]:
    """Return the keywords by their tags."""
    tags = ((tag_for_keyword(keyword), keyword) for keyword in keywords)
    return {tag: keyword for tag, keyword in tags if tag is not None}


def converter(encoding: Encoding, known: Known) -> Callable[[int, bytes, bytes], tuple[str, ...]]:
    """Return a function from tag, VR and encoded value to the value, for one data set.

    Args:
        encoding: of the data set.
        known: kept between the data sets of a series.
    """
    character_set: tuple[str, ...] = ()

    def convert(tag: int, vr: bytes, raw: bytes) -> tuple[str, ...]:
        nonlocal character_set
        if encoding.implicit or vr == b"UN":
            vr = _dictionary_vr(tag)
        plain = raw.isascii() and b"\x1b" not in raw
        if vr in _TEXT and not plain:  # decided by the character set as well: not kept
            return _as_text(vr, raw, character_set)
        key = (tag, vr if encoding.little else vr.lower(), raw)
        if key not in known:
            known[key] = _as_values(vr, raw, encoding)
        if tag == 0x00080005:
            character_set = known[key]
        return known[key]

    return convert


def read_fields(
    data: Buffer,
    span: tuple[int, int],
    wanted: Mapping[int, str],
    encoding: Encoding,
    known: Known,
) -> dict[str, tuple[str, ...]]:
    """Return the `wanted` values (tag to keyword) of a small data set, as an item of a sequence.

    Raises:
        MalformedError: it is none.
    """
    convert = converter(encoding, known)
    found = {}
    for tag, vr, start, end in elements(data, *span, encoding):
        if tag in wanted:
            values = convert(tag, vr, data[start:end])
            if values:
                found[wanted[tag]] = values
    return found


def fields_of(dataset: Dataset, keywords: Iterable[str] = KEYWORDS) -> dict[str, tuple[str, ...]]:
    """Return the values of a data set that pydicom has read; it may raise anything."""
    found = {}
    for keyword in keywords:
        value = dataset.get(keyword)
        if value is None or isinstance(value, (bytes, pydicom.Sequence)):
            continue
        parts = list(value) if isinstance(value, (list, MultiValue)) else [value]
        texts = tuple(str(part).strip(" \0") for part in parts)
        if any(texts):
            found[keyword] = texts
    return found


def text(fields: Fields, keyword: str) -> str:
    """Return the value of `keyword`; "" where absent or blank."""
    return "\\".join(fields.get(keyword, ()))


def texts(fields: Fields, keyword: str) -> tuple[str, ...]:
    """Return the values of `keyword`, which may have one or several, in upper case."""
    return tuple(value.upper() for value in fields.get(keyword, ()))


def numbers(fields: Fields, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return exactly `count` finite numbers of `keyword`, or None."""
    values = fields.get(keyword, ())
    try:
        found = tuple(float(value) for value in values)
    except ValueError:
        return None
    if len(found) != count or not all(abs(number) < 1e6 for number in found):
        return None
    return found


def number(fields: Fields, keyword: str) -> float | None:
    """Return the one finite number of `keyword`, or None."""
    found = numbers(fields, keyword, 1)
    return None if found is None else found[0]


def _dictionary_vr(tag: int) -> bytes:
    try:
        return dictionary_VR(tag)[:2].encode()  # "US or SS" begins with what serves for both
    except KeyError:
        return b"UN"


def _as_values(vr: bytes, raw: bytes, encoding: Encoding) -> tuple[str, ...]:
    if vr in _WORDS:
        return ()
    form = _NUMBERS.get(vr)
    if form is not None:
        order = "<" if encoding.little else ">"
        size = struct.calcsize(order + form)
        whole = raw[: len(raw) // size * size]
        if vr == b"AT":
            return tuple(f"{a:04X}{b:04X}" for a, b in struct.iter_unpack(order + form, whole))
        return tuple(f"{value:.12g}" for (value,) in struct.iter_unpack(order + form, whole))
    return _as_text(vr, raw, ())


def _as_text(vr: bytes, raw: bytes, character_set: tuple[str, ...]) -> tuple[str, ...]:
    if vr not in _TEXT or (raw.isascii() and b"\x1b" not in raw):
        decoded = raw.decode("latin-1")
    else:
        try:
            encodings = convert_encodings(list(character_set) or None)
            decoded = decode_bytes(raw, encodings, TEXT_VR_DELIMS)
        except (LookupError, ValueError):
            decoded = raw.decode("latin-1")
    values = tuple(value.strip(" \0") for value in decoded.split("\\"))
    return values if any(values) else ()
