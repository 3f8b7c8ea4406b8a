"""Contours give their mask back, however they are filled, holes and islands in holes included."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.draw import polygon2mask

from dicomnode.results.contours import Points, slice_contours


def united(shape: tuple[int, int], contours: list[Points]) -> NDArray[np.bool_]:
    """Voxel centres within any of the polygons."""
    mask = np.zeros(shape, np.bool_)
    for points in contours:
        mask |= polygon2mask(shape, points)
    return mask


def by_difference(shape: tuple[int, int], contours: list[Points]) -> NDArray[np.bool_]:
    """Voxel centres within an odd number of polygons, as many readers have it."""
    mask = np.zeros(shape, np.bool_)
    for points in contours:
        mask ^= polygon2mask(shape, points)
    return mask


def by_rounding(shape: tuple[int, int], contours: list[Points]) -> NDArray[np.bool_]:
    """Voxels within or on polygons whose vertices are rounded to voxels, as others have it."""
    mask = np.zeros(shape, np.bool_)
    for points in contours:
        image = Image.new("1", shape[::-1])
        vertices = [(int(column), int(row)) for row, column in np.rint(points)]
        ImageDraw.Draw(image).polygon(vertices, fill=1, outline=1)
        mask |= np.asarray(image)
    return mask


def smooth(seed: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    noise = np.random.default_rng(seed).random(shape)
    return np.asarray(ndimage.gaussian_filter(noise, 1.2) > 0.5)


def rough(seed: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    generator = np.random.default_rng(seed)
    return np.asarray(generator.random(shape) < generator.choice([0.2, 0.5, 0.8, 0.95]))


@pytest.mark.parametrize("fill", [united, by_difference])
@pytest.mark.parametrize("make", [smooth, rough])
def test_any_mask_comes_back(make: object, fill: object) -> None:
    for seed in range(60):
        shape = tuple(np.random.default_rng(seed).integers(1, 40, 2).tolist())
        mask = make(seed, shape)  # type: ignore[operator]
        found = dict(slice_contours(mask.astype(np.uint8) * 7))
        assert set(found) == ({7} if mask.any() else set())
        if mask.any():
            assert np.array_equal(fill(shape, found[7]), mask), seed  # type: ignore[operator]


def nested() -> NDArray[np.uint8]:
    """A ring with an island in its hole, two more holes, and a structure at the image's edge."""
    labels = np.zeros((40, 50), np.uint8)
    labels[5:35, 5:40] = 3
    labels[10:30, 10:25] = 0
    labels[15:25, 14:20] = 3
    labels[18:20, 16:18] = 5
    labels[12:15, 30:34] = 5
    labels[12:15, 35:37] = 0
    labels[:, 45:] = 9
    return labels


@pytest.mark.parametrize("fill", [united, by_difference, by_rounding])
def test_holes_islands_and_edges(fill: object) -> None:
    labels = nested()
    found = dict(slice_contours(labels))
    assert list(found) == [3, 5, 9]
    for label, contours in found.items():
        assert np.array_equal(fill(labels.shape, contours), labels == label), label  # type: ignore[operator]
    assert len(found[3]) == 2, "the ring with its holes is one polygon, the island another"


def test_straight_ways_have_no_vertices_between() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[5:25, 5:25] = 1
    ((_, (points,)),) = slice_contours(mask)
    assert len(points) == 8
    assert points.min() == pytest.approx(4.53)
    assert points.max() == pytest.approx(24.47)
