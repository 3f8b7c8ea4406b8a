"""Structures as solid bodies: the first one that each ray along a patient's axis meets, shaded.

No perspective, no transparency, no library: equal labels give equal pixels everywhere.
"""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

View = Literal["front", "left"]
REACH = 3
"""Voxels around a surface point from which its normal is taken: it smooths the steps of voxels."""
_LIGHT = np.array([-0.35, -0.45, -0.82])
"""Where the light is, in (down, right of the picture, away): above, at the left, in front."""
_AMBIENT, _DIFFUSE, _GLOSS = 0.30, 0.72, 0.16
_FAR = 0.45
"""How much darker the farthest surface is than the nearest."""


def render(
    labels: NDArray[np.uint8], wanted: NDArray[np.bool_], palette: NDArray[np.float64], view: View
) -> NDArray[np.uint8]:
    """Return an RGB picture [row, column, 3] of a grid seen along an axis, on black.

    Args:
        labels: [head to feet, front to back, right to left] on a cubic grid.
        wanted: [256] the labels to show.
        palette: [256, 3] RGB 0 to 255 by label.
        view: front: the patient's left is at the picture's right; left: their front is at the
            picture's left.
    """
    shown = np.where(wanted, np.arange(256), 0).astype(np.uint8)[labels]
    for face in range(3):  # room for `_normals`; the grid leaves a margin anyway
        np.moveaxis(shown, face, 0)[:REACH] = 0
        np.moveaxis(shown, face, 0)[-REACH:] = 0
    # [down, right, away] of the picture.
    solid = shown.transpose(0, 2, 1) if view == "front" else shown[:, :, ::-1]
    found, depth = _first(solid)
    picture = np.zeros((*found.shape, 3), np.uint8)
    hit = found > 0
    if hit.any():
        rows, columns = np.nonzero(hit)
        normals = _normals(solid, (rows, columns, depth[hit].astype(np.intp)), found[hit])
        light = _LIGHT / np.linalg.norm(_LIGHT)
        lit = np.clip(normals @ light, 0, 1)
        near, far = float(depth[hit].min()), float(depth[hit].max())
        distance = (depth[hit] - near) / max(1.0, far - near)
        bright = (_AMBIENT + _DIFFUSE * lit) * (1 - _FAR * distance)
        colour = palette[found[hit]] * bright[:, None] + 255 * _GLOSS * lit[:, None] ** 12
        picture[hit] = np.clip(np.rint(colour), 0, 255).astype(np.uint8)
    return picture


def _first(solid: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return the first label along the last axis, and how far it lies."""
    found = np.zeros(solid.shape[:2], np.uint8)
    depth = np.zeros(solid.shape[:2], np.int32)
    for plane in np.moveaxis(solid, 2, 0):
        empty = found == 0
        np.copyto(found, plane, where=empty)
        depth += found == 0
    return found, depth


def _normals(
    solid: NDArray[np.uint8], places: tuple[NDArray[np.intp], ...], found: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Return the outward normals [n, 3] of surface points: away from their own structure's bulk."""
    # Indices into the memory, which a view may run through backwards.
    flat, strides = _flat(solid)
    at = sum(place * stride for place, stride in zip(places, strides, strict=True))
    at -= sum(min(0, (size - 1) * step) for size, step in zip(solid.shape, strides, strict=True))
    sums = np.zeros((len(found), 3), np.float64)
    span = range(-REACH, REACH + 1)
    for offset in product(span, span, span):
        if not 0 < sum(step * step for step in offset) <= REACH * REACH:
            continue
        move = sum(step * stride for step, stride in zip(offset, strides, strict=True))
        same = flat[at + move] == found
        for axis, step in enumerate(offset):
            if step:
                sums[:, axis] -= step * same
    length = np.linalg.norm(sums, axis=1)
    sums[length == 0] = (0, 0, -1)
    return np.asarray(sums / np.maximum(length, 1.0)[:, None])


def _flat(solid: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """Return the bytes under a view, and what a step along each of its axes is there."""
    base = solid if solid.base is None else solid.base
    return base.reshape(-1), solid.strides
