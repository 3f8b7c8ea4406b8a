"""From the facts of images to those of their series: which would be analysed, and where they lie.

The stack that counts is the one that the analysis would take: images without a sign that they are
no CT in HU, alike in Frame of Reference, orientation, matrix, pixel spacing and energy, of which
there are most. What is left out is counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

from dicomnode.domain.images import NOTHING_STATED, ImageFacts
from dicomnode.domain.maps import energy, signs
from dicomnode.domain.records import SeriesFacts

CT_SOP_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
    }
)
MR_SOP_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.4"})  # MR Image Storage
SAME_PLACE_MM = 0.01
NOTHING_COUNTS = "NOTHING_COUNTS"
"""Code: no instance of the series may be analysed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One image of a series, as the ledger has it."""

    sop_class_uid: str
    facts: ImageFacts
    place_mm: float | None
    calling_ae: str | None = None


def modality_of(sop_class_uids: Iterable[str]) -> Literal["CT", "MR"] | None:
    """Return what images of these SOP classes are, if they are all of one kind that is analysed."""
    classes = frozenset(sop_class_uids)
    if not classes:
        return None
    return "CT" if classes <= CT_SOP_CLASSES else "MR" if classes <= MR_SOP_CLASSES else None


def summarise(
    members: Sequence[Member],
    *,
    series_uid: str,
    series_number: int | None = None,
    modality: str,
    body_part: str,
    description: str,
    slice_thickness_mm: float | None,
) -> SeriesFacts:
    """Return the facts of a series; the order of its images decides nothing."""
    stack, refusal, says = _stack(members)
    image = (
        _most([member.facts for member in stack])
        if stack
        else _most([member.facts for member in members])
    )
    places, frames = _places(stack)
    gaps = [after - before for before, after in pairwise(places)]
    is_ct = modality_of(member.sop_class_uid for member in members) == "CT"
    virtual = energy(image) if is_ct else None
    return SeriesFacts(
        modality=modality,
        sop_class_uids=tuple(sorted({member.sop_class_uid for member in members})),
        body_part=body_part,
        description=image.description or description,
        slice_thickness_mm=image.slice_thickness_mm or slice_thickness_mm,
        instances=len(members),
        calling_aes=tuple(sorted({m.calling_ae for m in members if m.calling_ae is not None})),
        series_uid=series_uid,
        series_number=series_number,
        image=image,
        slices=frames,
        left_out=len(members) - len(stack),
        refusal=refusal,
        refusal_says=says,
        places=len(places) if places else 0,
        first_mm=places[0] if places else None,
        last_mm=places[-1] if places else None,
        spacing_mm=round(median(gaps), 3) if gaps else None,
        largest_gap_mm=round(max(gaps), 3) if gaps else None,
        monoenergetic=virtual is not None,
        kev=None if virtual is None else virtual.kev,
    )


def _stack(images: Sequence[Member]) -> tuple[list[Member], str, str]:
    """Return the images that would be analysed, or why there are none: a code and a sentence."""
    if not images:
        return (
            [],
            "NOTHING_COUNTS",
            "none of its instances counts: results of this node, or rejected",
        )
    modality = modality_of(image.sop_class_uid for image in images)
    if modality is None:
        return [], "NOT_CT", "it holds other objects than CT or MR images"
    against: Counter[tuple[str, str]] = Counter()
    usable: dict[Hashable, list[Member]] = {}
    for member in images:
        found = signs(member.facts, modality)
        if found:
            against[(found[0].code, "; ".join(sign.says for sign in found))] += 1
        else:
            usable.setdefault(_alike(member.facts), []).append(member)
    if not usable:
        (code, says), _ = min(against.items(), key=lambda item: (-item[1], item[0]))
        return [], code, says
    harmful = sum(n for (code, _), n in against.items() if code != "NOT_A_VOLUME")
    good = sum(len(part) for part in usable.values())
    if harmful >= good:
        return [], "MIXED_CONTENT", f"{harmful} of {len(images)} images are no CT in HU, or no MR"
    stack = min(usable.items(), key=lambda item: (-len(item[1]), repr(item[0])))[1]
    first = stack[0].facts
    if not first.frame_of_reference_uid:
        return stack, "NO_FRAME_OF_REFERENCE", "Frame of Reference UID is missing"
    if len(first.orientation) != 6 or not first.pixel_spacing or not first.rows:
        return stack, "NO_POSITION", "Orientation, Pixel Spacing or Rows is missing or malformed"
    return stack, "", ""


def _alike(facts: ImageFacts) -> Hashable:
    virtual = energy(facts)
    return (
        facts.frame_of_reference_uid,
        facts.orientation,
        facts.rows,
        facts.columns,
        facts.pixel_spacing,
        None if virtual is None else (virtual.kev or 0.0),
    )


def _most(facts: Iterable[ImageFacts]) -> ImageFacts:
    counts = Counter(facts)
    if not counts:
        return NOTHING_STATED
    return min(counts.items(), key=lambda item: (-item[1], repr(item[0])))[0]


def _places(stack: Sequence[Member]) -> tuple[list[float], int]:
    """Return the different places in order (mm), and how many images or frames there are."""
    found: list[float] = []
    frames = 0
    for member in stack:
        frames += member.facts.frames or 1
        if len(member.facts.span) == 3:
            first, last, count = member.facts.span
            steps = max(int(count) - 1, 1)
            found += [first + (last - first) * step / steps for step in range(int(count))]
        elif member.place_mm is not None and math.isfinite(member.place_mm):
            found.append(member.place_mm)
    found.sort()
    different = found[:1]
    for place in found[1:]:
        if place - different[-1] > SAME_PLACE_MM:
            different.append(place)
    return different, frames
