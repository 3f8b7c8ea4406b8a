"""Read from an instance's bytes what admission needs, while they arrive and without its pixels.

Whatever is read here came from a peer and may be malformed in any way; every fault is an
`UnreadableError` that says what and where, and never shows a value. A scanner of our own reads what
is plain; pydicom reads what is not, from the file, once the bytes are all there.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

from blake3 import blake3
from pydicom.dataset import Dataset

from dicomnode.domain.records import Header
from dicomnode.instances.elements import SERIES_TAGS, Elements
from dicomnode.instances.fields import (
    InstanceFields,
    SeriesFields,
    UnreadableError,
    instance_fields,
    series_fields,
)
from dicomnode.instances.files import read_meta
from dicomnode.instances.layouts import Layout, Layouts
from dicomnode.instances.scanning import UNDEFINED, Scanner, UnusualError
from dicomnode.instances.syntaxes import Syntax, syntax_of
from dicomnode.instances.whole import PIECE, inflated, read_whole, say_short

MAX_INFLATED = 1 << 30
"""Bytes of a deflated data set at most."""
_REMEMBERED = 128


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
        while piece := file.read(PIECE):
            reader.feed(piece)
        size = file.tell() - start

        def again() -> BinaryIO:
            opened = path.open("rb")
            opened.seek(start)
            return opened

        return *reader.finish(again), size


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
        return HeaderReader(self, syntax_of(transfer_syntax))

    def fields_from(
        self, elements: Elements, syntax: Syntax
    ) -> tuple[SeriesFields, InstanceFields]:
        """Read what a scanner has found.

        Raises:
            UnusualError: it takes the whole data set.
            UnreadableError: a UID is missing or malformed.
        """
        brief = elements.shared()
        shared = None if brief is None else self._known.get((syntax.key, *brief))
        if shared is None:
            whole = elements.raw(SERIES_TAGS)
            shared = self._known.get((syntax.key, *whole))
            if shared is None:
                shared = series_fields(elements.dataset, self._key)
            self._remember((syntax.key, *whole), shared)
            if brief is not None:
                self._remember((syntax.key, *brief), shared)
        return shared, instance_fields(cast("Dataset", elements))

    def fields_of(self, dataset: Dataset) -> tuple[SeriesFields, InstanceFields]:
        """Read what pydicom has read.

        Raises:
            UnreadableError: a UID is missing or malformed.
        """
        return series_fields(dataset, self._key), instance_fields(dataset)

    def _remember(self, key: tuple[object, ...], fields: SeriesFields) -> None:
        self._known[key] = fields
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


class HeaderReader:
    """Takes an instance's data set in pieces, and says at its end what it is."""

    def __init__(self, headers: Headers, syntax: Syntax) -> None:
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
            say_short(scanner.pixels_length, scanner.pixels_length - self._pixels_to_come)
        return _header(*self._fields, self._syntax, self._pixels.hexdigest()), self._digest()

    def _inflate(self, inflater: Any, pending: bytes | memoryview) -> None:
        piece = b""
        while (pending or len(piece) == PIECE) and not inflater.eof:
            if self._inflated > MAX_INFLATED:
                return
            piece = inflater.decompress(pending, PIECE)
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
        with again() as stream, inflated(stream, self._inflater is not None) as plain:
            dataset, pixels = read_whole(plain, self._syntax)
            fields = self._headers.fields_of(dataset)
        return _header(*fields, self._syntax, pixels), self._digest()

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
        if is_first and (layout := scanner.layout(data, SERIES_TAGS)) is not None:
            layouts.add(layout)

    def _read_fields(self) -> None:
        elements = Elements(self._scanner, self._layout)
        try:
            self._fields = self._headers.fields_from(elements, self._syntax)
        except UnusualError:
            return
        except UnreadableError as error:
            self._fault = error
        except Exception as error:  # noqa: BLE001 - hostile bytes can raise anything in a parser
            self._fault = UnreadableError(f"the data set does not parse ({type(error).__name__})")


def _header(shared: SeriesFields, own: InstanceFields, syntax: Syntax, pixel_digest: str) -> Header:
    return Header(
        **shared,
        **own,
        transfer_syntax_uid=syntax.uid,
        pixel_digest=pixel_digest,
    )
