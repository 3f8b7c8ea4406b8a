"""What follows from orientation, places and matrix of a series: angles, lengths and sizes."""

from __future__ import annotations

import math

from dicomnode.domain.images import ImageFacts
from dicomnode.domain.records import SeriesFacts


def tilt_degrees(facts: ImageFacts) -> float:
    """Return the angle of the slices' normal to the axis of the body, to 0.1 degrees."""
    normal = _normal(facts)
    return 90.0 if normal is None else round(math.degrees(math.acos(min(1.0, abs(normal[2])))), 1)


def orientation_of(facts: ImageFacts, within_degrees: float = 30.0) -> str:
    """Return axial, coronal, sagittal or oblique; empty where the image does not say."""
    normal = _normal(facts)
    if normal is None:
        return ""
    for name, part in zip(("sagittal", "coronal", "axial"), normal, strict=True):
        if round(math.degrees(math.acos(min(1.0, abs(part)))), 1) <= within_degrees:
            return name
    return "oblique"


def _normal(facts: ImageFacts) -> tuple[float, float, float] | None:
    if len(facts.orientation) != 6:
        return None
    (a, b, c), (d, e, f) = facts.orientation[:3], facts.orientation[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.sqrt(sum(part * part for part in normal))
    if length < 0.5:
        return None
    return normal[0] / length, normal[1] / length, normal[2] / length


def equivalent_slices(facts: SeriesFacts) -> float:
    """Return the size of a series in slices of 512 x 512 pixels."""
    pixels = (facts.image.rows or 512) * (facts.image.columns or 512)
    return facts.slices * pixels / (512 * 512)


def coverage_mm(facts: SeriesFacts) -> float:
    """Return how much of the patient the slices cover, from first to last, with their spacing."""
    if facts.first_mm is None or facts.last_mm is None:
        return 0.0
    return round(facts.last_mm - facts.first_mm + (facts.spacing_mm or 0.0), 1)


def thickness_mm(facts: SeriesFacts) -> float:
    """Return what the slices resolve along their normal: thickness or spacing, whatever is more."""
    found = [value for value in (facts.slice_thickness_mm, facts.spacing_mm) if value]
    return round(max(found), 2) if found else math.inf
