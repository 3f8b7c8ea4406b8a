"""Where the elements of an encoded data set lie, without copying or converting their values.

pydicom builds an object for every element; of a series we need a few dozen values of each slice
and nothing else, and a walk over tags and lengths (PS3.5 section 7) finds them in a tenth of the
time. What does not walk cleanly is malformed to this module; what it may mean is for others to say.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

Buffer = bytes | mmap.mmap

PIXEL_DATA = 0x7FE00010
UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_MAX_DEPTH = 30
"""Of sequences in sequences; real ones stay below ten."""
_LONG = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split(b" "))


class MalformedError(Exception):
    """The bytes are no data set in the encoding that was given."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a data set is encoded (PS3.5 section 10)."""

    implicit: bool
    """Value representations are not written."""
    little: bool
    """Least significant byte first."""


_TAG_LENGTH = {True: struct.Struct("<HHI"), False: struct.Struct(">HHI")}
_TAG_VR_LENGTH = {True: struct.Struct("<HH2sH"), False: struct.Struct(">HH2sH")}
_LENGTH = {True: struct.Struct("<I"), False: struct.Struct(">I")}


def elements(
    data: Buffer, start: int, end: int, encoding: Encoding
) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield tag, VR (b"" where implicit), start and end of each value in `data[start:end]`.

    Pixel Data is the last one; where its length is undefined, or reaches beyond the end, its value
    goes to `end`.

    Raises:
        MalformedError: at the first element that does not make sense.
    """
    position = start
    while position + 8 <= end:
        tag, vr, value, length = _header(data, position, encoding)
        if tag == PIXEL_DATA:
            whole = length != UNDEFINED and value + length <= end
            yield tag, vr, value, value + length if whole else end
            return
        if length == UNDEFINED:
            stop, position = _end_of_sequence(data, value, end, _inner(vr, encoding), 0)
        else:
            stop = position = value + length
        if stop > end:
            raise MalformedError(f"element {tag:08X} reaches beyond the end")
        yield tag, vr, value, stop


def items(data: Buffer, start: int, end: int, encoding: Encoding) -> Iterator[tuple[int, int]]:
    """Yield where the content of each item of a sequence's value begins and ends.

    Raises:
        MalformedError: the value is no sequence of items.
    """
    position = start
    while position + 8 <= end:
        tag, length = _item(data, position, encoding)
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM:
            raise MalformedError(f"{tag:08X} where an item should begin")
        begin = position + 8
        if length == UNDEFINED:
            stop, position = _end_of_item(data, begin, end, encoding, 0)
        else:
            stop = position = begin + length
        if stop > end:
            raise MalformedError("an item reaches beyond the end")
        yield begin, stop


def is_undefined(data: Buffer, value: int, vr: bytes, encoding: Encoding) -> bool:
    """Whether the element whose value begins at `value` has an undefined length."""
    if vr and vr not in _LONG:
        return False
    return _length(data, value - 4, encoding) == UNDEFINED


def _length(data: Buffer, position: int, encoding: Encoding) -> int:
    (length,) = _LENGTH[encoding.little].unpack_from(data, position)
    return int(length)


def _header(data: Buffer, position: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
    try:
        if encoding.implicit:
            group, number, length = _TAG_LENGTH[encoding.little].unpack_from(data, position)
            return group << 16 | number, b"", position + 8, length
        group, number, vr, length = _TAG_VR_LENGTH[encoding.little].unpack_from(data, position)
        if vr in _SHORT:
            return group << 16 | number, vr, position + 8, length
        if vr in _LONG:
            return group << 16 | number, vr, position + 12, _length(data, position + 8, encoding)
    except struct.error as error:
        raise MalformedError("the data set ends within an element") from error
    raise MalformedError(f"element {group:04X}{number:04X} has no value representation")


def _inner(vr: bytes, encoding: Encoding) -> Encoding:
    # What is unknown and of undefined length is encoded as Implicit VR (PS3.5 6.2.2, note 4).
    return Encoding(True, True) if vr == b"UN" else encoding


def _item(data: Buffer, position: int, encoding: Encoding) -> tuple[int, int]:
    try:
        group, number, length = _TAG_LENGTH[encoding.little].unpack_from(data, position)
    except struct.error as error:
        raise MalformedError("the data set ends within a sequence") from error
    return group << 16 | number, length


def _end_of_sequence(
    data: Buffer, start: int, end: int, encoding: Encoding, depth: int
) -> tuple[int, int]:
    """Return where the items from `start` end, and where the next element begins."""
    position = start
    while True:
        tag, length = _item(data, position, encoding)
        if tag == _SEQUENCE_END:
            return position, position + 8
        if tag != _ITEM:
            raise MalformedError(f"{tag:08X} where an item should begin")
        position += 8
        if length == UNDEFINED:
            _, position = _end_of_item(data, position, end, encoding, depth)
        else:
            position += length
        if position > end:
            raise MalformedError("a sequence reaches beyond the end")


def _end_of_item(
    data: Buffer, start: int, end: int, encoding: Encoding, depth: int
) -> tuple[int, int]:
    """Return where the elements from `start` end, and what follows the delimiter begins."""
    if depth > _MAX_DEPTH:
        raise MalformedError("sequences are nested too deep")
    position = start
    while position < end:
        tag, _ = _item(data, position, encoding)
        if tag == _ITEM_END:
            return position, position + 8
        tag, vr, value, length = _header(data, position, encoding)
        if length == UNDEFINED:
            inner = _inner(vr, encoding)
            _, position = _end_of_sequence(data, value, end, inner, depth + 1)
        else:
            position = value + length
    raise MalformedError("an item has no end")
