"""Programs that are not ours find no error in the results and read the same voxels from them.

On real series, among them every hostile file of the test data: a right result or a refusal with a
reason, never anything else.
"""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from analysis_kit import (
    ConstantPredictor,
    files_below,
    model_card,
    plan,
    read_with_dcmqi,
    world_of,
)
from image_files import decoded
from numpy.typing import NDArray
from others import dciodvfy_errors, plastimatch_masks
from real_series import filled_in

from dicomnode import pipeline
from dicomnode.demo.readback import read_segments
from dicomnode.demo.series import write_series
from dicomnode.domain.content import ContentPolicy
from dicomnode.domain.identifiers import derive_uid
from dicomnode.domain.plans import Analysis, ResultInstance
from dicomnode.errors import Refusal
from dicomnode.imaging import read_scan
from dicomnode.results import encode, prepare
from dicomnode.results.codes import load_codes
from dicomnode.scan import LabelMap
from inference.measuring import measure
from inference.phantom import Body

CARD = model_card((3.0, 3.0, 3.0))
MIDDLE = {
    3: (slice(None), slice(60, 120), slice(100, 140)),
    5: (slice(None), slice(60, 120), slice(60, 100)),
}
BOX = {  # asymmetric in every axis; labels with and without laterality
    2: (slice(10, 20), slice(30, 45), slice(30, 60)),
    3: (slice(25, 50), slice(50, 60), slice(80, 110)),
    18: (slice(5, 9), slice(70, 100), slice(60, 70)),
    90: (slice(40, 60), slice(20, 30), slice(20, 40)),
}


def errors_of_dciodvfy(instance: bytes, folder: Path) -> list[str]:
    path = folder / "instance.dcm"
    path.write_bytes(instance)
    return dciodvfy_errors(path, all_frames=True)


def labels_in(analysis: Analysis) -> NDArray[np.uint8]:
    with np.load(BytesIO(analysis.label_map), allow_pickle=False) as arrays:
        return np.asarray(arrays["labels"])


def read_back(seg: ResultInstance, files: list[bytes], folder: Path) -> NDArray[np.uint8]:
    """Return the label map [slice, row, column] as dcmqi and NIfTI coordinates tell it."""
    scan = read_scan(files)
    dataset = pydicom.dcmread(BytesIO(seg.data))
    # "total-v1 label 5: liver" is Segment Number 3, say: what dcmqi gives are numbers.
    described = [item.SegmentDescription for item in dataset.SegmentSequence]
    label_of = [0, *(int(text.split("label ")[1].split(":")[0]) for text in described)]
    to_index = np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ scan.affine)
    labels = np.zeros(scan.volume.shape, np.uint8)
    (image,) = read_with_dcmqi(seg.data, folder, "--mergeSegments").values()
    indices = nibabel.affines.apply_affine(to_index, world_of(image))
    nearest = indices.round().astype(int)
    assert np.abs(indices - nearest).max() < 0.02
    numbers = np.asarray(image.dataobj).astype(int)
    labels[tuple(nearest.T)] = np.array(label_of)[numbers[numbers != 0]]
    return labels


@pytest.fixture(scope="module")
def ge_files(test_data: Path) -> list[bytes]:
    return files_below(test_data / "crlm-ct-1004/image")


@pytest.fixture(scope="module")
def ge(ge_files: list[bytes]) -> Analysis:
    """The real GE series with a label map that is none of an organ but has no symmetry."""
    return pipeline.analyze(ge_files, plan(), predictor=ConstantPredictor(BOX), card=CARD)


def test_dciodvfy_finds_no_error(ge: Analysis, tmp_path: Path) -> None:
    for instance in ge.results:
        assert errors_of_dciodvfy(instance.data, tmp_path) == []


def test_dciodvfy_finds_no_error_in_a_report_of_nothing(
    ge_files: list[bytes], tmp_path: Path
) -> None:
    (sr,) = pipeline.analyze(ge_files, plan(), predictor=ConstantPredictor(), card=CARD).results
    assert errors_of_dciodvfy(sr.data, tmp_path) == []


def test_dciodvfy_finds_no_error_in_the_phantoms_series_and_its_results(tmp_path: Path) -> None:
    hu = np.full((30, 30, 10), -1000, np.int16)
    hu[5:25, 5:25] = 40
    affine = np.array([[0, 0, -3.0, 0], [-1.4, 0, 0, 0], [0, -1.7, 0, 0], [0, 0, 0, 1]])
    files = write_series(hu, affine)
    assert errors_of_dciodvfy(files[0], tmp_path) == []
    box = {5: (slice(4, 9), slice(3, 9), slice(2, 9))}
    analysis = pipeline.analyze(files, plan(), predictor=ConstantPredictor(box), card=CARD)
    assert len(analysis.results) == 2
    for instance in analysis.results:
        assert errors_of_dciodvfy(instance.data, tmp_path) == []


