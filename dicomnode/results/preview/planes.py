"""Coronal, sagittal and axial planes of the patient with the structures' colours over the image."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dicomnode.results.preview.space import Box, Floats, Grid, Space

Plane = Literal["coronal", "sagittal", "axial"]
_FINE = 2
"""Drawn so many times finer than shown: smooth outlines."""
_FILL, _LINE = 0.38, 0.9
"""Opacity within a structure, and at its outline."""
_LEAST_VOXELS = 12
"""Fewer of a label in a plane do not count when planes are chosen."""


def best_places(grid: Grid) -> Floats:
    """Return [3] LPS mm: on each axis the plane that crosses most structures.

    Among equals it is the one in the middle of them.
    """
    place = np.empty(3)
    for axis in range(3):
        along = np.moveaxis(grid.labels, 2 - axis, 0)  # the grid runs z, y, x
        thin = along[:, ::2, ::2]
        scores = np.array(
            [
                (np.bincount(plane.ravel(), minlength=256)[1:] >= _LEAST_VOXELS // 4).sum()
                for plane in thin
            ]
        )
        best = np.flatnonzero(scores == scores.max())
        index = float(best[len(best) // 2]) + 0.5
        if axis == 2:
            index = len(scores) - index  # from head to feet
        place[axis] = grid.box.low[axis] + index * grid.step_mm
    return place


def overlay(
    space: Space,
    labels: NDArray[np.uint8],
    palette: Floats,
    plane: Plane,
    box: Box,
    place: Floats,
    scale: float,
) -> NDArray[np.uint8]:
    """Return an RGB picture [row, column, 3] of one plane, in the patient's true proportions.

    Args:
        labels: [slice, row, column] on the scan's grid.
        palette: [256, 3] RGB 0 to 255 by label.
        plane: coronal from the front, sagittal from the left, axial from the feet.
        box: what of the patient is shown.
        place: [3] LPS mm, a point of the plane.
        scale: pixels a millimetre.
    """
    across, down = {"coronal": (0, 2), "sagittal": (1, 2), "axial": (0, 1)}[plane]
    columns, rows = (max(1, int(box.size[axis] * scale)) for axis in (across, down))
    points = np.empty((rows * _FINE, columns * _FINE, 3))
    points[:] = place
    points[:, :, across] = box.low[across] + (np.arange(columns * _FINE) + 0.5) / (_FINE * scale)
    steps = (np.arange(rows * _FINE) + 0.5) / (_FINE * scale)
    downwards = box.high[2] - steps if down == 2 else box.low[1] + steps
    points[:, :, down] = downwards[:, None]
    values, found = space.plane(labels, points)
    black, white = space.window()
    grey = np.clip((values - black) / (white - black), 0, 1)[:, :, None] * 255
    opacity = np.where(_outline(found), _LINE, np.where(found > 0, _FILL, 0.0))[:, :, None]
    mixed = (1 - opacity) * grey + opacity * palette[found]
    small = mixed.reshape(rows, _FINE, columns, _FINE, 3).mean(axis=(1, 3))
    return np.asarray(np.rint(small), np.uint8)


def _outline(found: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a structure borders on something else, within it."""
    edge = np.zeros(found.shape, np.bool_)
    for axis in (0, 1):
        one, other = np.moveaxis(found, axis, 0)[:-1], np.moveaxis(found, axis, 0)[1:]
        step = one != other
        np.moveaxis(edge, axis, 0)[:-1] |= step
        np.moveaxis(edge, axis, 0)[1:] |= step
    return edge & (found > 0)
