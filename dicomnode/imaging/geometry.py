"""The geometry of a stack: its order, its affine, what is irregular, or why it is no volume.

Pure arithmetic on positions and direction cosines (PS3.3 C.7.6.2.1.1). Neither Instance Number nor
Patient Position nor Slice Location is looked at: only Image Position and Image Orientation place a
slice in space.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicomnode.errors import Refusal

MINIMUM_SLICES = 4
MAX_GAP_MM = 10.0
"""Further apart than this two slices say nothing of what is between them."""
MAX_TILT_DEGREES = 35.0
"""CT gantries tilt up to 30 degrees."""
GRID_TOLERANCE = 0.01
"""Part of the spacing by which a slice may miss the regular grid."""
ROUNDING_MM = 0.11
"""Or this much, where that is at most a fifth of it: positions written with one decimal miss the
grid between the first and the last by up to twice their rounding."""
SHEAR_TOLERANCE = 0.25
"""Part of a pixel by which a slice may be shifted in its plane against the others."""
DUPLICATE_MM = 0.01
"""Slices closer than this lie at one position."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackGeometry:
    """A stack, regular or to be made so."""

    order: NDArray[np.intp]
    """Indices of the given positions, in ascending order along the normal."""
    affine: NDArray[np.float64]
    """4x4; (slice, row, column, 1) to LPS mm; of an irregular stack with the mean spacing."""
    irregular: tuple[str, ...]
    """Sentences on why the stack is not regular; none where it is."""


def normal_of(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit normal [3] of `orientation` [6]: row direction x column direction."""
    normal = np.cross(orientation[:3], orientation[3:])
    return normal / np.linalg.norm(normal)


def has_duplicates(positions: NDArray[np.float64], orientation: NDArray[np.float64]) -> bool:
    """Whether two of `positions` [n, 3] lie in one plane across `orientation` [6]."""
    depths = np.sort(positions @ normal_of(orientation))
    return bool(len(depths) > 1 and np.diff(depths).min() < DUPLICATE_MM)


def stack_geometry(
    positions: NDArray[np.float64],
    orientation: NDArray[np.float64],
    pixel_spacing: tuple[float, float],
) -> StackGeometry:
    """Order slices along their normal and give the affine of the volume they form.

    Args:
        positions: [n, 3] LPS mm, in any order.
        orientation: [6], unit vectors along a row and along a column.
        pixel_spacing: mm between rows, and between columns.

    Raises:
        Refusal: TOO_FEW_SLICES, DUPLICATE_POSITIONS, GANTRY_TILT, MISSING_SLICE.
    """
    count = len(positions)
    if count < MINIMUM_SLICES:
        raise Refusal("TOO_FEW_SLICES", f"{count} slices, at least {MINIMUM_SLICES} are needed.")
    normal = normal_of(orientation)
    order = np.argsort(positions @ normal, kind="stable")
    sorted_positions = positions[order]
    depths = sorted_positions @ normal
    if has_duplicates(positions, orientation):
        same = int((np.diff(depths) < DUPLICATE_MM).sum())
        raise Refusal(
            "DUPLICATE_POSITIONS", f"{same} of {count} slices lie where another one lies."
        )
    spacing = (depths[-1] - depths[0]) / (count - 1)
    irregular = (
        *_shear(sorted_positions, normal, min(pixel_spacing)),
        *_spacing(depths, spacing),
    )
    along_row, along_column = orthonormal(orientation)
    affine = np.eye(4)
    affine[:3, 0] = np.cross(along_row, along_column) * spacing
    affine[:3, 1] = along_column * pixel_spacing[0]
    affine[:3, 2] = along_row * pixel_spacing[1]
    affine[:3, 3] = sorted_positions[0]
    return StackGeometry(order=order, affine=affine, irregular=irregular)


def orthonormal(
    orientation: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the unit vectors along a row and along a column, freed of rounding errors."""
    along_row = orientation[:3] / np.linalg.norm(orientation[:3])
    along_column = orientation[3:] - along_row * (orientation[3:] @ along_row)
    return along_row, along_column / np.linalg.norm(along_column)


def _shear(
    positions: NDArray[np.float64], normal: NDArray[np.float64], pixel_mm: float
) -> Iterator[str]:
    """Yield what to say of a stack whose slices are shifted in their plane.

    Raises:
        Refusal: GANTRY_TILT, where the shifts are no tilt that a scanner has.
    """
    moves = positions - positions[0]
    depths = moves @ normal
    in_plane = moves - np.outer(depths, normal)
    shift = float(np.linalg.norm(in_plane, axis=1).max())
    if shift <= SHEAR_TOLERANCE * pixel_mm:
        return
    slope = in_plane[-1] / depths[-1]
    astray = float(np.linalg.norm(in_plane - np.outer(depths, slope), axis=1).max())
    angle = float(np.degrees(np.arctan(np.linalg.norm(slope))))
    if astray > pixel_mm or angle > MAX_TILT_DEGREES:
        raise Refusal(
            "GANTRY_TILT",
            f"Slices are shifted in their plane by up to {shift:.2f} mm against each other"
            f" ({angle:.1f} degrees from the first to the last, up to {astray:.2f} mm beside it).",
        )
    yield f"The gantry was tilted by {angle:.1f} degrees; the slices were resampled for the model."


def _spacing(depths: NDArray[np.float64], spacing: float) -> Iterator[str]:
    """Yield what to say of a stack whose slices are not evenly spaced.

    Raises:
        Refusal: MISSING_SLICE, where a gap is too wide.
    """
    grid = depths[0] + spacing * np.arange(len(depths))
    tolerance = max(GRID_TOLERANCE * spacing, min(ROUNDING_MM, spacing / 5))
    if np.abs(depths - grid).max() <= tolerance:
        return
    gaps = np.diff(depths)
    if gaps.max() > MAX_GAP_MM:
        wide = int((gaps > MAX_GAP_MM).sum())
        raise Refusal(
            "MISSING_SLICE",
            f"{wide} gaps between slices are wider than {MAX_GAP_MM:g} mm, the widest"
            f" {gaps.max():.3g} mm; the usual distance is {np.median(gaps):.3g} mm.",
        )
    yield (
        f"Distances between slices range from {gaps.min():.3g} to {gaps.max():.3g} mm; the slices"
        " were resampled for the model."
    )
