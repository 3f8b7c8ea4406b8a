"""Normalisation by nnU-Net's schemes, against nnunetv2's own classes and its own preprocessing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.normalization import default_normalization_schemes as theirs
from numpy.typing import NDArray

from inference.card import Scheme
from inference.normalisation import (
    SCHEMES,
    Intensities,
    nonzero_box,
    normalisation_of,
    normalise,
)

PROPERTIES = {"mean": 31.7, "std": 99.1, "percentile_00_5": -812.3, "percentile_99_5": 611.9}
SCHEME_NAMES: list[Scheme] = ["CT", "zscore", "nonorm", "rescale_to_0_1"]


def signal(shape: tuple[int, int, int] = (21, 30, 26)) -> NDArray[np.float32]:
    """Return values as of MR: a bright body with a dark hole, zeros around it, rounded."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    radius = np.linalg.norm(grid, axis=0)
    random = np.random.default_rng(3)
    values = np.where(radius < 0.8, 900 + 250 * random.standard_normal(shape), 0)
    values[(radius > 0.2) & (radius < 0.3)] = 0
    return np.rint(values).astype(np.float32)


def nnunets(
    scheme: Scheme, image: NDArray[np.float32], *, masked: bool
) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """Return what nnunetv2 makes of an image: cropped, normalised; and its box."""
    data, seg, box = crop_to_nonzero(image[None].copy())
    kind: Any = getattr(theirs, SCHEMES[scheme])
    found = kind(use_mask_for_norm=masked, intensityproperties=PROPERTIES).run(data[0], seg[0])
    return found, tuple(slice(*(int(end) for end in pair)) for pair in box)


@pytest.mark.parametrize("scheme", SCHEME_NAMES)
@pytest.mark.parametrize("masked", [False, True])
def test_every_scheme_is_nnunets(scheme: Scheme, masked: bool) -> None:
    image = signal()
    expected, box = nnunets(scheme, image, masked=masked)
    tensor = torch.from_numpy(image.copy())
    assert nonzero_box(tensor) == box
    found = normalise(tensor[box], normalisation_of(scheme, PROPERTIES, masked=masked))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(tensor.numpy(), image)


def test_the_mask_matters_and_its_holes_belong_to_the_body() -> None:
    image = torch.from_numpy(signal())
    plain, masked = (
        normalise(image, normalisation_of("zscore", {}, masked=masked)) for masked in (False, True)
    )
    assert masked[0, 0, 0] == 0
    assert plain[0, 0, 0] < -0.5
    assert float(masked[image > 0].mean()) > 0
    middle = masked[10, 15, 13]
    assert middle != 0
    hole = (image == 0) & (masked != 0)
    assert hole.any()


@pytest.mark.parametrize("scheme", SCHEME_NAMES)
@pytest.mark.parametrize("masked", [False, True])
def test_an_image_of_one_value_stays_finite(scheme: Scheme, masked: bool) -> None:
    for value in (0.0, 5.0):
        image = torch.full((4, 5, 6), value)
        by = normalisation_of(scheme, PROPERTIES, masked=masked)
        assert torch.isfinite(normalise(image, by)).all()


def test_large_values_keep_their_precision() -> None:
    """Sums of squares of 16-bit values: in single precision they would be off."""
    image = (30000 + signal((40, 64, 64))).astype(np.float32)
    found = normalise(torch.from_numpy(image), normalisation_of("zscore", {}, masked=False))
    exact = (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)
    np.testing.assert_allclose(found.numpy(), exact, atol=1e-5)


def test_ct_needs_its_numbers() -> None:
    assert normalisation_of("CT", PROPERTIES, masked=True) == Intensities(
        lower=-812.3, upper=611.9, mean=31.7, sd=99.1
    )
    with pytest.raises(KeyError):
        normalisation_of("CT", {}, masked=False)
