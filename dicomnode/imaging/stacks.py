"""Which slices of a series form the volume to analyse, where they do not all form one.

The rule: what cannot be mixed is split, and one part is taken only if it clearly prevails. What is
left out is said; time points, phases and kernels are never mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from dicomnode.errors import Refusal
from dicomnode.imaging.fields import text, texts
from dicomnode.imaging.geometry import has_duplicates
from dicomnode.imaging.slices import Slice

PREVAILS = 3
"""The part taken has at least this many times the slices of the next."""
ORIENTATION_TOLERANCE = 1e-3
"""Per direction cosine; viewers match orientations within it too."""
SPACING_TOLERANCE = 1e-4
"""Part of the pixel spacing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """Slices that may be put into one volume, in the order given, and what was left out."""

    slices: tuple[Slice, ...]
    findings: tuple[str, ...]


def choose_stack(slices: Sequence[Slice]) -> Stack:
    """Return the slices of one Frame of Reference, matrix, orientation and acquisition.

    Raises:
        Refusal: MIXED_FRAMES_OF_REFERENCE, MIXED_MATRIX, MIXED_ORIENTATION, DUPLICATE_POSITIONS,
            where no part clearly prevails.
    """
    chosen = tuple(slices)
    findings: list[str] = []
    for name, code, split in _SPLITS:
        parts = split(chosen)
        if len(parts) == 1:
            continue
        left_out = len(chosen) - len(parts[0])
        if len(parts[0]) < PREVAILS * len(parts[1]):
            sizes = ", ".join(str(len(part)) for part in parts[:5])
            raise Refusal(code, f"{len(parts)} different {name}, of {sizes} slices.")
        findings.append(f"{left_out} images of other {name} were left out.")
        chosen = parts[0]
    return _without_duplicates(chosen, tuple(findings))


def _without_duplicates(slices: tuple[Slice, ...], findings: tuple[str, ...]) -> Stack:
    if not _overlaps(slices):
        return Stack(slices=slices, findings=findings)
    for name, key in _ACQUISITION_KEYS:
        parts = _grouped(slices, key)
        if len(parts) == 1 or any(_overlaps(part) for part in parts):
            continue
        if len(parts[0]) < PREVAILS * len(parts[1]):
            break
        left_out = len(slices) - len(parts[0])
        said = f"{left_out} images of another {name} at the same positions were left out."
        return Stack(slices=parts[0], findings=(*findings, said))
    positions = np.array([item.position for item in slices])
    raise Refusal(
        "DUPLICATE_POSITIONS",
        f"{len(slices)} slices lie at {len(np.unique(positions.round(2), axis=0))} positions.",
    )


def _overlaps(slices: tuple[Slice, ...]) -> bool:
    positions = np.array([item.position for item in slices])
    return has_duplicates(positions, slices[0].orientation)


def _grouped(
    slices: tuple[Slice, ...], key: Callable[[Slice], Hashable]
) -> list[tuple[Slice, ...]]:
    groups: dict[Hashable, list[Slice]] = {}
    for item in slices:
        groups.setdefault(key(item), []).append(item)
    return sorted((tuple(group) for group in groups.values()), key=len, reverse=True)


def _clustered(
    slices: tuple[Slice, ...], alike: Callable[[Slice, Slice], bool]
) -> list[tuple[Slice, ...]]:
    clusters: list[list[Slice]] = []
    for item in slices:
        for cluster in clusters:
            if alike(cluster[0], item):
                cluster.append(item)
                break
        else:
            clusters.append([item])
    return sorted((tuple(cluster) for cluster in clusters), key=len, reverse=True)


def _same_pixels(one: Slice, other: Slice) -> bool:
    return one.matrix == other.matrix and all(
        abs(a - b) <= SPACING_TOLERANCE * a
        for a, b in zip(one.pixel_spacing, other.pixel_spacing, strict=True)
    )


def _same_orientation(one: Slice, other: Slice) -> bool:
    if one.orientation is other.orientation:
        return True
    return bool(np.abs(one.orientation - other.orientation).max() <= ORIENTATION_TOLERANCE)


_SPLITS: tuple[tuple[str, str, Callable[[tuple[Slice, ...]], list[tuple[Slice, ...]]]], ...] = (
    (
        "Frames of Reference",
        "MIXED_FRAMES_OF_REFERENCE",
        lambda slices: _grouped(slices, lambda item: item.frame_of_reference),
    ),
    ("orientations", "MIXED_ORIENTATION", lambda slices: _clustered(slices, _same_orientation)),
    (
        "matrices or pixel spacings",
        "MIXED_MATRIX",
        lambda slices: _clustered(slices, _same_pixels),
    ),
)


def _of(keyword: str) -> Callable[[Slice], Hashable]:
    return lambda item: text(item.image.fields, keyword)


_ACQUISITION_KEYS: tuple[tuple[str, Callable[[Slice], Hashable]], ...] = (
    ("stack", _of("StackID")),
    ("acquisition", _of("AcquisitionNumber")),
    ("temporal position", _of("TemporalPositionIdentifier")),
    ("temporal position", _of("TemporalPositionTimeOffset")),
    ("cardiac phase", _of("NominalPercentageOfCardiacPhase")),
    ("respiratory phase", _of("NominalPercentageOfRespiratoryPhase")),
    ("trigger time", _of("TriggerTime")),
    ("kernel", lambda item: texts(item.image.fields, "ConvolutionKernel")),
    ("reconstruction", _of("ReconstructionAlgorithm")),
    ("energy", _of("KVP")),
    ("image type", lambda item: texts(item.image.fields, "ImageType")),
    ("slice thickness", _of("SliceThickness")),
    ("dimension", lambda item: texts(item.image.fields, "DimensionIndexValues")),
    ("instance", lambda item: item.sop_instance_uid if item.image.frame_number else ""),
)
