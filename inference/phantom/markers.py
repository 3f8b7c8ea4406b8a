"""Markers at world coordinates: for tests that ask whether geometry survived a way.

A marker is an ellipsoid in world RAS+ millimetres, so the same three markers can be rendered on
any grid, and where they must appear is known without the code under test.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.phantom.solids import RADIAL_BINS, Solids, render_solids

AIR_HU = -1000
WATER_HU = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """An ellipsoid whose half axes lie along world x, y and z."""

    centre: tuple[float, float, float]  # world RAS+ mm
    half_axes: tuple[float, float, float]  # mm; three equal numbers are a ball
    label: int  # 1 .. 255
    hu: int


def render_markers(
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    markers: Sequence[Marker],
    *,
    body: Marker | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """HU and labels [i, j, k] at the voxel centres of a grid: markers in water in air.

    `affine` [4, 4] maps indices to world RAS+ mm. `body` is the ellipsoid of water around the
    markers; by default one that fills nine tenths of the grid. Where markers overlap, the voxel
    goes to the one whose relative radius is the least. `noise` is a standard deviation in HU.
    """
    affine = np.asarray(affine, np.float64)
    water = WATER_HU if body is None else body.hu
    if body is None:
        middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
        whole = affine[:3, :3] * (np.array(shape) * 0.45)
    else:
        middle, whole = np.array(body.centre), np.diag(body.half_axes)
    solids = Solids(
        centres=np.array([middle, *(m.centre for m in markers)], np.float64),
        axes=np.array([whole, *(np.diag(m.half_axes) for m in markers)], np.float64),
        priority=np.array([0, *(1 for _ in markers)], np.int64),
        labels=np.array([0, *(m.label for m in markers)], np.uint8),
        profiles=np.repeat(
            np.array([[water], *([m.hu] for m in markers)], np.int16), RADIAL_BINS, axis=1
        ),
    )
    return render_solids(solids, shape, affine, outside_hu=AIR_HU, noise=noise, seed=seed)
