"""A DICOM file -> the values that we need of it, and where its pixels lie.

The bytes come from a peer and are hostile: whatever goes wrong with them ends as a `Refusal`, and
no text of the file goes into its detail. Pixels stay where they are; a file given by its path is
only mapped while it is looked at.
"""

from __future__ import annotations

import mmap
import os
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import _read_file_meta_info as read_file_meta
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomnode.errors import Refusal
from dicomnode.imaging.elements import (
    PIXEL_DATA,
    Buffer,
    Encoding,
    MalformedError,
    elements,
    is_undefined,
)
from dicomnode.imaging.fields import (
    KEYWORDS,
    Fields,
    Known,
    converter,
    fields_of,
    read_fields,
    tags_of,
    text,
)

Source = bytes | Path
"""A whole DICOM file (PS3.10), or where it lies; such a file must not change meanwhile."""

_MAPPED_FROM = 1 << 24
"""Bytes of a file from which on it is mapped to be decoded: smaller ones are read faster."""
MAX_INFLATED = 1 << 30
"""Bytes of a deflated data set at most: a thousand times its size fits into it, in memory."""
_TAGS = tags_of(KEYWORDS)
_META = tags_of(("MediaStorageSOPClassUID", "TransferSyntaxUID"))
_META_ENCODING = Encoding(implicit=False, little=True)
_SPANS = tags_of(
    (
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "DimensionIndexSequence",
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
    )
)
_FUNCTIONAL_GROUPS = 0x52009229


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """Where the value of Pixel Data lies in the data set."""

    start: int
    end: int
    encapsulated: bool
    """Of undefined length: fragments (PS3.5 A.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """One file: what we need of its data set and file meta information."""

    source: Source
    fields: Fields
    sop_class_uid: str
    """From the data set; where blank there, from the file meta information."""
    transfer_syntax: UID
    encoding: Encoding
    start: int | None
    """Where the data set begins in what `opened` returns; None where only pydicom can tell."""
    pixels: Pixels | None
    spans: dict[str, tuple[int, int]]
    """Where the values of some sequences and tables lie, by keyword."""

    def opened(self) -> Buffer:
        """Return the bytes to which the places refer; deflated ones are inflated again.

        Raises:
            Refusal: UNPARSEABLE, where the file has changed.
        """
        data = _bytes_of(self.source, map_from=_MAPPED_FROM)
        if self.transfer_syntax == DeflatedExplicitVRLittleEndian:
            data = _inflated(data, _data_set_start(data))
        if self.pixels is not None and self.pixels.end > len(data):
            raise Refusal("UNPARSEABLE", "A file has changed while it was read.")
        return data


def parse(source: Source, known: Known | None = None) -> Parsed:
    """Read a DICOM file (PS3.10), also one without preamble if it names its SOP Class.

    Args:
        source: the file.
        known: kept by the caller between the files of a series, for speed.

    Raises:
        Refusal: UNPARSEABLE.
    """
    data = _bytes_of(source)
    try:
        try:
            return _walked(source, data, {} if known is None else known)
        except MalformedError:
            # pydicom takes many a liberty with the standard for what it is meant to be.
            return _lenient(source, data)
    except Refusal:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom raises a dozen types on damaged files
        raise Refusal(
            "UNPARSEABLE", f"A file of {len(data)} bytes is not DICOM ({type(error).__name__})."
        ) from None


def read_header(parsed: Parsed) -> Dataset:
    """Return the data set as pydicom reads it, without functional groups and pixel data.

    Raises:
        Refusal: UNPARSEABLE.
    """
    data = parsed.opened()
    end = parsed.pixels.start if parsed.pixels else len(data)

    def stop(tag: pydicom.tag.BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) >= _FUNCTIONAL_GROUPS

    try:
        if parsed.start is None:
            return pydicom.dcmread(BytesIO(data[:end]), force=True, stop_before_pixels=True)
        return read_dataset(
            BytesIO(data[parsed.start : end]),
            is_implicit_VR=parsed.encoding.implicit,
            is_little_endian=parsed.encoding.little,
            stop_when=stop,
        )
    except Exception as error:  # noqa: BLE001 - as above
        raise Refusal(
            "UNPARSEABLE", f"The header of an instance cannot be read ({type(error).__name__})."
        ) from None


def same_pixels(one: Parsed, other: Parsed) -> bool:
    """Whether the encoded pixels of both are the same bytes."""
    values = []
    for item in (one, other):
        data = item.opened()
        values.append(data[item.pixels.start : item.pixels.end] if item.pixels else b"")
    return values[0] == values[1]


def _bytes_of(source: Source, map_from: int = 0) -> Buffer:
    """Return a file's bytes, mapped where it is at least as large as that."""
    if isinstance(source, bytes):
        return source
    with source.open("rb") as file:
        try:
            if os.fstat(file.fileno()).st_size < map_from:
                return file.read()
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            return b""


