"""What the tests of the analysis share.

A model card without files, predictors that need no network, the test data, and dcmqi as an
independent reader of Segmentations.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.domain.plans import Plan
from inference.catalog import ModelCard, read_structures

REPOSITORY = Path(__file__).resolve().parents[1]
VENV_BIN = Path(sys.executable).parent
STRUCTURES = read_structures(REPOSITORY / "inference/models/structures/total_v1_104.csv")
UPRIGHT_MM = 20.0
"""A patient 33 degrees oblique to the array moves markers by less, a mirrored one by more."""
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def files_below(folder: Path) -> list[bytes]:
    """Return the contents of all DICOM files in `folder`."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path.read_bytes() for path in paths if path.name != "LICENSE"]


def model_card(
    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 1.5), *, demonstration: bool = False
) -> ModelCard:
    """Return the card of a model that has no files: its predictor is given."""
    return ModelCard(
        id="test-model",
        title="Model of the tests",
        version="1.0",
        family="test",
        task="none",
        structures=STRUCTURES,
        parts=(),
        spacing_mm=spacing_mm,
        orientation="RAS",
        step_size=0.5,
        zoom_order=3,
        demonstration=demonstration,
        code_table="total_v1_104",
        licence="none",
        citation="none",
        intended_use="tests",
        limits=(),
        figures={},
        root=REPOSITORY,
    )


def plan(**changes: object) -> Plan:
    """Return a plan for `model_card`; a preview takes a second and is made only if asked for."""
    values: dict[str, object] = {
        "job_id": "1",
        "model_id": "test-model",
        "analysed_at": NOW,
        "objects": ("seg", "sr"),
    }
    return Plan(**{**values, **changes})  # type: ignore[arg-type]


class MarkerPredictor:
    """Recognises markers by where they lie to each other, as a network recognises organs.

    A patient who lies mirrored or upside down in the array it is given is an error: a network
    would find wrong organs there without a word.
    """

    def __init__(
        self, centres_mm: Mapping[int, tuple[float, float, float]], hu: int, spacing_mm: float
    ) -> None:
        """Take the markers' centres (RAS+ mm) by label and their common HU."""
        self._labels = list(centres_mm)
        centres = np.array([centres_mm[label] for label in self._labels])
        self._offsets = centres - centres.mean(axis=0)
        self._hu, self._spacing = hu, spacing_mm

    def predict(
        self, image: NDArray[np.float32], progress: object = None, options: object = None
    ) -> NDArray[np.uint8]:
        """Return labels [z, y, x]: everything denser than half of a marker's HU belongs to it."""
        parts, count = ndimage.label(image > self._hu / 2)
        assert count == len(self._labels)
        found = np.array(ndimage.center_of_mass(parts > 0, parts, range(1, count + 1)))
        found = found[:, ::-1] * self._spacing  # x to the right, y to anterior, z to superior
        found -= found.mean(axis=0)
        orders = [list(order) for order in permutations(range(count))]
        best = min(orders, key=lambda order: _misfit(found, self._offsets[order]))
        if _misfit(found, self._offsets[best]) > UPRIGHT_MM:
            raise MirroredPatientError
        table = np.array([0, *(self._labels[index] for index in best)], np.uint8)
        return table[parts]


class MirroredPatientError(AssertionError):
    """The array does not run to the right, to anterior and to superior."""


def _misfit(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found - expected, axis=1).max())


class ConstantPredictor:
    """Finds nothing at all, or the same box of labels whatever the image."""

    def __init__(self, box: Mapping[int, tuple[slice, slice, slice]] | None = None) -> None:
        self._box = dict(box or {})

    def predict(
        self, image: NDArray[np.float32], progress: object = None, options: object = None
    ) -> NDArray[np.uint8]:
        """Return labels [z, y, x]."""
        labels = np.zeros(image.shape, np.uint8)
        for label, box in self._box.items():
            labels[box] = label
        return labels


def read_with_dcmqi(seg: bytes, folder: Path, *options: str) -> dict[int, nibabel.Nifti1Image]:
    """Return the segments of a Segmentation by number as NIfTI images, read by dcmqi.

    With the option `--mergeSegments` it is one image, number 1, of Segment Numbers.
    """
    source, out = folder / "seg.dcm", folder / "out"
    out.mkdir()
    source.write_bytes(seg)
    program = VENV_BIN / "segimage2itkimage"
    command = [program, "-t", "nii", "-p", "s", "--inputDICOM", source, "--outputDirectory", out]
    command += options
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {
        int(path.name.removesuffix(".nii.gz").removeprefix("s-")): nibabel.load(path)
        for path in out.glob("s-*.nii.gz")
    }


def world_of(image: nibabel.Nifti1Image) -> NDArray[np.float64]:
    """Return the RAS+ millimetres [n, 3] of the non-zero voxels, by the file's own affine."""
    indices = np.argwhere(np.asarray(image.dataobj) != 0)
    return np.asarray(nibabel.affines.apply_affine(image.affine, indices))
