"""Stored values become Hounsfield units as the header says, and what cannot be decoded is said."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from image_files import decoded, image, written
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from dicomnode.errors import Refusal
from dicomnode.imaging.decoding import is_lossy, outer_padding
from dicomnode.imaging.parsing import parse


def hu(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> list[list[int]]:
    return decoded(written(dataset, syntax))[0].tolist()


def test_slope_and_intercept() -> None:
    stored = np.array([[0, 1024], [1064, 4095]], np.uint16)
    assert hu(image(stored)) == [[-1024, 0], [40, 3071]]
    assert hu(image(stored, RescaleSlope="0.5", RescaleIntercept="-100.25")) == [
        [-100, 412],
        [432, 1947],
    ]


def test_values_are_clipped_to_air_below_and_int16_above() -> None:
    stored = np.array([[-2000, -1100], [0, 30000]], np.int16)
    result, padding = decoded(written(image(stored, RescaleSlope="2", RescaleIntercept="0")))
    assert result.tolist() == [[-1024, -1024], [0, 32767]]
    assert result.dtype == np.int16
    assert padding is not None
    assert padding.tolist() == [[True, True], [False, False]], "nothing is that thin: padding"


def test_declared_padding_and_its_range() -> None:
    stored = np.array([[-2000, -1990], [100, 1024]], np.int16)
    _, padding = decoded(written(image(stored, PixelPaddingValue=-2000)))
    assert padding is not None
    assert padding.tolist() == [[True, False], [False, False]]
    dataset = image(stored, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1980)
    result, padding = decoded(written(dataset))
    assert padding is not None
    assert padding.tolist() == [[True, True], [False, False]]
    assert result.tolist() == [[-1024, -1024], [-924, 0]]


def test_padding_without_any_is_none() -> None:
    assert decoded(written(image(np.full((4, 4), 1024, np.uint16))))[1] is None


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
        decoded(written(dataset))
    assert caught.value.code == "UNDECODABLE"


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, JPEGBaseline8Bit])
def test_garbage_is_refused_and_the_syntax_named(syntax: UID) -> None:
    dataset = image(np.zeros((4, 4), np.uint16))
    with pytest.raises(Refusal) as caught:
        decoded(written(dataset, syntax))
    assert caught.value.code == "UNDECODABLE"
    assert syntax.name in caught.value.detail


@pytest.mark.parametrize(("keyword", "value"), [("SamplesPerPixel", 3), ("BitsAllocated", 32)])
def test_what_is_no_grey_image_of_16_bits_is_refused(keyword: str, value: int) -> None:
    dataset = image(np.zeros((4, 4), np.uint16), **{keyword: value})
    with pytest.raises(Refusal) as caught:
        decoded(written(dataset))
    assert caught.value.code == "UNDECODABLE"


def test_lossy_compression_is_seen_in_the_syntax_or_the_header() -> None:
    fields = {}
    assert not is_lossy(fields, ExplicitVRLittleEndian)
    assert not is_lossy(fields, JPEG2000Lossless)
    assert is_lossy(fields, JPEGBaseline8Bit)
    assert is_lossy(fields, JPEG2000)
    assert not is_lossy({"LossyImageCompression": ("00",)}, JPEG2000)
    assert is_lossy({"LossyImageCompression": ("01",)}, ExplicitVRLittleEndian)


CELLS = {
    "16 bit signed": (np.array([[-32768, -1], [1000, 32767]], np.int16), 16, 15),
    "16 bit unsigned": (np.array([[0, 1], [40000, 65535]], np.uint16), 16, 15),
    "12 bit unsigned": (np.array([[0, 1], [2048, 4095]], np.uint16), 12, 11),
    "12 bit signed": (np.array([[-2048, -1], [0, 2047]], np.int16), 12, 11),
    "8 bit unsigned": (np.array([[0, 1], [128, 255]], np.uint8), 8, 7),
}


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        (name, syntax)
        for name, (cells, _, _) in CELLS.items()
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
        if cells.dtype.itemsize == 2 or syntax != ExplicitVRBigEndian  # a byte has no order
    ],
)
def test_cells_of_every_width_and_sign(name: str, syntax: UID) -> None:
    cells, stored, high = CELLS[name]
    dataset = image(cells, BitsStored=stored, HighBit=high, RescaleIntercept="-24")
    expected = (cells.astype(int) - 24).clip(-1024, 32767)
    assert hu(dataset, syntax) == expected.tolist()


@pytest.mark.parametrize("signed", [False, True])
def test_old_overlays_in_the_high_bits_do_not_count(signed: bool) -> None:
    values = np.array([[-2000, -1], [0, 2047]] if signed else [[0, 1], [2048, 4095]])
    for overlay in (0xF000, 0x5000, 0x8000):
        bits = (values & 0x0FFF | overlay).astype(np.uint16)
        cells = bits.view(np.int16) if signed else bits
        dataset = image(cells, BitsStored=12, HighBit=11, RescaleIntercept="0")
        assert hu(dataset) == values.clip(-1024).tolist()


def test_bits_below_the_stored_ones_do_not_count() -> None:
    values = np.array([[0, 1], [2048, 4095]])
    cells = (values << 4 | 0xB).astype(np.uint16)
    assert hu(image(cells, BitsStored=12, HighBit=15, RescaleIntercept="0")) == values.tolist()


@pytest.mark.parametrize("intercept", ["-1024", "-1024.0", "-1e3", "40000", "-70000", "0.25"])
@pytest.mark.parametrize("slope", ["1", "1.0", "2", "0.5", "-1"])
def test_any_slope_and_intercept_is_as_the_formula_says(slope: str, intercept: str) -> None:
    cells = np.array([[-32768, -1024, -1], [0, 976, 1024], [3071, 30000, 32767]], np.int16)
    expected = np.rint(cells * float(slope) + float(intercept)).clip(-1024, 32767)
    assert hu(image(cells, RescaleSlope=slope, RescaleIntercept=intercept)) == expected.tolist()


def test_a_padding_value_with_the_other_sign_is_the_same_bits() -> None:
    cells = np.array([[-2000, -1000], [100, 1024]], np.int16)
    dataset = image(cells)
    dataset.add_new(0x00280120, "US", 63536)
    _, padding = decoded(written(dataset))
    assert padding is not None
    assert padding.tolist() == [[True, False], [False, False]]


def test_padding_that_cannot_be_stored_is_looked_for_in_the_whole_cell() -> None:
    cells = np.array([[63536, 2096], [100, 1024]], np.uint16)
    dataset = image(cells, BitsStored=12, HighBit=11)
    dataset.add_new(0x00280120, "US", 63536)
    values, padding = decoded(written(dataset))
    assert padding is not None
    assert padding.tolist() == [[True, False], [False, False]]
    assert values.tolist() == [[-1024, 1072], [-924, 0]]


NOISE = np.random.default_rng(3).integers(-1024, 2000, (33, 47)).astype(np.int16)


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEG2000Lossless, lambda cells: imagecodecs.jpeg2k_encode(cells, codecformat="j2k")),
        (HTJ2KLossless, imagecodecs.htj2k_encode),
        (HTJ2KLosslessRPCL, imagecodecs.htj2k_encode),
        (JPEGLSLossless, lambda cells: imagecodecs.jpegls_encode(cells.view(np.uint16))),
    ],
)
def test_compressed_cells_with_a_sign(syntax: UID, encode: object) -> None:
    dataset = image(NOISE, RescaleIntercept="0")
    dataset.PixelData = bytes(encode(NOISE))  # type: ignore[operator]
    assert hu(dataset, syntax) == NOISE.tolist()


def test_the_header_decides_on_the_sign_where_the_codestream_says_otherwise() -> None:
    dataset = image(NOISE, RescaleIntercept="0")
    unsigned = imagecodecs.jpeg2k_encode(NOISE.view(np.uint16), codecformat="j2k")
    dataset.PixelData = bytes(unsigned)
    assert hu(dataset, JPEG2000Lossless) == NOISE.tolist()


def test_a_compressed_image_of_another_size_is_refused() -> None:
    dataset = image(NOISE)
    dataset.PixelData = bytes(imagecodecs.jpeg2k_encode(NOISE[:-1], codecformat="j2k"))
    with pytest.raises(Refusal, match="another size") as caught:
        decoded(written(dataset, JPEG2000Lossless))
    assert caught.value.code == "UNDECODABLE"


def test_fragments_are_joined() -> None:
    dataset = image(NOISE, RescaleIntercept="0")
    stream = bytes(imagecodecs.jpeg2k_encode(NOISE, codecformat="j2k"))
    dataset.PixelData = stream
    whole = written(dataset, JPEG2000Lossless)
    item = b"\xfe\xff\x00\xe0"
    stream += b"\0" * (len(stream) % 2)
    parts = (stream[:100], stream[100:])
    joined = b"".join(item + len(part).to_bytes(4, "little") + part for part in parts)
    split = whole.replace(item + len(stream).to_bytes(4, "little") + stream, joined)
    assert len(split) == len(whole) + 8
    assert decoded(split)[0].tolist() == NOISE.tolist()


def test_rle_of_16_bits() -> None:
    high, low = (NOISE.view(np.uint8).reshape(33, 47, 2)[..., at] for at in (1, 0))
    segments = [literal_runs(plane.tobytes()) for plane in (high, low)]
    offsets = [2, 64, 64 + len(segments[0]), *[0] * 13]
    dataset = image(NOISE, RescaleIntercept="0")
    dataset.PixelData = np.array(offsets, "<u4").tobytes() + b"".join(segments)
    assert hu(dataset, RLELossless) == NOISE.tolist()


def literal_runs(data: bytes) -> bytes:
    """PackBits (PS3.5 G.3) without any repetition."""
    runs = [data[at : at + 128] for at in range(0, len(data), 128)]
    packed = b"".join(bytes([len(run) - 1]) + run for run in runs)
    return packed + b"\0" * (len(packed) % 2)


def test_a_path_is_as_good_as_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    data = written(image(NOISE))
    path.write_bytes(data)
    parsed = parse(path)
    assert parsed.fields == parse(data).fields
    assert parsed.opened()[:] == data
