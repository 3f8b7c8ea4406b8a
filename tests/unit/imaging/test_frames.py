"""Frames of multi-frame instances are slices like any others."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from enhanced_ct import concatenated, enhanced, legacy_converted, read, save
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.errors import Refusal
from dicomnode.imaging import read_scan
from dicomnode.scan import Scan

AFFINE = np.array([[-1.5, 0, 0, 20], [0, -2.0, 0, 30], [0, 0, 2.5, -40], [0, 0, 0, 1]])
HU = np.random.default_rng(5).integers(-1000, 1500, (12, 10, 12)).astype(np.int16)
FILES = write_series(HU, AFFINE, SeriesOptions(seed=2))  # in shuffled order
SINGLE = read_scan(FILES)


def assert_same(scan: Scan, expected: Scan = SINGLE) -> None:
    """The same voxels at the same places, each slice from the frame that lies there."""
    assert np.array_equal(scan.volume, expected.volume)
    assert np.allclose(scan.affine, expected.affine)
    assert np.allclose(scan.positions, expected.positions)
    assert scan.orientation == expected.orientation
    assert scan.is_regular == expected.is_regular


def refused(*files: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_scan(files)
    return caught.value


@pytest.mark.parametrize("shared", [True, False])
def test_frames_become_the_volume_that_their_slices_were(shared: bool) -> None:
    data = enhanced(FILES, shared=shared)
    scan = read_scan([data])

    assert_same(scan)
    assert scan.findings == ()
    assert scan.total_instances == 12
    assert set(scan.sop_instance_uids) == {read(data).SOPInstanceUID}
    heights = [float(item.PlanePositionSequence[0].ImagePositionPatient[2])
               for item in read(data).PerFrameFunctionalGroupsSequence]  # fmt: skip
    assert [heights[number - 1] for number in scan.frame_numbers if number] == sorted(heights)


def test_the_header_tells_of_the_frame() -> None:
    header = read_scan([enhanced(FILES)]).header
    assert header.KVP == 120
    assert header.ConvolutionKernel == "B"
    assert header.SliceThickness == 2.5
    assert "PerFrameFunctionalGroupsSequence" not in header
    assert "PixelData" not in header


def test_legacy_converted_by_highdicom() -> None:
    scan = read_scan([legacy_converted(FILES)])
    assert_same(scan)
    assert scan.header.KVP == 120, "an unassigned converted attribute"


def test_the_digest_tells_frames_apart() -> None:
    digest = read_scan([enhanced(FILES)]).digest
    assert read_scan([enhanced(FILES)]).digest == digest
    assert read_scan([enhanced(FILES[::-1])]).digest != digest, "other frame numbers"
    assert digest != SINGLE.digest


def deflated(data: bytes) -> bytes:
    dataset = read(data)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return save(dataset)


def reencoded(data: bytes, implicit: bool, little: bool) -> bytes:
    dataset = read(data)
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = syntax
    if not little:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    buffer = BytesIO()
    pydicom.dcmwrite(
        buffer, dataset, implicit_vr=implicit, little_endian=little, enforce_file_format=True
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    "encode",
    [
        deflated,
        lambda data: reencoded(data, implicit=True, little=True),
        lambda data: reencoded(data, implicit=False, little=False),
    ],
)
def test_uncompressed_transfer_syntaxes(encode: Callable[[bytes], bytes]) -> None:
    assert_same(read_scan([encode(enhanced(FILES))]))


def cells(data: bytes) -> Any:
    return np.frombuffer(data, "<u2").reshape(10, 12)


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEG2000Lossless, lambda c: imagecodecs.jpeg2k_encode(c, codecformat="j2k")),
        (HTJ2KLossless, imagecodecs.htj2k_encode),
        (JPEGLSLossless, imagecodecs.jpegls_encode),
    ],
)
def test_compressed_frames(syntax: Any, encode: Any) -> None:
    data = enhanced(FILES, compress=lambda raw: bytes(encode(cells(raw))), syntax=syntax)
    assert_same(read_scan([data]))


def test_compressed_by_highdicom() -> None:
    assert_same(read_scan([legacy_converted(FILES, RLELossless)]))


def fragmented(table: str) -> bytes:
    """JPEG-LS frames of two fragments each, with the offset table named, or none."""
    data = enhanced(
        FILES, compress=lambda raw: bytes(imagecodecs.jpegls_encode(cells(raw))),
        syntax=JPEGLSLossless,
    )  # fmt: skip
    dataset = read(data)
    streams = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=12))
    with_table = pydicom.encaps.encapsulate(streams, fragments_per_frame=2, has_bot=True)
    length = int.from_bytes(with_table[4:8], "little")
    offsets = np.frombuffer(with_table[8 : 8 + length], "<u4").astype("<u8")
    dataset.PixelData = with_table
    if table != "basic":
        dataset.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0" + with_table[8 + length :]
    dataset.ExtendedOffsetTable = offsets.tobytes()
    if table != "extended":
        del dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
    return save(dataset)


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_frames_of_several_fragments(table: str) -> None:
    assert_same(read_scan([fragmented(table)]))


def test_slope_and_intercept_of_each_frame() -> None:
    def change(index: int, frame: Dataset) -> None:
        frame.PixelValueTransformationSequence[0].RescaleIntercept = -1024 + 10 * index

    changed = read_scan([enhanced(FILES, shared=False, change=change)])
    numbers = np.array([number or 0 for number in changed.frame_numbers])
    expected = SINGLE.volume + 10 * (numbers - 1)[:, None, None]
    assert np.array_equal(changed.volume, expected)


def test_a_concatenation_is_one_volume_with_references_to_its_parts() -> None:
    parts = concatenated(FILES, [slice(0, 5), slice(5, 6), slice(6, 12)])
    scan = read_scan(parts[::-1])
    assert_same(scan)
    assert scan.findings == ()
    uids = [read(part).SOPInstanceUID for part in parts]
    named = sorted(zip(scan.sop_instance_uids, scan.frame_numbers, strict=True))
    sizes = zip(uids, (5, 1, 6), strict=True)
    assert named == sorted((uid, n) for uid, size in sizes for n in range(1, size + 1))


def test_a_missing_part_of_a_concatenation_is_said() -> None:
    parts = concatenated(FILES, [slice(0, 8), slice(8, 12)])
    scan = read_scan(parts[:1])
    assert scan.findings[0] == "Only 1 of the 2 parts of a multi-frame image are here."


def phase(of: Callable[[int], int], keyword: str = "TemporalPositionIndex") -> Any:
    def change(index: int, frame: Dataset) -> None:
        content = frame.FrameContentSequence[0]
        value = of(index)
        setattr(content, keyword, str(value) if keyword == "StackID" else value)

    return change


@pytest.mark.parametrize(
    ("keyword", "called"),
    [
        ("TemporalPositionIndex", "temporal position"),
        ("StackID", "stack"),
        ("FrameAcquisitionNumber", "acquisition"),
    ],
)
def test_phases_and_stacks_at_one_place_are_never_mixed(keyword: str, called: str) -> None:
    both = enhanced([*FILES, *FILES], change=phase(lambda index: 1 + index // 12, keyword))
    refusal = refused(both)
    assert refusal.code == "DUPLICATE_POSITIONS"
    assert "24 slices lie at 12 positions" in refusal.detail

    few = enhanced([*FILES, *FILES[:3]], change=phase(lambda index: 1 + index // 12, keyword))
    scan = read_scan([few])
    assert_same(scan)
    assert scan.findings == (f"3 images of another {called} at the same positions were left out.",)
    assert max(number or 0 for number in scan.frame_numbers) == 12


def test_a_dimension_that_is_not_of_space_tells_frames_apart() -> None:
    few = read(enhanced([*FILES, *FILES[:3]]))
    # Nothing but the index values of an unknown dimension differs.
    few.DimensionIndexSequence[2].DimensionIndexPointer = 0x00291001
    for index, frame in enumerate(few.PerFrameFunctionalGroupsSequence):
        content = frame.FrameContentSequence[0]
        del content.TemporalPositionIndex
        content.DimensionIndexValues = [1, index % 12 + 1, 1 + index // 12]
    scan = read_scan([save(few)])
    assert_same(scan)
    assert "3 images of another dimension" in scan.findings[0]


def test_duplicates_that_nothing_tells_apart_are_refused() -> None:
    assert refused(enhanced([*FILES, FILES[0]])).code == "DUPLICATE_POSITIONS"


def test_frames_that_are_a_map_or_another_orientation_are_left_out() -> None:
    def change(index: int, frame: Dataset) -> None:
        if index == 0:
            frame.CTImageFrameTypeSequence[0].FrameType = ["DERIVED", "PRIMARY", "PERFUSION", "MTT"]
        if index in (1, 2):
            frame.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    ordered = sorted(FILES, key=lambda data: int(read(data).InstanceNumber))
    scan = read_scan([enhanced(ordered, shared=False, change=change)])
    assert len(scan.sources) == 9
    assert scan.findings[0] == "1 images were left out: 1 DERIVED_MAP."
    assert scan.findings[1] == "2 images of other orientations were left out."


def test_two_frames_of_reference_are_two_instances_and_never_mixed() -> None:
    other = read(enhanced(FILES[:3], name="other"))
    other.FrameOfReferenceUID = "1.2.3"
    scan = read_scan([enhanced(FILES), save(other)])
    assert_same(scan)
    assert scan.findings == ("3 images of other Frames of Reference were left out.",)


def test_an_instance_that_comes_twice_counts_once() -> None:
    data = enhanced(FILES)
    scan = read_scan([data, data])
    assert_same(scan)
    assert scan.findings == ("1 repeated instances were ignored.",)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("BAD_FRAMES", lambda item: setattr(item, "NumberOfFrames", 11)),
        ("BAD_FRAMES", lambda item: setattr(item, "NumberOfFrames", 2000000000)),
        ("BAD_FRAMES", lambda item: item.__delitem__("PerFrameFunctionalGroupsSequence")),
        ("BAD_FRAMES", lambda item: item.PerFrameFunctionalGroupsSequence.pop()),
        ("UNDECODABLE", lambda item: setattr(item, "PixelData", item.PixelData[:-2])),
        ("NOT_HU", lambda item: item.SharedFunctionalGroupsSequence[0].__delitem__(
            "PixelValueTransformationSequence")),
        ("NO_POSITION", lambda item: item.SharedFunctionalGroupsSequence[0].__delitem__(
            "PixelMeasuresSequence")),
        ("MISSING_IDENTIFIERS", lambda item: setattr(item, "SeriesInstanceUID", "")),
        ("NO_FRAME_OF_REFERENCE", lambda item: setattr(item, "FrameOfReferenceUID", "")),
    ],
)  # fmt: skip
def test_what_does_not_say_what_its_frames_are_is_refused(code: str, change: Any) -> None:
    dataset = read(enhanced(FILES))
    change(dataset)
    assert refused(save(dataset)).code == code


def test_damaged_fragments_are_refused() -> None:
    data = fragmented("none")
    assert refused(data[:-300]).code == "UNDECODABLE"
    first = data.index(b"\xe0\x7f\x10\x00OB") + 20  # behind the element's and the table's header
    broken = data[:first] + b"\xff" * 4 + data[first + 4 :]
    assert refused(broken).code == "UNDECODABLE"
