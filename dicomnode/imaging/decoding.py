"""Pixel data of one CT slice -> Hounsfield units.

Uncompressed slices are read straight from the bytes; for the rest pydicom's decoder plugins do the
work. Nothing here knows of geometry or of the series.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEG2000,
    JPEG2000MC,
    UID,
    ExplicitVRBigEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from dicomnode.errors import Refusal
from dicomnode.imaging.parsing import numbers, text

AIR_HU = -1024
"""Lowest value of a result; padding becomes it."""
PADDING_HU = -1500
"""Nothing is less dense than vacuum at -1024; values this low are undeclared padding."""
_INT16 = np.iinfo(np.int16)
_LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless})
_EITHER = frozenset({JPEG2000, JPEG2000MC})


def decode_slice(
    dataset: Dataset, transfer_syntax: UID
) -> tuple[NDArray[np.int16], NDArray[np.bool_] | None]:
    """Return HU [row, column], rounded, not below -1024, and where they are padding.

    The second array is True at padding (Pixel Padding Value and Range Limit, PS3.3 C.7.5.1.1.2,
    or values below any density), whose HU is -1024; None where there is none.

    Raises:
        Refusal: UNDECODABLE.
    """
    stored = _stored_values(dataset, transfer_syntax)
    padding = _padding(dataset, stored)
    slope = (numbers(dataset, "RescaleSlope", 1) or (1.0,))[0]
    intercept = (numbers(dataset, "RescaleIntercept", 1) or (0.0,))[0]
    hu: NDArray[np.int32] | NDArray[np.float64]
    if slope == 1 and intercept.is_integer():
        hu = stored.astype(np.int32) + np.int32(intercept)
    else:
        hu = np.rint(stored * slope + intercept)
    if padding is None and hu.min() <= PADDING_HU:
        padding = hu <= PADDING_HU
    result = hu.clip(AIR_HU, _INT16.max).astype(np.int16)
    if padding is None or not padding.any():
        return result, None
    result[padding] = AIR_HU
    return result, padding


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


def is_lossy(dataset: Dataset, transfer_syntax: UID) -> bool:
    """Whether the slice went through lossy compression, now or earlier (PS3.3 C.7.6.1.1.5)."""
    if text(dataset, "LossyImageCompression") == "01" or transfer_syntax in _LOSSY:
        return True
    # JPEG 2000's general syntax carries lossless images as well: only the header can tell.
    return transfer_syntax in _EITHER and text(dataset, "LossyImageCompression") != "00"


def _stored_values(dataset: Dataset, syntax: UID) -> NDArray[np.int32] | NDArray[np.uint16]:
    if not syntax.is_transfer_syntax:
        raise Refusal("UNDECODABLE", "The file meta information names an unknown transfer syntax.")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    samples = (numbers(dataset, "SamplesPerPixel", 1) or (1.0,))[0]
    allocated = (numbers(dataset, "BitsAllocated", 1) or (0.0,))[0]
    if samples != 1 or allocated not in (8, 16):
        raise Refusal(
            "UNDECODABLE", f"{samples:g} samples a pixel of {allocated:g} bits are no CT values."
        )
    if not syntax.is_encapsulated and allocated == 16 and syntax != ExplicitVRBigEndian:
        return _native(dataset, rows, columns)
    try:
        dataset.file_meta.TransferSyntaxUID = syntax
        array = np.asarray(pixel_array(dataset))
    except Exception as error:  # noqa: BLE001 - every decoder plugin raises types of its own
        raise Refusal(
            "UNDECODABLE",
            f"Pixel data in {syntax.name} cannot be decoded ({type(error).__name__}).",
        ) from None
    if array.shape != (rows, columns):
        raise Refusal("UNDECODABLE", f"Decoding {syntax.name} gave an image of another size.")
    return array.astype(np.int32)


def _native(dataset: Dataset, rows: int, columns: int) -> NDArray[np.int32] | NDArray[np.uint16]:
    data = dataset.get("PixelData")
    if not isinstance(data, bytes) or len(data) < 2 * rows * columns:
        size = len(data) if isinstance(data, bytes) else 0
        raise Refusal(
            "UNDECODABLE", f"Pixel data has {size} bytes, {2 * rows * columns} are needed."
        )
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    values = np.frombuffer(data, dtype="<i2" if signed else "<u2", count=rows * columns)
    values = values.reshape(rows, columns)
    high_bit = int((numbers(dataset, "HighBit", 1) or (15.0,))[0])
    if high_bit < 15:
        # Bits above the stored ones may hold anything, old overlays for one: shift them out.
        unused = 15 - high_bit
        values = np.right_shift(np.left_shift(values, unused), unused)
    return values


def _padding(
    dataset: Dataset, stored: NDArray[np.int32] | NDArray[np.uint16]
) -> NDArray[np.bool_] | None:
    value = numbers(dataset, "PixelPaddingValue", 1)
    if value is None:
        return None
    limit = numbers(dataset, "PixelPaddingRangeLimit", 1)
    low, high = sorted((value[0], limit[0] if limit else value[0]))
    if low == high:
        return np.asarray(stored == low)
    return np.asarray((stored >= low) & (stored <= high))
