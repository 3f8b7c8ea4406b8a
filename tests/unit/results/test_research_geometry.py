"""The NIfTI of labels lies on the images as other readers see them, however the series is turned.

The labels follow the images here: what is bright is one structure, what is brighter another. GDCM
reads the series and says where each voxel is in the patient: it and the node share no code.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from analysis_kit import model_card, plan
from numpy.typing import NDArray

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.plans import NIFTI
from dicomnode.pipeline import analyze

LIVER, KIDNEY_RIGHT = 5, 2
SIZES = (2.0, 2.5, 3.0)


class ByBrightness:
    """Finds what is bright, in the image that it is given."""

    def predict(
        self, image: NDArray[np.float32], progress: object = None, options: object = None
    ) -> NDArray[np.uint8]:
        """Return labels [z, y, x]."""
        labels = np.zeros(image.shape, np.uint8)
        labels[image > 40] = LIVER
        labels[image > 80] = KIDNEY_RIGHT
        return labels


def phantom() -> NDArray[np.int16]:
    """[i, j, k]; no axis of it can be turned round, or taken for another, without being seen."""
    hu = np.full((20, 26, 16), -1000, np.int16)
    hu[2:18, 2:24, 1:15] = 20
    hu[3:8, 4:15, 2:6] = 60
    hu[3:5, 4:9, 6:9] = 60
    hu[12:15, 18:20, 9:14] = 100
    return hu


def turned(degrees_about_x: float, degrees_about_z: float) -> NDArray[np.float64]:
    a, b = np.radians([degrees_about_x, degrees_about_z])
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_z = [[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]]
    return np.asarray(np.array(about_x) @ about_z @ np.diag([-1, -1, 1]))


DIRECTIONS = {
    "axial": np.diag([-1.0, -1, 1]),
    "head first in the array": np.diag([-1.0, -1, -1]),
    "prone": np.diag([1.0, 1, 1]),
    "mirrored rows": np.diag([1.0, -1, 1]),
    "coronal": np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]),
    "oblique": turned(20, 15),
    "very oblique": turned(-30, 35),
}


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_labels_lie_on_the_images_as_others_read_them(name: str, seed: int, tmp_path: Path) -> None:
    hu, affine = phantom(), np.eye(4)
    affine[:3, :3] = DIRECTIONS[name] * SIZES
    affine[:3, 3] = [31.0, -57.0, 412.0]
    files = write_series(hu, affine, SeriesOptions(seed=seed))
    # Of the same size as the voxels, whichever way they lie: nothing is interpolated.
    card = model_card(tuple(SIZES[axis] for axis in np.abs(affine[:3, :3]).argmax(axis=1)))
    given = plan(objects=(NIFTI,))
    (result,) = analyze(files, given, predictor=ByBrightness(), card=card).results
    path = tmp_path / "labels.nii.gz"
    path.write_bytes(result.data)
    (tmp_path / "ct").mkdir()
    for number, data in enumerate(files):
        (tmp_path / "ct" / f"{number}.dcm").write_bytes(data)

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ct")))
    images = reader.Execute()
    labels = SimpleITK.ReadImage(str(path))
    there = SimpleITK.Resample(
        labels, images, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 255
    )
    seen = SimpleITK.GetArrayFromImage(images)
    expected = np.select([seen > 80, seen > 40], [KIDNEY_RIGHT, LIVER], 0)
    assert np.array_equal(SimpleITK.GetArrayFromImage(there), expected)
    assert (expected == KIDNEY_RIGHT).sum() == 3 * 2 * 5

    # And where the phantom was put, in the patient's own directions.
    image = nibabel.load(path)
    read = np.asarray(image.dataobj)
    for label, wanted in ((KIDNEY_RIGHT, hu > 80), (LIVER, (hu > 40) & (hu <= 80))):
        middle = nibabel.affines.apply_affine(image.affine, np.argwhere(read == label)).mean(axis=0)
        placed = nibabel.affines.apply_affine(affine, np.argwhere(wanted)).mean(axis=0)
        assert np.allclose(middle, placed, atol=0.01)
    assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-3)
