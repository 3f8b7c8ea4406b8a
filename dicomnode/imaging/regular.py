"""A regular grid for a stack that is none: gantry tilt, uneven spacing, missing slices.

The model works on a regular volume. Such a stack is resampled to one, and the labels are brought
back to each original slice: results always lie on the slices that the scanner made. Pure
arithmetic; what is too far from regular was refused before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.imaging.geometry import normal_of
from dicomnode.scan import Scan

NO_SHIFT = 1e-6
"""Pixels by which a slice is not moved: that would take most of the time, and change nothing."""
LEAST_SPACING_MM = 1.0
"""Finer than this the grid is not made, however close two slices lie."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegularGrid:
    """The resampled volume, and the way back to the slices."""

    volume: NDArray[np.int16]
    """HU [slice, row, column]; air where no slice reaches."""
    affine: NDArray[np.float64]
    """4x4; (slice, row, column, 1) to LPS mm, with orthogonal axes."""
    slices: NDArray[np.intp]
    """[n]: for each original slice the nearest one of the grid."""
    rows: NDArray[np.intp]
    """[n, rows]: for each of its rows the nearest one of the grid."""
    columns: NDArray[np.intp]
    """[n, columns]: likewise."""

    def back(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return labels [slice, row, column] of the original slices, each voxel's nearest."""
        shape = (len(self.slices), self.rows.shape[1], self.columns.shape[1])
        result = np.empty(shape, np.uint8)
        for index in range(len(self.slices)):
            plane = labels[self.slices[index]]
            result[index] = plane[np.ix_(self.rows[index], self.columns[index])]
        return result


def regular_grid(scan: Scan) -> RegularGrid:
    """Resample an irregular scan, linearly along the normal and in the plane."""
    normal = normal_of(np.array(scan.orientation))
    along_row, along_column = np.array(scan.orientation[:3]), np.array(scan.orientation[3:])
    _, row_mm, column_mm = scan.spacing_mm
    moves = scan.positions - scan.positions[0]
    depths = moves @ normal
    step = max(LEAST_SPACING_MM, float(np.diff(depths).min()))
    count = int(np.ceil(depths[-1] / step - 1e-6)) + 1
    # How far each slice is shifted in its plane against the first, in pixels.
    shifts = np.stack([moves @ along_column / row_mm, moves @ along_row / column_mm], axis=1)
    low, high = np.floor(shifts.min(axis=0)).astype(int), np.ceil(shifts.max(axis=0)).astype(int)
    size = tuple(int(n) for n in np.array(scan.volume.shape[1:]) + high - low)
    shifts -= low

    volume = np.empty((count, *size), np.int16)
    planes = _Planes(scan, shifts, size)
    for index in range(count):
        depth = min(index * step, float(depths[-1]))
        upper = int(np.clip(np.searchsorted(depths, depth, side="right"), 1, len(depths) - 1))
        part = (depth - depths[upper - 1]) / (depths[upper] - depths[upper - 1])
        blend = (1 - part) * planes[upper - 1] + part * planes[upper]
        volume[index] = np.rint(blend)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = normal * step, along_column * row_mm
    affine[:3, 2] = along_row * column_mm
    affine[:3, 3] = scan.positions[0] + affine[:3, 1:3] @ low
    rows, columns = (np.arange(n) for n in scan.volume.shape[1:])
    return RegularGrid(
        volume=volume,
        affine=affine,
        slices=np.clip(np.rint(depths / step), 0, count - 1).astype(np.intp),
        rows=np.rint(rows + shifts[:, :1]).astype(np.intp),
        columns=np.rint(columns + shifts[:, 1:]).astype(np.intp),
    )


class _Planes:
    """Slices shifted to where they lie in the grid's planes, the last two kept."""

    def __init__(self, scan: Scan, shifts: NDArray[np.float64], size: tuple[int, ...]) -> None:
        self._empty = scan.empty_value
        self._volume, self._shifts, self._size = scan.volume, shifts, size
        self._kept: dict[int, NDArray[np.float32]] = {}

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        if index not in self._kept:
            plane = np.full(self._size, self._empty, np.float32)
            rows, columns = self._volume.shape[1:]
            plane[:rows, :columns] = self._volume[index]
            shift = self._shifts[index]
            shifted = plane
            if np.abs(shift).max() > NO_SHIFT:
                shifted = ndimage.shift(plane, shift, order=1, cval=self._empty)
            self._kept = {n: kept for n, kept in self._kept.items() if n >= index - 1}
            self._kept[index] = shifted
        return self._kept[index]
