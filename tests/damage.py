"""Bytes that hurt: DICOM files damaged here and there, and some that are hostile on purpose."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hypothesis import strategies as st
from small_ct import encoded, instance

from dicomnode.instances import file_prefix

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
RLE, JPEG_LS, J2K = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
CT = "1.2.840.10008.5.1.4.1.1.2"

# Damage


@dataclass(frozen=True)
class Edit:
    """One change: at a place, given as a part of the region, so that it fits files of any size."""

    kind: str
    place: float
    value: bytes

    def apply(self, data: bytes, region: int) -> bytes:
        at = int(self.place * min(region, len(data)))
        if self.kind == "cut":
            return data[:at]
        if self.kind == "insert":
            return data[:at] + self.value + data[at:]
        if self.kind == "remove":
            return data[:at] + data[at + len(self.value) :]
        if self.kind == "repeat":
            return data[:at] + data[at : at + 64] * len(self.value) + data[at:]
        return data[:at] + self.value + data[at + len(self.value) :]


LENGTHS = [0, 1, 2, 3, 0x7F, 0xFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]
TAGS = [0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x7FE00010, 0x00080018, 0x00280010, 0x52009229, 0]

values = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([struct.pack("<I", length) for length in LENGTHS]),
    st.sampled_from([struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in TAGS]),
    st.sampled_from([b"SQ\0\0\xff\xff\xff\xff", b"UN\0\0\xff\xff\xff\xff", b"OB\0\0", b"\xfe\xff"]),
    st.sampled_from([b"../../x", b"\0" * 8, b"1" * 80, b"NaN", b"1e999", b"-1", b"\\" * 9]),
)
edits = st.lists(
    st.builds(
        Edit,
        st.sampled_from(["set", "set", "set", "cut", "insert", "remove", "repeat"]),
        st.floats(0, 1),
        values,
    ),
    min_size=1,
    max_size=4,
)


def damaged(data: bytes, changes: list[Edit], region: int) -> bytes:
    """Apply edits to the first `region` bytes of a file."""
    for change in changes:
        data = change.apply(data, region)
    return data


# Hostile on purpose


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An element in Explicit VR Little Endian; `length` may lie."""
    size = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return head + b"\0\0" + struct.pack("<I", size) + value
    return head + struct.pack("<H", size & 0xFFFF) + value


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def _nested(depth: int, *, defined: bool) -> bytes:
    """Sequences within sequences."""
    inner = element(0x00080100, b"SH", b"X ")
    for _ in range(depth):
        if defined:
            item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(inner)) + inner
            inner = element(0x00081140, b"SQ", item)
        else:
            item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0\0\0\0\0"
            inner = element(0x00081140, b"SQ", item + b"\xfe\xff\xdd\xe0\0\0\0\0", 0xFFFFFFFF)
    return inner


