"""Find an instance's elements and its pixels while its bytes arrive, without decoding any.

One pass over the top level of a data set in little endian, explicit or implicit VR, up to the
pixel data; nested data sets are stepped over. Whatever is unusual, malformed or long is not judged
here: the scanner gives up, and the whole is left to pydicom.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterable
from functools import lru_cache

from dicomnode.instances.layouts import Layout, Places, layout_of

PIXEL_TAGS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
UNDEFINED = 0xFFFFFFFF

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_SHORT = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN",
     b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US")
)  # fmt: skip
_MAX_KEPT = 1 << 13
"""Bytes of an element that is kept; of longer ones it is only known that they are there."""
_MAX_KEPT_IN_ALL = 1 << 18
_MAX_SEQUENCE = 1 << 16
"""Bytes of a sequence of undefined length that is stepped over."""
_MAX_DEPTH = 16
_PIECE = 1 << 13

_explicit = struct.Struct("<HH2sH").unpack_from
_implicit = struct.Struct("<HHI").unpack_from
_length = struct.Struct("<I").unpack_from
_short = struct.Struct("<H").unpack_from

_TEXT = frozenset((b"CS", b"DA", b"LO", b"PN", b"SH", b"UI"))
_PLAIN_TEXT = re.compile(rb"[\x20-\x3c\x3e-\x5b\x5d-\x7e]*")  # neither \ nor =, which divide
_DECIMAL = re.compile(rb" *[+-]?[0-9]{1,12}(\.[0-9]{0,12})?([eE][+-]?[0-9]{1,2})? *")
_INTEGER = re.compile(rb" *[+-]?[0-9]{1,9} *")

Value = str | float | tuple[float, ...] | None


class UnusualError(Exception):
    """It takes pydicom to say what stands there."""


class _CutError(Exception):
    """More bytes are needed to go on."""


class Scanner:
    """Takes a data set in pieces of any size; what it finds does not depend on how it is cut.

    Attributes:
        pixels_at: where the pixel data's value begins in the data set; None until it is found.
        pixels_length: what its length field says, `UNDEFINED` where the value is encapsulated.
        gave_up: whether something unusual was met; then nothing else here means anything.
    """

    def __init__(self, *, explicit: bool) -> None:
        self.pixels_at: int | None = None
        self.pixels_length = 0
        self.gave_up = False
        self.is_explicit = explicit
        self._carry = b""
        self._done = 0  # bytes of the data set that were stepped over
        self._skip = 0  # bytes still to come of an element that is not kept
        self._kept = bytearray()
        self._places: Places = {}  # in what is kept
        self._seen: set[int] = set()
        self._spans: list[tuple[int, int]] = []

    @property
    def is_searching(self) -> bool:
        """Whether more bytes of the data set are needed."""
        return self.pixels_at is None and not self.gave_up

    @property
    def is_between_elements(self) -> bool:
        """Whether the data set may end where the bytes have ended so far."""
        return not (self._carry or self._skip)

    @property
    def kept(self) -> bytes:
        """The elements that are not long, as they came: a data set that pydicom can read."""
        return bytes(self._kept)

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes, while `is_searching`."""
        for start in range(0, len(data), _PIECE):
            if self.is_searching:  # the pixels of a large piece are not copied
                self._take(data[start : start + _PIECE])

    def follow(self, layout: Layout, data: bytes | memoryview) -> None:
        """Take the first bytes of a data set of this layout, up to its pixels at least."""
        self._kept += data[: layout.kept]
        self._places = layout.places
        self.pixels_at, self.pixels_length = layout.size, layout.pixels_length

    def layout(self, data: bytes | memoryview, shared: Collection[int]) -> Layout | None:
        """Return the layout of the data set whose first bytes these are, and were fed.

        None where they do not reach its pixels, or something before those is not kept.

        Args:
            data: the bytes.
            shared: tags of what the instances of a series agree in.
        """
        if not self._spans or self.pixels_at is None or self.pixels_at > len(data):
            return None
        if len(self._kept) != self._spans[-1][0]:
            return None
        return layout_of(
            data, self._spans, self._places, shared, explicit=self.is_explicit,
            pixels_length=self.pixels_length,
        )  # fmt: skip

    def _take(self, data: bytes | memoryview) -> None:
        if self._skip:
            step = min(self._skip, len(data))
            self._skip -= step
            self._done += step
            data = data[step:]
        buffer = self._carry + bytes(data)
        place = 0
        try:
            while self.pixels_at is None and place <= len(buffer):
                place = self._step(buffer, place)
        except _CutError:
            pass
        except UnusualError:
            self.gave_up = True
        if place > len(buffer):
            self._skip, place = place - len(buffer), len(buffer)
        self._done += place
        self._carry = buffer[place:]

    def _step(self, buffer: bytes, place: int) -> int:
        """Step over one element; return where the next one begins."""
        tag, vr, start, length = self._header(buffer, place)
        if tag in PIXEL_TAGS:
            return self._pixels(buffer, place)
        if tag >> 16 == 0xFFFE:
            raise UnusualError
        if length == UNDEFINED:
            end = self._end_of_value(buffer, start, vr)
        else:
            end = start + length
            if length <= _MAX_KEPT and end > len(buffer):
                raise _CutError
        is_known_by = start if length != UNDEFINED else end
        self._spans.append((self._done + place, self._done + is_known_by))
        self._seen.add(tag)
        self._places.pop(tag, None)
        if end - start <= _MAX_KEPT:
            if len(self._kept) + end - place > _MAX_KEPT_IN_ALL:
                raise UnusualError
            first = len(self._kept) + start - place
            self._kept += buffer[place:end]
            self._places[tag] = (vr, first, first + end - start)
        return end

    def _end_of_value(self, buffer: bytes, start: int, vr: bytes) -> int:
        """Return where a value of undefined length ends, which can only be a sequence."""
        if self.is_explicit and vr != b"SQ":
            raise UnusualError
        try:
            end = self._end_of_sequence(buffer, start, 0)
        except _CutError:
            end = len(buffer)
            if end - start <= _MAX_SEQUENCE:
                raise
        if end - start > _MAX_SEQUENCE:
            raise UnusualError
        return end

    def _header(self, buffer: bytes, place: int) -> tuple[int, bytes, int, int]:
        """Return an element's tag, its VR, where its value begins, and its length."""
        if len(buffer) - place < 8:
            raise _CutError
        if not self.is_explicit:
            group, element, length = _implicit(buffer, place)
            if place + self._done == 0 and buffer[4:6].isalpha():
                raise UnusualError  # it should be implicit, and looks explicit
            return group << 16 | element, b"", place + 8, length
        group, element, vr, length = _explicit(buffer, place)
        if vr in _SHORT:
            return group << 16 | element, vr, place + 8, length
        if vr not in _LONG:
            raise UnusualError
        if len(buffer) - place < 12:
            raise _CutError
        return group << 16 | element, vr, place + 12, _length(buffer, place + 8)[0]

    def _pixels(self, buffer: bytes, place: int) -> int:
        start = place + (12 if self.is_explicit else 8)
        if len(buffer) < start:
            raise _CutError
        self.pixels_length = _length(buffer, start - 4)[0]
        self.pixels_at = self._done + start
        self._spans.append((self._done + place, self.pixels_at))
        return start

    def _end_of_sequence(self, buffer: bytes, place: int, depth: int) -> int:
        """Return where a sequence of undefined length ends whose items begin at `place`."""
        if depth > _MAX_DEPTH:
            raise UnusualError
        while True:
            if len(buffer) - place < 8:
                raise _CutError
            group, element, length = _implicit(buffer, place)
            tag, place = group << 16 | element, place + 8
            if tag == _SEQUENCE_END and not length:
                return place
            if tag != _ITEM:
                raise UnusualError
            if length == UNDEFINED:
                place = self._end_of_item(buffer, place, depth)
            else:
                place += length

    def _end_of_item(self, buffer: bytes, place: int, depth: int) -> int:
        while True:
            if len(buffer) - place < 8:
                raise _CutError
            group, element, length = _implicit(buffer, place)
            if (group, element) == (0xFFFE, 0xE00D) and not length:
                return place + 8
            tag, vr, place, length = self._header(buffer, place)
            if tag >> 16 == 0xFFFE or (length == UNDEFINED and self.is_explicit and vr != b"SQ"):
                raise UnusualError
            if length == UNDEFINED:
                place = self._end_of_sequence(buffer, place, depth + 1)
            else:
                place += length

    # Values

    def raw(self, tags: Iterable[int]) -> tuple[bytes | None, ...]:
        """Return elements as they came, without their tags; None for those that are not there.

        Raises:
            UnusualError: one of them was too long to be kept.
        """
        return tuple(self._raw(tag) for tag in tags)

    def parts(self, places: Iterable[slice]) -> tuple[bytes, ...]:
        """Return parts of what is kept."""
        kept = self.kept
        return tuple([kept[place] for place in places])

    def _raw(self, tag: int) -> bytes | None:
        found = self._places.get(tag)
        if found is not None:
            return found[0] + self._kept[found[1] : found[2]]
        if tag in self._seen:
            raise UnusualError
        return None

    def value(self, tag: int, vr: bytes) -> Value:
        """Return a value that needs no thought: text of plain ASCII, numbers as PS3.5 writes them.

        Args:
            tag: of the element.
            vr: its value representation in PS3.6.

        Returns:
            None where there is no such element, "" where it has no value.

        Raises:
            UnusualError: it needs thought.
        """
        found = self._places.get(tag)
        if found is None:
            if tag in self._seen:
                raise UnusualError
            return None
        stated, start, end = found
        if self.is_explicit and stated != vr:
            raise UnusualError
        return _value(bytes(self._kept[start:end]), vr)


@lru_cache(maxsize=512)
def _value(data: bytes, vr: bytes) -> Value:
    """Read a value; the instances of a series agree in most of them."""
    if vr == b"US":
        if len(data) != 2:
            raise UnusualError
        return int(_short(data)[0])
    plain = data.rstrip(b"\0 ")
    if not plain:
        return ""
    if vr in _TEXT and _PLAIN_TEXT.fullmatch(plain):
        return plain.decode("ascii")
    if vr in (b"DS", b"IS"):
        parts = plain.split(b"\\")
        pattern = _DECIMAL if vr == b"DS" else _INTEGER
        if all(pattern.fullmatch(part) for part in parts):
            numbers = tuple(float(part) for part in parts)
            return numbers[0] if len(numbers) == 1 else numbers
    raise UnusualError
