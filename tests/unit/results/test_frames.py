"""A Segmentation written in bulk is the one that highdicom would have made, element by element."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from enhanced_ct import enhanced
from highdicom.seg import SegmentationTypeValues
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
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
from dicomnode.results import encode, frames, prepare
from dicomnode.results.headers import Source
from dicomnode.results.seg import SOP_CLASS_UID, find_present, find_segments
from dicomnode.results.uids import content_parts, identify
from dicomnode.scan import LabelMap


def both(source: Source, labels: NDArray[np.uint8]) -> tuple[ResultInstance, ResultInstance]:
    """The Segmentation as it is written here, and as plain highdicom makes it."""
    found = LabelMap(labels=labels, source_digest=source.scan.digest)
    (ours,) = encode(source, found, MODEL, (), PLAN)
    segments = find_segments(source, find_present(found), MODEL)
    parts = content_parts(source, found, MODEL, PLAN)
    series_uid = str(source.headers[0].SeriesInstanceUID)
    identifiers = identify("seg", SOP_CLASS_UID, parts, PLAN, series_uid)
    binary = SegmentationTypeValues.BINARY
    return ours, by_highdicom(binary, source, found, segments, MODEL, PLAN, identifiers)


def assert_equal(ours: bytes, theirs: bytes) -> None:
    """The same bytes; where a null byte is added, highdicom adds the letter 0 (0x30)."""
    if ours == theirs:
        return
    assert ours[-1:] == b"\0"
    assert theirs[-1:] == b"0"
    assert ours[:-1] == theirs[:-1]


@pytest.mark.parametrize("name", [*ORIENTATIONS, "oblique"])
def test_in_every_orientation(name: str) -> None:
    affine = turned() if name == "oblique" else ORIENTATIONS[name]
    ours, theirs = both(source_of((9, 8, 7), affine), scattered((9, 8, 7), 5))
    assert_equal(ours.data, theirs.data)


@pytest.mark.parametrize(
    "options", [{"tilt_degrees": 18.5}, {"jitter_mm": 0.4}], ids=["tilted", "uneven"]
)
def test_on_irregular_stacks(options: dict[str, float]) -> None:
    ours, theirs = both(source_of((7, 8, 8), **options), scattered((7, 8, 8), 3))
    assert_equal(ours.data, theirs.data)
    assert not source_of((7, 8, 8), **options).scan.is_regular


def test_on_the_frames_of_one_instance() -> None:
    files = write_series(np.zeros((8, 8, 6), np.int16), STRAIGHT, SeriesOptions())
    source = prepare(read_scan([enhanced(files)]))
    ours, theirs = both(source, scattered((6, 8, 8), 4))
    assert_equal(ours.data, theirs.data)
    item = pydicom.dcmread(BytesIO(ours.data)).PerFrameFunctionalGroupsSequence[-1]
    image = item.DerivationImageSequence[0].SourceImageSequence[0]
    assert image.ReferencedFrameNumber in source.scan.frame_numbers


def test_with_requests_and_identity_of_the_source() -> None:
    request = pydicom.Dataset()
    request.RequestedProcedureID = "RP1"
    request.ScheduledProcedureStepID = "SPS1"
    extra = {
        "RequestAttributesSequence": [request],
        "TimezoneOffsetFromUTC": "-0530",
        "IssuerOfPatientID": "HOSPITAL",
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "10",
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": "Nöbody^Never",
    }
    ours, theirs = both(source_of((5, 4, 4), extra=extra), scattered((5, 4, 4), 2))
    assert_equal(ours.data, theirs.data)


@pytest.mark.parametrize("present", [[3], [0, 1, 2, 3, 4, 5], [1, 4]], ids=str)
def test_one_segment_and_whether_its_slices_are_a_volume(present: list[int]) -> None:
    labels = np.zeros((6, 4, 4), np.uint8)
    labels[present, 1:3, 2] = 5
    ours, theirs = both(source_of((6, 4, 4)), labels)
    assert_equal(ours.data, theirs.data)
    written = pydicom.dcmread(BytesIO(ours.data))
    assert written.get("DimensionOrganizationType") == ("3D" if len(present) > 1 else None)
    shared = written.SharedFunctionalGroupsSequence[0]
    assert shared.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1


def test_every_structure_on_every_slice() -> None:
    labels = np.arange(4 * 16 * 16).reshape(4, 16, 16) % 105
    source = source_of((4, 16, 16))
    ours, theirs = both(source, labels.astype(np.uint8))
    assert_equal(ours.data, theirs.data)
    assert ours.summary == {"segments": 104, "frames": 4 * 104}
    seg = hd.seg.segread(BytesIO(ours.data))
    uids = [str(header.SOPInstanceUID) for header in source.headers]
    read = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(read, labels)  # labels 1 to 104 are segments 1 to 104


def test_more_than_a_thousand_frames() -> None:
    labels = np.random.default_rng(1).integers(0, 60, (25, 9, 11), dtype=np.uint8)
    ours, theirs = both(source_of((25, 9, 11)), labels)
    assert_equal(ours.data, theirs.data)
    assert int(ours.summary["frames"]) > 1000


# Below 8 voxels a frame highdicom leaves gaps between frames.
SHAPES = st.tuples(st.integers(4, 7), st.integers(3, 7), st.integers(3, 7))


@settings(deadline=None, max_examples=40)
@given(
    SHAPES.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 7, 9])))
)
def test_any_label_map(labels: NDArray[np.uint8]) -> None:
    if not labels.any():
        labels[0, 0, 0] = 7
    ours, theirs = both(source_of(labels.shape), labels)
    assert_equal(ours.data, theirs.data)


def test_what_highdicom_may_change_is_noticed() -> None:
    """The bulk writer knows the functional groups of today's highdicom, and no others."""
    labels = scattered((4, 4, 4), 2)
    _, theirs = both(source_of((4, 4, 4)), labels)
    dataset = pydicom.dcmread(BytesIO(theirs.data))
    items = list(dataset.PerFrameFunctionalGroupsSequence)
    found = frames.find_frames(np.ones((4, 3), bool), {1: 1, 2: 2}, (1, 3))
    assert len(found) == 4

    def write(item: pydicom.Dataset) -> None:
        one = pydicom.dcmread(BytesIO(theirs.data))
        frames.write_frames(BytesIO(), one, {1: item, 3: item}, found, labels)

    write(items[0])
    items[1].FrameAnatomySequence = []
    with pytest.raises(ValueError, match="unknown functional groups"):
        write(items[1])
    items[2].FrameContentSequence[0].FrameLabel = "L"
    with pytest.raises(ValueError, match="does not end with its number"):
        write(items[2])
    items[3].FrameContentSequence[0].DimensionIndexValues = [1, 2, 3]
    with pytest.raises(ValueError, match="a segment and a position"):
        write(items[3])
    dataset.DataSetTrailingPadding = b"\0\0"
    with pytest.raises(ValueError, match="behind the functional groups"):
        frames.write_frames(BytesIO(), dataset, {1: items[0], 3: items[0]}, found, labels)
    with pytest.raises(ValueError, match="at least one frame"):
        frames.write_frames(BytesIO(), dataset, {}, (), labels)


