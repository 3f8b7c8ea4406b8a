"""Read from an instance's bytes what admission needs, while they arrive and without its pixels.

Whatever is read here came from a peer and may be malformed in any way; every fault is an
`UnreadableError` that says what and where, and never shows a value. A scanner of our own reads what
is plain; pydicom reads what is not, from the file, once the bytes are all there.
"""

from __future__ import annotations

import tempfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from blake3 import blake3
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dicomnode.domain.identifiers import TransferSyntaxUID
from dicomnode.domain.records import Header
from dicomnode.instances.fields import (
    SERIES_KEYWORDS,
    InstanceFields,
    SeriesFields,
    UnreadableError,
    instance_fields,
    series_fields,
)
from dicomnode.instances.files import read_meta
from dicomnode.instances.layouts import Layout, Layouts
from dicomnode.instances.scanning import PIXEL_TAGS, UNDEFINED, Scanner, UnusualError

MAX_INFLATED = 1 << 30
"""Bytes of a deflated data set at most."""
_PIECE = 1 << 20
_REMEMBERED = 128
_MAX_VALUE = 1 << 20
"""Bytes of a value that pydicom loads; of what is longer nothing is needed here."""


def read_header(data: bytes, transfer_syntax: str, key: bytes) -> Header:
    """Read a data set without File Meta Information up to its pixels.

    Args:
        data: the encoded data set, as it came in a C-STORE request.
        transfer_syntax: of the accepted Presentation Context.
        key: hashes the patient's identity.

    Raises:
        UnreadableError: it does not parse, or a UID is missing or malformed.
    """
    reader = Headers(key).begin(transfer_syntax)
    reader.feed(data)
    return reader.finish(lambda: BytesIO(data))[0]


def read_file(path: Path, key: bytes) -> tuple[Header, str, int]:
    """Read a DICOM file; return its header, its data set's digest and that one's size in bytes.

    Raises:
        UnreadableError: it does not parse, or a UID is missing or malformed.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        syntax, start = read_meta(file)
        reader = Headers(key).begin(syntax)
        file.seek(start)
        while piece := file.read(_PIECE):
            reader.feed(piece)
        size = file.tell() - start

        def again() -> BinaryIO:
            opened = path.open("rb")
            opened.seek(start)
            return opened

        return *reader.finish(again), size


@dataclass(frozen=True, slots=True)
class _Syntax:
    """What a Transfer Syntax UID says, looked up once."""

    uid: TransferSyntaxUID
    key: bytes
    is_implicit: bool
    is_little_endian: bool
    is_deflated: bool


@lru_cache(maxsize=64)
def _syntax(transfer_syntax: str) -> _Syntax:
    uid = UID(transfer_syntax)
    return _Syntax(
        uid=TransferSyntaxUID(transfer_syntax),
        key=transfer_syntax.encode(),
        is_implicit=uid.is_implicit_VR,
        is_little_endian=uid.is_little_endian,
        is_deflated=uid == DeflatedExplicitVRLittleEndian,
    )


class Headers:
    """Reads headers, and remembers what the instances of the last series share.

    Args:
        key: hashes the patient's identity.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: OrderedDict[tuple[object, ...], SeriesFields] = OrderedDict()
        self.layouts = Layouts()

    def begin(self, transfer_syntax: str) -> HeaderReader:
        """Return the reader of a data set that is about to come."""
        return HeaderReader(self, _syntax(transfer_syntax))

    def _fields(self, elements: _Elements, syntax: _Syntax) -> tuple[SeriesFields, InstanceFields]:
        """Read what a scanner has found.

        Raises:
            UnusualError: it takes the whole data set.
            UnreadableError: a UID is missing or malformed.
        """
        brief = elements.shared()
        shared = None if brief is None else self._known.get((syntax.key, *brief))
        if shared is None:
            whole = elements.raw(_SERIES_TAGS)
            shared = self._known.get((syntax.key, *whole))
            if shared is None:
                shared = series_fields(elements.dataset, self._key)
            self._remember((syntax.key, *whole), shared)
            if brief is not None:
                self._remember((syntax.key, *brief), shared)
        return shared, instance_fields(cast("Dataset", elements))

    def _remember(self, key: tuple[object, ...], fields: SeriesFields) -> None:
        self._known[key] = fields
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _read(self, stream: BinaryIO, syntax: _Syntax) -> Header:
        """Read a data set with pydicom, from where the stream stands to its end."""
        watched = _Watched(stream)
        dataset = read_dataset(
            cast("BinaryIO", watched),
            is_implicit_VR=syntax.is_implicit,
            is_little_endian=syntax.is_little_endian,
            stop_when=_at_pixels,
            defer_size=_MAX_VALUE,
        )
        if watched.is_cut:
            raise UnreadableError("the data set ends within an element")
        pixels = _hash_pixels(stream, syntax)
        return _header(series_fields(dataset, self._key), instance_fields(dataset), syntax, pixels)


