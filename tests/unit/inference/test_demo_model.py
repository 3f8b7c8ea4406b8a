"""The bundled demonstration model finds what its card says, on a grid that is not its own.

The card's figures are of whole bodies at 6 mm; here is one slab of a held-out body, so half is
asked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.catalog import load_catalog
from inference.nnunet import NnunetPredictor
from inference.phantom import Body
from inference.pipeline import segment

HELD_OUT_SEED = 3
LARGE_ML = 20.0


def lps_slab() -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """A grid [slice, row, column] as a CT has it: rows to posterior, columns to the left."""
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, -5.0], [0, -5.0, 0], [8.0, 0, 0]]
    affine[:3, 3] = (200.0, 170.0, -60.0)
    return (46, 58, 80), affine


def test_large_structures_are_found_where_they_are() -> None:
    card = load_catalog().card("demo")
    assert card.demonstration
    shape, affine = lps_slab()
    volume, truth = Body(HELD_OUT_SEED).render(shape, affine)
    labels = segment(volume, affine, card, NnunetPredictor(card, threads=2))
    voxel_ml = float(abs(np.linalg.det(affine[:3, :3]))) / 1000
    sizes = np.bincount(truth.ravel(), minlength=105) * voxel_ml
    large = [label for label in range(1, 105) if sizes[label] > LARGE_ML]
    assert len(large) > 20
    dice = [
        2
        * ((labels == label) & (truth == label)).sum()
        / ((labels == label).sum() + (truth == label).sum())
        for label in large
    ]
    assert np.mean(dice) > card.figures["dice_above_20_ml"] / 2
