"""Stored values become Hounsfield units as the header says, and what cannot be decoded is said."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

from dicomnode.errors import Refusal
from dicomnode.imaging.decoding import decode_slice, is_lossy, outer_padding


def image(stored: NDArray[np.generic], **attributes: object) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1 if stored.dtype.kind == "i" else 0
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    dataset.PixelData = stored.tobytes()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def hu(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> list[list[int]]:
    return decode_slice(dataset, syntax)[0].tolist()


def test_slope_and_intercept() -> None:
    stored = np.array([[0, 1024], [1064, 4095]], np.uint16)
    assert hu(image(stored)) == [[-1024, 0], [40, 3071]]
    assert hu(image(stored, RescaleSlope="0.5", RescaleIntercept="-100.25")) == [
        [-100, 412],
        [432, 1947],
    ]


def test_values_are_clipped_to_air_below_and_int16_above() -> None:
    stored = np.array([[-2000, -1100], [0, 30000]], np.int16)
    result, padding = decode_slice(
        image(stored, RescaleSlope="2", RescaleIntercept="0"), ExplicitVRLittleEndian
    )
    assert result.tolist() == [[-1024, -1024], [0, 32767]]
    assert result.dtype == np.int16
    assert padding is not None
    assert padding.tolist() == [[True, True], [False, False]], "nothing is that thin: padding"


def test_declared_padding_and_its_range() -> None:
    stored = np.array([[-2000, -1990], [100, 1024]], np.int16)
    _, padding = decode_slice(image(stored, PixelPaddingValue=-2000), ExplicitVRLittleEndian)
    assert padding is not None
    assert padding.tolist() == [[True, False], [False, False]]
    dataset = image(stored, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1980)
    result, padding = decode_slice(dataset, ExplicitVRLittleEndian)
    assert padding is not None
    assert padding.tolist() == [[True, True], [False, False]]
    assert result.tolist() == [[-1024, -1024], [-924, 0]]


def test_padding_without_any_is_none() -> None:
    assert decode_slice(image(np.full((3, 3), 1024, np.uint16)), ExplicitVRLittleEndian)[1] is None


def test_padding_inside_the_body_is_only_dark_air() -> None:
    padding = np.zeros((9, 9), bool)
    padding[:2] = padding[:, 7:] = True
    padding[4, 3:5] = True
    outer = outer_padding(padding)
    assert not outer[4, 3:5].any()
    assert outer[:2].all()
    assert outer[:, 7:].all()


def test_bits_above_the_stored_ones_do_not_count() -> None:
    stored = np.array([[0xF400, 0x0400], [0x2FFF, 0x0000]], np.uint16)
    assert hu(image(stored, BitsStored=12, HighBit=11)) == [[0, 0], [3071, -1024]]
    signed = np.array([[0x0FFF, 0x0001], [0x0800, 0x07FF]], np.int16)
    dataset = image(signed, BitsStored=12, HighBit=11, RescaleIntercept="0")
    assert hu(dataset) == [[-1, 1], [-1024, 2047]]


def test_truncated_pixel_data_is_refused() -> None:
    dataset = image(np.zeros((4, 4), np.uint16))
    dataset.PixelData = dataset.PixelData[:-4]
    with pytest.raises(Refusal, match="28 bytes, 32 are needed") as caught:
        decode_slice(dataset, ExplicitVRLittleEndian)
    assert caught.value.code == "UNDECODABLE"


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, JPEGBaseline8Bit])
def test_garbage_is_refused_and_the_syntax_named(syntax: UID) -> None:
    dataset = image(np.zeros((4, 4), np.uint16))
    with pytest.raises(Refusal) as caught:
        decode_slice(dataset, syntax)
    assert caught.value.code == "UNDECODABLE"
    assert syntax.name in caught.value.detail


@pytest.mark.parametrize(("keyword", "value"), [("SamplesPerPixel", 3), ("BitsAllocated", 32)])
def test_what_is_no_grey_image_of_16_bits_is_refused(keyword: str, value: int) -> None:
    dataset = image(np.zeros((4, 4), np.uint16), **{keyword: value})
    with pytest.raises(Refusal) as caught:
        decode_slice(dataset, ExplicitVRLittleEndian)
    assert caught.value.code == "UNDECODABLE"


def test_lossy_compression_is_seen_in_the_syntax_or_the_header() -> None:
    plain = image(np.zeros((4, 4), np.uint16))
    assert not is_lossy(plain, ExplicitVRLittleEndian)
    assert not is_lossy(plain, JPEG2000Lossless)
    assert is_lossy(plain, JPEGBaseline8Bit)
    assert is_lossy(plain, JPEG2000)
    assert not is_lossy(image(np.zeros((4, 4), np.uint16), LossyImageCompression="00"), JPEG2000)
    earlier = image(np.zeros((4, 4), np.uint16), LossyImageCompression="01")
    assert is_lossy(earlier, ExplicitVRLittleEndian)