def with_header(more: bytes, **changes: object) -> bytes:
    """A data set with `more` put between its identifiers and its image."""
    plain = encoded(instance(**changes), EXPLICIT)
    at = plain.index(struct.pack("<HH", 0x0010, 0x0010))  # before Patient's Name
    return plain[:at] + more + plain[at:]


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def bomb(megabytes: int, *, in_pixels: bool) -> bytes:
    """A deflated data set of so many megabytes of zeros, which is a thousandth of that."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = megabytes << 20
    if in_pixels:
        plain = encoded(instance(), EXPLICIT)
        start = packer.compress(plain[: plain.index(struct.pack("<HH", 0x7FE0, 0x0010))])
        start += packer.compress(element(0x7FE00010, b"OW", b"", size))
    else:
        start = packer.compress(element(0x00080008, b"UN", b"", size))
    start += packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush the same bytes mean the same again: one megabyte is packed once.
    packed = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + packed * megabytes + packer.flush()


def encapsulated(*fragments: bytes) -> bytes:
    """Pixel data in fragments behind an empty offset table (PS3.5 A.4)."""
    items = b"".join(
        b"\xfe\xff\x00\xe0" + struct.pack("<I", len(fragment)) + fragment
        for fragment in (b"", *fragments)
    )
    return element(0x7FE00010, b"OB", items + b"\xfe\xff\xdd\xe0\0\0\0\0", 0xFFFFFFFF)


def huge(fragment: bytes) -> bytes:
    """65535 x 65535 pixels, it says: 8 GiB out of a few bytes."""
    plain = encoded(instance(Rows=65535, Columns=65535, PixelData=None), EXPLICIT)
    return plain + encapsulated(fragment)


RLE_HEADER = struct.pack("<16I", 2, 64, 66, *([0] * 13)) + b"\x81\0\x81\0"
J2K_HEADER = (
    b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(">8I", 65535, 65535, 0, 0, 65535, 65535, 0, 0)
    + b"\0\1\x0f\1\1\xff\x52\0\x0c\0\0\0\1\0\5\4\4\0\1"
)  # fmt: skip
JPEG_LS_HEADER = (
    b"\xff\xd8\xff\xf7\0\x0b\x10\xff\xff\xff\xff\1\1\x11\0\xff\xda\0\x08\1\1\0\0\0\0\0\0\xff\xd9"
)


def _items(*contents: bytes) -> bytes:
    return b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(one)) + one for one in contents)


def rejection_note(references: int) -> bytes:
    """A Key Object Selection that rejects so many instances (IHE RAD 4.66)."""
    key_object = "1.2.840.10008.5.1.4.1.1.88.59"
    title = (
        element(0x00080100, b"SH", b"113001")
        + element(0x00080102, b"SH", b"DCM ")
        + element(0x00080104, b"LO", b"Rejected for Quality Reasons")
    )
    named = _items(
        *(
            element(0x00081150, b"UI", uid(CT))
            + element(0x00081155, b"UI", uid(f"1.2.826.0.1.3680043.8.498.{number:032d}"))
            for number in range(references)
        )
    )
    series = element(0x00081199, b"SQ", named) + element(0x0020000E, b"UI", uid("1.2.9.3"))
    study = element(0x00081115, b"SQ", _items(series)) + element(0x0020000D, b"UI", uid("1.2.9"))
    return (
        element(0x00080016, b"UI", uid(key_object))
        + element(0x00080018, b"UI", uid("1.2.3.4"))
        + element(0x00080060, b"CS", b"KO")
        + element(0x00100020, b"LO", b"4711")
        + element(0x0020000D, b"UI", uid("1.2.9"))
        + element(0x0020000E, b"UI", uid("1.2.9.9"))
        + element(0x0040A043, b"SQ", _items(title))
        + element(0x0040A375, b"SQ", _items(study))
    )


BOMB_MEGABYTES = 1200
DATA_SETS: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "nothing": (EXPLICIT, lambda: b""),
    "one byte": (IMPLICIT, lambda: b"\x08"),
    "noise": (IMPLICIT, lambda: bytes(range(256)) * 64),
    "zeros": (EXPLICIT, lambda: bytes(100_000)),
    "sequences 1000 deep, undefined": (
        EXPLICIT, lambda: with_header(_nested(1000, defined=False))),
    "sequences 1000 deep, defined": (
        EXPLICIT, lambda: with_header(_nested(1000, defined=True))),
    "sequences 100000 deep, never closed": (
        EXPLICIT, lambda: with_header(
            (element(0x00081140, b"SQ", b"", 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff")
            * 100_000)),
    "a million empty items": (
        EXPLICIT, lambda: with_header(
            element(0x00081140, b"SQ", b"\xfe\xff\x00\xe0\0\0\0\0" * 1_000_000))),
    "a hundred thousand elements": (
        EXPLICIT, lambda: with_header(
            b"".join(element(0x00091000 + n % 0xEFFF, b"LO", b"x ") for n in range(100_000)))),
    "a length of 4 GiB": (
        EXPLICIT, lambda: with_header(element(0x00091010, b"UN", b"", 0xFFFFFFFE))),
    "a length beyond the end": (
        EXPLICIT, lambda: with_header(element(0x00091010, b"OB", b"", 1 << 20))),
    "undefined length without an end": (
        EXPLICIT, lambda: with_header(element(0x00091010, b"UN", b"\0" * 64, 0xFFFFFFFF))),
    "pixels of 4 GiB": (EXPLICIT, lambda: encoded(instance(PixelData=None), EXPLICIT) + element(
        0x7FE00010, b"OW", b"\0\0", 0xFFFFFFFE)),
    "UID with ../": (EXPLICIT, lambda: encoded(instance(SOPInstanceUID=None)).replace(
        b"\x0d\0UI\x04\x001.2", b"\x0d\0UI\x04\0../", 1)),
    "UID with NULs": (EXPLICIT, lambda: _uid_of(b"1.2\x00.3\x00.4\x00")),
    "UID that climbs": (EXPLICIT, lambda: _uid_of(b"../../../../etc/passwd")),
    "UID with a slash": (EXPLICIT, lambda: _uid_of(b"1.2/3.4 ")),
    "UID of dots": (EXPLICIT, lambda: _uid_of(b"................")),
    "UID of 300 characters": (EXPLICIT, lambda: _uid_of(b"1." * 150)),
    "UID of none": (EXPLICIT, lambda: _uid_of(b"")),
    "UID of several": (EXPLICIT, lambda: _uid_of(b"1.2.3\\1.2.4 ")),
    "UID in UTF-16": (EXPLICIT, lambda: _uid_of("1.2.3.4".encode("utf-16"))),
    "values of 300 characters": (EXPLICIT, lambda: with_header(
        element(0x00080060, b"CS", b"C" * 300) + element(0x00081030, b"LO", b"x" * 300))),
    "values of 60000 characters": (EXPLICIT, lambda: with_header(
        element(0x00080005, b"CS", b"ISO_IR 100") + element(0x00081030, b"LO", b"y" * 60_000))
        + element(0x7FE10010, b"LO", b"z" * 60_000)),
    "a long concatenation": (EXPLICIT, lambda: encoded(instance(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1", PixelData=None), EXPLICIT)
        + element(0x00209161, b"UI", b"1." * 30_000) + element(0x00209162, b"US", b"\1\0")
        + element(0x00209163, b"US", b"\1\0")),
    "a rejection note of 1000": (EXPLICIT, lambda: rejection_note(1000)),
    "a rejection note of 2500": (EXPLICIT, lambda: rejection_note(2500)),
    "a rejection note of 10000": (EXPLICIT, lambda: rejection_note(10_000)),
    "numbers that are none": (EXPLICIT, lambda: with_header(
        element(0x00180050, b"DS", b"1e9999  ") + element(0x00200011, b"IS", b"NaN "))),
    "a charset that is none": (EXPLICIT, lambda: with_header(b"", SpecificCharacterSet=None)[:0]
        + element(0x00080005, b"CS", b"\\\\\\../ISO") + encoded(
            instance(SpecificCharacterSet=None), EXPLICIT)),
    "file meta information within": (EXPLICIT, lambda: element(
        0x00020010, b"UI", uid(DEFLATED)) + encoded(instance(), EXPLICIT)),
    "tags in reverse": (EXPLICIT, lambda: encoded(instance(), EXPLICIT)[-200:] + encoded(
        instance(), EXPLICIT)),
    "explicit that says implicit": (IMPLICIT, lambda: encoded(instance(), EXPLICIT)),
    "little that says big": (BIG_ENDIAN, lambda: encoded(instance(), EXPLICIT)),
    "deflated that is not": (DEFLATED, lambda: encoded(instance(), EXPLICIT)),
    "deflated and cut": (DEFLATED, lambda: deflated(encoded(instance(), EXPLICIT))[:-9]),
    "deflated of nothing": (DEFLATED, lambda: deflated(b"")),
    "a bomb in a private element": (DEFLATED, lambda: bomb(BOMB_MEGABYTES, in_pixels=False)),
    "a bomb in the pixels": (DEFLATED, lambda: bomb(BOMB_MEGABYTES, in_pixels=True)),
    "8 GiB of pixels in RLE": (RLE, lambda: huge(RLE_HEADER)),
    "8 GiB of pixels in JPEG 2000": (J2K, lambda: huge(J2K_HEADER)),
    "8 GiB of pixels in JPEG-LS": (JPEG_LS, lambda: huge(JPEG_LS_HEADER)),
    "8 GiB of pixels, uncompressed": (EXPLICIT, lambda: encoded(
        instance(Rows=65535, Columns=65535), EXPLICIT)),
    "fragments without an end": (RLE, lambda: huge(RLE_HEADER)[:-8]),
    "a fragment of 4 GiB": (RLE, lambda: encoded(instance(PixelData=None), EXPLICIT) + element(
        0x7FE00010, b"OB", b"\xfe\xff\x00\xe0\xfe\xff\xff\xff", 0xFFFFFFFF)),
}  # fmt: skip
"""Name -> transfer syntax, and what makes the data set. Crashers that were found are kept here."""


def _uid_of(value: bytes) -> bytes:
    """A data set whose Series Instance UID is this."""
    plain = encoded(instance(SeriesInstanceUID="9.9.9"), EXPLICIT)
    old = element(0x0020000E, b"UI", uid("9.9.9"))
    assert old in plain
    return plain.replace(old, element(0x0020000E, b"UI", value), 1)


def as_file(data: bytes, syntax: str, sop_instance: str = "1.2.3.4") -> bytes:
    """The data set as the node would keep it."""
    return file_prefix(CT, sop_instance, syntax) + data
