"""What is said of a series to people, beside why it is analysed or not."""

from __future__ import annotations

import math
from typing import Any

from dicomnode.domain.geometry import coverage_mm, orientation_of, thickness_mm
from dicomnode.domain.records import SeriesFacts


def named(facts: SeriesFacts) -> str:
    """Name a series by its number and description."""
    number = "" if facts.series_number is None else f" {facts.series_number}"
    return f"series{number} ({facts.description or facts.series_uid})"


def not_covered(loser: SeriesFacts, winner: SeriesFacts) -> str:
    """Say how much only the loser covers, where that can be compared."""
    if loser.image.orientation != winner.image.orientation:
        return ""
    if None in (loser.first_mm, loser.last_mm, winner.first_mm, winner.last_mm):
        return ""
    before = max(0.0, (winner.first_mm or 0.0) - (loser.first_mm or 0.0))
    after = max(0.0, (loser.last_mm or 0.0) - (winner.last_mm or 0.0))
    if before + after < 20:
        return ""
    return f"; {before + after:.0f} mm are covered by this one alone (see `choose: all`)"


def summary(facts: SeriesFacts) -> dict[str, Any]:
    """Return what people want to know of a series beside its choice."""
    thickness = thickness_mm(facts)
    return {
        "orientation": orientation_of(facts.image),
        "slices": facts.slices,
        "left_out": facts.left_out,
        "thickness_mm": thickness if math.isfinite(thickness) else None,
        "spacing_mm": facts.spacing_mm,
        "coverage_mm": coverage_mm(facts),
        "kernel": "/".join(facts.image.kernel),
        "image_type": "/".join(facts.image.image_type),
        "contrast": facts.image.contrast,
        "kvp": facts.image.kvp,
        "kev": facts.kev,
        "monoenergetic": facts.monoenergetic,
        "frame_of_reference_uid": facts.image.frame_of_reference_uid,
    }
