"""Masks -> closed planar contours, in pixels: nothing of DICOM may enter here.

A contour runs between voxel centres, `INSIDE` of the way from a voxel of the structure to its
neighbour outside. Just short of the half: whoever asks which voxel centres lie within gets the mask
back, and so does whoever rounds the points to voxels and counts the edge in. Diagonal neighbours
are apart.

A hole is joined to the contour around it by a keyhole, a channel without width along a row of
voxels (PS3.3 C.8.8.6.3): one polygon, right by the even-odd and by the winding rule, and for
readers that unite polygons as well as for those that subtract one from another.
"""

from __future__ import annotations

from collections.abc import Iterator

import contourpy
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

INSIDE = 0.47
_STRAIGHT = 1e-6
Points = NDArray[np.float64]
"""[n, 2]: row and column of the vertices, in pixels; the last is joined to the first."""


def slice_contours(labels: NDArray[np.uint8]) -> Iterator[tuple[int, list[Points]]]:
    """Yield each label of one slice [row, column] in ascending order with its contours."""
    for index, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is not None:
            corner = np.array([place[0].start, place[1].start])
            yield index, [points + corner for points in _trace(labels[place] == index)]


def _trace(mask: NDArray[np.bool_]) -> list[Points]:
    """Return the contours of a mask [row, column], holes joined to what is around them."""
    padded = np.pad(mask, 1)
    # The level decides how far from the inner voxel's centre the contour crosses.
    generator = contourpy.contour_generator(z=padded.astype(np.float64), name="serial")
    lines = [
        np.round(np.array(line, dtype=np.float64)[:-1, ::-1], 2)
        for line in generator.lines(1 - INSIDE)
    ]
    outer = [line for line in lines if not _is_hole(line)]
    holes = [line for line in lines if _is_hole(line)]
    if holes:
        outer = _join(padded, outer, holes)
    return [_simplified(line) - 1 for line in outer]


def _is_hole(points: Points) -> bool:
    """Whether the structure lies outside; contourpy keeps what is higher on one side."""
    rows, columns = points.T
    return float(rows @ np.roll(columns, -1) - columns @ np.roll(rows, -1)) > 0


def _join(mask: NDArray[np.bool_], outer: list[Points], holes: list[Points]) -> list[Points]:
    """Join every hole to the contour at the other end of the voxels at its left.

    The row of voxels that ends at the hole's leftmost vertex begins at a vertex of a contour that
    lies further to the left: of an outer one, or of another hole, which is joined likewise.
    """
    rings = [*outer, *holes]
    where = {
        (float(row), float(column)): (number, index)
        for number, ring in enumerate(rings)
        for index, (row, column) in enumerate(ring)
        if float(row).is_integer()
    }
    starts: dict[int, int] = {}
    bridges: dict[tuple[int, int], list[int]] = {}
    for number in range(len(outer), len(rings)):
        ring = rings[number]
        level = np.flatnonzero(ring[:, 0] == np.rint(ring[:, 0]))
        start = starts[number] = int(level[np.argmin(ring[level, 1])])
        row, last = int(ring[start, 0]), int(ring[start, 1])
        first = last - int(np.argmin(mask[row, last::-1])) + 1
        bridges.setdefault(where[float(row), round(first - INSIDE, 2)], []).append(number)
    # What is joined to a hole lies further to the right: done before the hole itself.
    done: dict[int, list[NDArray[np.float64]]] = {}
    for number in sorted(starts, key=lambda hole: -rings[hole][starts[hole], 1]):
        done[number] = _round(number, starts[number], rings, bridges, done)
        done[number].append(rings[number][starts[number]])
    return [np.array(_round(number, 0, rings, bridges, done)) for number in range(len(outer))]


def _round(
    number: int,
    start: int,
    rings: list[Points],
    bridges: dict[tuple[int, int], list[int]],
    done: dict[int, list[NDArray[np.float64]]],
) -> list[NDArray[np.float64]]:
    """Return the vertices of a ring from `start` on, with the way to every hole and back."""
    ring, vertices = rings[number], []
    for index in [*range(start, len(ring)), *range(start)]:
        vertices.append(ring[index])
        for hole in bridges.get((number, index), []):
            vertices += [*done[hole], ring[index]]
    return vertices


def _simplified(points: Points) -> Points:
    """Leave out vertices on the straight way between their neighbours."""
    before = points - np.roll(points, 1, axis=0)
    after = np.roll(points, -1, axis=0) - points
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    ahead = (before * after).sum(axis=1) > 0  # at the end of a channel the way turns back
    return np.asarray(points[~((np.abs(cross) < _STRAIGHT) & ahead)])
