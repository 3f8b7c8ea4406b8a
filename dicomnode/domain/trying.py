"""Trying the rules: of each rule why it matches a series or not, and series that somebody invents.

An invented series is a usual one (Hounsfield units, one image at each place, nothing missing) but
for what is said of it. Pure; what is decided is decided by `routing` and `choosing`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from dicomnode.domain.images import ImageFacts
from dicomnode.domain.records import SeriesFacts
from dicomnode.domain.routing import Rule, against
from dicomnode.domain.series import Member, modality_of, summarise

INVENTED_UID = "1.2.3.4"
MOST_SLICES = 5000
MOST_TEXT = 64
"""Characters of an attribute (VR LO)."""
CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "OT": "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture: what is neither
}
ORIENTATIONS = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
}
"""Image Orientation (Patient), LPS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A rule and a series."""

    rule: str
    matches: bool
    why: str


def tried(rules: Sequence[Rule], series: SeriesFacts) -> tuple[Tried, ...]:
    """Return for each rule whether it matches a series, in their order; the first that does wins.

    Nothing for what is never analysed, whatever the rules say.
    """
    if series.refusal or modality_of(series.sop_class_uids) is None:
        return ()
    found: list[Tried] = []
    winner: str | None = None
    for rule in rules:
        reason = against(rule, series)
        if reason is not None:
            found.append(Tried(rule=rule.name, matches=False, why=reason))
        elif winner is not None:
            why = f"it would match, but {winner!r} stands before it"
            found.append(Tried(rule=rule.name, matches=False, why=why))
        else:
            winner = rule.name
            found.append(Tried(rule=rule.name, matches=True, why="it matches"))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invented:
    """What somebody says of a series that never came.

    Raises:
        ValueError: a value cannot be, as `name: why`.
    """

    modality: Literal["CT", "MR", "OT"] = "CT"
    description: str = ""
    """Series Description."""
    body_part: str = ""
    study_description: str = ""
    protocol: str = ""
    manufacturer: str = ""
    device: str = ""
    station: str = ""
    kernel: str = ""
    """Convolution Kernel."""
    image_type: str = "ORIGINAL/PRIMARY/AXIAL"
    contrast: str = ""
    """Contrast/Bolus Agent."""
    sending_ae: str = ""
    """Calling AE title."""
    orientation: Literal["axial", "coronal", "sagittal"] = "axial"
    slices: int = 200
    slice_thickness_mm: float = 2.0
    spacing_mm: float = 2.0
    """From slice to slice."""
    matrix: int = 512
    """Rows, and columns."""
    kvp: float = 120.0

    def __post_init__(self) -> None:
        for name, known in (("modality", CLASSES), ("orientation", ORIENTATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}")
        for name, least, most in BOUNDS:
            value = getattr(self, name)
            if not (math.isfinite(value) and least <= value <= most):
                raise ValueError(f"{name}: expected {least:g} to {most:g}")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, str) and (len(value) > MOST_TEXT or not value.isprintable()):
                raise ValueError(f"{item.name}: expected at most {MOST_TEXT} printable characters")


BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("slices", 1, MOST_SLICES),
    ("slice_thickness_mm", 0.05, 100),
    ("spacing_mm", 0.01, 1000),
    ("matrix", 16, 8192),
    ("kvp", 1, 1000),
)
"""Least and most of each number."""


def facts_of(said: Invented) -> SeriesFacts:
    """Return the facts of a series as it is said to be."""
    image = ImageFacts(
        image_type=tuple(part.strip().upper() for part in said.image_type.split("/") if part),
        frame_of_reference_uid=INVENTED_UID,
        orientation=ORIENTATIONS[said.orientation],
        rows=said.matrix,
        columns=said.matrix,
        pixel_spacing=(round(400 / said.matrix, 4),) * 2,
        slice_thickness_mm=said.slice_thickness_mm,
        rescaled=said.modality == "CT",
        rescale_type="HU" if said.modality == "CT" else "",
        kvp=said.kvp if said.modality == "CT" else None,
        kernel=(said.kernel,) if said.kernel else (),
        contrast=said.contrast,
        manufacturer=said.manufacturer,
        device=said.device,
        station=said.station,
        study_description=said.study_description,
        protocol=said.protocol,
        description=said.description,
    )
    members = [
        Member(
            sop_class_uid=CLASSES[said.modality],
            facts=image,
            place_mm=number * said.spacing_mm,
            calling_ae=said.sending_ae or None,
        )
        for number in range(said.slices)
    ]
    return summarise(
        members,
        series_uid=INVENTED_UID,
        modality=said.modality,
        body_part=said.body_part,
        description=said.description,
        slice_thickness_mm=said.slice_thickness_mm,
    )
