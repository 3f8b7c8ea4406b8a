"""Compressed frames -> arrays of stored values: where the fragments lie, and who decodes them.

The codecs let other threads run while they work, so slices decode in parallel. Nothing here knows
what the values mean.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEG2000MCLossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicomnode.imaging.elements import Buffer

Spans = list[tuple[int, int]]
"""Where each fragment's value begins and ends."""

_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_END_OF_IMAGE = b"\xff\xd9"


def _rle(data: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    planes = imagecodecs.dicomrle_decode(data, dtype)
    return np.frombuffer(planes, dtype).reshape(shape)


def _with(decode: Callable[[bytes], Any]) -> Callable[..., NDArray[Any]]:
    def call(data: bytes, _shape: tuple[int, int], _dtype: np.dtype[Any]) -> NDArray[Any]:
        return np.asarray(decode(data))

    return call


_JPEG = _with(imagecodecs.jpeg8_decode)
_JPEG_2000 = _with(imagecodecs.jpeg2k_decode)
_JPEG_LS = _with(imagecodecs.jpegls_decode)
_DECODERS: dict[str, Callable[..., NDArray[Any]]] = {
    RLELossless: _rle,
    JPEGBaseline8Bit: _JPEG,
    JPEGExtended12Bit: _JPEG,
    "1.2.840.10008.1.2.4.53": _JPEG,  # Spectral Selection (Process 6 & 8), retired
    "1.2.840.10008.1.2.4.55": _JPEG,  # Full Progression (Process 10 & 12), retired
    JPEGLossless: _JPEG,
    JPEGLosslessSV1: _JPEG,
    JPEGLSLossless: _JPEG_LS,
    JPEGLSNearLossless: _JPEG_LS,
    JPEG2000Lossless: _JPEG_2000,
    JPEG2000: _JPEG_2000,
    JPEG2000MCLossless: _JPEG_2000,
    JPEG2000MC: _JPEG_2000,
    HTJ2KLossless: _JPEG_2000,
    HTJ2KLosslessRPCL: _JPEG_2000,
    HTJ2K: _JPEG_2000,
}
LOSSY = frozenset(
    {
        JPEGBaseline8Bit,
        JPEGExtended12Bit,
        JPEGLSNearLossless,
        UID("1.2.840.10008.1.2.4.53"),
        UID("1.2.840.10008.1.2.4.55"),
    }
)
EITHER = frozenset({JPEG2000, JPEG2000MC, HTJ2K})
"""Lossless images as well as lossy ones: only the header can tell."""


class CodecError(Exception):
    """The frame cannot be decoded."""


def decode(data: bytes, syntax: UID, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the stored values [row, column] of one frame; their sign may be undecided yet.

    Args:
        data: the frame's bitstream.
        syntax: its transfer syntax.
        shape: Rows, Columns.
        dtype: of a pixel cell, unsigned.

    Raises:
        CodecError: there is no decoder, the data are damaged, or are another image.
    """
    decoder = _DECODERS.get(syntax)
    if decoder is None:
        raise CodecError("there is no decoder")
    try:
        array = decoder(data, shape, dtype)
    except Exception as error:  # noqa: BLE001 - every codec raises types of its own
        raise CodecError(type(error).__name__) from None
    if array.shape != shape:
        raise CodecError("it is an image of another size")
    if array.dtype.kind not in "iu" or array.dtype.itemsize > dtype.itemsize:
        raise CodecError("its values are too wide")
    return array


def frame_spans(
    data: Buffer, start: int, end: int, count: int, extended: tuple[int, ...] = ()
) -> list[Spans]:
    """Return the fragments of each of `count` frames in encapsulated pixel data (PS3.5 A.4).

    Args:
        start: where the first item begins, the Basic Offset Table.
        end: where the pixel data end at the latest.
        extended: Extended Offset Table, if there is one.

    Raises:
        CodecError: the fragments cannot be told apart.
    """
    table, fragments = _items(data, start, end)
    if not fragments:
        raise CodecError("it has no fragments")
    if count == 1:
        return [fragments]
    if len(fragments) == count:
        return [[fragment] for fragment in fragments]
    offsets = extended or struct.unpack(f"<{len(data[slice(*table)]) // 4}I", data[slice(*table)])
    if len(offsets) == count:
        return _by_offset(fragments, offsets)
    frames: list[Spans] = [[]]
    for begin, stop in fragments:
        frames[-1].append((begin, stop))
        if _END_OF_IMAGE in data[max(begin, stop - 10) : stop]:
            frames.append([])
    if len(frames) - 1 != count or frames[-1]:
        raise CodecError(f"its {len(fragments)} fragments are no {count} frames")
    return frames[:-1]


def _items(data: Buffer, start: int, end: int) -> tuple[tuple[int, int], Spans]:
    found: Spans = []
    position = start
    while position + 8 <= end:
        group, element, length = struct.unpack_from("<HHI", data, position)
        if (group, element) == _SEQUENCE_END:
            break
        if (group, element) != _ITEM or position + 8 + length > end:
            raise CodecError("its fragments are damaged")
        found.append((position + 8, position + 8 + length))
        position += 8 + length
    if not found:
        raise CodecError("it has no fragments")
    return found[0], found[1:]


def _by_offset(fragments: Spans, offsets: tuple[int, ...]) -> list[Spans]:
    base = fragments[0][0] - 8
    begins = {begin - 8 - base: index for index, (begin, _) in enumerate(fragments)}
    try:
        firsts = [begins[offset] for offset in offsets]
    except KeyError:
        raise CodecError("its offset table does not fit") from None
    frames = [
        fragments[first:after]
        for first, after in zip(firsts, [*firsts[1:], len(fragments)], strict=True)
    ]
    if not all(frames):
        raise CodecError("its offset table is not in order")
    return frames
