"""A CT or MR series as one volume, and the label map made from it.

What imaging produces, and what the analysis and the results stand on. Nothing here reads or writes
DICOM, and the arrays are never changed after construction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's patient axes run to the left, back and head; NIfTI's to the right, front and head."""


Modality = Literal["CT", "MR"]
AIR_HU = -1024
"""Lowest value of CT; padding becomes it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceSource:
    """The image that a slice is: an instance, or a frame of one."""

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None
    """Of a multi-frame instance, from 1; None where the instance is single-frame."""
    fields: Mapping[str, tuple[str, ...]]
    """Attributes of this slice by keyword, as they were written; where a frame has them in
    functional groups, by the keywords of single-frame images."""


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: the digest is kept
class Scan:
    """A consistent stack of slices in the order of their positions along the normal."""

    volume: NDArray[np.int16]
    """[slice, row, column]. Of CT Hounsfield units, not below -1024, with padding -1024; of MR the
    signal, with padding 0."""
    padding: tuple[bytes | None, ...] | None
    """For each slice the bits (`numpy.packbits`) of where the scanner measured nothing; None where
    it is nowhere, or nowhere at all. In this form it weighs next to nothing; see `valid`."""
    affine: NDArray[np.float64]
    """4x4; (slice, row, column, 1) to millimetres in DICOM's patient axes (LPS+). Of an irregular
    scan only the columns for row and column are true of every slice."""
    positions: NDArray[np.float64]
    """[slice, 3]: LPS mm of the centre of each slice's first voxel."""
    is_regular: bool
    """Evenly spaced along the normal and not shifted in the plane; otherwise only `positions`
    place a slice."""
    header: Dataset
    """Of the first slice's instance, as received but for pixel data and functional groups, in whose
    place the attributes of the slice stand."""
    sources: tuple[SliceSource, ...]
    """One a slice, in slice order."""
    orientation: tuple[float, ...]
    """Direction cosines of a row and of a column (Image Orientation), common to all slices."""
    total_instances: int
    """Distinct images given, those left out among them; each frame of an instance is one."""
    findings: tuple[str, ...]
    """Sentences on what was left out or is unusual; no patient data."""
    lossy: bool
    """Some slice went through lossy compression."""
    modality: Modality = "CT"

    @property
    def empty_value(self) -> int:
        """What stands for nothing: air, or no signal."""
        return AIR_HU if self.modality == "CT" else 0

    @cached_property
    def digest(self) -> str:
        """sha256 over pixels, geometry, SOP Instance UIDs and frame numbers, hexadecimal.

        Computed when it is first asked for: it takes as long as decoding.
        """
        names = (f"{item.sop_instance_uid} {item.frame_number or ''}" for item in self.sources)
        digest = hashlib.sha256("\0".join(names).encode())
        places = (self.affine.tolist(), self.positions.tolist())
        digest.update(repr((self.volume.shape, places)).encode())
        digest.update(np.ascontiguousarray(self.volume).data)
        for bits in self.padding or ():
            digest.update(bits or b"-")
        return digest.hexdigest()

    @property
    def valid(self) -> NDArray[np.bool_] | None:
        """False where the scanner measured nothing (padding), [slice, row, column], read-only;
        None: all valid. Unpacked with every call, to half the size of the volume where padding
        differs between slices."""
        if self.padding is None:
            return None
        shape = self.volume.shape
        if all(bits == self.padding[0] for bits in self.padding):
            return np.broadcast_to(_valid(self.padding[0], shape[1:]), shape)
        result = np.empty(shape, np.bool_)
        for index, bits in enumerate(self.padding):
            result[index] = _valid(bits, shape[1:])
        return result

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """SOP Instance UIDs in slice order; one for all the frames of an instance."""
        return tuple(source.sop_instance_uid for source in self.sources)

    @property
    def frame_numbers(self) -> tuple[int | None, ...]:
        """Frame numbers in slice order; None where the instance is single-frame."""
        return tuple(source.frame_number for source in self.sources)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring slices, rows and columns."""
        slice_mm, row_mm, column_mm = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return slice_mm, row_mm, column_mm

    @property
    def voxel_volumes_mm3(self) -> NDArray[np.float64]:
        """[slice]: volume of one voxel, with half the way to each neighbouring slice as its depth;
        at both ends the whole way to the one neighbour."""
        row, column = self.affine[:3, 2], self.affine[:3, 1]
        across = np.cross(row, column)
        area = float(np.linalg.norm(across))
        depths = self.positions @ (across / area)
        gaps = np.abs(np.diff(depths))
        deep: NDArray[np.float64] = (np.append(gaps[:1], gaps) + np.append(gaps, gaps[-1:])) / 2
        return area * deep


def _valid(bits: bytes | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the opposite of packed `bits`."""
    if bits is None:
        return np.ones(shape, np.bool_)
    count = int(np.prod(shape))
    packed = np.unpackbits(np.frombuffer(bits, np.uint8), count=count)
    return np.asarray(packed.reshape(shape) == 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelMap:
    """The model's labels on a scan's grid; it names its scan, so that two patients never mix."""

    labels: NDArray[np.uint8]
    """[slice, row, column]; 0 is background."""
    source_digest: str
    """`Scan.digest` of the scan it was made from."""

    @property
    def digest(self) -> str:
        """sha256 of the labels in C order, hexadecimal."""
        return hashlib.sha256(np.ascontiguousarray(self.labels).data).hexdigest()
