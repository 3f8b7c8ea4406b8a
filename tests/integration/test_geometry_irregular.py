"""Tilted and unevenly spaced stacks: markers land on themselves on the slices that were made.

Where a voxel lies is read from the written headers of its slice, not from any code under test.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
import pytest
from analysis_kit import MarkerPredictor, model_card, plan
from irregular_series import ALL, CASES, HU, MARKERS, MODEL_MM, SPACING, irregular_series
from numpy.typing import NDArray

from dicomnode.pipeline import analyze
from inference.phantom.markers import Marker

PREDICTOR = MarkerPredictor({m.label: m.centre for m in MARKERS}, HU, MODEL_MM)


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


@pytest.mark.parametrize("name", CASES)
def test_markers_land_on_themselves(name: str) -> None:
    tilt, kept, down = CASES[name]
    files = irregular_series(tilt, kept, down=down)

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