class HeaderReader:
    """Takes an instance's data set in pieces, and says at its end what it is."""

    def __init__(self, headers: Headers, syntax: _Syntax) -> None:
        self._headers = headers
        self._syntax = syntax
        deflated = syntax.is_deflated
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if deflated else None
        self._inflated = 0
        self._scanner = Scanner(explicit=not syntax.is_implicit)
        self._scanner.gave_up = not syntax.is_little_endian
        self._scanned = 0
        self._as_it_came = blake3()
        self._outside = blake3() if deflated else self._as_it_came
        self._pixels = blake3()
        self._pixels_to_come = 0
        self._layout: Layout | None = None
        self._fields: tuple[SeriesFields, InstanceFields] | None = None
        self._fault: UnreadableError | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        if self._inflater is None:
            self._scan(data)
            return
        self._as_it_came.update(data)
        if self._fault is None:
            try:
                self._inflate(self._inflater, data)
            except zlib.error as error:
                self._fault = UnreadableError(f"the data set does not parse ({error})")

    def finish(self, again: Callable[[], BinaryIO]) -> tuple[Header, str]:
        """Say what the data set is, now that it is whole.

        Args:
            again: opens it once more, from its beginning to its end.

        Returns:
            Its header, and the digest that tells it from any other bytes.

        Raises:
            UnreadableError: it does not parse, or a UID is missing or malformed.
        """
        self._check_inflated()
        scanner = self._scanner
        try:
            if scanner.is_searching and scanner.is_between_elements:
                self._read_fields()
            if self._fault is not None:
                raise self._fault
            if self._fields is None:
                return self._finish_slowly(again)
        except UnreadableError:
            raise
        except Exception as error:  # hostile bytes can raise anything in a parser
            raise UnreadableError(
                f"the data set does not parse ({type(error).__name__})"
            ) from error
        if self._pixels_to_come:
            _say_short(scanner.pixels_length, scanner.pixels_length - self._pixels_to_come)
        return _header(*self._fields, self._syntax, self._pixels.hexdigest()), self._digest()

    def _inflate(self, inflater: Any, pending: bytes | memoryview) -> None:
        piece = b""
        while (pending or len(piece) == _PIECE) and not inflater.eof:
            if self._inflated > MAX_INFLATED:
                return
            piece = inflater.decompress(pending, _PIECE)
            self._inflated += len(piece)
            self._scan(piece)
            pending = inflater.unconsumed_tail

    def _check_inflated(self) -> None:
        if self._inflater is None or self._fault is not None:
            return
        if self._inflated > MAX_INFLATED:
            raise UnreadableError(f"the deflated data set is larger than {MAX_INFLATED} bytes")
        if not self._inflater.eof:
            raise UnreadableError("the deflated data set ends too early")

    def _digest(self) -> str:
        if self._inflater is not None or self._scanner.pixels_at is None:
            return self._as_it_came.hexdigest()
        # The pixels are hashed once for both digests.
        both = self._as_it_came.digest() + self._pixels.digest()
        return blake3(both).hexdigest()

    def _finish_slowly(self, again: Callable[[], BinaryIO]) -> tuple[Header, str]:
        with again() as stream, _inflated(stream, self._inflater is not None) as plain:
            return self._headers._read(plain, self._syntax), self._digest()

    def _scan(self, data: bytes | memoryview) -> None:
        before, self._scanned = self._scanned, self._scanned + len(data)
        if self._scanner.is_searching:
            self._search(data, is_first=not before)
            at = self._scanner.pixels_at
            if at is None:
                self._outside.update(data)
                return
            self._outside.update(data[: at - before])
            data = data[at - before :]
            length = self._scanner.pixels_length
            self._pixels_to_come = 0 if length == UNDEFINED else length
            self._read_fields()
        if self._scanner.pixels_at is None:
            self._outside.update(data)
        elif self._scanner.pixels_length == UNDEFINED:
            self._pixels.update(data)
        else:
            step = min(self._pixels_to_come, len(data))
            self._pixels_to_come -= step
            self._pixels.update(data[:step])
            if step < len(data):
                self._outside.update(data[step:])

    def _search(self, data: bytes | memoryview, *, is_first: bool) -> None:
        scanner, layouts = self._scanner, self._headers.layouts
        if is_first:
            self._layout = layouts.find(data, explicit=not self._syntax.is_implicit)
        if self._layout is not None:
            scanner.follow(self._layout, data)
            return
        scanner.feed(data)
        if is_first and (layout := scanner.layout(data, _SHARED)) is not None:
            layouts.add(layout)

    def _read_fields(self) -> None:
        elements = _Elements(self._scanner, self._syntax, self._layout)
        try:
            self._fields = self._headers._fields(elements, self._syntax)
        except UnusualError:
            return
        except UnreadableError as error:
            self._fault = error
        except Exception as error:  # noqa: BLE001 - hostile bytes can raise anything in a parser
            self._fault = UnreadableError(f"the data set does not parse ({type(error).__name__})")


def _header(
    shared: SeriesFields, own: InstanceFields, syntax: _Syntax, pixel_digest: str
) -> Header:
    return Header(
        **shared,
        **own,
        transfer_syntax_uid=syntax.uid,
        pixel_digest=pixel_digest,
    )


