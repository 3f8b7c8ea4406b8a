"""Three asymmetric markers land where they are, however the slices lie in the patient.

The markers stand at analytic world coordinates, the series is written in another orientation each
time with its files shuffled, the whole analysis runs with real resampling both ways, and dcmqi, not
our own inverse, says where the segments are.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from analysis_kit import (
    MarkerPredictor,
    MirroredPatientError,
    model_card,
    plan,
    read_with_dcmqi,
    world_of,
)
from enhanced_ct import concatenated, legacy_converted
from marker_series import CASES, MARKER_HU, MARKERS, MODEL_MM, SHAPE, marker_series
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicomnode import pipeline
from dicomnode.demo.series import write_series
from dicomnode.pipeline import analyze
from inference.phantom.markers import Marker, render_markers

PREDICTOR = MarkerPredictor({m.label: m.centre for m in MARKERS}, MARKER_HU, MODEL_MM)


def inside(points: NDArray[np.float64], marker: Marker, margin: float) -> NDArray[np.bool_]:
    """Whether world `points` lie in the marker whose half axes are longer by `margin` mm."""
    scaled = (points - np.array(marker.centre)) / (np.array(marker.half_axes) + margin)
    return np.asarray(np.linalg.norm(scaled, axis=-1) <= 1)


@pytest.mark.parametrize("name", CASES)
def test_markers_land_on_themselves(name: str, tmp_path: Path) -> None:
    assert_markers_land(marker_series(name), CASES[name], tmp_path)


@pytest.mark.parametrize("kind", ["converted by highdicom", "enhanced, in two parts"])
@pytest.mark.parametrize(
    "name", ["supine", "feet first prone", "decubitus right", "sagittal", "33 degrees oblique"]
)
def test_markers_in_frames_land_on_themselves(name: str, kind: str, tmp_path: Path) -> None:
    files = marker_series(name)
    if kind == "enhanced, in two parts":
        parts = concatenated(files, [slice(0, 13), slice(13, SHAPE[2])], shared=False)
    else:
        parts = [legacy_converted(files)]
    assert_markers_land(parts, CASES[name], tmp_path)


def assert_markers_land(files: list[bytes], affine: NDArray[np.float64], tmp_path: Path) -> None:
    """Analyse a series rendered on the grid of `affine` (RAS+), and ask dcmqi where markers are."""
    analysis = analyze(files, plan(), predictor=PREDICTOR, card=model_card((MODEL_MM,) * 3))

    segments = read_with_dcmqi(analysis.results[0].data, tmp_path)
    assert sorted(segments) == [1, 2, 3]
    everywhere = nibabel.affines.apply_affine(
        affine, np.moveaxis(np.indices(SHAPE), 0, -1).reshape(-1, 3)
    )
    read_back = np.zeros(SHAPE, np.uint8)
    for number, marker in enumerate(MARKERS, start=1):
        world = world_of(segments[number])
        indices = nibabel.affines.apply_affine(np.linalg.inv(affine), world)
        assert np.abs(indices - indices.round()).max() < 1e-2, "the voxels lie on the source grid"
        found = np.zeros(SHAPE, bool)
        found[tuple(indices.round().astype(int).T)] = True
        assert found.sum() == len(world)
        core = inside(everywhere, marker, -MODEL_MM).reshape(SHAPE)
        hull = inside(everywhere, marker, MODEL_MM).reshape(SHAPE)
        assert core.sum() > 20
        assert found[core].all(), "overlap 1 with all of the marker deeper than one model voxel"
        assert not found[~hull].any(), "nothing further than one model voxel outside it"
        assert np.abs(world.mean(axis=0) - marker.centre).max() < 0.5
        read_back[found] = marker.label
    assert np.array_equal(read_back, label_map(analysis.label_map, files, affine))


def label_map(packed: bytes, files: list[bytes], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the stored label map as [i, j, k], its slices placed by the images they name."""
    with np.load(BytesIO(packed), allow_pickle=False) as arrays:
        labels, uids = arrays["labels"], arrays["sop_instance_uids"].tolist()
        frames = arrays["frame_numbers"].tolist()
    positions = {
        (item.SOPInstanceUID, frame): position
        for item in (pydicom.dcmread(BytesIO(data)) for data in files)
        for frame, position in positions_in(item)
    }
    result = np.zeros(SHAPE, np.uint8)
    for uid, frame, image in zip(uids, frames, labels, strict=True):
        ras = np.array(positions[uid, frame], float) * [-1, -1, 1]
        result[:, :, round(np.linalg.solve(affine, [*ras, 1])[2])] = image.T
    return result


def positions_in(item: Dataset) -> list[tuple[int, list[float]]]:
    """Return frame number (0: it has none) and Image Position of all the images in an instance."""
    if "NumberOfFrames" not in item:
        return [(0, item.ImagePositionPatient)]
    groups = item.PerFrameFunctionalGroupsSequence
    return [
        (number, group.PlanePositionSequence[0].ImagePositionPatient)
        for number, group in enumerate(groups, start=1)
    ]


@pytest.mark.parametrize("wrong", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, -1)])
def test_a_mirrored_patient_is_noticed(
    wrong: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Says that the test above can fail: these are the mistakes it is there for.
    monkeypatch.setattr(pipeline, "RAS_FROM_LPS", np.diag([*wrong, 1.0]))
    hu, _ = render_markers(SHAPE, CASES["supine"], MARKERS)
    with pytest.raises(MirroredPatientError):
        pipeline.analyze(
            write_series(hu, CASES["supine"]),
            plan(),
            predictor=PREDICTOR,
            card=model_card((MODEL_MM,) * 3),
        )
