"""Ellipsoids onto voxel grids: the analytic renderer under the body and the markers.

A voxel belongs to the ellipsoid of the highest priority that holds its centre, and among equals to
the one of the least q = |A^-1 (p - centre)|^2, so the order of a table never matters. Numbers in,
arrays out; nothing here knows anatomy.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RADIAL_BINS = 32
"""Steps of q in [0, 1) in which a tissue's HU may change from the centre to the surface."""

_SLAB_VOXELS = 3_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Solids:
    """Ellipsoids in world RAS+ millimetres."""

    centres: Floats  # [n, 3]
    axes: Floats  # [n, 3, 3]: the columns are the half axes' vectors
    priority: NDArray[np.int64]  # [n]: the higher covers the lower
    labels: NDArray[np.uint8]  # [n]
    profiles: NDArray[np.int16]  # [n, RADIAL_BINS]: HU from the centre to the surface


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnGrid:
    """Ellipsoids in array indices: q(p) = (p - centre)^T form (p - centre)."""

    centres: Floats
    forms: Floats
    reach: Floats  # [n, 3]: half the bounding box
    priority: NDArray[np.int64]


def _on_grid(solids: Solids, affine: Floats) -> _OnGrid:
    to_index = np.linalg.inv(affine)
    axes = to_index[:3, :3] @ solids.axes
    spread: Floats = axes @ axes.transpose(0, 2, 1)
    return _OnGrid(
        centres=solids.centres @ to_index[:3, :3].T + to_index[:3, 3],
        forms=np.linalg.inv(spread).astype(np.float64),
        reach=np.sqrt(np.diagonal(spread, axis1=1, axis2=2)),
        priority=solids.priority,
    )


def _paint(score: NDArray[np.float32], owner: NDArray[np.int16], grid: _OnGrid, first: int) -> None:
    """Enter every ellipsoid into a slab [i, j, k] that begins at index `first` of the grid."""
    origin = np.array([first, 0, 0])
    low = np.maximum(np.ceil(grid.centres - grid.reach - origin), 0).astype(np.int64)
    top = np.floor(grid.centres + grid.reach - origin).astype(np.int64) + 1
    top = np.minimum(top, score.shape)
    for one in np.flatnonzero((low < top).all(1)):
        (i0, j0, k0), (i1, j1, k1) = low[one], top[one]
        m = grid.forms[one]
        x = (np.arange(i0, i1) + first - grid.centres[one, 0])[:, None]
        y = (np.arange(j0, j1) - grid.centres[one, 1])[None, :]
        z = np.arange(k0, k1) - grid.centres[one, 2]
        plane = m[0, 0] * x * x + m[1, 1] * y * y + 2 * m[0, 1] * x * y
        slope = 2 * (m[0, 2] * x + m[1, 2] * y)
        q = slope.astype(np.float32)[:, :, None] * z.astype(np.float32)
        q += plane.astype(np.float32)[:, :, None]
        q += (m[2, 2] * z * z).astype(np.float32)
        view = score[i0:i1, j0:j1, k0:k1]
        better = q < 1
        q -= np.float32(grid.priority[one])
        better &= q < view
        np.copyto(view, q, where=better)
        np.copyto(owner[i0:i1, j0:j1, k0:k1], np.int16(one), where=better)


def render_solids(
    solids: Solids,
    shape: tuple[int, int, int],
    affine: Floats,
    *,
    outside_hu: int,
    noise: float,
    seed: int,
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """HU and labels [i, j, k] at the voxel centres of a grid.

    `affine` [4, 4] maps indices to world RAS+ mm and may be any invertible one. `noise` is the
    standard deviation in HU of white noise drawn from `seed` and the shape. HU are clipped to
    -1024 .. 3071, the range of 12 stored bits.
    """
    grid = _on_grid(solids, np.asarray(affine, np.float64))
    count = len(solids.centres)
    bins = np.vstack([solids.profiles, np.full((1, RADIAL_BINS), outside_hu, np.int16)]).ravel()
    names = np.append(solids.labels, np.uint8(0))
    priority = np.append(solids.priority, 0).astype(np.float32)
    hu = np.empty(shape, np.int16)
    labels = np.empty(shape, np.uint8)
    depth = max(1, _SLAB_VOXELS // max(1, shape[1] * shape[2]))

    def slab(first: int) -> None:
        size = (min(depth, shape[0] - first), shape[1], shape[2])
        score = np.full(size, np.float32(1e9))
        owner = np.full(size, np.int16(count))
        _paint(score, owner, grid, first)
        labels[first : first + depth] = names[owner]
        score += priority[owner]
        np.clip(score, 0, 0.999, out=score)
        score *= RADIAL_BINS
        value = bins[owner.astype(np.int32) * RADIAL_BINS + score.astype(np.int32)]
        if noise > 0:
            source = np.random.default_rng([seed, first, *shape])
            shaken = source.standard_normal(size, np.float32) * np.float32(noise) + value
            value = np.clip(np.rint(shaken), -1024, 3071).astype(np.int16)
        hu[first : first + depth] = value

    firsts = range(0, shape[0], depth)
    with ThreadPoolExecutor(min(len(firsts), os.cpu_count() or 1)) as pool:
        list(pool.map(slab, firsts))
    return hu, labels
