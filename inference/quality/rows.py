"""Vertebrae and ribs: are they in order, is one missing in the row, is one there twice?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from inference.quality.finding import (
    RIB_DOUBLED,
    RIBS_MISSING,
    RIBS_OUT_OF_ORDER,
    VERTEBRA_DOUBLED,
    VERTEBRAE_MISSING,
    VERTEBRAE_OUT_OF_ORDER,
    Finding,
    listed,
)
from inference.quality.seen import Piece, Seen

SPINE = (
    *(f"vertebrae_C{number}" for number in range(1, 8)),
    *(f"vertebrae_T{number}" for number in range(1, 13)),
    *(f"vertebrae_L{number}" for number in range(1, 6)),
)
RIBS = {side: tuple(f"rib_{side}_{n}" for n in range(1, 13)) for side in ("right", "left")}
LEAST_VERTEBRA_ML, LEAST_RIB_ML = 2.0, 0.7
"""Of less nothing is concluded: it may be a few voxels astray."""
STEP_MM = 5.0
"""A vertebra lies at least so much below the one before it; ten and more is usual even at the neck.
Of a vertebra that is cut the middle is not known: 0 mm."""
RIB_STEP_MM = -6.0
"""The same of ribs where they reach the spine: the first two all but touch there."""
TWICE = 0.25
"""Part of the whole that a second piece has to be, to count as another vertebra or rib."""
APART_MM = 15.0
"""Distance of two such pieces along the body; body and arch of one vertebra lie at one height."""
OVERLAP = 0.5
"""Pieces of one rib follow each other around the chest; two ribs lie over each other: part of the
smaller one's box, seen from above, that lies over the other's."""


def check_rows(
    seen: Mapping[str, Seen], finds: Collection[str], rib_heads_mm: Mapping[str, float]
) -> Iterator[Finding]:
    """Yield what is wrong with the rows of vertebrae and ribs.

    Args:
        seen: what was found, by name.
        finds: names of all structures that were looked for.
        rib_heads_mm: height (z) at which ribs reach the spine, where they do.
    """
    spine = [seen[name] for name in SPINE if name in seen]
    yield from _order(spine)
    missing = _missing(SPINE, seen, finds, LEAST_VERTEBRA_ML)
    if missing:
        yield Finding(
            code=VERTEBRAE_MISSING,
            sentence=f"Missing between vertebrae that were found: {listed(missing)}.",
            structures=tuple(missing),
            severity="warning",
        )
    doubled = [one.name for one in spine if _is_doubled(one, _apart)]
    if doubled:
        yield Finding(
            code=VERTEBRA_DOUBLED,
            sentence=f"Found at two heights: {listed(doubled)}.",
            structures=tuple(doubled),
            severity="warning",
        )
    yield from _ribs(seen, finds, rib_heads_mm)


def _order(spine: Sequence[Seen]) -> Iterator[Finding]:
    wrong: set[str] = set()
    for upper, lower in pairwise(one for one in spine if one.volume_ml >= LEAST_VERTEBRA_ML):
        step = 0.0 if upper.cut or lower.cut else STEP_MM
        if upper.centre[2] - lower.centre[2] < step:
            wrong |= {upper.name, lower.name}
    if wrong:
        names = tuple(name for name in SPINE if name in wrong)
        yield Finding(
            code=VERTEBRAE_OUT_OF_ORDER,
            sentence=f"Vertebrae are not in order from head to feet: {listed(names)}.",
            structures=names,
            severity="warning",
        )


def _ribs(
    seen: Mapping[str, Seen], finds: Collection[str], heads_mm: Mapping[str, float]
) -> Iterator[Finding]:
    wrong: set[str] = set()
    missing: list[str] = []
    doubled: list[str] = []
    for row in RIBS.values():
        there = [seen[name] for name in row if name in seen]
        at_spine = [one for one in there if one.name in heads_mm and one.volume_ml >= LEAST_RIB_ML]
        for upper, lower in pairwise(at_spine):
            if heads_mm[upper.name] - heads_mm[lower.name] < RIB_STEP_MM:
                wrong |= {upper.name, lower.name}
        if not any(one.cut_in_plane for one in there):
            absent = _missing(row, seen, finds, LEAST_RIB_ML)
            missing += [name for name in absent if _would_show(name, row, seen)]
        doubled += [one.name for one in there if _is_doubled(one, _above)]
    names = tuple(name for row in RIBS.values() for name in row if name in wrong)
    for code, about, says in (
        (RIBS_OUT_OF_ORDER, names, "Ribs are not in order along the spine"),
        (RIBS_MISSING, missing, "Missing between ribs that were found"),
        (RIB_DOUBLED, doubled, "Found as two ribs"),
    ):
        if about:
            yield Finding(
                code=code,
                sentence=f"{says}: {listed(about)}.",
                structures=tuple(about),
                severity="warning",
            )


def _missing(
    row: Sequence[str], seen: Mapping[str, Seen], finds: Collection[str], least_ml: float
) -> list[str]:
    """Return what is absent between the first and the last of a row."""
    there = [n for n, name in enumerate(row) if name in seen and seen[name].volume_ml >= least_ml]
    if not there:
        return []
    between = row[there[0] : there[-1] + 1]
    return [name for name in between if name not in seen and name in finds]


def _would_show(name: str, row: Sequence[str], seen: Mapping[str, Seen]) -> bool:
    """Whether the nearest rib above or below is whole: of two that are cut at the ends nothing
    follows, because ribs slope."""
    place = row.index(name)
    above = next((seen[one] for one in reversed(row[:place]) if one in seen), None)
    below = next((seen[one] for one in row[place + 1 :] if one in seen), None)
    return any(one is not None and not one.cut_at_ends for one in (above, below))


def _is_doubled(one: Seen, are_two: Callable[[Piece, Piece], bool]) -> bool:
    large = [piece for piece in one.pieces if piece.volume_ml >= TWICE * one.volume_ml]
    return any(are_two(first, second) for n, first in enumerate(large) for second in large[n + 1 :])


def _apart(first: Piece, second: Piece) -> bool:
    """Whether two pieces lie at different heights, with a gap."""
    gap = max(first.low[2], second.low[2]) - min(first.high[2], second.high[2])
    return bool(gap > 0 and abs(first.centre[2] - second.centre[2]) >= APART_MM)


def _above(first: Piece, second: Piece) -> bool:
    """Whether two pieces lie over each other."""
    if abs(first.centre[2] - second.centre[2]) < APART_MM:
        return False
    low = [max(a, b) for a, b in zip(first.low[:2], second.low[:2], strict=True)]
    high = [min(a, b) for a, b in zip(first.high[:2], second.high[:2], strict=True)]
    common = float(max(0.0, high[0] - low[0]) * max(0.0, high[1] - low[1]))
    areas = [float((p.high[0] - p.low[0]) * (p.high[1] - p.low[1])) for p in (first, second)]
    return common >= OVERLAP * min(areas) > 0
