"""Results of multi-frame CT: others' programs read them, and every reference names its frame.

The multi-frame instances are made of real series by highdicom and compressed by DCMTK and GDCM.
"""

from __future__ import annotations

import subprocess
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from analysis_kit import VENV_BIN, ConstantPredictor, files_below, model_card, plan
from enhanced_ct import concatenated, legacy_converted, read
from others import dciodvfy_errors, dcmqi_labels, dsrdump, in_segment_numbers
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from dicomnode.demo.readback import read_segments
from dicomnode.domain.plans import Analysis
from dicomnode.imaging import read_scan
from dicomnode.pipeline import analyze
from dicomnode.scan import Scan

CARD = model_card((3.0, 3.0, 3.0))
LEGACY = "CTl image"  # as dsrdump writes the SOP Class
BOX = {  # asymmetric in every axis; labels with and without laterality
    2: (slice(10, 20), slice(30, 45), slice(30, 60)),
    3: (slice(25, 50), slice(50, 60), slice(80, 110)),
    90: (slice(40, 60), slice(20, 30), slice(20, 40)),
}


@pytest.fixture(scope="module")
def ge_files(test_data: Path) -> list[bytes]:
    files = files_below(test_data / "crlm-ct-1004/image")
    return sorted(files, key=lambda data: int(read(data).InstanceNumber))


@pytest.fixture(scope="module")
def converted(ge_files: list[bytes]) -> bytes:
    return legacy_converted(ge_files)


@pytest.fixture(scope="module")
def short(ge_files: list[bytes]) -> bytes:
    return legacy_converted(ge_files[:8])


def as_parts(ge_files: list[bytes]) -> list[bytes]:
    # The halves are interleaved: neither the order of instances nor of frames is that of space.
    mixed = ge_files[::2] + ge_files[1::2]
    return concatenated(mixed, [slice(0, 15), slice(15, 41)])


@pytest.mark.parametrize("kind", ["one instance", "a concatenation"])
def test_others_read_the_results_and_frames_are_named(
    kind: str, ge_files: list[bytes], converted: bytes, tmp_path: Path
) -> None:
    files = [converted] if kind == "one instance" else as_parts(ge_files)
    analysis = analyze(files, plan(), predictor=ConstantPredictor(BOX), card=CARD)

    for item in analysis.results:
        (tmp_path / f"{item.kind}.dcm").write_bytes(item.data)
        assert dciodvfy_errors(tmp_path / f"{item.kind}.dcm", all_frames=True) == []
    scan = read_scan(files)
    labels = labels_of(analysis)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    numbers = in_segment_numbers(labels, seg)
    # Insight Toolkit's index runs column, row, slice; the scan's slice, row, column.
    theirs = dcmqi_labels(tmp_path / "seg.dcm", tmp_path / "dcmqi", labels.shape, scan.affine)
    assert np.array_equal(theirs, numbers)
    with np.load(BytesIO(analysis.label_map), allow_pickle=False) as arrays:
        uids, frames = arrays["sop_instance_uids"].tolist(), arrays["frame_numbers"].tolist()
    assert np.array_equal(read_segments(tmp_path / "seg.dcm", uids, labels.shape, frames), labels)
    assert_frames_are_named(seg, files)
    assert_highdicom_reads(tmp_path / "seg.dcm", scan, numbers)
    assert_report_names_a_frame(pydicom.dcmread(tmp_path / "sr.dcm"), files, scan)


def labels_of(analysis: Analysis) -> np.ndarray:
    with np.load(BytesIO(analysis.label_map), allow_pickle=False) as arrays:
        return np.asarray(arrays["labels"])


def assert_frames_are_named(seg: Dataset, files: list[bytes]) -> None:
    """Each frame of the SEG lies where the frame of the source lies that it names."""
    sources = {read(data).SOPInstanceUID: read(data) for data in files}
    named = set()
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
        source = sources[reference.ReferencedSOPInstanceUID]
        assert reference.ReferencedSOPClassUID == source.SOPClassUID
        number = int(reference.ReferencedFrameNumber)
        theirs = source.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0]
        ours = frame.PlanePositionSequence[0]
        assert ours.ImagePositionPatient == theirs.ImagePositionPatient
        named.add((reference.ReferencedSOPInstanceUID, number))
    assert len(named) > 10
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == read(files[0]).SeriesInstanceUID
    listed = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
    assert sorted(listed) == sorted(sources), "every instance once"


