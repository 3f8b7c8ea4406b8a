"""Where the patient's planes lie in a scan: sampling along the patient's own axes.

Pictures show the patient, not the array: whichever way the slices lie, tilted, oblique or uneven,
they are looked up by the position of each slice. All millimetres are LPS (to the left, back, head);
arrays of this module run from head to feet, front to back, and from the patient's right to left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.scan import Scan

MAX_GRID_VOXELS = 12_000_000
FINEST_MM = 1.0
_WINDOW_HU = -160.0, 240.0
"""Of soft tissue."""
_BRIGHTEST = 99.5
"""Percentile of the signal of MR that is drawn white."""
_MARGIN_VOXELS = 4
_TABLE_STEP_MM = 0.05
_BODY_HU = -300
_BODY_SIGNAL = 0.1
"""Part of the brightest signal of MR."""
_STRAIGHT = 1e-4
"""A direction cosine below this moves less than a tenth of a millimetre across a patient."""
_PROFILE = 0.02
"""Part of the fullest plane's body voxels with which a plane still counts as the body's."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Box:
    """A box along the patient's axes."""

    low: Floats
    """[3], LPS mm: right, front and lower corner."""
    high: Floats
    """[3], LPS mm: left, back and upper corner."""

    @property
    def size(self) -> Floats:
        """[3] mm."""
        return self.high - self.low


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Labels on a cubic grid along the patient's axes."""

    labels: NDArray[np.uint8]
    """[head to feet, front to back, right to left]."""
    step_mm: float
    box: Box
    """Outer faces of the grid."""


