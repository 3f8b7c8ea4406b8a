"""What a label map says of itself, and what headers say of the patient: what is done about it.

The checks are `inference.quality` and `domain.subject`. Held by default is what may be a wrong side
or a wrong position: a person looks and releases it, and nothing is ever flipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dicomnode.domain.findings import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityPolicy:
    """What follows from each finding."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    nothing_found: Action = "hold"
    situs_mirrored: Action = "hold"
    situs_contradicts: Action = "hold"
    sides_swapped: Action = "hold"
    orientation_implausible: Action = "hold"
    vertebrae_out_of_order: Action = "note"
    vertebrae_missing: Action = "note"
    vertebra_doubled: Action = "note"
    ribs_out_of_order: Action = "note"
    ribs_missing: Action = "note"
    rib_doubled: Action = "note"
    one_side_small: Action = "note"
    detached_pieces: Action = "note"
    volume_implausible: Action = "note"
    cut_at_ends: Action = "note"
    cut_in_plane: Action = "note"
    under_18: Action = "note"
    extremity_only: Action = "note"
    phantom_scan: Action = "note"
    smaller_plan: Action = "note"
