"""At which height each rib reaches the spine: there their order is seen, however they slope."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.quality.rows import RIBS
from inference.quality.sides import Layout

REACHES_MM = 45.0
"""From the middle of a vertebra, in the axial plane; a rib that stays further away is cut off."""
HEAD_MM = 10.0
"""So much of a rib is its head."""
SAMPLED_MM = 2.0


def rib_heads(
    labels: NDArray[np.uint8], affine: NDArray[np.float64], layout: Layout
) -> dict[str, float]:
    """Return z (RAS+ mm) of the heads of the ribs that reach the spine.

    Args:
        labels: [slice, row, column].
        affine: array indices to RAS+ mm.
        layout: what was found in `labels`.
    """
    ribs = [layout.seen[name] for row in RIBS.values() for name in row if name in layout.seen]
    if not ribs or len(layout.spine) < 2:
        return {}
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    steps = np.maximum(1, np.floor(SAMPLED_MM / spacing + 1e-6)).astype(int)
    sampled = labels[:: steps[0], :: steps[1], :: steps[2]]
    boxes = ndimage.find_objects(sampled)
    found = {}
    for rib in ribs:
        box = boxes[rib.label - 1] if rib.label <= len(boxes) else None
        if box is None:
            continue
        start = np.array([side.start for side in box])
        points = (np.argwhere(sampled[box] == rib.label) + start) * steps
        world = points @ affine[:3, :3].T + affine[:3, 3]
        x, y = (
            np.interp(world[:, 2], layout.spine[:, 2], layout.spine[:, axis]) for axis in (0, 1)
        )
        away = np.hypot(world[:, 0] - x, world[:, 1] - y)
        nearest = float(away.min())
        if nearest <= REACHES_MM:
            found[rib.name] = float(np.median(world[away <= nearest + HEAD_MM, 2]))
    return found
