"""Pixel data of one image -> Hounsfield units of CT, signal of MR.

Uncompressed images are read where they lie, compressed ones by `codecs`. Nothing here knows of
geometry or of the series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID, MRImageStorage

from dicomnode.errors import Refusal
from dicomnode.imaging import codecs
from dicomnode.imaging.elements import Buffer
from dicomnode.imaging.fields import Fields, number, text
from dicomnode.imaging.frames import Image
from dicomnode.imaging.parsing import Parsed
from dicomnode.scan import AIR_HU

PADDING_HU = -1500
"""Nothing is less dense than vacuum at -1024; values this low are undeclared padding."""
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How the values of an image are stored (PS3.3 C.7.6.3.1)."""

    shape: tuple[int, int]
    """Rows, Columns."""
    cell: np.dtype[Any]
    """Of a pixel cell, as it is written: its sign, width and byte order."""
    left: int
    """Bits of the cell above the highest one that is stored."""
    right: int
    """Bits of the cell that are not stored, above and below."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of an uncompressed frame."""
        return self.shape[0] * self.shape[1] * self.cell.itemsize


def format_of(fields: Fields, *, little: bool) -> Format:
    """Return how the values of an image are stored.

    Raises:
        Refusal: UNDECODABLE, where they are no grey values of 8 or 16 bits.
    """
    samples = number(fields, "SamplesPerPixel")
    allocated = number(fields, "BitsAllocated")
    if samples not in (None, 1) or allocated not in (8, 16):
        raise Refusal(
            "UNDECODABLE",
            f"{samples or 1:g} samples a pixel of {allocated or 0:g} bits are no CT values.",
        )
    cell = int(allocated)
    stored = number(fields, "BitsStored")
    stored = cell if stored is None or not 0 < stored <= cell else stored
    high = number(fields, "HighBit")
    if high is None or not stored - 1 <= high < cell:
        high = stored - 1 if "BitsStored" in fields else cell - 1
    signed = number(fields, "PixelRepresentation") == 1
    order = "<" if little else ">"
    return Format(
        shape=(int(number(fields, "Rows") or 0), int(number(fields, "Columns") or 0)),
        cell=np.dtype(f"{order}{'i' if signed else 'u'}{cell // 8}"),
        left=cell - 1 - int(high),
        right=cell - int(stored),
    )


def decode_image(
    image: Image, data: Buffer, spans: codecs.Spans | None, out: NDArray[np.int16]
) -> NDArray[np.bool_] | None:
    """Write the values of an image to `out` [row, column]: HU, not below -1024, or signal; rounded.

    Args:
        image: what to decode.
        data: the bytes of its instance.
        spans: where the fragments of its frame lie; None where it is not compressed.
        out: of the image's matrix.

    Returns:
        Where the image is padding (Pixel Padding Value and Range Limit, PS3.3 C.7.5.1.1.2, or
        values below any density), whose HU is -1024, whose signal is 0; None where there is none.

    Raises:
        Refusal: UNDECODABLE.
    """
    stored_as = format_of(image.fields, little=image.instance.encoding.little)
    if spans is None:
        cells = _native(image, data, stored_as)
    else:
        syntax = image.instance.transfer_syntax
        bits = b"".join(data[begin:end] for begin, end in spans)
        # Other than the cells around them, codestreams know no byte order of the data set.
        unsigned = np.dtype(f"<u{stored_as.cell.itemsize}")
        try:
            cells = codecs.decode(bits, syntax, stored_as.shape, unsigned)
        except codecs.CodecError as error:
            raise undecodable(syntax, error) from None
    convert = to_signal if image.instance.sop_class_uid == MRImageStorage else to_hounsfield
    return convert(cells, stored_as, image.fields, out)


