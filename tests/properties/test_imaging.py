"""What holds for every series: voxels keep their place, order means nothing, damage is refused."""

from __future__ import annotations

import random

import numpy as np
from analysis_kit import ConstantPredictor, model_card, plan
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.errors import Refusal
from dicomnode.imaging import read_scan
from dicomnode.imaging.geometry import MAX_GAP_MM, stack_geometry
from dicomnode.pipeline import analyze
from dicomnode.scan import RAS_FROM_LPS

SHAPE = (5, 4, 6)
HU = (np.arange(np.prod(SHAPE)).reshape(SHAPE) * 7 - 1000).astype(np.int16)
BOX = {5: (slice(1, 3), slice(1, 3), slice(1, 3))}
FILES = write_series(HU, np.diag([-1.0, -1.0, 2.0, 1.0]))

angles = st.floats(-180, 180)
lengths = st.floats(0.3, 10)
places = st.floats(-1000, 1000)


@st.composite
def affines(draw: st.DrawFn) -> NDArray[np.float64]:
    """Rotations, axis permutations and reflections, with three spacings."""
    rotation = np.eye(3)
    for axis in range(3):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        angle = np.radians(draw(angles))
        turn = np.eye(3)
        turn[[one, other], [one, other]] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([draw(st.sampled_from([1, -1])), 1, 1])
    affine[:3, :3] *= [draw(lengths) for _ in range(3)]
    affine[:3, 3] = [draw(places) for _ in range(3)]
    return affine


@given(affine=affines(), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_every_voxel_keeps_its_place_in_the_patient(affine: NDArray[np.float64], seed: int) -> None:
    scan = read_scan(write_series(HU, affine, SeriesOptions(seed=seed)))

    i, j, k = np.indices(SHAPE).reshape(3, -1)
    world = affine @ np.stack([i, j, k, np.ones_like(i)])
    index = np.linalg.inv(RAS_FROM_LPS @ scan.affine) @ world
    nearest = index[:3].round().astype(int)
    # Positions are written with 16 characters.
    assert np.abs(index[:3] - nearest).max() < 1e-3
    assert np.array_equal(scan.volume[tuple(nearest)], HU[i, j, k])


@given(order=st.permutations(range(len(FILES))), jitter=st.floats(0, 0.05), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_files_means_nothing(order: list[int], jitter: float, seed: int) -> None:
    files = write_series(HU, np.eye(4) * [1, 1, 2, 1], SeriesOptions(seed=seed, jitter_mm=jitter))
    assert read_scan([files[index] for index in order]).digest == read_scan(files).digest


@given(st.lists(st.floats(-500, 500), min_size=4, max_size=40))
@example([0.0, 0.0, 0.0, 0.0])
@settings(deadline=None)
def test_any_positions_are_a_stack_or_refused(depths: list[float]) -> None:
    positions = np.outer(depths, [0, 0, 1.0])
    try:
        geometry = stack_geometry(positions, np.array([1.0, 0, 0, 0, 1, 0]), (1.0, 1.0))
    except Refusal:
        return
    spacing = geometry.affine[2, 0]
    if geometry.irregular:
        assert np.diff(np.sort(depths)).max() <= MAX_GAP_MM
        return
    grid = geometry.affine[2, 3] + spacing * np.arange(len(depths))
    assert spacing > 0
    assert np.abs(np.sort(depths) - grid).max() <= max(0.01 * spacing, 0.11)


@given(st.integers(0, 5), st.randoms(use_true_random=False), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_damaged_files_are_analysed_or_refused_and_nothing_else(
    which: int, generator: random.Random, changes: int
) -> None:
    data = bytearray(FILES[which])
    for _ in range(changes):
        data[generator.randrange(100, len(data))] = generator.randrange(256)
    if generator.random() < 0.3:
        del data[generator.randrange(len(data)) :]
    try:
        files = [*FILES[:which], bytes(data), *FILES[which + 1 :]]
        analysis = analyze(files, plan(), predictor=ConstantPredictor(BOX), card=model_card())
    except Refusal as refusal:
        assert refusal.code.isupper()
        return
    # Where a position is damaged, the stack is resampled, and the box may lie beside its slices.
    assert [item.kind for item in analysis.results] in (["seg", "sr"], ["sr"])
