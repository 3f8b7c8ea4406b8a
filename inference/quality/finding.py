"""What a check of a label map gives: one finding a code, with the structures it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warning", "serious"]
"""info: usual, to be known when a number is read; warning: the model may be wrong there; serious:
the side or the position of the patient may be wrong."""
NAMED = 5
"""Structures that a sentence names at most; `Finding.structures` has all."""

CUT_AT_ENDS = "CUT_AT_ENDS"
CUT_IN_PLANE = "CUT_IN_PLANE"
VERTEBRAE_OUT_OF_ORDER = "VERTEBRAE_OUT_OF_ORDER"
VERTEBRAE_MISSING = "VERTEBRAE_MISSING"
VERTEBRA_DOUBLED = "VERTEBRA_DOUBLED"
RIBS_OUT_OF_ORDER = "RIBS_OUT_OF_ORDER"
RIBS_MISSING = "RIBS_MISSING"
RIB_DOUBLED = "RIB_DOUBLED"
SIDES_SWAPPED = "SIDES_SWAPPED"
ONE_SIDE_SMALL = "ONE_SIDE_SMALL"
DETACHED_PIECES = "DETACHED_PIECES"
VOLUME_IMPLAUSIBLE = "VOLUME_IMPLAUSIBLE"
EXTREMITY_ONLY = "EXTREMITY_ONLY"
NOTHING_FOUND = "NOTHING_FOUND"
SITUS_MIRRORED = "SITUS_MIRRORED"
SITUS_CONTRADICTS = "SITUS_CONTRADICTS"
ORIENTATION_IMPLAUSIBLE = "ORIENTATION_IMPLAUSIBLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something in the label map that a reader has to know."""

    code: str
    """One of those above."""
    sentence: str
    structures: tuple[str, ...] = ()
    """The model's names of all structures it is about; none: it is about the whole."""
    severity: Severity


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence, the first few of them: `kidney left, liver and 3 more`."""
    shown = [name.replace("_", " ") for name in names[:NAMED]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