@pytest.mark.peer("dsrdump")
def test_dsrdump_reads_the_report(ge: Analysis, tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(ge.results[-1].data)
    command = ["/usr/bin/dsrdump", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "E: " not in done.stderr
    assert done.stdout.count('"Measurement Group"') == len(BOX)
    assert "AI not for diagnosis: test-model SR of S2" in done.stdout


def test_dcmqi_gives_the_label_map_back_voxel_for_voxel(
    ge: Analysis, ge_files: list[bytes], tmp_path: Path
) -> None:
    labels = labels_in(ge)
    assert set(np.unique(labels)) == {0, *BOX}
    assert np.array_equal(read_back(ge.results[0], ge_files, tmp_path), labels)


def test_the_bundled_model_makes_the_whole_way(ge_files: list[bytes], tmp_path: Path) -> None:
    given = plan(model_id="demo", threads=2)
    analysis = pipeline.analyze(ge_files, given)
    assert analysis.demonstration
    labels = labels_in(analysis)
    assert labels.any()
    for instance in analysis.results:
        assert errors_of_dciodvfy(instance.data, tmp_path) == []
    assert np.array_equal(read_back(analysis.results[0], ge_files, tmp_path), labels)


def test_plastimatch_gives_the_masks_of_the_structure_set_back(
    ge_files: list[bytes], tmp_path: Path
) -> None:
    """On a real series, the phantom's organs with holes cut into them."""
    scan = read_scan(ge_files)
    affine = np.diag([-1.0, -1, 1, 1]) @ scan.affine
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(scan.volume.shape) - 1) / 2)
    labels = np.ascontiguousarray(Body(3).render(scan.volume.shape, affine)[1])
    holes = np.indices(labels.shape[1:]) // 6 % 4 == 0
    labels[:, holes[0] & holes[1]] = 0
    numbers = measure(scan.volume, labels, scan.voxel_volumes_mm3, CARD.structures, scan.valid)
    found = LabelMap(labels=labels, source_digest=scan.digest)
    given = plan(objects=("rtstruct",))
    (result,) = encode(prepare(scan), found, pipeline.describe(CARD), numbers, given)
    assert errors_of_dciodvfy(result.data, tmp_path) == []
    series = tmp_path / "ct"
    series.mkdir()
    for index, data in enumerate(ge_files):
        (series / f"{index}.dcm").write_bytes(data)
    masks = plastimatch_masks(tmp_path / "instance.dcm", series, tmp_path / "masks")
    titles = {label: codes.segment_label for label, codes in load_codes("total_v1_104").items()}
    assert set(masks) == {titles[number.label] for number in numbers}
    assert len(masks) > 30
    for number in numbers:
        theirs, ours = masks[titles[number.label]], labels == number.label
        dice = 2 * (theirs & ours).sum() / (theirs.sum() + ours.sum())
        assert dice > 0.999, titles[number.label]


# Real series that hurt


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("odd/bad-sequence.dcm", "INVALID_IDENTIFIERS"),
        ("odd/enhanced-ct-2-frames.dcm", "DERIVED_MAP"),
        ("odd/legacy-converted-enhanced-ct.dcm", "NOT_HU"),
        ("odd/no-modality.dcm", "NO_FRAME_OF_REFERENCE"),
        ("odd/philips-dose-screen.dcm", "NOT_CT"),
        ("odd/philips-localizer.dcm", "NOT_A_VOLUME"),
        ("odd/wrong-transfer-syntax.dcm", "TOO_FEW_SLICES"),
        ("geometry/gantrytilting", "NO_FRAME_OF_REFERENCE"),
        ("geometry/notavolume", "NO_FRAME_OF_REFERENCE"),
        ("geometry/slicecount", "NOT_CT"),
        ("geometry/sliceincrement/001", "NO_FRAME_OF_REFERENCE"),
        ("geometry/sliceincrement/002", "NO_FRAME_OF_REFERENCE"),
        ("geometry/sliceorientation", "NOT_CT"),
        ("totalsegmentator/example_ct_dicom", "MISSING_IDENTIFIERS"),
    ],
)
def test_real_series_that_cannot_be_analysed_are_refused(
    name: str, code: str, test_data: Path
) -> None:
    path = test_data / name
    files = files_below(path) if path.is_dir() else [path.read_bytes()]
    with pytest.raises(Refusal) as caught:
        read_scan(files)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("geometry/notavolume", "DUPLICATE_POSITIONS"),
        ("odd/no-modality.dcm", "TOO_FEW_SLICES"),
    ],
)
def test_with_identifiers_filled_in_the_geometry_is_refused(
    name: str, code: str, test_data: Path
) -> None:
    path = test_data / name
    files = files_below(path) if path.is_dir() else [path.read_bytes()]
    with pytest.raises(Refusal) as caught:
        read_scan(filled_in(files))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("geometry/ge-hispeed-tilt-uneven", ("tilted by 18.5 degrees", "from 1.08 to 7 mm")),
        ("geometry/gantrytilting", ("tilted by 14.0 degrees",)),
        ("geometry/sliceincrement/001", ("from 5 to 10 mm",)),
        ("geometry/sliceincrement/002", ("tilted by 15.5 degrees", "from 0.75 to 1.5 mm")),
    ],
)
def test_real_tilted_and_uneven_stacks_are_analysed_and_say_so(
    name: str, said: tuple[str, ...], test_data: Path, tmp_path: Path
) -> None:
    files = filled_in(files_below(test_data / name))
    # Three of them are real in their geometry alone: their publishers left 8 bits of the values.
    given = plan(content=ContentPolicy(values_not_hu="note"))
    analysis = pipeline.analyze(
        files, given, predictor=ConstantPredictor(MIDDLE), card=model_card()
    )

    for words in said:
        assert any(words in finding for finding in analysis.findings)
    assert [item.kind for item in analysis.results] == ["seg", "sr"]
    for item in analysis.results:
        assert errors_of_dciodvfy(item.data, tmp_path) == []
        (tmp_path / f"{item.kind}.dcm").write_bytes(item.data)
    with np.load(BytesIO(analysis.label_map), allow_pickle=False) as arrays:
        labels, uids = arrays["labels"], arrays["sop_instance_uids"].tolist()
    assert (read_segments(tmp_path / "seg.dcm", uids, labels.shape) == labels).all()


