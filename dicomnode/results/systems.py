"""Which system of the body a structure belongs to, by the model's own name of it."""

from __future__ import annotations

import re
from typing import Literal

System = Literal["bones", "muscles", "vessels", "organs"]

_SYSTEMS: tuple[tuple[System, str], ...] = (
    (
        "bones",
        r"vertebrae?(_|$)|rib(_|$)|sacrum|coccyx|hip(_|$)|femur|humerus|scapula|clavicula|sternum"
        r"|costal_cartilages|skull|patella|tibia|fibula|tarsal|metatarsal|phalanges|ulna|radius"
        r"|carpal|metacarpal|mandible|.*bone",
    ),
    ("muscles", r"gluteus|autochthon|iliopsoas|.*muscle|quadriceps|thigh|sartorius"),
    (
        "vessels",
        r"heart|aorta|atrial_appendage|brachiocephalic|superior_vena|inferior_vena|portal_vein"
        r"|.*(artery|vein|vena)(_|$)|pulmonary_(artery|vein)|.*vessel",
    ),
)


def system_of(name: str) -> System:
    """Return the system of a structure; what no pattern knows is an organ."""
    for system, pattern in _SYSTEMS:
        if re.match(pattern, name):
            return system
    return "organs"
