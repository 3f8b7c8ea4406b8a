"""Volumes: far from what is plausible, one side much smaller, pieces that lie apart.

The bounds stand in volumes.csv with their source. They are far wider than what is normal, since
those who are scanned are ill: who is outside is rather a mistake than a patient.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from inference.quality.finding import (
    DETACHED_PIECES,
    ONE_SIDE_SMALL,
    VOLUME_IMPLAUSIBLE,
    Finding,
    listed,
)
from inference.quality.seen import Piece, Seen
from inference.quality.sides import Layout, other_side

LUNGS = {
    "right": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "left": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
}
_COMPARED = re.compile(
    r"(kidney|adrenal_gland|hip|scapula|clavicula|gluteus_\w+|autochthon|iliopsoas)_(left|right)$"
)
SMALLER = 1 / 3
"""Of the other side: normal sides differ by less than a third, shrunken organs by more."""
_WHOLE = re.compile(
    r"liver|spleen|kidney_(left|right)|gallbladder|urinary_bladder|prostate|heart$|brain|trachea"
    r"|lung_lower|vertebrae|sacrum|hip|femur|humerus|aorta|adrenal|gluteus"
)
"""What is one piece in everybody; bowel, vessels, ribs and lobes need not be."""
APART_ML, APART_PART = 1.0, 0.02
ASTRAY_ML, ASTRAY_MM = 0.5, 50.0
"""A piece of at least this, so far from the largest one: astray, whatever its part of the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """One row of volumes.csv."""

    pattern: str
    """Regular expression for the whole name of a structure."""
    low_ml: float
    high_ml: float
    published: bool
    """The bounds are drawn around published values; otherwise they are wide ones of our own."""
    source: str


@cache
def load_bounds() -> tuple[Bounds, ...]:
    """Return the table."""
    with files("inference.quality").joinpath("volumes.csv").open(encoding="utf-8") as lines:
        return tuple(
            Bounds(
                pattern=row["structure"],
                low_ml=float(row["low_ml"]),
                high_ml=float(row["high_ml"]),
                published=row["kind"] == "published",
                source=row["source"],
            )
            for row in csv.DictReader(lines)
        )


def bounds_of(name: str) -> Bounds | None:
    """Return the bounds of a structure, if it has any."""
    return next((row for row in load_bounds() if re.fullmatch(row.pattern, name)), None)


def check_volumes(
    layout: Layout, finds: Collection[str], low_mm: float, high_mm: float
) -> Iterator[Finding]:
    """Yield what is wrong with volumes and pieces.

    Args:
        layout: what was found.
        finds: names of all structures that were looked for.
        low_mm: height (z) of the lowest slice.
        high_mm: height of the highest.
    """
    whole = {name: one for name, one in layout.seen.items() if one.is_whole}
    outside = [(one, bounds_of(name)) for name, one in layout.seen.items()]
    wrong = [
        (one, bounds)
        for one, bounds in outside
        if bounds is not None
        and (
            one.volume_ml > bounds.high_ml or (one.name in whole and one.volume_ml < bounds.low_ml)
        )
    ]
    if wrong:
        said = [
            f"{one.name} {_ml(one.volume_ml)} mL ({_ml(bounds.low_ml)} to {_ml(bounds.high_ml)})"
            for one, bounds in wrong
        ]
        yield Finding(
            code=VOLUME_IMPLAUSIBLE,
            sentence=f"Volume outside what is plausible in adults: {listed(said)}.",
            structures=tuple(one.name for one, _ in wrong),
            severity="warning",
        )
    yield from _one_side(layout, whole, finds, (low_mm, high_mm))
    yield from _pieces(layout.seen)


def _ml(value: float) -> str:
    return f"{value:.1f}" if value < 10 and value % 1 else f"{value:.0f}"


def _one_side(
    layout: Layout,
    whole: Mapping[str, Seen],
    finds: Collection[str],
    heights_mm: tuple[float, float],
) -> Iterator[Finding]:
    small: list[str] = []
    for name, one in whole.items():
        other = other_side(name)
        if other is None or other not in finds or not _COMPARED.match(name):
            continue
        beside = layout.seen.get(other)
        if beside is None:
            if _could_be_seen(one, layout, heights_mm):
                small.append(other)
        elif other in whole and beside.volume_ml < SMALLER * one.volume_ml:
            small.append(other)
    sums = {
        side: sum(whole[name].volume_ml for name in names)
        for side, names in LUNGS.items()
        if all(name in whole for name in names)
    }
    if len(sums) == 2 and min(sums.values()) < SMALLER * max(sums.values()):
        small += LUNGS[min(sums, key=lambda side: sums[side])]
    if small:
        yield Finding(
            code=ONE_SIDE_SMALL,
            sentence="Missing, or less than a third of the same on the other side: "
            f"{listed(small)}.",
            structures=tuple(small),
            severity="warning",
        )


def _could_be_seen(one: Seen, layout: Layout, heights_mm: tuple[float, float]) -> bool:
    """Whether a partner would be in the images: neither sides nor ends are near."""
    spine = layout.spine_at(float(one.centre[2]))
    if spine is None:
        return False
    high = float(one.main.high[2] - one.main.low[2])
    inside = heights_mm[0] + high < one.centre[2] < heights_mm[1] - high
    # Where anything is cut in the plane, the partner may be beyond the same edge.
    return inside and not any(thing.cut_in_plane for thing in layout.seen.values())


def _pieces(seen: Mapping[str, Seen]) -> Iterator[Finding]:
    apart = [name for name, one in seen.items() if _has_pieces(name, one)]
    if apart:
        yield Finding(
            code=DETACHED_PIECES,
            sentence=f"Pieces lie apart from the rest of: {listed(apart)}.",
            structures=tuple(apart),
            severity="warning",
        )


def _has_pieces(name: str, one: Seen) -> bool:
    if not _WHOLE.match(name):
        return False
    # What the field of view cuts may be one piece outside of it.
    others = [piece for piece in one.pieces[1:] if not (piece.cut and one.main.cut)]
    detached = sum(piece.volume_ml for piece in others)
    if detached >= max(APART_ML, APART_PART * one.volume_ml):
        return True
    return any(p.volume_ml >= ASTRAY_ML and _distance(p, one.main) >= ASTRAY_MM for p in others)


def _distance(first: Piece, second: Piece) -> float:
    """Return the distance of two boxes, mm."""
    gaps: NDArray[np.float64] = np.maximum(first.low - second.high, second.low - first.high)
    return float(np.linalg.norm(gaps.clip(0)))
