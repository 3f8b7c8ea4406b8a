"""What the voxels of a series say of themselves, and what is done about it.

The checks look at the images; here stands what they can find and which action the configuration
gives each. No result of a series that is refused or held leaves the node unseen by a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dicomnode.domain.findings import Action

VALUES_NOT_HU = "VALUES_NOT_HU"
NO_AIR_SEEN = "NO_AIR_SEEN"
SPINE_NOT_AT_BACK = "SPINE_NOT_AT_BACK"
UPSIDE_DOWN = "UPSIDE_DOWN"
ORIENTATION_CONTRADICTS = "ORIENTATION_CONTRADICTS"
CONTENT_HELD = "CONTENT_HELD"
"""Reason of deliveries that wait for a person because of a finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentPolicy:
    """What follows from each finding."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    values_not_hu: Action = "refuse"
    no_air_seen: Action = "note"
    spine_not_at_back: Action = "hold"
    upside_down: Action = "hold"
    orientation_contradicts: Action = "hold"
