"""Left and right, the situs, and whether head, feet, front and back are where they should be.

World is RAS+ millimetres: x grows to the patient's right, y to the front, z to the head. The middle
is the spine's at the same height, so that a patient who lies off the centre is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from inference.quality.finding import (
    EXTREMITY_ONLY,
    ORIENTATION_IMPLAUSIBLE,
    SIDES_SWAPPED,
    SITUS_CONTRADICTS,
    SITUS_MIRRORED,
    Finding,
    listed,
)
from inference.quality.rows import SPINE
from inference.quality.seen import Seen

CHAMBERS = (
    "heart_myocardium",
    "heart_atrium_left",
    "heart_ventricle_left",
    "heart_atrium_right",
    "heart_ventricle_right",
)
_CROSSES = re.compile(r"heart_|.*(artery|vein|vena|carotid|subclavian|appendage|cyst)")
"""What has a side in its name and may lie across the middle."""
LEAST_ML = 1.0
COMPARABLE = 0.1
"""Volume of the smaller of a pair in parts of the larger; below it is an error of its own."""
PAIR_MM = 5.0
"""So far the right one may lie left of the left one."""
WRONG_SIDE_MM, WRONG_SIDE_ML = 20.0, 5.0
"""So far beyond the spine, and so large, a structure is on the wrong side by itself."""
_SITUS: tuple[tuple[str, int, float, float], ...] = (
    # Side (1 right, -1 left), least mL, and so far it may lie on the other side, mm.
    ("liver", 1, 150.0, 15.0),
    ("spleen", -1, 20.0, 15.0),
    ("stomach", -1, 30.0, 25.0),
    ("heart", -1, 150.0, 25.0),
)
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("brain", "skull"),
    ("thyroid_gland", "clavicula_right", "clavicula_left"),
    ("heart", "lung_upper_lobe_right", "lung_upper_lobe_left"),
    ("liver", "spleen"),
    ("hip_right", "hip_left", "urinary_bladder", "sacrum", "prostate"),
)
"""From head to feet; what is two levels apart or more is compared."""
LEVEL_MM = 20.0
_IN_FRONT = ("heart", "sternum", "urinary_bladder", "small_bowel", "stomach", "liver", "colon")
TURNED_DEGREES, LEAST_FORWARD_MM = 70.0, 15.0
_LIMBS = re.compile(
    r"humerus|femur|patella|tibia|fibula|tarsal|metatarsal|phalanges|ulna|radius|carpal|metacarpal"
    r"|quadriceps|thigh|sartorius"
)
_OUTSIDE = re.compile(r"skin|body|.*fat|.*muscle")


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: the spine is kept
class Layout:
    """Where things are."""

    seen: Mapping[str, Seen]

    @cached_property
    def spine(self) -> NDArray[np.float64]:
        """[n, 3] mm from feet to head: middles of what marks the middle of the body."""
        marks = [self.seen[n] for n in (*SPINE, "sacrum") if n in self.seen]
        marks = [one for one in marks if one.volume_ml >= LEAST_ML and not one.cut_in_plane]
        if not marks:
            marks = [self.seen[n] for n in ("spinal_cord",) if n in self.seen]
        points = np.array([one.centre for one in marks]).reshape(-1, 3)
        return points[np.argsort(points[:, 2], kind="stable")]

    def spine_at(self, z_mm: float) -> NDArray[np.float64] | None:
        """Return x, y of the spine at a height; None where no spine was found."""
        if not len(self.spine):
            return None
        x, y = (np.interp(z_mm, self.spine[:, 2], self.spine[:, axis]) for axis in (0, 1))
        return np.array([x, y])

    def organ(self, name: str) -> tuple[float, NDArray[np.float64], bool, bool] | None:
        """Return volume, centre and how it is cut, of a heart of chambers as well."""
        names = CHAMBERS if name == "heart" and name not in self.seen else (name,)
        parts = [self.seen[one] for one in names if one in self.seen]
        if not parts:
            return None
        volumes = np.array([part.volume_ml for part in parts])
        centre = volumes @ np.array([part.centre for part in parts]) / max(volumes.sum(), 1e-9)
        ends, sides = (
            any(getattr(part, how) for part in parts) for how in ("cut_at_ends", "cut_in_plane")
        )
        return float(volumes.sum()), centre, ends, sides


def check_sides(layout: Layout) -> Iterator[Finding]:
    """Yield what says that left and right, or head and feet, are not what they seem."""
    seen = layout.seen
    swapped = sorted({name for name in seen if _is_on_wrong_side(name, layout)})
    if swapped:
        yield Finding(
            code=SIDES_SWAPPED,
            sentence=f"On the other side than their names say: {listed(swapped)}.",
            structures=tuple(swapped),
            severity="serious",
        )
    yield from _situs(layout)
    yield from _orientation(layout)
    if all(_LIMBS.match(name) or _OUTSIDE.match(name) for name in seen):
        yield Finding(
            code=EXTREMITY_ONLY,
            sentence="Only structures of arms or legs were found; the checks of sides and order "
            "say nothing of them.",
            severity="info",
        )


def other_side(name: str) -> str | None:
    """Return the name of the same structure on the other side; None where there is no other."""
    if re.search(r"(^|_)left(_|$)", name):
        return re.sub(r"(^|_)left(_|$)", r"\1right\2", name)
    if re.search(r"(^|_)right(_|$)", name):
        return re.sub(r"(^|_)right(_|$)", r"\1left\2", name)
    return None


def _is_on_wrong_side(name: str, layout: Layout) -> bool:
    other = other_side(name)
    one = layout.seen[name]
    if other is None or _CROSSES.match(name) or one.volume_ml < LEAST_ML:
        return False
    to_right = 1 if re.search(r"(^|_)right(_|$)", name) else -1
    beside = layout.seen.get(other)
    if beside is not None and one.volume_ml >= COMPARABLE * beside.volume_ml >= 0:
        comparable = beside.volume_ml >= max(LEAST_ML, COMPARABLE * one.volume_ml)
        if comparable and to_right * (one.centre[0] - beside.centre[0]) < -PAIR_MM:
            return True
    spine = layout.spine_at(float(one.centre[2]))
    if spine is None or one.volume_ml < WRONG_SIDE_ML:
        return False
    return bool(to_right * (one.centre[0] - spine[0]) < -WRONG_SIDE_MM)


def _situs(layout: Layout) -> Iterator[Finding]:
    right: list[str] = []
    wrong: list[str] = []
    for name, side, least_ml, may_mm in _SITUS:
        organ = layout.organ(name)
        if organ is None:
            continue
        volume, centre, cut_at_ends, cut_in_plane = organ
        spine = layout.spine_at(float(centre[2]))
        # Of a stomach that is cut only the part may be seen that crosses the middle.
        cut = cut_in_plane or (cut_at_ends and name == "stomach")
        if spine is None or volume < least_ml or cut:
            continue
        away = side * (centre[0] - spine[0])
        if away < -may_mm:
            wrong.append(name)
        elif away > may_mm:
            right.append(name)
    if not len(layout.spine):
        wrong = _liver_and_spleen(layout)
    if len(wrong) > 1 and not right:
        yield Finding(
            code=SITUS_MIRRORED,
            sentence=f"Mirrored: {listed(wrong)} on the other side than usual; situs inversus, or "
            "images with left and right exchanged.",
            structures=tuple(wrong),
            severity="serious",
        )
    elif wrong:
        agree = f", unlike {listed(right)}" if right else ""
        yield Finding(
            code=SITUS_CONTRADICTS,
            sentence=f"On the other side than usual: {listed(wrong)}{agree}.",
            structures=tuple(wrong),
            severity="serious",
        )


def _liver_and_spleen(layout: Layout) -> list[str]:
    """Return both where the liver lies left of the spleen: what can be told without a spine."""
    pair = [layout.organ("liver"), layout.organ("spleen")]
    if any(organ is None or organ[3] for organ in pair):
        return []
    liver, spleen = (organ for organ in pair if organ is not None)
    large = liver[0] >= _SITUS[0][2] and spleen[0] >= _SITUS[1][2]
    return ["liver", "spleen"] if large and liver[1][0] < spleen[1][0] - 2 * PAIR_MM else []


def _orientation(layout: Layout) -> Iterator[Finding]:
    up = [*_levels_up(layout), *_spine_up(layout)]
    if up.count(False) > up.count(True):
        yield Finding(
            code=ORIENTATION_IMPLAUSIBLE,
            sentence="What belongs to the head end lies at the feet, by most of what was found.",
            severity="serious",
        )
    forward: list[NDArray[np.float64]] = []
    for name in _IN_FRONT:
        organ = layout.organ(name)
        spine = None if organ is None else layout.spine_at(float(organ[1][2]))
        if organ is not None and spine is not None and organ[0] >= WRONG_SIDE_ML and not organ[3]:
            forward.append(organ[1][:2] - spine)
    # Two at least: a single one may be an organ astray.
    if len(forward) < 2:
        return
    mean = np.mean(forward, axis=0)
    degrees = float(np.degrees(np.arctan2(abs(mean[0]), mean[1])))
    if float(np.hypot(*mean)) >= LEAST_FORWARD_MM and degrees > TURNED_DEGREES:
        yield Finding(
            code=ORIENTATION_IMPLAUSIBLE,
            sentence=f"The organs in front of the spine lie {degrees:.0f} degrees off where the "
            "headers say that the front is.",
            severity="serious",
        )


def _levels_up(layout: Layout) -> Iterator[bool]:
    """Yield of each pair of levels whether the upper one is above."""
    heights: list[float | None] = []
    for names in _LEVELS:
        organs = [organ for name in names if (organ := layout.organ(name)) is not None]
        large = [float(organ[1][2]) for organ in organs if organ[0] >= WRONG_SIDE_ML]
        heights.append(float(np.mean(large)) if large else None)
    for n, upper in enumerate(heights):
        for lower in heights[n + 2 :]:
            if upper is not None and lower is not None and abs(upper - lower) >= LEVEL_MM:
                yield upper > lower


def _spine_up(layout: Layout) -> Sequence[bool]:
    """Return one vote of three vertebrae and more: does the row run down, as it is numbered?"""
    row = [layout.seen[name] for name in SPINE if name in layout.seen]
    row = [one for one in row if one.volume_ml >= LEAST_ML and not one.cut]
    if len(row) < 3:
        return ()
    return (bool(row[0].centre[2] > row[-1].centre[2]),)
