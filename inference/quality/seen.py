"""What is seen of each structure in a label map: where it lies, its pieces, what cuts it.

The label map is sampled at most every 2 mm (models work at 1.5 mm and coarser) and divided into
connected pieces in one pass (`cc3d`), so that half a thousand slices take a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from inference.measuring import Edges

Floats = NDArray[np.float64]
SAMPLED_MM = 2.0
NEAR_MM = 15.0
"""Models stop short of the edges, and a second piece may lie just outside."""
SPECK_ML = 0.05
"""Pieces below are not listed, unless they are all there is of a structure."""
LISTED = 20
"""Pieces of a structure at most, the largest; noise has thousands."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """Voxels of one label that touch each other, by a corner at least."""

    volume_ml: float
    centre: Floats
    """[3] RAS+ mm: x grows to the patient's right."""
    low: Floats
    """[3] RAS+ mm: least coordinates of the corners of the box around it along the array's axes."""
    high: Floats
    cut: bool
    """The box around it reaches a face of the array."""
    near_edge: bool
    """It comes within `NEAR_MM` of one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """One structure."""

    label: int
    name: str
    volume_ml: float
    centre: Floats
    """[3] RAS+ mm, of all its voxels."""
    pieces: tuple[Piece, ...]
    """The largest first, those worth a look."""
    cut_at_ends: bool
    """It reaches the first or the last slice."""
    cut_in_plane: bool
    """It reaches another side of the field of view, or padding."""

    @property
    def cut(self) -> bool:
        """The field of view cuts it."""
        return self.cut_at_ends or self.cut_in_plane

    @property
    def is_whole(self) -> bool:
        """All of it is in the field of view, by all that can be told."""
        return not self.cut and not any(piece.near_edge for piece in self.pieces)

    @property
    def main(self) -> Piece:
        """The largest piece."""
        return self.pieces[0]


def look(
    labels: NDArray[np.uint8],
    affine: Floats,
    names: Mapping[int, str],
    volumes_ml: Mapping[int, float],
    edges: Edges,
) -> dict[str, Seen]:
    """Return what is seen of every structure that occurs, by its name.

    Args:
        labels: [slice, row, column]; 0 is background.
        affine: 4x4, array indices to RAS+ mm; of an unevenly spaced stack the nearest one.
        names: of the labels.
        volumes_ml: by label, as measured.
        edges: labels that the field of view cuts.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    steps = np.maximum(1, np.floor(SAMPLED_MM / spacing + 1e-6)).astype(int)
    sampled = np.ascontiguousarray(labels[:: steps[0], :: steps[1], :: steps[2]])
    parts, count = cc3d.connected_components(sampled, connectivity=26, return_N=True)
    if not count:
        return {}
    table = cc3d.statistics(parts)
    owner = np.zeros(count + 1, np.uint8)
    owner[parts.ravel()] = sampled.ravel()  # all voxels of a piece have one label
    voxels = table["voxel_counts"].astype(np.float64)
    voxels[0] = 0
    whole = np.bincount(owner, voxels, 256)
    all_ml = np.array([volumes_ml.get(label, 0.0) for label in range(256)])
    sizes = voxels / whole[owner].clip(1) * all_ml[owner]
    found = {}
    for label in np.flatnonzero(whole).tolist():
        own = np.flatnonzero(owner == label)
        own = own[np.argsort(-voxels[own], kind="stable")]
        large = [int(n) for n in own[:LISTED] if n == own[0] or sizes[n] >= SPECK_ML]
        centre = voxels[own] @ table["centroids"][own] / whole[label]
        found[names[label]] = Seen(
            label=label,
            name=names[label],
            volume_ml=volumes_ml[label],
            centre=_world(centre * steps, affine),
            pieces=tuple(
                _piece(table, n, float(sizes[n]), sampled.shape, steps, affine) for n in large
            ),
            cut_at_ends=label in edges.ends,
            cut_in_plane=label in edges.sides,
        )
    return found


def _piece(
    table: Mapping[str, Any],
    number: int,
    volume_ml: float,
    shape: tuple[int, ...],
    steps: NDArray[np.int_],
    affine: Floats,
) -> Piece:
    box = table["bounding_boxes"][number]
    low = np.array([side.start for side in box])
    high = np.array([side.stop for side in box]) - 1
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), axis=-1).reshape(-1, 3)
    world = _world(corners * steps, affine)
    left = np.array(shape) - 1 - high
    spacing = np.linalg.norm(affine[:3, :3], axis=0) * steps
    return Piece(
        volume_ml=volume_ml,
        centre=_world(table["centroids"][number] * steps, affine),
        low=world.min(axis=0),
        high=world.max(axis=0),
        cut=bool((low == 0).any() or (high + 1 == shape).any()),
        near_edge=bool((low * spacing < NEAR_MM).any() or (left * spacing < NEAR_MM).any()),
    )


def _world(indices: Floats, affine: Floats) -> Floats:
    placed: Floats = indices @ affine[:3, :3].T + affine[:3, 3]
    return placed
