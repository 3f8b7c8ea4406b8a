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
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicomnode import pipeline
from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.pipeline import analyze
from inference.phantom.markers import Marker, render_markers

MODEL_MM = 1.5
SHAPE = (72, 60, 40)
SPACING = (1.4, 1.7, 2.5)  # between columns, rows, slices: all different
MARKER_HU = 1000
MARKERS = (
    Marker(centre=(18.0, 5.0, -12.0), half_axes=(10.0, 6.0, 7.0), label=3, hu=MARKER_HU),
    Marker(centre=(-14.0, 16.0, 8.0), half_axes=(6.0, 9.0, 5.0), label=5, hu=MARKER_HU),
    Marker(centre=(4.0, -20.0, 20.0), half_axes=(7.0, 5.0, 9.0), label=90, hu=MARKER_HU),
)

# Image Orientation (Patient): along a row, along a column; then the way the slices were taken.
ORIENTATIONS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], int]] = {
    "supine": ((1, 0, 0), (0, 1, 0), 1),
    "supine, towards the feet": ((1, 0, 0), (0, 1, 0), -1),
    "prone": ((-1, 0, 0), (0, -1, 0), 1),
    "decubitus left": ((0, -1, 0), (1, 0, 0), 1),
    "decubitus right": ((0, 1, 0), (-1, 0, 0), 1),
    "feet first": ((-1, 0, 0), (0, 1, 0), 1),
    "feet first prone": ((1, 0, 0), (0, -1, 0), -1),
    "rotated 90 degrees in plane": ((0, 1, 0), (1, 0, 0), 1),
    "row cosine negated": ((-1, 0, 0), (0, 1, 0), -1),
    "column cosine negated": ((1, 0, 0), (0, -1, 0), 1),
    "coronal": ((1, 0, 0), (0, 0, -1), 1),
    "sagittal": ((0, 1, 0), (0, 0, -1), 1),
}
PREDICTOR = MarkerPredictor({m.label: m.centre for m in MARKERS}, MARKER_HU, MODEL_MM)


def rotation(axis: tuple[float, float, float], degrees: float) -> NDArray[np.float64]:
    """Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def grid(
    along_row: NDArray[np.float64], along_column: NDArray[np.float64], way: int
) -> NDArray[np.float64]:
    """Affine of [i, j, k] to RAS+ mm, centred on the origin; directions are given in LPS+."""
    normal = way * np.cross(along_row, along_column)
    axes = np.diag([-1.0, -1.0, 1.0]) @ np.column_stack([along_row, along_column, normal])
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(SPACING)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(SHAPE) - 1) / 2
    return affine


CASES = {
    **{name: grid(np.array(r), np.array(c), way) for name, (r, c, way) in ORIENTATIONS.items()},
    **{
        f"{degrees} degrees oblique": grid(
            rotation((1, 2, 3), degrees) @ [1, 0, 0], rotation((1, 2, 3), degrees) @ [0, 1, 0], 1
        )
        for degrees in (12, 33)
    },
}


def inside(points: NDArray[np.float64], marker: Marker, margin: float) -> NDArray[np.bool_]:
    """Whether world `points` lie in the marker whose half axes are longer by `margin` mm."""
    scaled = (points - np.array(marker.centre)) / (np.array(marker.half_axes) + margin)
    return np.asarray(np.linalg.norm(scaled, axis=-1) <= 1)


@pytest.mark.parametrize("name", CASES)
def test_markers_land_on_themselves(name: str, tmp_path: Path) -> None:
    affine = CASES[name]
    hu, _ = render_markers(SHAPE, affine, MARKERS)
    # Patient Position says the same whatever the orientation: nobody may believe it.
    files = write_series(hu, affine, SeriesOptions(seed=len(name), patient_position="HFS"))
    assert_markers_land(files, affine, tmp_path)


@pytest.mark.parametrize("kind", ["converted by highdicom", "enhanced, in two parts"])
@pytest.mark.parametrize(
    "name", ["supine", "feet first prone", "decubitus right", "sagittal", "33 degrees oblique"]
)
def test_markers_in_frames_land_on_themselves(name: str, kind: str, tmp_path: Path) -> None:
    affine = CASES[name]
    hu, _ = render_markers(SHAPE, affine, MARKERS)
    files = write_series(hu, affine, SeriesOptions(seed=len(name), patient_position="HFS"))
    if kind == "enhanced, in two parts":
        parts = concatenated(files, [slice(0, 13), slice(13, SHAPE[2])], shared=False)
    else:
        parts = [legacy_converted(files)]
    assert_markers_land(parts, affine, tmp_path)


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
