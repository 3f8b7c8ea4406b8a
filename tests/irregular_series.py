"""Tilted and unevenly spaced stacks of three markers in a body."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom

from dicomnode.demo.series import SeriesOptions, write_series
from inference.phantom.markers import Marker, render_markers

MODEL_MM = 1.5
SHAPE = (84, 92, 44)  # rows x columns a multiple of 16, else OHIF reads no bits that are padded
SPACING = np.array([1.4, 1.5, 2.5])
HU = 1000
MARKERS = (
    Marker(centre=(18.0, 5.0, -14.0), half_axes=(10.0, 7.0, 8.0), label=3, hu=HU),
    Marker(centre=(-14.0, 16.0, 9.0), half_axes=(7.0, 9.0, 7.0), label=5, hu=HU),
    Marker(centre=(4.0, -20.0, 22.0), half_axes=(8.0, 7.0, 9.0), label=90, hu=HU),
)
BODY = Marker(centre=(0.0, 0.0, 0.0), half_axes=(45.0, 52.0, 60.0), label=0, hu=0)
ALL = list(range(SHAPE[2]))
CASES = {
    "tilted by 18 degrees": (18.0, ALL, False),
    "tilted the other way, towards the feet": (-12.0, ALL, True),
    "slices missing": (0.0, [k for k in ALL if k not in (9, 20, 21, 33)], False),
    "tilted and uneven": (14.0, [k for k in ALL if k % 5 != 2], True),
}


def irregular_series(tilt_degrees: float, kept: list[int], *, down: bool = False) -> list[bytes]:
    """A stack whose every slice is rendered at the very place that its header says."""
    affine = np.diag([*(np.array([-1, -1, -1 if down else 1]) * SPACING), 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(SHAPE) - 1) / 2
    # write_series shifts slice k along a column, which runs to the back: -y.
    shift = np.array([0.0, -1.0, 0.0]) * np.tan(np.radians(tilt_degrees)) * SPACING[2]
    affine[:3, 3] -= shift * (SHAPE[2] - 1) / 2
    hu = np.empty(SHAPE, np.int16)
    for k in range(SHAPE[2]):
        own = affine.copy()
        own[:3, 3] += k * (affine[:3, 2] + shift)
        hu[:, :, k] = render_markers((*SHAPE[:2], 1), own, MARKERS, body=BODY)[0][:, :, 0]
    files = write_series(hu, affine, SeriesOptions(seed=4, tilt_degrees=tilt_degrees))
    return [data for data in files if _number(data) - 1 in kept]


def _number(data: bytes) -> int:
    return int(pydicom.dcmread(BytesIO(data), stop_before_pixels=True).InstanceNumber)
