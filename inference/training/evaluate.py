"""What the card states: Dice of the shipped files, by the product's own path, on held-out bodies.

Dice is taken per body and structure and averaged over all pairs that occur in the truth. The
classifiers by HU alone and by position alone are the measure's own controls: were they good, the
bodies would be too easy.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.catalog import ModelCard
from inference.phantom import Body
from inference.pipeline import Predictor, segment
from inference.training.plans import SPACING_MM, whole_body
from inference.training.samples import RealCt

HELD_OUT = tuple(range(1, 11))
"""Seeds of the bodies that are measured; training starts at a million."""
LARGE_ML = 20.0
CLASSES = 105
_BIN_HU, _BINS = 4, 1024

Labels = NDArray[np.uint8]
Hounsfield = NDArray[np.int16]
Grid = tuple[tuple[int, int, int], NDArray[np.float64]]


def dice(truth: Labels, found: Labels) -> NDArray[np.float64]:
    """Dice of every label 0 .. 104, NaN where the truth has none; arrays of one shape."""
    both = np.bincount(truth[truth == found].ravel(), minlength=CLASSES)
    sizes = [np.bincount(labels.ravel(), minlength=CLASSES) for labels in (truth, found)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sizes[0] > 0, 2 * both / (sizes[0] + sizes[1]), np.nan)


def ct_grid() -> Grid:
    """A chest and abdomen as a scanner gives them: 500 mm field of view, 1.5 x 1.5 x 3 mm."""
    affine = np.diag([1.5, 1.5, 3.0, 1.0])
    affine[:3, 3] = (-250.0, -210.0, -200.0)
    return (334, 280, 150), affine


def bodies(seeds: Iterable[int], grid: Grid | None = None) -> list[tuple[Hounsfield, Labels]]:
    """HU and labels [i, j, k] at variation 1; by default whole bodies at the model's spacing."""
    shape, affine = grid or whole_body()
    return [Body(seed).render(shape, affine) for seed in seeds]


def large(truths: Sequence[Labels], voxel_ml: float = SPACING_MM**3 / 1000) -> NDArray[np.bool_]:
    """Which labels are above 20 mL on average over the bodies; [105], background never."""
    count = np.mean([np.bincount(t.ravel(), minlength=CLASSES) for t in truths], axis=0)
    chosen: NDArray[np.bool_] = count * voxel_ml > LARGE_ML
    chosen[0] = False
    return chosen


def on_bodies(
    card: ModelCard,
    predictor: Predictor,
    seeds: Sequence[int] = HELD_OUT,
    grid: Grid | None = None,
) -> dict[str, Any]:
    """Mean Dice over held-out bodies: structures above 20 mL on the grid, and all."""
    _, affine = grid or whole_body()
    drawn = bodies(seeds, grid)
    scores = np.array([dice(truth, segment(hu, affine, card, predictor)) for hu, truth in drawn])
    big = large([truth for _, truth in drawn], abs(float(np.linalg.det(affine))) / 1000)
    each = {n: np.nanmean(scores[:, n]) for n in range(1, CLASSES) if (scores[:, n] >= 0).any()}
    names = {s.label: s.name for s in card.structures}
    return {
        "bodies": len(seeds),
        "structures_above_20_ml": int(big.sum()),
        "dice_above_20_ml": _mean(scores[:, big]),
        "dice_all_structures": _mean(scores[:, 1:]),
        "structures_below_0_5": [names[n] for n, score in each.items() if score < 0.5],
    }


def on_real(card: ModelCard, predictor: Predictor, real: RealCt) -> float:
    """Mean Dice on the real CT over structures of at least 20 mL in its label map."""
    found = segment(real.hu.astype(np.int16), real.affine, card, predictor)
    voxel_ml = abs(np.linalg.det(real.affine[:3, :3])) / 1000
    size = np.bincount(real.labels.ravel(), minlength=CLASSES) * voxel_ml
    size[0] = 0
    return _mean(dice(real.labels, found)[size >= LARGE_ML])


def by_hu_alone(seeds: Sequence[int] = HELD_OUT) -> dict[str, float]:
    """Mean Dice above 20 mL of the best classifiers that see one voxel's HU and nothing else.

    Fitted to each body's own HU histogram, so they know more than any classifier could: the most
    frequent label of each HU, and the label under which the HU is the most likely.
    """
    drawn = bodies(seeds)
    big = large([truth for _, truth in drawn])
    scores: dict[str, list[float]] = {"most_frequent": [], "most_likely": []}
    for hu, truth in drawn:
        level = np.clip((hu.astype(np.int64) + 1024) // _BIN_HU, 0, _BINS - 1)
        joint = np.bincount((level * CLASSES + truth).ravel(), minlength=_BINS * CLASSES)
        table = joint.reshape(_BINS, CLASSES).astype(np.float64)
        likely = table / np.maximum(table.sum(0), 1)
        for name, votes in (("most_frequent", table), ("most_likely", likely)):
            found = votes.argmax(1).astype(np.uint8)[level]
            scores[name].append(_mean(dice(truth, found)[big]))
    return {name: round(float(np.mean(values)), 4) for name, values in scores.items()}


def by_position_alone(seeds: Sequence[int] = HELD_OUT) -> float:
    """Mean Dice above 20 mL of the unvaried table, laid on each body by the labels' centroid."""
    shape, affine = whole_body()
    table = Body(0, 0.0).render(shape, affine)[1]
    drawn = bodies(seeds)
    big = large([truth for _, truth in drawn])
    home = np.argwhere(table).mean(0)
    scores = []
    for _, truth in drawn:
        moved = np.rint(np.argwhere(truth).mean(0) - home).astype(int)
        scores.append(_mean(dice(truth, np.roll(table, moved, (0, 1, 2)))[big]))
    return round(float(np.mean(scores)), 4)


def _mean(values: NDArray[np.float64]) -> float:
    return round(float(np.nanmean(values)), 4)
