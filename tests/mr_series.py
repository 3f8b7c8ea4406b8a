"""An MR series as a modality sends it, and a tiny model of MR images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import MRImageStorage
from tiny_nnunet import write_model

from dicomnode.demo.series import RESCALE_INTERCEPT, SeriesOptions, write_series

AFFINE = np.diag([-4.0, -4.0, 5.0, 1.0])
AFFINE[:3, 3] = [60.0, 70.0, -40.0]
HEADER: dict[str, object] = {
    "SOPClassUID": MRImageStorage,
    "Modality": "MR",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    "RescaleIntercept": None,
    "RescaleSlope": None,
    "RescaleType": None,
    "KVP": None,
    "ConvolutionKernel": None,
    "ScanningSequence": "GR",
    "SequenceVariant": "SP",
    "ScanOptions": "",
    "MRAcquisitionType": "3D",
    "EchoTime": "2.5",
    "RepetitionTime": "1800",
    "EchoTrainLength": 1,
    "MagneticFieldStrength": "3",
}


def signal(shape: tuple[int, int, int] = (30, 34, 18)) -> NDArray[np.int16]:
    """Return [i, j, k]: a bright body with darker parts, in nothing at all."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    radius = np.linalg.norm(grid, axis=0)
    noise = np.random.default_rng(5).normal(0, 60, shape)
    values = np.where(radius < 0.85, 700 + 500 * np.sin(5 * grid[0]) * grid[1] + noise, 0)
    return np.rint(values.clip(0, 4095)).astype(np.int16)


def mr_series(values: NDArray[np.int16], **changes: object) -> list[bytes]:
    """Return the files of an MR series; `changes` are attributes by keyword, None removes one."""
    options = SeriesOptions(series_description="t1 gre", extra=HEADER | changes)
    stored_as_given = (values + RESCALE_INTERCEPT).astype(np.int16)
    return write_series(stored_as_given, AFFINE, options)


def write_mr_model(models: Path, **changes: Any) -> None:
    """Write the card and the random network of a model that takes MR; `changes` are keys of it."""
    write_model(
        models,
        model_id="tiny-mr",
        scheme="zscore",
        masked=True,
        modality="MR",
        code_table="total_v1_104",
        **changes,
    )
