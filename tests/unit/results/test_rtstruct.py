"""The Structure Set holds the mask in the patient's coordinates, and says what it is."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from analysis_kit import plan
from numpy.typing import NDArray
from others import dciodvfy_errors
from pydicom.dataset import Dataset
from results_kit import AFFINE, MODEL, Number, empty, read
from skimage.draw import polygon2mask

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.plans import ResultInstance
from dicomnode.imaging import read_scan
from dicomnode.results import encode, prepare
from dicomnode.scan import LabelMap, Scan


def files_of(affine: NDArray[np.float64] = AFFINE, **options: Any) -> list[bytes]:
    hu = np.full((30, 26, 8), -1000, np.int16)
    hu[3:27, 2:24] = 60
    return write_series(hu, affine, SeriesOptions(**options))


def labels_of(scan: Scan) -> LabelMap:
    """A box with a hole in which another structure lies."""
    labels = np.zeros(scan.volume.shape, np.uint8)
    labels[1:7, 3:20, 4:25] = 5
    labels[2:5, 8:15, 9:16] = 0
    labels[2:5, 10:13, 11:14] = 2
    labels[6, 3, 4] = 0
    return LabelMap(labels=labels, source_digest=scan.digest)


def encoded(files: list[bytes]) -> tuple[Scan, LabelMap, ResultInstance]:
    scan = read_scan(files)
    labels = labels_of(scan)
    numbers = (Number(label=2), Number(label=5, touches_border=True))
    (result,) = encode(prepare(scan), labels, MODEL, numbers, plan(objects=("rtstruct",)))
    return scan, labels, result


def turned() -> NDArray[np.float64]:
    """An oblique stack, 20 degrees about two axes."""
    angle = np.radians(20)
    cos, sin = np.cos(angle), np.sin(angle)
    about_x = np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]])
    about_z = np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return np.asarray(about_x @ about_z @ AFFINE)


def mask_in(dataset: Dataset, number: int, files: list[bytes], scan: Scan) -> NDArray[np.bool_]:
    """The mask of an ROI, by what the images that its contours name say of themselves."""
    read_all = (pydicom.dcmread(BytesIO(data)) for data in files)
    images = {str(item.SOPInstanceUID): item for item in read_all}
    mask = np.zeros(scan.volume.shape, np.bool_)
    (roi,) = (item for item in dataset.ROIContourSequence if item.ReferencedROINumber == number)
    for contour in roi.ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        (reference,) = contour.ContourImageSequence
        image = images[reference.ReferencedSOPInstanceUID]
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints
        along_row, along_column = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
        away = points - np.array(image.ImagePositionPatient, float)
        assert np.abs(away @ np.cross(along_row, along_column)).max() < 2e-3, "in the plane"
        row_mm, column_mm = (float(value) for value in image.PixelSpacing)
        vertices = np.stack([away @ along_column / row_mm, away @ along_row / column_mm], axis=1)
        index = scan.sop_instance_uids.index(reference.ReferencedSOPInstanceUID)
        mask[index] ^= polygon2mask(mask.shape[1:], vertices)
    return mask


@pytest.mark.parametrize(
    ("affine", "options"),
    [
        (AFFINE, {}),
        (turned(), {}),
        (AFFINE, {"tilt_degrees": 15.0}),
        (AFFINE, {"jitter_mm": 0.6}),
    ],
    ids=["straight", "oblique", "tilted", "uneven"],
)
def test_the_masks_come_back(
    affine: NDArray[np.float64], options: dict[str, float], tmp_path: Path
) -> None:
    files = files_of(affine, **options)
    scan, labels, result = encoded(files)
    path = tmp_path / "rtstruct.dcm"
    path.write_bytes(result.data)
    assert dciodvfy_errors(path) == []
    dataset = read(result)
    for number, label in ((1, 2), (2, 5)):
        found = mask_in(dataset, number, files, scan)
        assert np.array_equal(found, labels.labels == label), label


def test_what_it_says() -> None:
    scan, _, result = encoded(files_of(extra={"IssuerOfPatientID": "HOSPITAL"}))
    dataset = read(result)
    assert (result.kind, dataset.SOPClassUID) == ("rtstruct", "1.2.840.10008.5.1.4.1.1.481.3")
    assert result.transfer_syntax_uid == dataset.file_meta.TransferSyntaxUID
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    assert dataset.Modality == "RTSTRUCT"
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert dataset.IssuerOfPatientID == "HOSPITAL"
    assert "not for diagnosis" in dataset.StructureSetDescription
    assert dataset.SeriesDescription == "AI not for diagnosis: total-v1 RTSTRUCT of S2"
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == dataset.FrameOfReferenceUID
    (study,) = frame.RTReferencedStudySequence
    assert study.ReferencedSOPInstanceUID == dataset.StudyInstanceUID
    (series,) = study.RTReferencedSeriesSequence
    named = [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence]
    assert named == list(scan.sop_instance_uids)
    kidney, liver = dataset.StructureSetROISequence
    assert (kidney.ROIName, liver.ROIName) == ("Right kidney", "Liver")
    assert kidney.ROIGenerationAlgorithm == "AUTOMATIC"
    assert kidney.ROIDescription == "total-v1 label 2: kidney_right"
    assert float(kidney.ROIVolume) == pytest.approx(12.346)
    assert "ROIVolume" not in liver, "the field of view cuts it"
    observed = dataset.RTROIObservationsSequence[0]
    (kind,) = observed.RTROIIdentificationCodeSequence
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("64033007", "SCT")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "24028007"
    assert list(dataset.ROIContourSequence[0].ROIDisplayColor) == pytest.approx(
        [174, 103, 124], abs=2
    )
    assert result.summary["structures"] == 2


def test_equal_input_gives_equal_bytes() -> None:
    assert encoded(files_of())[2].data == encoded(files_of())[2].data


def test_nothing_found_is_no_structure_set() -> None:
    scan = read_scan(files_of())
    assert encode(prepare(scan), empty(scan), MODEL, (), plan(objects=("rtstruct",))) == ()