def fragments_of(instance: Parsed, data: Buffer) -> list[codecs.Spans] | None:
    """Return where the fragments of each frame lie; None where the pixels are not compressed.

    Raises:
        Refusal: UNDECODABLE.
    """
    syntax = instance.transfer_syntax
    if not syntax.is_transfer_syntax:
        raise Refusal("UNDECODABLE", "The file meta information names an unknown transfer syntax.")
    if not syntax.is_encapsulated:
        return None
    pixels = instance.pixels
    if pixels is None or not pixels.encapsulated:
        raise undecodable(syntax, codecs.CodecError("it is not encapsulated"))
    extended: tuple[int, ...] = ()
    if "ExtendedOffsetTable" in instance.spans:
        start, end = instance.spans["ExtendedOffsetTable"]
        extended = tuple(np.frombuffer(data[start : end - (end - start) % 8], "<u8").tolist())
    count = max(1, int(number(instance.fields, "NumberOfFrames") or 1))
    try:
        return codecs.frame_spans(data, pixels.start, pixels.end, count, extended)
    except codecs.CodecError as error:
        raise undecodable(syntax, error) from None


def undecodable(syntax: UID, error: codecs.CodecError) -> Refusal:
    """Return the refusal for pixel data that a codec does not take."""
    return Refusal("UNDECODABLE", f"Pixel data in {syntax.name} cannot be decoded ({error}).")


def to_hounsfield(
    cells: NDArray[Any], stored_as: Format, fields: Fields, out: NDArray[np.int16]
) -> NDArray[np.bool_] | None:
    """Write the HU of pixel cells to `out`; return where they are padding, as `decode_image`."""
    stored = _stored_values(cells, stored_as)
    slope = number(fields, "RescaleSlope")
    slope = 1.0 if slope is None else slope
    intercept = number(fields, "RescaleIntercept") or 0.0
    padding = _padding(cells, stored, stored_as, fields)
    if slope == 1 and intercept.is_integer():
        low = _shifted(stored, int(intercept), out)
        if padding is None and low <= PADDING_HU:
            padding = np.asarray(stored <= PADDING_HU - int(intercept))
    else:
        hu = np.rint(stored * slope + intercept)
        if padding is None and hu.min() <= PADDING_HU:
            padding = hu <= PADDING_HU
        out[:] = hu.clip(AIR_HU, _INT16.max)
    if padding is None or not padding.any():
        return None
    np.copyto(out, AIR_HU, where=padding)
    return padding


def to_signal(
    cells: NDArray[Any], stored_as: Format, fields: Fields, out: NDArray[np.int16]
) -> NDArray[np.bool_] | None:
    """Write the signal of MR pixel cells to `out`; return where they are padding.

    Rescaled where the header says so, as scanners do that store each image in its own scale.

    Raises:
        Refusal: VALUES_OUT_OF_RANGE, where whole numbers of 16 bits cannot hold the signal.
    """
    stored = _stored_values(cells, stored_as)
    slope, intercept = number(fields, "RescaleSlope"), number(fields, "RescaleIntercept")
    padding = _padding(cells, stored, stored_as, fields)
    signal = stored * (slope or 1.0) + (intercept or 0.0)
    low, high = float(signal.min()), float(signal.max())
    if not (_INT16.min <= low and high <= _INT16.max):
        raise Refusal("VALUES_OUT_OF_RANGE", f"The signal reaches from {low:g} to {high:g}.")
    np.rint(signal, out=out, casting="unsafe")
    if padding is None or not padding.any():
        return None
    np.copyto(out, 0, where=padding)
    return padding


