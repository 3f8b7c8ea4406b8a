"""Series of a made study, as facts: short words for the tests of rules and chooser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dicomnode.domain.images import ImageFacts
from dicomnode.domain.records import SeriesFacts
from dicomnode.domain.series import Member, summarise

CT = "1.2.840.10008.5.1.4.1.1.2"
SC = "1.2.840.10008.5.1.4.1.1.7"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)

IMAGE = ImageFacts(
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    frame_of_reference_uid="1.9",
    orientation=AXIAL,
    rows=512,
    columns=512,
    pixel_spacing=(0.8, 0.8),
    slice_thickness_mm=1.0,
    photometric="MONOCHROME2",
    rescaled=True,
    rescale_type="HU",
    kvp=120.0,
    kernel=("Br40d",),
    manufacturer="SIEMENS",
)


def members(
    slices: int = 300, spacing: float = 1.0, start: float = 0.0, **image: Any
) -> list[Member]:
    """Return the images of a stack."""
    facts = replace(IMAGE, **image)
    return [
        Member(sop_class_uid=CT, facts=facts, place_mm=start + spacing * index, calling_ae="CT1")
        for index in range(slices)
    ]


def facts_of(
    images: list[Member], uid: str, number: int | None = None, description: str = ""
) -> SeriesFacts:
    """Return the facts of a series of these images."""
    return summarise(
        images,
        series_uid=uid,
        series_number=number,
        modality="CT",
        body_part="",
        description=description,
        slice_thickness_mm=None,
    )


def series(uid: str, number: int | None = None, **stack: Any) -> SeriesFacts:
    """Return the facts of a series of one stack; by default 300 mm of 1 mm, soft kernel."""
    return facts_of(members(**stack), uid, number, stack.get("description", ""))


def dose_screen(uid: str, number: int | None = None) -> SeriesFacts:
    """Return the facts of a Secondary Capture."""
    screen = ImageFacts(image_type=("DERIVED", "SECONDARY", "DOSE_INFO"), photometric="RGB")
    return facts_of([Member(sop_class_uid=SC, facts=screen, place_mm=None)], uid, number)