class Space:
    """Looks up points of the patient in a scan."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        _, self._row_mm, self._column_mm = scan.spacing_mm
        self._along_row = scan.affine[:3, 2] / self._column_mm
        self._along_column = scan.affine[:3, 1] / self._row_mm
        self._normal = np.cross(self._along_row, self._along_column)
        depths = scan.positions @ self._normal
        gaps = np.diff(depths)
        # A slice reaches half-way to its neighbour, the outermost as far outwards as inwards.
        self._depths = np.concatenate(
            ([depths[0] - gaps[0] / 2], depths, [depths[-1] + gaps[-1] / 2])
        )
        count = len(depths)
        self._slices = np.concatenate(([-0.5], np.arange(count, dtype=np.float64), [count - 0.5]))
        # Between which depths each slice lies.
        self._faces = np.concatenate(
            (depths[:1] - gaps[0] / 2, depths[:-1] + gaps / 2, depths[-1:] + gaps[-1] / 2)
        )
        places = np.stack(
            [
                scan.positions @ self._along_column / self._row_mm,
                scan.positions @ self._along_row / self._column_mm,
            ]
        )
        self._origins = np.concatenate([places[:, :1], places, places[:, -1:]], axis=1)

    def indices(self, points: Floats) -> Floats:
        """Return fractional [slice, row, column] indices [3, ...] of `points` [..., 3] in LPS mm.

        Beyond the first and last slice the slice index is -9.
        """
        depth = points @ self._normal
        slices = np.interp(depth, self._depths, self._slices, left=-9.0, right=-9.0)
        row = points @ self._along_column / self._row_mm
        column = points @ self._along_row / self._column_mm
        return np.stack(
            [
                slices,
                row - np.interp(depth, self._depths, self._origins[0]),
                column - np.interp(depth, self._depths, self._origins[1]),
            ]
        )

    def plane(
        self, labels: NDArray[np.uint8], points: Floats
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return values (linear) and labels (nearest) at `points` [row, column, 3] in LPS mm."""
        places = self.indices(points)
        limits = np.array(self._scan.volume.shape)[:, None, None]
        inside = ((places > -0.5) & (places < limits - 0.5)).all(axis=0)
        nearest = np.clip(np.rint(places).astype(np.intp), 0, limits - 1)
        found = np.where(inside, labels[tuple(nearest)], 0).astype(np.uint8)
        values = ndimage.map_coordinates(
            self._scan.volume, places, output=np.float32, order=1, mode="nearest"
        )
        return np.where(inside, values, np.float32(self._scan.empty_value)), found

    def window(self) -> tuple[float, float]:
        """Return the values that are drawn black and white."""
        if self._scan.modality == "CT":
            return _WINDOW_HU
        thin = self._scan.volume[::2, ::4, ::4]
        return 0.0, max(1.0, float(np.percentile(thin, _BRIGHTEST)))

    def slice_at(self, point: Floats) -> int:
        """Return the index of the slice nearest to a point, LPS mm."""
        depth = float(point @ self._normal)
        return int(np.clip(np.rint(np.interp(depth, self._depths, self._slices)), 0, self._last))

    @property
    def _last(self) -> int:
        return len(self._scan.positions) - 1

    def is_along(self, axis: int) -> bool:
        """Whether the slices lie across the patient's axis (0 left, 1 back, 2 head), nearly."""
        return abs(float(self._normal[axis])) > 0.97

    def box_of(
        self, slices: NDArray[np.intp], rows: tuple[int, int], columns: tuple[int, int]
    ) -> Box:
        """Return the box around these slices between rows and between columns, inclusive."""
        corners = [
            self._scan.positions[slices]
            + self._along_column * self._row_mm * (row + end)
            + self._along_row * self._column_mm * (column + side)
            for row, end in zip(rows, (-0.5, 0.5), strict=True)
            for column, side in zip(columns, (-0.5, 0.5), strict=True)
        ]
        first, last = int(slices.min()), int(slices.max())
        centres = self._depths[1:-1]
        ends = self._faces[first] - centres[first], self._faces[last + 1] - centres[last]
        points = np.concatenate(corners)
        thick = np.stack([points + self._normal * end for end in ends]).reshape(-1, 3)
        return Box(low=thick.min(axis=0), high=thick.max(axis=0))

    def labelled(self, labels: NDArray[np.uint8]) -> Box | None:
        """Return the box around everything that has a label; None where nothing has."""
        rows_columns = np.any(labels, axis=0)
        slices = np.flatnonzero(np.any(labels, axis=(1, 2)))
        if not slices.size:
            return None
        rows, columns = (np.flatnonzero(np.any(rows_columns, axis=axis)) for axis in (1, 0))
        return self.box_of(slices, (rows[0], rows[-1]), (columns[0], columns[-1]))

    def body(self) -> Box:
        """Return the box around what is no air; around the whole scan where all is air."""
        volume = self._scan.volume
        steps = tuple(max(1, size // 96) for size in volume.shape)
        thin = volume[:: steps[0], :: steps[1], :: steps[2]]
        is_ct = self._scan.modality == "CT"
        solid = thin > (_BODY_HU if is_ct else _BODY_SIGNAL * self.window()[1])
        spans = []
        for axis, (step, size) in enumerate(zip(steps, volume.shape, strict=True)):
            counts = solid.sum(axis=tuple(other for other in range(3) if other != axis))
            kept = np.flatnonzero(counts > _PROFILE * counts.max())
            if not kept.size:
                spans.append((0, size - 1))
                continue
            low, high = int(kept[0] * step - step), int(kept[-1] * step + step)
            spans.append((max(0, low), min(size - 1, high)))
        slices = np.arange(spans[0][0], spans[0][1] + 1)
        return self.box_of(slices, spans[1], spans[2])

    def grid(self, labels: NDArray[np.uint8], box: Box) -> Grid:
        """Return the labels on a cubic grid around `box`, the nearest voxel's each."""
        step = max(FINEST_MM, float(np.prod(box.size) / MAX_GRID_VOXELS) ** (1 / 3))
        counts = np.ceil(box.size / step).astype(int) + 2 * _MARGIN_VOXELS
        centre = (box.low + box.high) / 2
        low = centre - counts * step / 2
        x, y, z = (low[axis] + (np.arange(counts[axis]) + 0.5) * step for axis in range(3))
        result = np.zeros((counts[2], counts[1], counts[0]), np.uint8)
        lookup = _Lookup(self._depths, self._slices, self._origins)
        shape = self._scan.volume.shape
        for index, height in enumerate(z[::-1]):
            self._fill(result[index], labels, lookup, (x, y, float(height)), shape)
        return Grid(labels=result, step_mm=step, box=Box(low=low, high=low + counts * step))

    def _fill(
        self,
        plane: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        lookup: _Lookup,
        place: tuple[Floats, Floats, float],
        shape: Sequence[int],
    ) -> None:
        """Fill one axial plane [front to back, right to left] of the grid."""
        x, y, z = place

        def along(direction: Floats, scale: float) -> Floats:
            """Of one column or row only where the direction runs along an axis: most scans."""
            down = y[:, None] * direction[1] if abs(direction[1]) > _STRAIGHT else np.zeros((1, 1))
            right = x[None] * direction[0] if abs(direction[0]) > _STRAIGHT else np.zeros((1, 1))
            return np.asarray((down + right + z * direction[2]) / scale)

        index = lookup.index(along(self._normal, 1.0))
        slices = lookup.slices[index]
        rows = np.rint(along(self._along_column, self._row_mm) - lookup.rows[index])
        columns = np.rint(along(self._along_row, self._column_mm) - lookup.columns[index])
        inside = (slices >= 0) & (rows >= 0) & (columns >= 0)
        inside &= (rows < shape[1]) & (columns < shape[2])
        found = labels[
            np.maximum(slices, 0),
            np.clip(rows, 0, shape[1] - 1).astype(np.intp),
            np.clip(columns, 0, shape[2] - 1).astype(np.intp),
        ]
        plane[:] = np.where(inside, found, 0)


class _Lookup:
    """What `Space.indices` interpolates, as tables over the depth: quick for a whole grid."""

    def __init__(self, depths: Floats, slices: Floats, origins: Floats) -> None:
        count = int((depths[-1] - depths[0]) / _TABLE_STEP_MM) + 2
        self._first = float(depths[0])
        at = depths[0] + np.arange(count) * _TABLE_STEP_MM
        last = int(slices[-1])
        nearest = np.clip(np.rint(np.interp(at, depths, slices)), 0, last)
        # The first and last entry stand for everything beyond.
        self.slices = np.concatenate(([-1], nearest, [-1])).astype(np.int32)
        rows, columns = (np.interp(at, depths, row) for row in origins)
        self.rows = np.pad(rows, 1, mode="edge").astype(np.float32)
        self.columns = np.pad(columns, 1, mode="edge").astype(np.float32)

    def index(self, depth: Floats) -> NDArray[np.intp]:
        """Return where in the tables a depth stands."""
        place = np.rint((depth - self._first) / _TABLE_STEP_MM) + 1
        return np.asarray(np.clip(place, 0, len(self.slices) - 1), np.intp)
