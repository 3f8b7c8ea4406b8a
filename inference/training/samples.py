"""Training samples: sample n is the same on every machine, so a resumed run goes on as it was.

A sample is a patch [z, y, x] of a body no other sample has: position, noise and contrast are drawn,
sides beyond a drawn field of view are padding as a sliding window pads. Where the real CT of the
test data is present, one sample in ten is a turned and scaled patch of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from inference.phantom import Body
from inference.training.plans import SPACING_MM, TRAINING_SEED

IGNORED = 255
"""Label of voxels that no loss may count: padding."""
REAL_SHARE = 0.1

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A normalised image and its labels, with the voxels that the loss looks at."""

    image: NDArray[np.float32]  # [z, y, x]
    labels: NDArray[np.uint8]  # [z, y, x], IGNORED where there is no truth
    picked: NDArray[np.int64]  # [n] flat voxel indices, few of every class
    share: NDArray[np.float32]  # [n] how many voxels of its class each picked one stands for


@dataclass(frozen=True, slots=True, kw_only=True)
class RealCt:
    """A CT and its label map [i, j, k] with the affine from indices to RAS+ mm."""

    hu: NDArray[np.float32]
    labels: NDArray[np.uint8]
    affine: Floats


def load_real(folder: Path | None) -> RealCt | None:
    """The real example CT and its v1 labels, or None where the data folder lacks them."""
    if folder is None:
        return None
    image = folder / "totalsegmentator/example_ct.nii.gz"
    labels = folder / "totalsegmentator/example_seg_v1_104.nii.gz"
    if not (image.is_file() and labels.is_file()):
        return None
    ct: Any = nibabel.load(image)
    truth: Any = nibabel.load(labels)
    return RealCt(
        hu=np.asarray(ct.dataobj, np.float32),
        labels=np.asarray(truth.dataobj, np.uint8),
        affine=ct.affine,
    )


def normalise(hu: NDArray[Any], properties: dict[str, float]) -> NDArray[np.float32]:
    """CTNormalization of nnU-Net: clip to the percentiles, subtract the mean, divide by the sd."""
    clipped = np.clip(hu, properties["percentile_00_5"], properties["percentile_99_5"])
    scaled: NDArray[np.float32] = ((clipped - properties["mean"]) / properties["std"]).astype(
        np.float32
    )
    return scaled


def draw(
    number: int,
    variation: float,
    patch: tuple[int, int, int],
    properties: dict[str, float],
    real: RealCt | None,
) -> Sample:
    """Sample `number` at the variation given; patch is z, y, x in voxels of 6 mm."""
    random = np.random.default_rng([number, 6])
    of_real = random.random() < REAL_SHARE  # drawn either way: sample n stays sample n
    if real is not None and of_real:
        hu, labels = _real_patch(random, patch, real)
    else:
        hu, labels = _body_patch(random, TRAINING_SEED + number, variation, patch)
    if random.random() < 0.25:
        hu = gaussian_filter(hu, random.uniform(0.2, 0.5))
    hu = hu * random.uniform(0.95, 1.05) + random.uniform(-15, 15)
    image = normalise(hu, properties)
    _truncate(random, labels)
    image[labels == IGNORED] = 0
    picked, share = pick(random, labels)
    return Sample(image=image, labels=labels, picked=picked, share=share)


def _body_patch(
    random: np.random.Generator, seed: int, variation: float, patch: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    body = Body(seed, variation, couch=bool(random.random() < 0.5))
    spread = (90.0, 100.0) if random.random() < 0.35 else (40.0, 35.0)
    centre = np.array(
        [random.uniform(-1, 1) * spread[0], 42 + random.uniform(-1, 1) * spread[1], 0]
    )
    centre[2] = random.uniform(-260, 450)
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    shape = (patch[2], patch[1], patch[0])
    affine[:3, 3] = centre - SPACING_MM * (np.array(shape) - 1) / 2
    hu, labels = body.render(shape, affine, noise=float(random.uniform(4, 28)))
    return (
        np.ascontiguousarray(hu.T, np.float32),
        np.ascontiguousarray(labels.T),
    )


def _real_patch(
    random: np.random.Generator, patch: tuple[int, int, int], real: RealCt
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    shape = np.array([patch[2], patch[1], patch[0]])
    angles = random.normal(0, 0.07, 3)
    turn = np.eye(3) + np.array(
        [[0, -angles[2], angles[1]], [angles[2], 0, -angles[0]], [-angles[1], angles[0], 0]]
    )
    to_voxel = np.linalg.inv(real.affine[:3, :3]) @ turn * random.normal(1, 0.06) * SPACING_MM
    middle = (np.array(real.hu.shape) - 1) / 2 + random.uniform(-1, 1, 3) * (12, 10, 16)
    offset = middle - to_voxel @ ((shape - 1) / 2)
    hu = affine_transform(
        real.hu, to_voxel, offset, tuple(shape), order=1, mode="constant", cval=-1000
    )
    labels = affine_transform(
        real.labels, to_voxel, offset, tuple(shape), order=0, mode="constant", cval=IGNORED
    )
    hu = hu + random.normal(0, random.uniform(1, 15), hu.shape)
    return np.ascontiguousarray(hu.T, np.float32), np.ascontiguousarray(labels.T)


def _truncate(random: np.random.Generator, labels: NDArray[np.uint8]) -> None:
    """Let some sides end early, as at the edge of a scan smaller than the patch."""
    for axis, likely in ((0, 0.2), (1, 0.08), (2, 0.08)):
        for side in (0, 1):
            if random.random() < likely:
                cut = int(random.integers(1, labels.shape[axis] // 4))
                gone = slice(0, cut) if side == 0 else slice(-cut, None)
                labels[(slice(None),) * axis + (gone,)] = IGNORED


def pick(
    random: np.random.Generator, labels: NDArray[np.uint8], cap: int = 160, background: int = 8000
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """At most `cap` voxels of every structure and `background` others, and what each stands for."""
    shuffled = random.permutation(labels.size)
    order = shuffled[np.argsort(labels.ravel()[shuffled], kind="stable")]
    count = np.bincount(labels.ravel(), minlength=256)
    start = np.cumsum(count) - count
    sorted_labels = np.repeat(np.arange(256), count)
    rank = np.arange(labels.size) - start[sorted_labels]
    limit = np.full(256, cap)
    limit[0], limit[IGNORED] = background, 0
    kept = rank < limit[sorted_labels]
    taken = np.maximum(np.minimum(count, limit), 1)
    return order[kept], (count / taken)[sorted_labels[kept]].astype(np.float32)
