"""The order of the steps from the files of a series to its `Scan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicomnode.domain.maps import energy, signs
from dicomnode.errors import Refusal
from dicomnode.imaging.decoding import is_lossy
from dicomnode.imaging.fields import Known, number, text
from dicomnode.imaging.frames import Image, images_of
from dicomnode.imaging.geometry import StackGeometry, orthonormal, stack_geometry
from dicomnode.imaging.parsing import Parsed, Source, parse, read_header, same_pixels
from dicomnode.imaging.slices import Slice, check_identity, content_of, slice_or_reason
from dicomnode.imaging.stacks import choose_stack
from dicomnode.imaging.volumes import Decoded, decode_volume
from dicomnode.instances.image_facts import facts_of
from dicomnode.quiet import quiet_pydicom
from dicomnode.scan import Modality, Scan, SliceSource

LEAST_LEVELS = 64
"""Of the signal of MR, in whole numbers."""
_FOREIGN = ("NOT_CT", "NOT_MR")
_HARMLESS = (*_FOREIGN, "NOT_A_VOLUME")
_OF_A_FRAME = ("KVP", "ConvolutionKernel", "SliceThickness", "PixelSpacing", "ImageType")
"""What reports tell of the first slice; enhanced objects have it in functional groups only."""


def read_scan(
    instances: Sequence[Source],
    threads: int | None = None,
    *,
    modality: Modality = "CT",
    monoenergetic: bool = False,
) -> Scan:
    """Make one volume, of CT in Hounsfield units, from the files of a series, in any order.

    Args:
        instances: whole DICOM files (PS3.10) of one series, single-frame or multi-frame: their
            bytes, or their paths, whose bytes are then in memory only while they are looked at.
        threads: decode with so many; None: one for each processor this process may use.
        modality: what the images have to be.
        monoenergetic: virtual monoenergetic images are wanted; otherwise they are refused.

    Raises:
        Refusal: with a code of `dicomnode.domain.reasons.REASONS`.
    """
    if not instances:
        raise Refusal("NO_INSTANCES", "The series has no instances.")
    known: Known = {}
    with quiet_pydicom():
        parsed = [parse(source, known) for source in instances]
        unique, findings = _without_repeats(parsed)
        findings += _missing_parts(unique)
        images = [image for item in unique for image in images_of(item, known)]
        slices, left_out = _usable(images, modality, monoenergetic=monoenergetic)
        # The order of arrival decides nothing.
        slices.sort(key=lambda item: (item.sop_instance_uid, item.image.frame_number or 0))
        stack = choose_stack(slices)
        positions = np.array([item.position for item in stack.slices])
        first = stack.slices[0]
        geometry = stack_geometry(positions, first.orientation, first.pixel_spacing)
        ordered = [stack.slices[index] for index in geometry.order]
        said = [*findings, *left_out, *stack.findings]
        scan = _scan(
            ordered, geometry, len(images), said, decode_volume(ordered, threads), modality
        )
        if modality == "MR":
            _check_levels(scan.volume)
        return scan


def _check_levels(signal: NDArray[np.int16]) -> None:
    """Refuse MR whose scale is so small that rounding has left next to nothing of the signal.

    Raises:
        Refusal: VALUES_OUT_OF_RANGE.
    """
    low, high = int(signal.min()), int(signal.max())
    if high - low < LEAST_LEVELS:
        raise Refusal("VALUES_OUT_OF_RANGE", f"The signal reaches only from {low} to {high}.")


def _without_repeats(parsed: Sequence[Parsed]) -> tuple[list[Parsed], list[str]]:
    unique: dict[str, Parsed] = {}
    nameless: list[Parsed] = []
    for item in parsed:
        uid = text(item.fields, "SOPInstanceUID")
        if not uid:
            nameless.append(item)
        elif uid not in unique:
            unique[uid] = item
        elif not same_pixels(unique[uid], item):
            raise Refusal(
                "CONFLICTING_INSTANCES", "Two instances have one UID but different pixel data."
            )
    kept = [*unique.values(), *nameless]
    repeats = len(parsed) - len(kept)
    return kept, [f"{repeats} repeated instances were ignored."] if repeats else []


def _missing_parts(parsed: Sequence[Parsed]) -> list[str]:
    """Return sentences on concatenations (PS3.3 C.7.6.16.2.2.4) of which a part is not here."""
    parts = Counter(text(item.fields, "ConcatenationUID") for item in parsed)
    totals = {
        text(item.fields, "ConcatenationUID"): number(item.fields, "InConcatenationTotalNumber")
        for item in parsed
    }
    return [
        f"Only {parts[uid]} of the {total:g} parts of a multi-frame image are here."
        for uid, total in totals.items()
        if uid and total is not None and parts[uid] < total
    ]


def _usable(
    images: Sequence[Image], modality: Modality, *, monoenergetic: bool
) -> tuple[list[Slice], list[str]]:
    """Return the slices that can be part of a volume, and sentences on the rest."""
    found = [slice_or_reason(image, modality, monoenergetic=monoenergetic) for image in images]
    counts = Counter(reason for reason in found if isinstance(reason, str))
    instances = {
        id(image.instance): image.instance
        for image, reason in zip(images, found, strict=True)
        if reason not in _FOREIGN
    }
    if not instances:
        raise _refused(counts, len(images))
    check_identity(list(instances.values()))
    slices = [item for item in found if isinstance(item, Slice)]
    harmful = sum(count for reason, count in counts.items() if reason not in _HARMLESS)
    if not slices:
        raise _refused(counts, len(images))
    if harmful >= len(slices):
        raise Refusal(
            "MIXED_CONTENT",
            f"{harmful} of {len(images)} images cannot be used: {_listed(counts)}.",
        )
    said = [f"{sum(counts.values())} images were left out: {_listed(counts)}."] if counts else []
    if not text(slices[0].image.fields, "PatientID"):
        said.append("The source has no Patient ID, and so the results have none.")
    return slices, said


def _refused(counts: Counter[str], total: int) -> Refusal:
    code, count = counts.most_common(1)[0]
    return Refusal(code, f"{count} of {total} images are refused for this reason.")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {code}" for code, count in counts.most_common())


def _scan(
    ordered: Sequence[Slice],
    geometry: StackGeometry,
    total: int,
    findings: Sequence[str],
    decoded: Decoded,
    modality: Modality,
) -> Scan:
    first = ordered[0]
    images = [item.image for item in ordered]
    lossy = any(is_lossy(image.fields, image.instance.transfer_syntax) for image in images)
    said = [*findings, *geometry.irregular]
    if lossy:
        said.append("The images went through lossy compression.")
    header = _header(first.image)
    said += _checked_content(header, images, modality)
    positions = np.array([item.position for item in ordered])
    along_row, along_column = orthonormal(first.orientation)
    return Scan(
        volume=decoded.volume,
        padding=decoded.padding if any(decoded.padding) else None,
        affine=geometry.affine,
        positions=positions,
        is_regular=not geometry.irregular,
        header=header,
        sources=tuple(_source(item) for item in ordered),
        orientation=(*along_row.tolist(), *along_column.tolist()),
        total_instances=total,
        findings=tuple(said),
        lossy=lossy,
        modality=modality,
    )


def _checked_content(header: Dataset, images: Sequence[Image], modality: Modality) -> list[str]:
    """Look at what only a whole header says, codes and units; return what the report must say.

    Raises:
        Refusal: DERIVED_MAP, NOT_HU, MIXED_CONTENT.
    """
    whole, content = facts_of(header), content_of(images[0].fields)
    facts = replace(
        content, units=whole.units, derivation_codes=whole.derivation_codes, kev=whole.kev
    )
    found = signs(facts, modality)
    if found:
        raise Refusal(found[0].code, "The header says so, by a unit or by a Derivation Code.")
    if modality == "MR":
        return []
    virtual = energy(facts)
    energies = [energy(content_of(image.fields)) for image in images]
    if len({None if one is None else one.kev or 0.0 for one in energies}) > 1:
        raise Refusal("MIXED_CONTENT", "The images are of several energies.")
    if virtual is None:
        return []
    at = "an energy that is not stated" if virtual.kev is None else f"{virtual.kev:g} keV"
    return [f"Virtual monoenergetic images at {at}: their Hounsfield units are of this energy."]


def _header(image: Image) -> Dataset:
    """Return the header of an instance; of a multi-frame one with what its frame says."""
    header = read_header(image.instance)
    if image.frame_number is not None:
        for keyword in _OF_A_FRAME:
            values = list(image.fields.get(keyword, ()))
            if values:
                setattr(header, keyword, values)
    return header


def _source(item: Slice) -> SliceSource:
    return SliceSource(
        sop_class_uid=item.image.instance.sop_class_uid,
        sop_instance_uid=item.sop_instance_uid,
        frame_number=item.image.frame_number,
        fields=item.image.fields,
    )
