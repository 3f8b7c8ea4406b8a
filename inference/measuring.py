"""What is measured of each structure: its volume, its values, and whether the image cuts it off.

Values are HU of CT, signal of MR. One pass over the volume into a table of (label, value) counts,
from which everything follows exactly. NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.catalog import Structure

CHUNK_VOXELS = 1 << 23
LABELS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One structure that was found."""

    label: int
    name: str
    voxels: int
    """All voxels with the label, padding included."""
    volume_ml: float
    mean: float | None
    """Of the values; None where every voxel is padding; so are the next two."""
    sd: float | None
    """Of the population: the root of the mean squared deviation."""
    median: float | None
    """Mean of the two middle values where their number is even."""
    touches_border: bool
    """The structure reaches a face of the array, or padding: it may go on outside, and its volume
    is of what the image shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """Labels that the field of view cuts."""

    ends: frozenset[int]
    """At the first or the last plane of the first axis."""
    sides: frozenset[int]
    """At another face of the array, or at padding."""


def measure(
    volume: NDArray[np.int16],
    labels: NDArray[np.uint8],
    voxel_volume_mm3: float | NDArray[np.float64],
    structures: Sequence[Structure],
    valid_mask: NDArray[np.bool_] | None = None,
    edges: Edges | None = None,
) -> tuple[Measurement, ...]:
    """Measure every structure that occurs in `labels`, in the order of `structures`.

    Args:
        volume: HU or signal, [i, j, k].
        labels: model labels on the same grid; 0 is background.
        voxel_volume_mm3: volume of one voxel; an array [i] where it differs from plane to plane.
        structures: the labels and their names.
        valid_mask: False where the voxel is padding and has no value; None if there is no padding.
        edges: from `find_edges` of the same arrays; looked for if None.

    Raises:
        ValueError: shapes differ, or a label is not in `structures`.
    """
    shapes = {array.shape for array in (volume, labels, valid_mask) if array is not None}
    if len(shapes) != 1:
        raise ValueError(f"measure: expected arrays of one shape, got {sorted(shapes)}")
    low = int(volume.min())
    voxels, table = _count(volume, labels, valid_mask, low, int(volume.max()) - low + 1)
    unknown = set(np.flatnonzero(voxels[1:]) + 1) - {s.label for s in structures}
    if unknown:
        raise ValueError(f"measure: labels {sorted(map(int, unknown))} are in no structure")
    edges = find_edges(labels, valid_mask) if edges is None else edges
    cut = edges.ends | edges.sides
    volumes = _volumes(labels, voxels, voxel_volume_mm3)
    return tuple(
        _measurement(
            structure,
            int(voxels[structure.label]),
            float(volumes[structure.label]),
            table[structure.label],
            low,
            structure.label in cut,
        )
        for structure in structures
        if voxels[structure.label]
    )


def _count(
    volume: NDArray[np.int16],
    labels: NDArray[np.uint8],
    valid: NDArray[np.bool_] | None,
    low: int,
    width: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the voxels of each label, and the table [label, value - low] of the valid ones."""
    voxels = np.zeros(LABELS, dtype=np.int64)
    table = np.zeros(LABELS * width, dtype=np.int64)
    planes = max(1, CHUNK_VOXELS // max(1, labels[0].size))
    for start in range(0, len(labels), planes):
        part = slice(start, start + planes)
        found = labels[part] > 0
        voxels += np.bincount(labels[part][found], minlength=LABELS)
        if valid is not None:
            found &= valid[part]
        # From the lowest value on, so that the sum stays positive; int64, since int16 would wrap.
        key = labels[part][found].astype(np.int64) * width
        key += volume[part][found]
        key -= low
        table += np.bincount(key, minlength=table.size)
    return voxels, table.reshape(LABELS, width)


def _volumes(
    labels: NDArray[np.uint8],
    voxels: NDArray[np.int64],
    voxel_volume_mm3: float | NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return mm3 by label."""
    each = np.asarray(voxel_volume_mm3, dtype=np.float64)
    if each.ndim == 0 or (each == each[0]).all():
        return voxels.astype(np.float64) * float(each.flat[0])
    if each.shape != labels.shape[:1]:
        raise ValueError(f"measure: {each.size} voxel volumes for {len(labels)} planes")
    total = np.zeros(LABELS)
    for plane, volume in zip(labels, each, strict=True):
        total += np.bincount(plane.ravel(), minlength=LABELS) * volume
    return total


def _measurement(
    structure: Structure,
    voxels: int,
    volume_mm3: float,
    counts: NDArray[np.int64],
    low: int,
    touches_border: bool,
) -> Measurement:
    mean, sd, median = _statistics(counts, low)
    return Measurement(
        label=structure.label,
        name=structure.name,
        voxels=voxels,
        volume_ml=volume_mm3 / 1000,
        mean=mean,
        sd=sd,
        median=median,
        touches_border=touches_border,
    )


def _statistics(counts: NDArray[np.int64], low: int) -> tuple[float | None, ...]:
    """Return mean, standard deviation and median of a histogram that begins at `low`."""
    number = int(counts.sum())
    if number == 0:
        return None, None, None
    levels = np.flatnonzero(counts)
    weights = counts[levels].astype(np.float64)
    mean = float(levels @ weights) / number
    variance = float((levels - mean) ** 2 @ weights) / number
    reached = np.cumsum(counts[levels])
    middle = (levels[np.searchsorted(reached, rank, side="right")] for rank in _middle(number))
    return mean + low, variance**0.5, sum(map(float, middle)) / 2 + low


def _middle(number: int) -> tuple[int, int]:
    """Return the ranks, from 0, of the one or two middle ones of `number` sorted values."""
    return (number - 1) // 2, number // 2


def find_edges(labels: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> Edges:
    """Return the labels that the field of view cuts; arguments as of `measure`.

    Those that reach a face of the array, lie in padding or beside it.
    """
    ends = np.zeros(LABELS, dtype=bool)
    sides = np.zeros(LABELS, dtype=bool)
    for axis in range(labels.ndim):
        for face in (0, -1):
            (sides if axis else ends)[labels.take(face, axis=axis)] = True
    if valid is not None and not valid.all():
        sides[labels[~valid]] = True
        for axis in range(labels.ndim):
            along, inside = np.moveaxis(labels, axis, 0), np.moveaxis(valid, axis, 0)
            step = inside[1:] != inside[:-1]
            sides[along[1:][step]] = True
            sides[along[:-1][step]] = True
    return Edges(ends=_labels(ends), sides=_labels(sides))


def _labels(present: NDArray[np.bool_]) -> frozenset[int]:
    return frozenset(np.flatnonzero(present).tolist()) - {0}
