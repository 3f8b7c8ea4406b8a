"""Are the values of a CT volume Hounsfield units? Looked at before a model is.

Numbers only: no header, no DICOM. What the values cannot tell is not guessed: a scan without air
(a small field of view) is only said to have none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.content import NO_AIR_SEEN, VALUES_NOT_HU
from dicomnode.domain.findings import Finding

SAMPLES = 2_000_000
"""Voxels looked at, at most; evenly spread."""
LEAST_SPREAD = 30
"""Air and water are 1000 HU apart; noise alone spreads further than this."""
NOT_AIR = -400
"""Denser than lung, less dense than fat, both with noise."""
LEAST_BODY = 2e-4
"""Share of the field of view that a body has at least: a finger in 50 cm."""
LEAST_NEGATIVE = 1e-3
"""Share that is below water at least: fat, air, noise. A whole slice without any does not exist."""
TISSUE = (-150, 150)
"""HU where the most frequent value between lung and dense bone lies: fat or soft tissue, whatever
the part of the body, contrast or noise."""
SEARCHED = (-400, 400)
DENSE = 700
MOST_DENSE = 0.5
"""Share of what is no air that may be denser than this: cortical bone, teeth, metal; the petrous
bone in a small field of view has most of it."""
MOST_DENSE_AT_EDGE = 0.25
"""Share of the images' edges: air is there, or the body, but not bone all along."""
AIR = -850
LEAST_AIR = 1e-3
BIN = 10


def check_values(
    volume: NDArray[np.int16], valid: NDArray[np.bool_] | None = None
) -> tuple[Finding, ...]:
    """Return what speaks against Hounsfield units; nothing where nothing does.

    Args:
        volume: HU as the headers claim, [slice, row, column].
        valid: False at padding; None: all valid.
    """
    values = _sample(volume, valid)
    why = _why_not_hu(values) or _why_not_at_edge(volume, valid)
    if why:
        return (Finding(code=VALUES_NOT_HU, sentence=f"{why} ({_seen(values)})."),)
    if float(np.mean(values < AIR)) < LEAST_AIR:
        sentence = (
            "No air near -1000 HU is in the images, so that the scale of the values could not be "
            f"checked ({_seen(values)})."
        )
        return (Finding(code=NO_AIR_SEEN, sentence=sentence, severity="warning"),)
    return ()


def _sample(volume: NDArray[np.int16], valid: NDArray[np.bool_] | None) -> NDArray[np.int16]:
    """Return about `SAMPLES` valid voxels: every n-th row and column, every slice."""
    step = max(1, int(np.ceil((volume.size / SAMPLES) ** 0.5)))
    part = (slice(None), slice(step // 2, None, step), slice(step // 2, None, step))
    values = volume[part]
    if valid is None:
        return values.ravel()
    kept = values[valid[part]]
    return kept if kept.size else values.ravel()


def _why_not_hu(values: NDArray[np.int16]) -> str | None:
    low, high = np.percentile(values, (0.1, 99.9))
    if high - low < LEAST_SPREAD:
        return "The images hold hardly more than one value"
    body = values[values > NOT_AIR]
    if body.size < LEAST_BODY * values.size:
        return "Nothing in the images is as dense as a body"
    if np.mean(values < 0) < LEAST_NEGATIVE:
        return "No value is below 0 HU, as fat and air are: the values are not in Hounsfield units"
    if np.mean(body > DENSE) > MOST_DENSE:
        return (
            f"More is denser than {DENSE} HU than bone and metal can be: the values are shifted, "
            "inverted or scaled"
        )
    peak = _most_frequent(body)
    if not TISSUE[0] <= peak <= TISSUE[1]:
        return (
            f"The most frequent value that is no air is {peak:.0f} HU, where neither fat nor soft "
            "tissue is: the values are shifted, inverted or scaled"
        )
    return None


def _why_not_at_edge(volume: NDArray[np.int16], valid: NDArray[np.bool_] | None) -> str | None:
    whole = np.ones(volume.shape, np.bool_) if valid is None else valid
    edge = np.ones(volume.shape[1:], np.bool_)
    edge[1:-1, 1:-1] = False
    values = volume[:, edge][whole[:, edge]]
    if values.size and float(np.mean(values > DENSE)) > MOST_DENSE_AT_EDGE:
        return "The edges of the images are as dense as bone, where air should be: inverted values"
    return None


def _most_frequent(body: NDArray[np.int16]) -> float:
    """Return the middle of the fullest bin, after smoothing over five."""
    low, high = SEARCHED
    counts, edges = np.histogram(body, bins=np.arange(low, high + BIN, BIN))
    smooth = np.convolve(counts, np.ones(5), mode="same")
    return float(edges[int(np.argmax(smooth))]) + BIN / 2


def _seen(values: NDArray[np.int16]) -> str:
    low, middle, high = np.percentile(values, (1, 50, 99))
    return f"1 % lie below {low:.0f}, half below {middle:.0f}, 99 % below {high:.0f}"
