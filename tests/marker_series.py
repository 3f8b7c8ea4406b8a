"""Three asymmetric markers at analytic world coordinates, and the ways their slices may lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dicomnode.demo.series import SeriesOptions, write_series
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


def marker_series(name: str) -> list[bytes]:
    """Return the files of a series of `CASES`, shuffled.

    Patient Position says the same whatever the orientation: nobody may believe it.
    """
    hu, _ = render_markers(SHAPE, CASES[name], MARKERS)
    return write_series(hu, CASES[name], SeriesOptions(seed=len(name), patient_position="HFS"))
