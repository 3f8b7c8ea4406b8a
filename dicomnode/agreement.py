"""How a label map agrees with reference labels of the same scan.

Reference labels come as a `labels.npz` of this node, or as NIfTI: the model's integers, on the grid
of the scan.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.commissioning import StructureAgreement
from dicomnode.errors import DicomnodeError
from dicomnode.scan import RAS_FROM_LPS, Scan
from inference.card import ModelCard

GRID_TOLERANCE = 0.1
"""How far a reference voxel may lie from the scan's, in voxels."""


def read_labels(path: Path, scan: Scan) -> NDArray[np.uint8]:
    """Return reference labels as uint8 [slice, row, column] on the grid of `scan`.

    Args:
        path: `.npz` with `labels` and `sop_instance_uids`, or `.nii`, `.nii.gz`.
        scan: the reference case.

    Raises:
        DicomnodeError: the file is something else, or of another grid.
    """
    if path.name.endswith(".npz"):
        labels = _read_npz(path, scan)
    elif path.name.endswith((".nii", ".nii.gz")):
        labels = _read_nifti(path, scan)
    else:
        raise DicomnodeError(f"{path}: expected reference labels as .npz, .nii or .nii.gz")
    values = np.rint(labels)
    if not np.array_equal(values, labels) or values.min() < 0 or values.max() > 255:
        raise DicomnodeError(f"{path}: expected whole numbers from 0 to 255")
    return np.ascontiguousarray(values, dtype=np.uint8)


def compare(
    found: NDArray[np.uint8], reference: NDArray[np.uint8], card: ModelCard
) -> tuple[StructureAgreement, ...]:
    """Return the Dice of every structure of the card that occurs in either label map.

    Args:
        found: the model's labels [slice, row, column].
        reference: the reference's, on the same grid.
        card: names the labels.

    Raises:
        DicomnodeError: the reference has labels that the card does not have.
    """
    joint = np.zeros(65536, np.int64)
    for ours, theirs in zip(found, reference, strict=True):
        pairs = theirs.astype(np.intp).ravel() * 256 + ours.ravel()
        joint += np.bincount(pairs, minlength=65536)
    table = joint.reshape(256, 256)  # [reference, found]
    in_reference, in_found = table.sum(axis=1), table.sum(axis=0)
    known = {structure.label for structure in card.structures}
    unknown = sorted({int(label) for label in np.flatnonzero(in_reference)} - known - {0})
    if unknown:
        raise DicomnodeError(f"the reference has labels {unknown}, which {card.id!r} does not")
    return tuple(
        StructureAgreement(
            label=label,
            name=structure.name,
            dice=2 * int(table[label, label]) / int(in_reference[label] + in_found[label]),
            found_voxels=int(in_found[label]),
            reference_voxels=int(in_reference[label]),
        )
        for structure in card.structures
        if in_reference[label := structure.label] + in_found[label] > 0
    )


def _read_npz(path: Path, scan: Scan) -> NDArray[np.generic]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            labels, uids = stored["labels"], tuple(map(str, stored["sop_instance_uids"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DicomnodeError(f"{path}: no labels.npz of this node: {error}") from error
    if uids != scan.sop_instance_uids or labels.shape != scan.volume.shape:
        raise DicomnodeError(f"{path}: is of another series, or of other slices of it")
    return np.asarray(labels)


def _read_nifti(path: Path, scan: Scan) -> NDArray[np.generic]:
    import nibabel

    if not scan.is_regular:
        raise DicomnodeError("reference labels as NIfTI need a series of even slices, not tilted")
    try:
        image = nibabel.load(path)
        array, affine = np.asarray(image.dataobj), np.asarray(image.affine)  # type: ignore[attr-defined]
    except (OSError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise DicomnodeError(f"{path}: no NIfTI image: {error}") from error
    if array.ndim != 3:
        raise DicomnodeError(f"{path}: expected three axes, found {array.ndim}")
    return _onto(scan, array, affine, path)


def _onto(
    scan: Scan, array: NDArray[np.generic], affine: NDArray[np.float64], path: Path
) -> NDArray[np.generic]:
    """Permute and flip an array [i, j, k] with its RAS+ affine onto the scan's grid."""
    across = np.linalg.inv(affine) @ RAS_FROM_LPS @ scan.affine  # scan indices to array indices
    axes = np.argmax(np.abs(across[:3, :3]), axis=0)
    if sorted(axes) != [0, 1, 2]:
        raise DicomnodeError(f"{path}: its axes are not those of the series")
    turned = array.transpose(axes)
    flips = np.diag(across[axes][:, :3]) < 0
    if turned.shape != scan.volume.shape:
        raise DicomnodeError(
            f"{path}: {turned.shape} voxels; expected {scan.volume.shape} as in the series"
        )
    exact = np.zeros((4, 4))
    exact[3, 3] = 1
    for axis, (row, flip) in enumerate(zip(axes, flips, strict=True)):
        exact[row, axis] = -1 if flip else 1
        exact[row, 3] = turned.shape[axis] - 1 if flip else 0
    corners = np.array(
        [
            [i * (n - 1) for i, n in zip(corner, turned.shape, strict=True)] + [1]
            for corner in np.ndindex(2, 2, 2)
        ]
    )
    apart = float(np.abs((across - exact) @ corners.T).max())
    if apart > GRID_TOLERANCE:
        raise DicomnodeError(f"{path}: lies {apart:.2f} voxels beside the grid of the series")
    return turned[tuple(slice(None, None, -1 if flip else None) for flip in flips)]
