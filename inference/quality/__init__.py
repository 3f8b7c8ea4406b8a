"""Is a label map plausible? Checks of what a model found, without a look at the image.

Pure functions: arrays and an affine in, findings out; no DICOM, no torch. In about one subject of
seven what TotalSegmentator finds has errors (Wasserthal et al., Radiology: AI 2023, doi
10.1148/ryai.230024): neighbouring vertebrae and ribs mixed up, small parts missing.
What a structure is, is known by its name in TotalSegmentator; others are only seen to be cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from inference.measuring import Edges
from inference.quality.finding import (
    CUT_AT_ENDS,
    CUT_IN_PLANE,
    NOTHING_FOUND,
    Finding,
    Severity,
    listed,
)
from inference.quality.heads import rib_heads
from inference.quality.rows import check_rows
from inference.quality.seen import Seen, look
from inference.quality.sides import Layout, check_sides
from inference.quality.volumes import check_volumes

__all__ = ["Finding", "Severity", "check_labels"]

_SAYS = "The model found none of its structures in these images."


def check_labels(
    labels: NDArray[np.uint8],
    affine: NDArray[np.float64],
    names: Mapping[int, str],
    volumes_ml: Mapping[int, float],
    edges: Edges,
) -> tuple[Finding, ...]:
    """Return what a reader of the label map has to know, the most serious first.

    Args:
        labels: [slice, row, column]; 0 is background.
        affine: 4x4, array indices to RAS+ mm; of an unevenly spaced stack the nearest one.
        names: of all labels that were looked for.
        volumes_ml: by label that occurs, as measured.
        edges: labels that the field of view cuts (`inference.measuring.find_edges`).
    """
    seen = look(labels, affine, names, volumes_ml, edges)
    if not seen:
        return (Finding(code=NOTHING_FOUND, sentence=_SAYS, severity="serious"),)
    layout = Layout(seen=seen)
    finds = frozenset(names.values())
    ends = np.array([[0, 0, 0], [len(labels) - 1, 0, 0]]) @ affine[:3, :3].T + affine[:3, 3]
    low, high = sorted(ends[:, 2].tolist())
    found = [
        *check_sides(layout),
        *check_rows(seen, finds, rib_heads(labels, affine, layout)),
        *check_volumes(layout, finds, low, high),
        *_cut(seen),
    ]
    order: tuple[Severity, ...] = ("serious", "warning", "info")
    return tuple(sorted(found, key=lambda one: order.index(one.severity)))


def _cut(seen: Mapping[str, Seen]) -> Iterator[Finding]:
    ends = tuple(name for name, one in seen.items() if one.cut_at_ends)
    sides = tuple(name for name, one in seen.items() if one.cut_in_plane)
    for code, names, where in (
        (CUT_AT_ENDS, ends, "the first or last slice"),
        (CUT_IN_PLANE, sides, "the side of the field of view"),
    ):
        if names:
            yield Finding(
                code=code,
                sentence=f"Cut by {where}, volume incomplete: {listed(names)}.",
                structures=names,
                severity="info",
            )
