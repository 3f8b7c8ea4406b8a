"""Read whole data sets with pydicom: those that hold something that the scanner leaves alone."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn, cast

from blake3 import blake3
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from dicomnode.instances.fields import UnreadableError
from dicomnode.instances.scanning import PIXEL_TAGS, UNDEFINED
from dicomnode.instances.syntaxes import Syntax

PIECE = 1 << 20
"""Bytes that are read or inflated at once."""
_MAX_VALUE = 1 << 20
"""Bytes of a value that pydicom loads; of what is longer nothing is needed here."""


def read_whole(stream: BinaryIO, syntax: Syntax) -> tuple[Dataset, str]:
    """Read a data set with pydicom, from where the stream stands to its end.

    Returns:
        What stands before its pixels, without what is long, and the digest of the pixels.

    Raises:
        UnreadableError: it ends within an element.
    """
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
    return dataset, _hash_pixels(stream, syntax)


@contextmanager
def inflated(stream: BinaryIO, deflated: bool) -> Iterator[BinaryIO]:
    """Yield what is to be parsed: the stream, or what it holds deflated (PS3.5 section A.5)."""
    if not deflated:
        yield stream
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with tempfile.SpooledTemporaryFile(max_size=16 * PIECE) as plain:
        while data := stream.read(PIECE):
            piece = b""
            while (data or len(piece) == PIECE) and not inflater.eof:
                piece = inflater.decompress(data, PIECE)
                plain.write(piece)
                data = inflater.unconsumed_tail
        plain.seek(0)
        yield cast("BinaryIO", plain)


def say_short(length: int, found: int) -> NoReturn:
    """Say that fewer bytes of the pixel data came than its length field says."""
    raise UnreadableError(
        f"the pixel data element says {length} bytes, the data set ends after {found}"
    )


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


def _hash_pixels(stream: BinaryIO, syntax: Syntax) -> str:
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
    while size < length and (piece := stream.read(min(PIECE, length - size))):
        found.update(piece)
        size += len(piece)
    if length != UNDEFINED and size < length:
        say_short(length, size)
    return found.hexdigest()