def assert_highdicom_reads(path: Path, scan: Scan, numbers: np.ndarray) -> None:
    seg = highdicom.seg.segread(path)
    assert set(seg.get_source_image_uids()) >= {
        (read_uid.StudyInstanceUID, read_uid.SeriesInstanceUID, uid)
        for read_uid in (scan.header,)
        for uid in set(scan.sop_instance_uids)
    }
    for uid in set(scan.sop_instance_uids):
        slices = [index for index, name in enumerate(scan.sop_instance_uids) if name == uid]
        theirs = seg.get_pixels_by_source_frame(
            source_sop_instance_uid=uid,
            source_frame_numbers=[scan.frame_numbers[index] or 0 for index in slices],
            combine_segments=True,
            ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )
        assert np.array_equal(theirs, numbers[slices])


def assert_report_names_a_frame(report: Dataset, files: list[bytes], scan: Scan) -> None:
    """The image library has one frame; the evidence lists each instance once."""
    images = [item for item in every_item(report) if item.get("ValueType") == "IMAGE"]
    sources = {read(data).SOPInstanceUID for data in files}
    in_library = [
        item.ReferencedSOPSequence[0]
        for item in images
        if item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID in sources
    ]
    (reference,) = in_library
    middle = len(scan.sources) // 2
    assert reference.ReferencedSOPInstanceUID == scan.sop_instance_uids[middle]
    assert reference.ReferencedFrameNumber == scan.frame_numbers[middle]
    listed = [
        str(item.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]
    assert len(listed) == len(set(listed)) == len(sources) + 1, "the SEG and each instance, once"


def every_item(dataset: Dataset) -> list[Dataset]:
    found = []
    for item in dataset.get("ContentSequence", ()):
        found += [item, *every_item(item)]
    return found


@pytest.mark.peer("dsrdump")
def test_dsrdump_reads_the_report(converted: bytes, tmp_path: Path) -> None:
    analysis = analyze([converted], plan(), predictor=ConstantPredictor(BOX), card=CARD)
    path = tmp_path / "sr.dcm"
    path.write_bytes(analysis.results[1].data)
    printed = dsrdump(path)
    assert printed.count('"Measurement Group"') == len(BOX)
    middle = read_scan([converted]).frame_numbers[20]
    assert f'<contains IMAGE:(260753009,SCT,"Source")=({LEGACY},,{middle})>' in printed


def test_the_results_say_the_same_as_those_of_the_single_frame_series(
    ge_files: list[bytes], converted: bytes
) -> None:
    single, multi = (
        analyze(files, plan(), predictor=ConstantPredictor(BOX), card=CARD)
        for files in (ge_files, [converted])
    )
    assert single.label_map_digest == multi.label_map_digest
    one, other = (sentences(analysis) for analysis in (single, multi))
    assert one == other
    assert any("kVp" in sentence and "kernel" in sentence for sentence in one)


def sentences(analysis: Analysis) -> list[str]:
    report = pydicom.dcmread(BytesIO(analysis.results[1].data))
    return [str(item.TextValue) for item in every_item(report) if "TextValue" in item]


COMPRESSORS = {
    "JPEG 2000, by GDCM": ("gdcmconv", "--j2k"),
    "JPEG-LS, by GDCM": ("gdcmconv", "--jpegls"),
    "JPEG lossless, by GDCM": ("gdcmconv", "--jpeg"),
    "RLE, by GDCM": ("gdcmconv", "--rle"),
    "JPEG-LS, by DCMTK": ("/usr/bin/dcmcjpls",),
    "JPEG lossless, by DCMTK": ("/usr/bin/dcmcjpeg", "+e1"),
    "RLE, by DCMTK": ("/usr/bin/dcmcrle",),
    "deflated, by DCMTK": ("/usr/bin/dcmconv", "+td"),
    "big endian, by DCMTK": ("/usr/bin/dcmconv", "+tb"),
    "implicit, by DCMTK": ("/usr/bin/dcmconv", "+ti"),
}


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("name", COMPRESSORS)
def test_frames_that_others_compressed(name: str, short: bytes, tmp_path: Path) -> None:
    program, *options = COMPRESSORS[name]
    path, out = tmp_path / "plain.dcm", tmp_path / "out.dcm"
    path.write_bytes(short)
    command = [VENV_BIN / program, *options, path, out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr

    scan = read_scan([out])
    assert np.array_equal(scan.volume, read_scan([short]).volume)
    assert not scan.lossy


def test_compressed_by_highdicom(ge_files: list[bytes], short: bytes) -> None:
    scan = read_scan([legacy_converted(ge_files[:8], RLELossless)])
    assert np.array_equal(scan.volume, read_scan([short]).volume)
    heights = scan.positions[:, 2]
    assert all(lower < upper for lower, upper in pairwise(heights))
