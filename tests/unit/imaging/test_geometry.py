"""The order and the affine of a stack come from positions and cosines, or the stack is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.errors import Refusal
from dicomnode.imaging.geometry import has_duplicates, stack_geometry

AXIAL = np.array([1.0, 0, 0, 0, 1, 0])
PIXELS = (0.8, 0.7)


def stack(depths: list[float], orientation: NDArray[np.float64] = AXIAL) -> NDArray[np.float64]:
    normal = np.cross(orientation[:3], orientation[3:])
    return np.array([10.0, -20, 30]) + np.outer(depths, normal)


def refused(positions: NDArray[np.float64], orientation: NDArray[np.float64] = AXIAL) -> str:
    with pytest.raises(Refusal) as caught:
        stack_geometry(positions, orientation, PIXELS)
    return caught.value.code


def test_a_regular_stack_gets_its_order_and_affine() -> None:
    geometry = stack_geometry(stack([6.0, 0, 3, 9]), AXIAL, PIXELS)

    assert geometry.order.tolist() == [1, 2, 0, 3]
    expected = [[0, 0, 0.7, 10], [0, 0.8, 0, -20], [3, 0, 0, 30], [0, 0, 0, 1]]
    assert np.allclose(geometry.affine, expected)


def test_the_row_index_runs_along_the_column_cosine_with_the_first_pixel_spacing() -> None:
    sagittal = np.array([0, 1, 0, 0, 0, -1.0])
    geometry = stack_geometry(stack([0, 2, 4, 6], sagittal), sagittal, PIXELS)

    per_slice, per_row, per_column = geometry.affine[:3, :3].T
    assert np.allclose(per_row, [0, 0, -0.8])
    assert np.allclose(per_column, [0, 0.7, 0])
    assert np.allclose(per_slice, [-2, 0, 0])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_stack_taken_downwards_is_ordered_along_the_normal(sign: int) -> None:
    depths = [sign * 2.5 * index for index in range(8)]
    geometry = stack_geometry(stack(depths), AXIAL, PIXELS)

    assert geometry.affine[2, 0] == pytest.approx(2.5)
    assert geometry.affine[2, 3] == pytest.approx(30 + min(depths))


def test_jitter_and_rounding_of_positions_are_tolerated() -> None:
    generator = np.random.default_rng(1)
    jitter = generator.uniform(-0.02, 0.02, 200)
    assert len(stack_geometry(stack((np.arange(200) * 1.5 + jitter).tolist()), AXIAL, PIXELS).order)
    rounded = np.round(np.arange(200) * 0.625, 1)
    assert len(stack_geometry(stack(rounded.tolist()), AXIAL, PIXELS).order)


def test_too_few_slices() -> None:
    assert refused(stack([0, 1, 2])) == "TOO_FEW_SLICES"


def irregular(positions: np.ndarray) -> str:
    """Return what is said of a stack that has to be resampled; empty where it is regular."""
    return " ".join(stack_geometry(positions, AXIAL, PIXELS).irregular)


def test_gaps_that_are_too_wide_are_refused() -> None:
    depths = [4.0 * index for index in range(20) if index not in (7, 12, 13)]
    with pytest.raises(Refusal, match="1 gaps between slices are wider than 10 mm") as caught:
        stack_geometry(stack(depths), AXIAL, PIXELS)
    assert caught.value.code == "MISSING_SLICE"


def test_missing_slices_and_uneven_spacing_are_said() -> None:
    missing = [2.0 * index for index in range(20) if index not in (7, 12, 13)]
    assert "range from 2 to 6 mm" in irregular(stack(missing))
    assert "range from 2 to 3 mm" in irregular(stack([0, 2, 4, 6, 9, 12, 15]))
    assert "range from 2 to 2.3 mm" in irregular(stack([0, 2, 4, 6.3, 8.3, 10.3]))
    assert irregular(stack([0, 2, 4, 6, 8])) == ""


def test_wide_and_even_spacing_is_regular() -> None:
    assert irregular(stack([0, 15, 30, 45])) == ""


def test_two_slices_at_one_position() -> None:
    assert refused(stack([0, 1, 1.001, 2, 3])) == "DUPLICATE_POSITIONS"
    assert has_duplicates(stack([0, 1, 1.001, 2]), AXIAL)
    assert not has_duplicates(stack([0, 1, 1.1, 2]), AXIAL)


@pytest.mark.parametrize("degrees", [0.5, 5, 18])
def test_gantry_tilt(degrees: float) -> None:
    depths = np.arange(30) * 3.0
    tilted = stack(depths.tolist())
    tilted[:, 1] += depths * np.tan(np.radians(degrees))
    assert f"tilted by {degrees:.1f} degrees" in irregular(tilted)


def test_more_than_any_gantry_tilts_is_refused() -> None:
    depths = np.arange(30) * 3.0
    tilted = stack(depths.tolist())
    tilted[:, 1] += depths * np.tan(np.radians(40))
    assert refused(tilted) == "GANTRY_TILT"


def test_a_shift_in_plane_halfway_is_no_regular_stack() -> None:
    shifted = stack([0, 1, 2, 3, 4, 5])
    shifted[3:, 0] += 2.5
    assert refused(shifted) == "GANTRY_TILT"


def test_cosines_with_rounding_errors_give_orthogonal_axes() -> None:
    rough = np.array([0.99999, 0.0005, 0, -0.0005, 1.00001, 0.0])
    affine = stack_geometry(stack([0, 1, 2, 3], rough), rough, PIXELS).affine
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    assert np.abs(axes.T @ axes - np.eye(3)).max() < 1e-9