@dataclass(frozen=True, slots=True)
class _Raw:
    value: bytes


class _Elements:
    """A scanner's elements in the clothes of a pydicom data set: plain values without its help."""

    def __init__(self, scanner: Scanner, syntax: _Syntax, layout: Layout | None) -> None:
        self._scanner = scanner
        self._syntax = syntax
        self._layout = layout
        self.raw = scanner.raw
        self._dataset: Dataset | None = None

    @property
    def dataset(self) -> Dataset:
        """All elements that are not long, as pydicom reads them."""
        if self._dataset is None:
            self._dataset = read_dataset(
                BytesIO(self._scanner.kept), self._syntax.is_implicit, is_little_endian=True
            )
        return self._dataset

    def shared(self) -> tuple[object, ...] | None:
        """Return what decides on the fields of a series; None where the layout was not known."""
        if self._layout is None:
            return None
        return self._layout, *self._scanner.parts(self._layout.shared)

    def get(self, keyword: str) -> Any:
        tag, vr = _PLAIN.get(keyword, (0, b""))
        if tag:
            with suppress(UnusualError):
                return self._scanner.value(tag, vr)
        self._scanner.raw((tag or Tag(keyword),))
        return self.dataset.get(keyword)

    def get_item(self, keyword: str) -> _Raw | None:
        (raw,) = self._scanner.raw((_PLAIN[keyword][0],))
        return None if raw is None else _Raw(raw[0 if self._syntax.is_implicit else 2 :])


_PLAIN = {
    "SOPInstanceUID": (0x00080018, b"UI"),
    "SOPClassUID": (0x00080016, b"UI"),
    "Rows": (0x00280010, b"US"),
    "Columns": (0x00280011, b"US"),
    "NumberOfFrames": (0x00280008, b"IS"),
    "PixelSpacing": (0x00280030, b"DS"),
    "ImageOrientationPatient": (0x00200037, b"DS"),
    "ImagePositionPatient": (0x00200032, b"DS"),
    "FrameOfReferenceUID": (0x00200052, b"UI"),
    "RescaleSlope": (0x00281053, b"DS"),
    "RescaleIntercept": (0x00281052, b"DS"),
    "InstanceNumber": (0x00200013, b"IS"),
    "AcquisitionNumber": (0x00200012, b"IS"),
    "ImagesInAcquisition": (0x00201002, b"IS"),
    "ConcatenationUID": (0x00209161, b"UI"),
}
"""Tag and value representation (PS3.6) of what `instance_fields` looks at in every image."""
_SERIES_TAGS = tuple(int(Tag(keyword)) for keyword in SERIES_KEYWORDS)
_SHARED = frozenset(_SERIES_TAGS)


class _Watched:
    """A stream that knows whether more was asked for than there is.

    pydicom takes a value that is cut short as it is, and steps over one that it does not load.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._short: list[int] = []
        start = stream.tell()
        self._end = stream.seek(0, 2)
        stream.seek(start)
        self.tell = stream.tell
        self.seek = stream.seek

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        if 0 <= len(data) < size:
            self._short.append(len(data))
        return data

    @property
    def is_cut(self) -> bool:
        """Whether the end was found elsewhere than where the next element would have begun."""
        return self._short not in ([], [0]) or self._stream.tell() > self._end


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in PIXEL_TAGS


@contextmanager
def _inflated(stream: BinaryIO, deflated: bool) -> Iterator[BinaryIO]:
    """Yield what is to be parsed: the stream, or what it holds deflated (PS3.5 section A.5)."""
    if not deflated:
        yield stream
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with tempfile.SpooledTemporaryFile(max_size=16 * _PIECE) as plain:
        while data := stream.read(_PIECE):
            piece = b""
            while (data or len(piece) == _PIECE) and not inflater.eof:
                piece = inflater.decompress(data, _PIECE)
                plain.write(piece)
                data = inflater.unconsumed_tail
        plain.seek(0)
        yield cast("BinaryIO", plain)


def _hash_pixels(stream: BinaryIO, syntax: _Syntax) -> str:
    """Return the digest of the pixel data element's value, which begins where the stream stands.

    Encapsulated values (undefined length) and everything behind them count whole.

    Raises:
        UnreadableError: the element is longer than the data set.
    """
    found = blake3()
    head = stream.read(8)
    if len(head) < 8:
        return found.hexdigest()
    order: Any = "little" if syntax.is_little_endian else "big"
    if syntax.is_implicit:
        length = int.from_bytes(head[4:], order)
    else:
        more = stream.read(4)
        if len(more) < 4:
            raise UnreadableError("the data set ends within the pixel data element")
        length = int.from_bytes(more, order)
    size = 0
    while size < length and (piece := stream.read(min(_PIECE, length - size))):
        found.update(piece)
        size += len(piece)
    if length != UNDEFINED and size < length:
        _say_short(length, size)
    return found.hexdigest()


def _say_short(length: int, found: int) -> NoReturn:
    raise UnreadableError(
        f"the pixel data element says {length} bytes, the data set ends after {found}"
    )
