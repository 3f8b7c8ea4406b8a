"""For any shape, spacing and layout: the resampling is SciPy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from inference.resampling import zoom_back, zoom_in, zoomed_shape

lengths = st.tuples(*[st.integers(2, 24)] * 3)
spacings = st.tuples(*[st.floats(0.4, 6.0)] * 3)
seeds = st.integers(0, 2**32 - 1)


def corner_reached(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[slice, ...]:
    """All but the last plane of the axes where SciPy puts that plane outside, and so to 0."""
    return tuple(
        slice(-1 if ndimage.zoom(np.ones(a), b / a, order=0)[-1] == 0 else None)
        for a, b in zip(source, target, strict=True)
    )


@settings(max_examples=80, deadline=None)
@given(shape=lengths, spacing=spacings, target=spacings, seed=seeds, axes=st.permutations(range(3)))
def test_zoom_in_is_scipys_truncated(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    target: tuple[float, float, float],
    seed: int,
    axes: list[int],
) -> None:
    rng = np.random.default_rng(seed)
    # Any memory order and direction: the plane-wise path depends on strides.
    volume = rng.integers(-1100, 3000, shape, dtype=np.int16).transpose(axes)[::-1, :, ::-1]
    new_shape = zoomed_shape(volume.shape, spacing, target)
    factors = [new / old for new, old in zip(new_shape, volume.shape, strict=True)]
    expected = ndimage.zoom(volume.astype(np.float64), factors, order=3)
    assert expected.shape == new_shape
    zoomed = zoom_in(volume, spacing, target)
    assert zoomed.dtype == np.int32
    compared = corner_reached(volume.shape, new_shape)
    difference = zoomed[compared] - np.trunc(expected[compared]).astype(np.int32)
    # Equal, but for values that are an integer up to rounding errors: there it is that integer.
    off = difference != 0
    near = expected[compared][off]
    assert (np.abs(near - np.rint(near)) < 2e-6).all()
    assert (zoomed[compared][off] == np.rint(near)).all()


@settings(max_examples=200, deadline=None)
@given(shape=lengths, target=lengths, seed=seeds, axes=st.permutations(range(3)))
def test_zoom_back_is_scipys_bit_for_bit(
    shape: tuple[int, int, int], target: tuple[int, int, int], seed: int, axes: list[int]
) -> None:
    labels = np.random.default_rng(seed).integers(1, 105, shape, dtype=np.uint8).transpose(axes)
    factors = [new / old for new, old in zip(target, labels.shape, strict=True)]
    restored = zoom_back(labels, target)
    assert restored.shape == target
    assert restored.dtype == np.uint8
    compared = corner_reached(labels.shape, target)
    np.testing.assert_array_equal(
        restored[compared], ndimage.zoom(labels, factors, order=0)[compared]
    )
    assert set(np.unique(restored)) <= set(np.unique(labels))
