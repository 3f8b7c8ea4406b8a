"""The order of the steps from the files of a series to its `Scan`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dicomnode.errors import Refusal
from dicomnode.imaging.decoding import decode_slice, is_lossy, outer_padding
from dicomnode.imaging.geometry import StackGeometry, orthonormal, stack_geometry
from dicomnode.imaging.parsing import Parsed, parse, text
from dicomnode.imaging.slices import Slice, check_identity, reason_against, slice_of
from dicomnode.imaging.stacks import Stack, choose_stack
from dicomnode.quiet import quiet_pydicom
from dicomnode.scan import Scan

_NO_CT = ("NOT_CT", "ENHANCED_MULTIFRAME_NOT_SUPPORTED")
_HARMLESS = ("NOT_CT", "NOT_A_VOLUME")
_AIR_BELOW_HU = -800


def read_scan(instances: Sequence[bytes]) -> Scan:
    """Make one CT volume in Hounsfield units from the files of a series, in any order.

    Args:
        instances: whole DICOM files (PS3.10) of one series.

    Raises:
        Refusal: with a code of `dicomnode.domain.reasons.REASONS`.
    """
    if not instances:
        raise Refusal("NO_INSTANCES", "The series has no instances.")
    parsed = [parse(data) for data in instances]
    with quiet_pydicom():
        unique, findings = _without_repeats(parsed)
        slices, left_out = _usable(unique)
        slices.sort(key=lambda item: item.sop_instance_uid)  # the order of arrival decides nothing
        stack = choose_stack(slices)
        positions = np.array([item.position for item in stack.slices])
        first = stack.slices[0]
        geometry = stack_geometry(positions, first.orientation, first.pixel_spacing)
        return _scan(stack, geometry, len(unique), (*findings, *left_out, *stack.findings))


def _without_repeats(parsed: Sequence[Parsed]) -> tuple[list[Parsed], list[str]]:
    unique: dict[str, Parsed] = {}
    nameless: list[Parsed] = []
    for item in parsed:
        uid = text(item.dataset, "SOPInstanceUID")
        if not uid:
            nameless.append(item)
        elif uid not in unique:
            unique[uid] = item
        elif unique[uid].dataset.get("PixelData") != item.dataset.get("PixelData"):
            raise Refusal(
                "CONFLICTING_INSTANCES", "Two instances have one UID but different pixel data."
            )
    kept = [*unique.values(), *nameless]
    repeats = len(parsed) - len(kept)
    return kept, [f"{repeats} repeated instances were ignored."] if repeats else []


def _usable(parsed: Sequence[Parsed]) -> tuple[list[Slice], list[str]]:
    """Return the slices that can be part of a volume, and sentences on the rest."""
    reasons = [reason_against(item) for item in parsed]
    counts = Counter(reason for reason in reasons if reason is not None)
    images = [item for item, reason in zip(parsed, reasons, strict=True) if reason not in _NO_CT]
    if not images:
        raise _refused(counts, len(parsed))
    check_identity(images)
    slices = [
        found
        for item, reason in zip(parsed, reasons, strict=True)
        if reason is None and (found := slice_of(item)) is not None
    ]
    harmful = sum(count for reason, count in counts.items() if reason not in _HARMLESS)
    if not slices:
        raise _refused(counts, len(parsed))
    if harmful >= len(slices):
        raise Refusal(
            "MIXED_CONTENT",
            f"{harmful} of {len(parsed)} instances cannot be used: {_listed(counts)}.",
        )
    said = [f"{sum(counts.values())} instances were left out: {_listed(counts)}."] if counts else []
    if not text(images[0].dataset, "PatientID"):
        said.append("The source has no Patient ID, and so the results have none.")
    return slices, said


def _refused(counts: Counter[str], total: int) -> Refusal:
    code, count = counts.most_common(1)[0]
    return Refusal(code, f"{count} of {total} instances are refused for this reason.")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {code}" for code, count in counts.most_common())


def _scan(stack: Stack, geometry: StackGeometry, total: int, findings: Sequence[str]) -> Scan:
    ordered = [stack.slices[index] for index in geometry.order]
    first = stack.slices[0]
    positions = np.array([item.position for item in ordered])
    volume, valid = _decoded(ordered)
    lossy = any(is_lossy(item.dataset, item.transfer_syntax) for item in ordered)
    said = [*findings, *geometry.irregular]
    if lossy:
        said.append("The images went through lossy compression.")
    if not (volume[valid] if valid is not None else volume).min(initial=0) < _AIR_BELOW_HU:
        said.append("No air near -1000 HU was found: the values may not be Hounsfield units.")
    for item in ordered:
        if "PixelData" in item.dataset:
            del item.dataset.PixelData
    along_row, along_column = orthonormal(first.orientation)
    return Scan(
        volume=volume,
        valid=valid,
        affine=geometry.affine,
        positions=positions,
        is_regular=not geometry.irregular,
        headers=tuple(item.dataset for item in ordered),
        orientation=(*along_row.tolist(), *along_column.tolist()),
        total_instances=total,
        findings=tuple(said),
        lossy=lossy,
        digest=_digest(volume, valid, (geometry.affine, positions), ordered),
    )


def _decoded(ordered: Sequence[Slice]) -> tuple[NDArray[np.int16], NDArray[np.bool_] | None]:
    """Return HU and validity [slice, row, column]; the latter None where all is valid."""
    volume = np.empty((len(ordered), *ordered[0].matrix), np.int16)
    valid: NDArray[np.bool_] | None = None
    padding: NDArray[np.bool_] | None = None
    outside: NDArray[np.bool_] | None = None
    for index, item in enumerate(ordered):
        volume[index], found = decode_slice(item.dataset, item.transfer_syntax)
        if found is None:
            continue
        # The padding of neighbouring slices is nearly always the same circle.
        if outside is None or padding is None or not np.array_equal(found, padding):
            padding, outside = found, outer_padding(found)
        if valid is None:
            valid = np.ones(volume.shape, np.bool_)
        valid[index] = ~outside
    return volume, valid


def _digest(
    volume: NDArray[np.int16],
    valid: NDArray[np.bool_] | None,
    places: tuple[NDArray[np.float64], ...],
    ordered: Sequence[Slice],
) -> str:
    digest = hashlib.sha256("\0".join(item.sop_instance_uid for item in ordered).encode())
    digest.update(repr((volume.shape, [array.tolist() for array in places])).encode())
    digest.update(volume.data)
    if valid is not None:
        digest.update(np.packbits(valid).data)
    return digest.hexdigest()