def test_the_siemens_series_is_analysed_once_its_identifiers_are_filled_in(
    test_data: Path, tmp_path: Path
) -> None:
    raw = files_below(test_data / "totalsegmentator/example_ct_dicom")
    files = filled_in(raw)

    scan = read_scan(files)

    assert scan.volume.shape == (20, 512, 512)
    assert scan.spacing_mm == pytest.approx((2.0, 0.9765625, 0.9765625))
    assert not scan.lossy
    assert scan.volume.min() == -1024
    # The label map that its publishers made of the same series has the same grid in space.
    published = nibabel.load(test_data / "totalsegmentator/example_seg_dicom.nii.gz")
    ours = np.diag([-1.0, -1, 1, 1]) @ scan.affine
    corners = np.array([[0, 0, 0], [19, 511, 511]])
    theirs = np.array([[0, 0, 0], np.array(published.shape) - 1])
    assert np.sort(nibabel.affines.apply_affine(ours, corners), axis=0) == pytest.approx(
        np.sort(nibabel.affines.apply_affine(published.affine, theirs), axis=0), abs=1e-3
    )
    box = {5: (slice(3, 9), slice(60, 99), slice(40, 80))}
    analysis = pipeline.analyze(files, plan(), predictor=ConstantPredictor(box), card=CARD)
    assert len(analysis.results) == 2
    assert np.array_equal(read_back(analysis.results[0], files, tmp_path), labels_in(analysis))
    for instance in analysis.results:
        assert errors_of_dciodvfy(instance.data, tmp_path) == []


# Transfer syntaxes


def stacked(path: Path) -> list[bytes]:
    """A series of five copies of one slice, one above the other, in its own transfer syntax."""
    files = []
    for index in range(5):
        dataset = pydicom.dcmread(path)
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + 5 * index]
        dataset.SOPInstanceUID = derive_uid("stacked", str(index))
        buffer = BytesIO()
        dataset.save_as(buffer)
        files.append(buffer.getvalue())
    return files


REFERENCE = "CTImage.dcm_LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1.dcm"
LOSSLESS = (
    "CTImage.dcm",
    "BigEndianExplicit",
    "DeflatedExplicitVRLittleEndian",
    "JPEG2000LosslessOnly",
    "JPEGLSLossless",
    "JPEGProcess14SV1",
    "JPEGProcess14Transfer",
    "LittleEndianImplicit",
    "RLELossless",
)
LOSSY = {  # with the mean difference of what is no air, HU
    "JPEG2000Transfer": 2,
    "JPEGLSLossy": 1,
    "JPEGProcess1Transfer": 30,  # 8 bits for 4096 values
    "JPEGProcess2_4": 5,  # 12 bits and a slope of 2
    "JPEGProcess6_8": 5,  # retired, as the next
    "JPEGProcess10_12": 5,
}


def syntax_file(test_data: Path, name: str) -> Path:
    folder = test_data / "transfer-syntaxes"
    if (folder / name).is_file():
        return folder / name
    (path,) = folder.glob(f"CTImage.dcm_{name}*")
    return path


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_syntaxes_decode_alike(name: str, test_data: Path) -> None:
    scan = read_scan(stacked(syntax_file(test_data, name)))
    reference = read_scan(stacked(test_data / "transfer-syntaxes" / REFERENCE))
    assert np.array_equal(scan.volume, reference.volume)
    assert not scan.lossy


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_syntaxes_are_analysed_and_flagged(name: str, test_data: Path) -> None:
    scan = read_scan(stacked(syntax_file(test_data, name)))
    reference = read_scan(stacked(test_data / "transfer-syntaxes" / REFERENCE))
    assert scan.lossy
    assert "lossy compression" in " ".join(scan.findings)
    inside = reference.volume > -900
    assert np.abs(scan.volume[inside].astype(int) - reference.volume[inside]).mean() < LOSSY[name]


def test_a_wrong_transfer_syntax_is_refused(test_data: Path) -> None:
    with pytest.raises(Refusal) as caught:
        decoded((test_data / "odd/wrong-transfer-syntax.dcm").read_bytes())
    assert caught.value.code == "UNDECODABLE"