def test_a_folder_gets_the_same_bytes(tmp_path: Path) -> None:
    labels = scattered((6, 8, 8), 4)
    source = source_of((6, 8, 8))
    found = LabelMap(labels=labels, source_digest=source.scan.digest)
    (held,) = encode(source, found, MODEL, (), PLAN)
    (filed,) = encode(source, found, MODEL, (), replace(PLAN, results_folder=str(tmp_path)))
    assert filed.file == tmp_path / f"{held.sop_instance_uid}.dcm"
    assert filed.data == b""
    assert held.file is None
    assert filed.file.read_bytes() == held.data
    assert replace(filed, file=None, data=held.data) == held


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
import seg_kit as t
from dataclasses import replace
from dicomnode.results import encode
from dicomnode.results.seg import find_present
rows = int(sys.argv[1])
source = t.source_of((60, rows, 512))
labels = np.zeros((60, rows, 512), np.uint8)
for label in range(1, 105):
    labels[:, :, label * 4] = label
found = t.LabelMap(labels=labels, source_digest=source.scan.digest)
plan = replace(t.PLAN, results_folder=sys.argv[2])
find_present(found), source.scan.digest, found.digest
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(result,) = encode(source, found, t.MODEL, (), plan)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, result.file.stat().st_size)
"""


def test_memory_does_not_grow_with_the_bytes_of_the_frames(tmp_path: Path) -> None:
    tests = Path(__file__).parents[2]
    grown = []
    for rows in (64, 512):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(rows), tmp_path],
            cwd=tests.parent,
            env={"PYTHONPATH": str(tests), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        kib, size = map(int, done.stdout.split())
        grown.append((kib / 1024, size / 2**20))
    (small, little), (large, much) = grown
    assert much > little + 150  # MiB of file
    assert large < small + 30, grown
