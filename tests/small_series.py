"""A small phantom series as a modality sends it."""

from __future__ import annotations

import numpy as np
from scu import Wire

from dicomnode.demo.series import SeriesOptions, write_series
from inference.phantom import Body


def phantom_series(seed: int) -> list[Wire]:
    """A small phantom series of 40 slices."""
    affine = np.diag([-3.2, -3.2, 12.0, 1.0])
    affine[:3, 3] = [204.8, 244.8, -240.0]
    hu, _ = Body(seed).render((128, 128, 40), affine)
    return [Wire.of_file(data) for data in write_series(hu, affine, SeriesOptions(seed=seed))]