def outer_padding(padding: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the part of `padding` [row, column] that reaches the edge along a row or column.

    Around a round reconstruction that is all of it. Inside the body the padding value is only the
    darkest air: scanners declare 0 for it, which is -1024 HU.
    """
    outside = np.zeros_like(padding)
    for axis in (0, 1):
        outside |= np.logical_and.accumulate(padding, axis=axis)
        from_end = np.logical_and.accumulate(np.flip(padding, axis), axis=axis)
        outside |= np.flip(from_end, axis)
    return outside


def is_lossy(fields: Fields, transfer_syntax: UID) -> bool:
    """Whether the image went through lossy compression, now or earlier (PS3.3 C.7.6.1.1.5)."""
    said = text(fields, "LossyImageCompression")
    if said == "01" or transfer_syntax in codecs.LOSSY:
        return True
    return transfer_syntax in codecs.EITHER and said != "00"


def _native(image: Image, data: Buffer, stored_as: Format) -> NDArray[Any]:
    pixels, size = image.instance.pixels, stored_as.frame_bytes
    start = size * ((image.frame_number or 1) - 1)
    held = 0 if pixels is None or pixels.encapsulated else pixels.end - pixels.start
    if pixels is None or held < start + size:
        raise Refusal("UNDECODABLE", f"Pixel data has {held} bytes, {start + size} are needed.")
    cells = np.frombuffer(
        data, stored_as.cell, count=size // stored_as.cell.itemsize, offset=pixels.start + start
    )
    return cells.reshape(stored_as.shape)


def _stored_values(cells: NDArray[Any], stored_as: Format) -> NDArray[Any]:
    """Return the values in the machine's byte order, with the sign that the header says."""
    native = stored_as.cell.newbyteorder("=")
    if cells.dtype != native:
        # Codecs may not know the sign, or know another one: the bits count.
        cells = cells.astype(native, copy=False)
    if not stored_as.right:
        return cells
    # Bits that are not stored may hold anything, old overlays for one: shift them out.
    return np.asarray(np.right_shift(np.left_shift(cells, stored_as.left), stored_as.right))


def _shifted(stored: NDArray[Any], intercept: int, out: NDArray[np.int16]) -> int:
    """Write `stored + intercept`, between air and the greatest value; return its least value."""
    low, high = int(stored.min()) + intercept, int(stored.max()) + intercept
    if high <= AIR_HU:
        out.fill(AIR_HU)
        return low
    if low >= _INT16.max:
        out.fill(_INT16.max)
        return low
    cells = out.view(np.uint16)
    if stored.dtype.itemsize == 2:
        between = max(AIR_HU, low) - intercept, min(int(_INT16.max), high) - intercept
        if low < AIR_HU or high > _INT16.max:
            stored = stored.clip(*between, out=out.view(stored.dtype))
        stored = stored.view(np.uint16)
    # The sum fits, so it may be counted modulo 2^16.
    np.add(stored, np.uint16(intercept & 0xFFFF), out=cells, casting="unsafe")
    return low


def _padding(
    cells: NDArray[Any], stored: NDArray[Any], stored_as: Format, fields: Fields
) -> NDArray[np.bool_] | None:
    value = number(fields, "PixelPaddingValue")
    if value is None:
        return None
    # Often written with the other sign than the pixels: -2000 as 63536. The bits count here too.
    mask = 2 ** (8 * stored_as.cell.itemsize) - 1
    low = _as_stored(int(value) & mask, stored_as)
    if low is None:
        # No stored value can be it, but a writer that fills the unused bits as well meant the cell.
        return np.asarray(cells.astype(f"u{stored_as.cell.itemsize}") == int(value) & mask)
    limit = number(fields, "PixelPaddingRangeLimit")
    high = None if limit is None else _as_stored(int(limit) & mask, stored_as)
    if high is None or high == low:
        return np.asarray(stored == low)
    return np.asarray((stored >= min(low, high)) & (stored <= max(low, high)))


def _as_stored(bits: int, stored_as: Format) -> int | None:
    """Return the stored value that is written as `bits`; None where too few bits are stored."""
    width = 8 * stored_as.cell.itemsize
    kept = width - stored_as.right
    value = bits & (2**kept - 1)
    if stored_as.cell.kind == "i" and value >= 2 ** (kept - 1):
        value -= 2**kept
    return value if value & (2**width - 1) == bits else None
