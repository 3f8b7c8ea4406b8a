"""Which numbers stand on the page: what a radiologist looks for first, then the largest.

A hundred structures do not fit, and lobes or chambers are read as one organ: the report has every
structure, the page a choice of it. Pure functions of the measurements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dicomnode.results.model import Measured

_CHOICE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Liver", ("liver",)),
    ("Spleen", ("spleen",)),
    ("Pancreas", ("pancreas",)),
    ("Gallbladder", ("gallbladder",)),
    ("Kidney right", ("kidney_right",)),
    ("Kidney left", ("kidney_left",)),
    ("Kidney cyst right", ("kidney_cyst_right",)),
    ("Kidney cyst left", ("kidney_cyst_left",)),
    ("Adrenal gland right", ("adrenal_gland_right",)),
    ("Adrenal gland left", ("adrenal_gland_left",)),
    ("Stomach", ("stomach",)),
    ("Urinary bladder", ("urinary_bladder",)),
    ("Prostate", ("prostate",)),
    (
        "Lung right",
        ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    ),
    ("Lung left", ("lung_upper_lobe_left", "lung_lower_lobe_left")),
    ("Heart", ("heart",)),
    (
        "Heart",
        (
            "heart_myocardium",
            "heart_atrium_left",
            "heart_ventricle_left",
            "heart_atrium_right",
            "heart_ventricle_right",
        ),
    ),
    ("Aorta", ("aorta",)),
    ("Inferior vena cava", ("inferior_vena_cava",)),
    ("Brain", ("brain",)),
    ("Thyroid gland", ("thyroid_gland",)),
)
_COUNTED = re.compile(r"(vertebrae|rib)_")
_SPINE = (
    *(f"C{number}" for number in range(1, 8)),
    *(f"T{number}" for number in range(1, 13)),
    *(f"L{number}" for number in range(1, 6)),
    "S1",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    title: str
    label: int
    """Whose colour it has."""
    volume_ml: float
    mean: float | None
    """HU of CT, signal of MR."""
    cut: bool
    """The field of view cuts it: the volume is of a part only."""


def choose_rows(
    names: Mapping[int, str],
    titles: Mapping[int, str],
    measurements: Sequence[Measured],
    most: int,
) -> tuple[Row, ...]:
    """Return at most `most` rows: the choice above, then the largest of the rest.

    Args:
        names: the model's own names by label.
        titles: names for people by label.
        measurements: of what was found.
    """
    found = {names[item.label]: item for item in measurements}
    rows = []
    used: set[str] = set()
    for title, wanted in _CHOICE:
        there = [found[name] for name in wanted if name in found]
        if there:
            part = f" ({len(there)} of {len(wanted)} parts)" if len(there) < len(wanted) else ""
            rows.append(_row(title + part, there))
            used.update(wanted)
    rest = sorted(
        (item for name, item in found.items() if name not in used and not _COUNTED.match(name)),
        key=lambda item: (-item.volume_ml, item.label),
    )
    rows += [_row(titles[item.label], [item]) for item in rest]
    return tuple(rows[:most])


def _row(title: str, parts: Sequence[Measured]) -> Row:
    volume = sum(part.volume_ml for part in parts)
    known = [part for part in parts if part.mean is not None]
    weight = sum(part.volume_ml for part in known)
    mean = sum((part.mean or 0.0) * part.volume_ml for part in known) / weight if weight else None
    return Row(
        title=title,
        label=parts[0].label,
        volume_ml=volume,
        mean=mean,
        cut=any(part.touches_border for part in parts),
    )


def counted(names: Mapping[int, str], measurements: Sequence[Measured]) -> Iterator[str]:
    """Yield what was found of vertebrae and ribs, so that a gap is seen: `Vertebrae T5-L5`."""
    found = {names[item.label] for item in measurements}
    levels = [level for level in _SPINE if f"vertebrae_{level}" in found]
    if levels:
        yield f"Vertebrae {', '.join(_runs(levels, _SPINE))}"
    for side in ("right", "left"):
        numbers = [str(n) for n in range(1, 13) if f"rib_{side}_{n}" in found]
        if numbers:
            order = tuple(str(n) for n in range(1, 13))
            yield f"Ribs {side} {', '.join(_runs(numbers, order))}"


def _runs(items: Sequence[str], order: Sequence[str]) -> Iterator[str]:
    """Yield `first-last` of every run of neighbours in `order`."""
    run: list[str] = []
    for item in items:
        if run and order.index(item) != order.index(run[-1]) + 1:
            yield _run(run)
            run = []
        run.append(item)
    if run:
        yield _run(run)


def _run(run: Sequence[str]) -> str:
    return run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}"
