"""A Label Map Segmentation is highdicom's own, and others read every voxel back."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from enhanced_ct import enhanced
from highdicom.seg import SegmentationTypeValues
from numpy.typing import NDArray
from others import dciodvfy_errors, dcmqi_labels
from seg_kit import (
    MODEL,
    ORIENTATIONS,
    PLAN,
    STRAIGHT,
    by_highdicom,
    scattered,
    source_of,
    turned,
)

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.plans import ResultInstance
from dicomnode.imaging import read_scan
from dicomnode.results import encode, prepare
from dicomnode.results.headers import Source
from dicomnode.results.labelmap import SOP_CLASS_UID
from dicomnode.results.seg import find_present, find_segments
from dicomnode.results.uids import content_parts, identify
from dicomnode.scan import LabelMap

ONLY = replace(PLAN, objects=("labelmap",))


def encoded(source: Source, labels: NDArray[np.uint8]) -> ResultInstance:
    found = LabelMap(labels=labels, source_digest=source.scan.digest)
    (result,) = encode(source, found, MODEL, (), ONLY)
    return result


def by_plain_highdicom(source: Source, labels: NDArray[np.uint8]) -> ResultInstance:
    found = LabelMap(labels=labels, source_digest=source.scan.digest)
    segments = tuple(
        replace(segment, number=segment.label)
        for segment in find_segments(source, find_present(found), MODEL)
    )
    parts = content_parts(source, found, MODEL, ONLY)
    series_uid = str(source.headers[0].SeriesInstanceUID)
    identifiers = identify("labelmap", SOP_CLASS_UID, parts, ONLY, series_uid)
    kind = SegmentationTypeValues.LABELMAP
    return by_highdicom(kind, source, found, segments, MODEL, ONLY, identifiers)


@pytest.mark.parametrize("name", [*ORIENTATIONS, "oblique"])
def test_it_is_the_one_of_highdicom(name: str) -> None:
    source = source_of((9, 7, 8), turned() if name == "oblique" else ORIENTATIONS[name])
    labels = scattered((9, 7, 8), 104)
    assert encoded(source, labels).data == by_plain_highdicom(source, labels).data


@pytest.mark.parametrize("options", [{"tilt_degrees": 18.5}, {"jitter_mm": 0.4}])
def test_on_irregular_stacks_too(options: dict[str, float]) -> None:
    source, labels = source_of((6, 8, 8), **options), scattered((6, 8, 8), 3)
    assert encoded(source, labels).data == by_plain_highdicom(source, labels).data


def test_on_the_frames_of_one_instance() -> None:
    files = write_series(np.zeros((8, 8, 6), np.int16), STRAIGHT, SeriesOptions())
    source, labels = prepare(read_scan([enhanced(files)])), scattered((6, 8, 8), 4)
    result = encoded(source, labels)
    assert result.data == by_plain_highdicom(source, labels).data
    for item in pydicom.dcmread(BytesIO(result.data)).PerFrameFunctionalGroupsSequence:
        image = item.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == source.headers[0].SOPInstanceUID
        assert image.ReferencedFrameNumber in source.scan.frame_numbers


def test_segment_numbers_are_the_models_labels_and_background_is_named() -> None:
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[1:3, 2:4, 2:4], labels[3, 1:5, 5] = 2, 90
    result = encoded(source_of((5, 6, 7)), labels)
    written = pydicom.dcmread(BytesIO(result.data))
    assert (result.kind, result.sop_class_uid) == ("labelmap", "1.2.840.10008.5.1.4.1.1.66.7")
    assert result.transfer_syntax_uid == "1.2.840.10008.1.2.5"
    assert result.summary == {"segments": 2, "frames": 5}
    assert written.SegmentationType == "LABELMAP"
    assert [item.SegmentNumber for item in written.SegmentSequence] == [0, 2, 90]
    background, kidney, _ = written.SegmentSequence
    assert background.SegmentedPropertyTypeCodeSequence[0].CodeValue == "125040"
    assert kidney.SegmentDescription == "total-v1 label 2: kidney_right"
    assert written.SeriesDescription == "AI not for diagnosis: total-v1 LABELMAP of S2"
    assert written.PixelPaddingValue == 0
    seg = hd.seg.segread(BytesIO(result.data))
    pixels = seg.get_volume(combine_segments=True).array
    # highdicom's volumes run the other way along the normal.
    assert np.array_equal(pixels[::-1], labels)


def test_beside_a_binary_one_it_has_uids_and_a_series_of_its_own() -> None:
    source, labels = source_of((5, 6, 7)), scattered((5, 6, 7), 3)
    found = LabelMap(labels=labels, source_digest=source.scan.digest)
    both = encode(source, found, MODEL, (), replace(PLAN, objects=("labelmap", "seg")))
    assert [item.kind for item in both] == ["seg", "labelmap"]
    assert len({item.series_uid for item in both} | {item.sop_instance_uid for item in both}) == 4
    binary, labelmap = (pydicom.dcmread(BytesIO(item.data)) for item in both)
    assert binary.SeriesNumber != labelmap.SeriesNumber
    ours = {item.TrackingUID for item in labelmap.SegmentSequence if item.SegmentNumber}
    assert ours == {item.TrackingUID for item in binary.SegmentSequence}
    assert encoded(source, labels).data == both[1].data


def test_nothing_found_is_no_labelmap() -> None:
    source = source_of((5, 6, 7))
    nothing = LabelMap(labels=np.zeros((5, 6, 7), np.uint8), source_digest=source.scan.digest)
    assert encode(source, nothing, MODEL, (), ONLY) == ()


@pytest.mark.parametrize("name", ["axial", "from the feet", "coronal", "oblique"])
def test_dcmqi_gives_every_voxel_back_and_dciodvfy_finds_no_error(
    name: str, tmp_path: Path
) -> None:
    source = source_of((9, 17, 18), turned() if name == "oblique" else ORIENTATIONS[name])
    labels = scattered((9, 17, 18), 104)
    path = tmp_path / "labelmap.dcm"
    path.write_bytes(encoded(source, labels).data)
    assert dciodvfy_errors(path, all_frames=True) == []
    read = dcmqi_labels(path, tmp_path / "out", labels.shape, source.scan.affine)
    assert np.array_equal(read, labels)
