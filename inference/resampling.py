"""From the source grid to the model's and back, both corner-aligned as scipy.ndimage.zoom does it.

`zoom_in` and `zoom_back` are the quick way: zooming in is linear in the samples, so it is three
matrix products; zooming labels back is three look-ups. Both tables come from SciPy itself, one axis
at a time, so they agree with it everywhere but in one place: where SciPy computes the last
coordinate a rounding error beyond the last sample, it writes 0 over a whole border plane (about 3
in 100 pairs of lengths). Here that plane is the last sample, as it should be. `zoom_in_as_scipy`
and `zoom_back_as_scipy` are SciPy with all that, for labels that equal those of a package which
calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

ROUNDING = 1e-6
"""HU. A value this near below an integer is that integer: air at -1000 must not become -999 by
the last bit of a sum, nor differ between machines."""

PLANES_AT_ONCE = 16

Border = Literal["constant", "nearest"]
"""What SciPy takes for a sample outside: 0, or the last one."""


def zoomed_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float]
) -> tuple[int, ...]:
    """Return the shape after zooming: length times spacing over target, rounded half to even.

    An axis keeps at least one sample.
    """
    return tuple(
        max(1, round(length * (spacing / target)))
        for length, spacing, target in zip(shape, spacing_mm, target_mm, strict=True)
    )


def zoom_in(
    volume: NDArray[np.int16],
    spacing_mm: Sequence[float],
    target_mm: Sequence[float],
    order: int = 3,
) -> NDArray[np.int32]:
    """Resample `volume` [i, j, k] from `spacing_mm` to `target_mm` (both along i, j, k).

    Spline of `order`, corner-aligned, in double precision, truncated towards zero to int32. The
    volume is read a few planes at a time, so a view with any strides costs no copy of it.
    """
    shape = zoomed_shape(volume.shape, spacing_mm, target_mm)
    axes = tuple(int(axis) for axis in np.argsort(np.abs(volume.strides), kind="stable")[::-1])
    outer, rows, columns = (spline_matrix(volume.shape[axis], shape[axis], order) for axis in axes)
    planes = volume.transpose(axes)
    reduced = np.empty((len(planes), len(columns), len(rows)))
    for start in range(0, len(planes), PLANES_AT_ONCE):
        part = slice(start, start + PLANES_AT_ONCE)
        samples = planes[part].astype(np.float64, order="C")
        reduced[part] = _times(_times(samples, columns).swapaxes(1, 2), rows)
    zoomed = outer @ reduced.reshape(len(planes), -1)
    zoomed += np.copysign(ROUNDING, zoomed)
    result = zoomed.astype(np.int32).reshape(-1, len(columns), len(rows)).swapaxes(1, 2)
    return result.transpose(np.argsort(axes))


def zoom_back(labels: NDArray[np.uint8], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Resample `labels` [i, j, k] to `shape` by nearest neighbour, corner-aligned."""
    # The fastest axis first, while the array is small: the last look-up then copies whole planes.
    for axis in reversed(range(3)):
        table = nearest_table(labels.shape[axis], shape[axis])
        labels = labels.take(table, axis=axis)
    return labels


def zoom_in_as_scipy(
    volume: NDArray[np.int16],
    spacing_mm: Sequence[float],
    target_mm: Sequence[float],
    order: int,
    border: Border,
) -> NDArray[np.int32]:
    """Resample as TotalSegmentator's `change_spacing` does: by SciPy, truncated towards zero.

    Nothing is done where all spacings are the target's. Needs the volume once in double precision.
    """
    if tuple(spacing_mm) == tuple(target_mm):
        return volume.astype(np.int32)
    factors = [spacing / target for spacing, target in zip(spacing_mm, target_mm, strict=True)]
    samples = volume.astype(np.float64)
    filtered = order > 1 and border == "constant"
    if filtered:  # in place; SciPy itself would make a copy, and another one for `nearest`
        ndimage.spline_filter(samples, order, output=samples, mode=border)
    zoomed: NDArray[np.float64] = ndimage.zoom(
        samples, factors, order=order, mode=border, prefilter=not filtered
    )
    return zoomed.astype(np.int32)


def zoom_back_as_scipy(
    labels: NDArray[np.uint8], shape: Sequence[int], border: Border
) -> NDArray[np.uint8]:
    """Resample `labels` [i, j, k] to `shape` by nearest neighbour, by SciPy itself."""
    factors = np.array(shape) / labels.shape
    zoomed: NDArray[np.uint8] = ndimage.zoom(labels, factors, order=0, mode=border)
    return zoomed


@lru_cache(maxsize=16)
def spline_matrix(length: int, target: int, order: int) -> NDArray[np.float64]:
    """Return the matrix [target, length] that zooms one axis, prefilter included."""
    unit = np.eye(length)
    columns = [ndimage.zoom(sample, target / length, order=order) for sample in unit]
    matrix: NDArray[np.float64] = np.stack(columns, axis=1)
    # The weights of a sample sum to 1; a row of zeros is a coordinate that SciPy put outside.
    outside = np.abs(matrix.sum(axis=1) - 1) > 0.5
    matrix[outside] = unit[-1]
    return _frozen(matrix)


@lru_cache(maxsize=16)
def nearest_table(length: int, target: int) -> NDArray[np.intp]:
    """Return for every index of the target grid the nearest index of `length`, SciPy's choice."""
    numbers = np.arange(1, length + 1, dtype=np.int32)
    picked = ndimage.zoom(numbers, target / length, order=0)
    return _frozen(np.where(picked == 0, length, picked).astype(np.intp) - 1)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False  # cached: shared by all callers
    return array


def _times(samples: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [a, b, n] times [m, n] -> [a, b, m], as one large product.

    A product for each of a ends with the threads waiting for one another: on a busy machine that
    took ten times as long.
    """
    a, b, n = samples.shape
    return (samples.reshape(a * b, n) @ matrix.T).reshape(a, b, -1)
