"""Zooming in and back against scipy.ndimage.zoom."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from inference.resampling import nearest_table, spline_matrix, zoom_back, zoom_in, zoomed_shape

# 42 samples from 8: SciPy computes the last coordinate as 7.000000000000001 and writes 0 there.
BEYOND = (8, 42)


def test_scipy_loses_a_border_plane_and_we_do_not() -> None:
    ones = np.full((BEYOND[0], 8, 8), 1000, np.int16)
    scipys = ndimage.zoom(ones.astype(float), (BEYOND[1] / BEYOND[0], 1, 1), order=3)
    assert not scipys[-1].any()
    zoomed = zoom_in(ones, (BEYOND[1], 1, 1), (BEYOND[0], 1, 1))
    assert zoomed.shape == scipys.shape
    assert (zoomed == 1000).all()
    labels = np.full((BEYOND[0], 8, 8), 7, np.uint8)
    assert not ndimage.zoom(labels, (BEYOND[1] / BEYOND[0], 1, 1), order=0)[-1].any()
    assert (zoom_back(labels, scipys.shape) == 7).all()


@pytest.mark.parametrize("value", [-1024, -1000, -2000, 0, 40, 3071])
def test_a_constant_image_stays_constant(value: int) -> None:
    zoomed = zoom_in(np.full((20, 33, 17), value, np.int16), (0.8, 0.8, 5.0), (1.5, 3.0, 1.5))
    assert zoomed.shape == (11, 9, 57)
    assert (zoomed == value).all()


def test_no_change_of_spacing_is_no_change() -> None:
    volume = np.random.default_rng(0).integers(-1024, 3071, (9, 10, 11), dtype=np.int16)
    np.testing.assert_array_equal(zoom_in(volume, (3, 3, 3), (3, 3, 3)), volume)
    labels = volume.astype(np.uint8)
    np.testing.assert_array_equal(zoom_back(labels, labels.shape), labels)


def test_overshoot_of_the_spline_is_kept() -> None:
    step = np.full((40, 4, 4), -32768, np.int16)
    step[20:] = 32767
    zoomed = zoom_in(step, (1, 1, 1), (0.7, 1, 1))
    assert zoomed.max() > 32767
    assert zoomed.min() < -32768


@pytest.mark.parametrize(
    ("shape", "spacing", "target", "expected"),
    [
        ((512, 512, 200), (0.8, 0.8, 2.0), (6, 6, 6), (68, 68, 67)),
        ((5, 5, 5), (3, 1.5, 0.5), (6, 6, 6), (2, 1, 1)),
        ((2, 2, 2), (0.1, 0.1, 0.1), (6, 6, 6), (1, 1, 1)),
    ],
)
def test_shape_is_rounded_half_to_even_and_never_empty(
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    target: tuple[float, ...],
    expected: tuple[int, ...],
) -> None:
    assert zoomed_shape(shape, spacing, target) == expected
    volume = np.zeros(shape if max(shape) < 100 else (2, 2, 2), np.int16)
    if volume.shape == shape:
        assert zoom_in(volume, spacing, target).shape == expected


def test_cached_tables_cannot_be_written() -> None:
    for table in (spline_matrix(5, 9, 3), nearest_table(5, 9)):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 0


def test_order_one_is_scipys() -> None:
    volume = np.random.default_rng(1).integers(-1000, 1000, (13, 14, 15), dtype=np.int16)
    expected = ndimage.zoom(volume.astype(float), (20 / 13, 7 / 14, 1), order=1)
    zoomed = zoom_in(volume, (20, 7, 1), (13, 14, 1), order=1)
    off = zoomed != np.trunc(expected).astype(np.int32)
    assert (np.abs(expected - np.rint(expected))[off] < 1e-6).all()
