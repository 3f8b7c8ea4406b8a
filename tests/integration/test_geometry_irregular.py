"""Tilted and unevenly spaced stacks: markers land on themselves on the slices that were made.

Where a voxel lies is read from the written headers of its slice, not from any code under test.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
import pytest
from analysis_kit import MarkerPredictor, model_card, plan
from numpy.typing import NDArray

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.pipeline import analyze
from inference.phantom.markers import Marker, render_markers

MODEL_MM = 1.5
SHAPE = (84, 90, 44)
SPACING = np.array([1.4, 1.5, 2.5])
HU = 1000
MARKERS = (
    Marker(centre=(18.0, 5.0, -14.0), half_axes=(10.0, 7.0, 8.0), label=3, hu=HU),
    Marker(centre=(-14.0, 16.0, 9.0), half_axes=(7.0, 9.0, 7.0), label=5, hu=HU),
    Marker(centre=(4.0, -20.0, 22.0), half_axes=(8.0, 7.0, 9.0), label=90, hu=HU),
)
BODY = Marker(centre=(0.0, 0.0, 0.0), half_axes=(45.0, 52.0, 60.0), label=0, hu=0)
PREDICTOR = MarkerPredictor({m.label: m.centre for m in MARKERS}, HU, MODEL_MM)


def series(tilt_degrees: float, kept: list[int], *, down: bool = False) -> list[bytes]:
    """A stack whose every slice is rendered at the very place that its header says."""
    affine = np.diag([*(np.array([-1, -1, -1 if down else 1]) * SPACING), 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(SHAPE) - 1) / 2
    # write_series shifts slice k along a column, which runs to the back: -y.
    shift = np.array([0.0, -1.0, 0.0]) * np.tan(np.radians(tilt_degrees)) * SPACING[2]
    affine[:3, 3] -= shift * (SHAPE[2] - 1) / 2
    hu = np.empty(SHAPE, np.int16)
    for k in range(SHAPE[2]):
        own = affine.copy()
        own[:3, 3] += k * (affine[:3, 2] + shift)
        hu[:, :, k] = render_markers((*SHAPE[:2], 1), own, MARKERS, body=BODY)[0][:, :, 0]
    files = write_series(hu, affine, SeriesOptions(seed=4, tilt_degrees=tilt_degrees))
    return [data for data in files if int(header(data).InstanceNumber) - 1 in kept]


def header(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(BytesIO(data), stop_before_pixels=True)


def world(dataset: pydicom.Dataset) -> NDArray[np.float64]:
    """RAS+ mm [row, column, 3] of a slice's voxels, by PS3.3 C.7.6.2.1.1."""
    cosines = np.array(dataset.ImageOrientationPatient, float)
    rows, columns = np.indices((dataset.Rows, dataset.Columns))
    lps = (
        np.array(dataset.ImagePositionPatient, float)
        + columns[..., None] * cosines[:3] * float(dataset.PixelSpacing[1])
        + rows[..., None] * cosines[3:] * float(dataset.PixelSpacing[0])
    )
    return lps * [-1, -1, 1]


ALL = list(range(SHAPE[2]))
CASES = {
    "tilted by 18 degrees": (18.0, ALL, False),
    "tilted the other way, towards the feet": (-12.0, ALL, True),
    "slices missing": (0.0, [k for k in ALL if k not in (9, 20, 21, 33)], False),
    "tilted and uneven": (14.0, [k for k in ALL if k % 5 != 2], True),
}


@pytest.mark.parametrize("name", CASES)
def test_markers_land_on_themselves(name: str) -> None:
    tilt, kept, down = CASES[name]
    files = series(tilt, kept, down=down)

    analysis = analyze(files, plan(), predictor=PREDICTOR, card=model_card((MODEL_MM,) * 3))

    assert any("resampled for the model" in finding for finding in analysis.findings)
    headers = {str(item.SOPInstanceUID): item for item in map(header, files)}
    with np.load(BytesIO(analysis.label_map), allow_pickle=False) as arrays:
        labels, uids = arrays["labels"], arrays["sop_instance_uids"].tolist()
    places = np.stack([world(headers[uid]) for uid in uids])
    slack = MODEL_MM + SPACING[2] * (2 if len(kept) < len(ALL) else 1) / 2
    for marker in MARKERS:
        found = labels == marker.label
        core, hull = (inside(places, marker, margin) for margin in (-slack, slack))
        assert core.sum() > 20
        assert found[core].all()
        assert not found[~hull].any()
        # Along z the mean of unevenly spaced slices is off by itself.
        assert (np.abs(places[found].mean(axis=0) - marker.centre) < (0.4, 0.4, 1.25)).all()
        volume = 4 / 3 * np.pi * np.prod(marker.half_axes) / 1000
        assert volume_in_report(analysis.results[1].data, marker) == pytest.approx(volume, rel=0.15)
    segmentation = pydicom.dcmread(BytesIO(analysis.results[0].data))
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert "SpacingBetweenSlices" not in measures
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        own = frame.PlanePositionSequence[0].ImagePositionPatient
        assert list(own) == list(headers[source].ImagePositionPatient)


def inside(points: NDArray[np.float64], marker: Marker, margin: float) -> NDArray[np.bool_]:
    scaled = (points - np.array(marker.centre)) / (np.array(marker.half_axes) + margin)
    return np.asarray(np.linalg.norm(scaled, axis=-1) <= 1)


def volume_in_report(data: bytes, marker: Marker) -> float:
    """The volume in mL of the group whose Tracking Identifier names the marker's structure."""
    names = {3: "kidney_left", 5: "liver", 90: "hip_left"}
    report = pydicom.dcmread(BytesIO(data))
    for group in report.iterall():
        items = group.value if group.tag == 0x0040A730 else []
        texts = [str(item.get("TextValue", "")) for item in items]
        if any(text.endswith(names[marker.label]) for text in texts):
            for item in items:
                if item.get("ValueType") == "NUM" and (
                    item.ConceptNameCodeSequence[0].CodeValue == "118565006"
                ):
                    return float(item.MeasuredValueSequence[0].NumericValue)
    raise AssertionError("no volume")