def _walked(source: Source, data: Buffer, known: Known) -> Parsed:
    if data[128:132] != b"DICM":
        raise MalformedError("no preamble")
    start = _data_set_start(data)
    meta = read_fields(data, (132, start), _META, _META_ENCODING, known)
    syntax = UID(text(meta, "TransferSyntaxUID"))
    if not syntax.is_transfer_syntax:
        raise MalformedError("no transfer syntax")
    if syntax == DeflatedExplicitVRLittleEndian:
        data, start = _inflated(data, start), 0
    encoding = Encoding(
        implicit=syntax == ImplicitVRLittleEndian, little=syntax != ExplicitVRBigEndian
    )
    fields, spans, pixels = _read(data, start, encoding, known)
    return Parsed(
        source=source,
        fields=fields,
        sop_class_uid=text(fields, "SOPClassUID") or text(meta, "MediaStorageSOPClassUID"),
        transfer_syntax=syntax,
        encoding=encoding,
        start=start,
        pixels=pixels,
        spans=spans,
    )


def _read(
    data: Buffer, start: int, encoding: Encoding, known: Known
) -> tuple[Fields, dict[str, tuple[int, int]], Pixels | None]:
    fields, spans = {}, {}
    convert = converter(encoding, known)
    for tag, vr, value, stop in elements(data, start, len(data), encoding):
        if tag in _TAGS:
            values = convert(tag, vr, data[value:stop])
            if values:
                fields[_TAGS[tag]] = values
        elif tag in _SPANS:
            spans[_SPANS[tag]] = (value, stop)
        elif tag == PIXEL_DATA:
            undefined = is_undefined(data, value, vr, encoding)
            return fields, spans, Pixels(start=value, end=stop, encapsulated=undefined)
    return fields, spans, None


def _data_set_start(data: Buffer) -> int:
    """Return where group 0002 ends; File Meta Information Group Length is not relied on."""
    position = 132
    while data[position : position + 2] == b"\x02\x00":
        _, _, _, position = next(elements(data, position, len(data), _META_ENCODING))
    return position


def _inflated(data: Buffer, start: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    raw = inflater.decompress(memoryview(data)[start:], MAX_INFLATED)
    if inflater.unconsumed_tail:
        raise Refusal("UNPARSEABLE", f"A deflated data set is larger than {MAX_INFLATED} bytes.")
    return raw


def _lenient(source: Source, data: Buffer) -> Parsed:
    """Read as pydicom does, for whom everything is a data set that may be one."""
    whole = BytesIO(data[:])
    _refuse_deflated(whole)
    dataset = pydicom.dcmread(whole, force=data[128:132] != b"DICM", stop_before_pixels=True)
    fields = fields_of(dataset)
    meta = dataset.file_meta
    sop_class = text(fields, "SOPClassUID") or str(meta.get("MediaStorageSOPClassUID", ""))
    if not sop_class:
        raise Refusal(
            "UNPARSEABLE", f"A file of {len(data)} bytes is not DICOM: it names no SOP Class."
        )
    implicit, little = dataset.original_encoding
    encoding = Encoding(implicit=bool(implicit), little=bool(little))
    syntax = meta.get("TransferSyntaxUID") or _guessed_syntax(encoding)
    return Parsed(
        source=source,
        fields=fields,
        sop_class_uid=sop_class.rstrip(" \0"),
        transfer_syntax=UID(syntax),
        encoding=encoding,
        start=None,
        pixels=_pixels_at(data, whole.tell(), encoding),
        spans={},
    )


def _refuse_deflated(whole: BytesIO) -> None:
    """Refuse what pydicom would inflate, and without any bound."""
    read_preamble(whole, force=True)
    meta = read_file_meta(whole)
    whole.seek(0)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise Refusal("UNPARSEABLE", "A deflated data set is malformed.")


def _pixels_at(data: Buffer, position: int, encoding: Encoding) -> Pixels | None:
    try:
        for tag, vr, value, stop in elements(data, position, len(data), encoding):
            if tag == PIXEL_DATA:
                undefined = is_undefined(data, value, vr, encoding)
                return Pixels(start=value, end=stop, encapsulated=undefined)
    except MalformedError:
        return None
    return None


def _guessed_syntax(encoding: Encoding) -> UID:
    if encoding.implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if encoding.little else ExplicitVRBigEndian
