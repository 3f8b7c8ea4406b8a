"""Does the patient lie in the volume as the geometry says: spine at the back, head up?

Arrays and an affine only. Each check answers yes, no, or None: it cannot tell. Position on the
table is of no concern: LPS axes belong to the patient, so that the spine of somebody who lies
prone or on the side is posterior all the same. What follows are proportions of bodies, found on
the cases that docs/content-checks.md names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.domain.content import SPINE_NOT_AT_BACK, UPSIDE_DOWN
from dicomnode.domain.findings import Finding

GRID_MM = 4.0
AIR_HU = -1000.0
BODY_HU = -250.0
BONE_HU = 150.0

WINDOW_MM = 80.0
"""Along the body: over more, the spine's curves would blur it."""
LEAST_WINDOW_MM = 30.0
TRUNK_CM2 = 300.0
"""Cross-section: heads and limbs of adults are below."""
CENTRAL = 0.3
"""Part of the way from the middle to the sides in which the spine is."""
GOES_ON = 0.4
"""Share of a window's planes with bone at one place: ribs, kidneys, bowel are elsewhere in each."""
FRONT, BACK = 0.48, 0.52
"""Part of the way from the front of the body to its back."""
LEAST_BONE_CM2 = 4.0
PREVAILS = 4.0
"""The heavier half has at least this many times the other's bone; contrast in heart and bowel does
not do so beside a spine."""
PREVAILS_CLEARLY = 6.0
"""Over all windows, before anything is said to be wrong."""

LUNG_HU = (-940.0, -550.0)
"""Of parenchyma after smoothing."""
GAS_HU = -960.0
"""Of the air in bowel and trachea; its rim looks like lung."""
LUNGS_CM2 = 60.0
LEAST_LUNGS_MM = 40.0
SAME_WIDTH = 0.6
"""Cross-section of the abdomen against the chest's, at least; a neck's is a third."""
ABDOMEN_MM = 140.0
"""The trunk goes on beyond the lungs for so long; shoulders and neck do not."""

BRAIN_HU = (-20.0, 90.0)
BRAIN_PART = 0.85
SKULL_PART = 0.85
"""Of all directions that meet bone near the surface."""
HEAD_CM2 = (80.0, 330.0)
LEAST_BRAIN_MM = 20.0
RIM_MM = 24.0
BEYOND_CM2 = 100.0
"""Above the brain only the narrowing top of the skull follows; below it face and neck."""
BEYOND_MM = 30.0
DIRECTIONS = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Posture:
    """What was seen; None: cannot tell."""

    spine_at_back: bool | None
    head_up: bool | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Body:
    """The patient on a grid along the patient's axes, `GRID_MM` apart: [z to the head, y to the
    back, x to the left]."""

    hu: NDArray[np.float32]
    smooth: NDArray[np.float32]
    inside: NDArray[np.bool_]
    """With lungs and bowel, without the table."""
    seen: NDArray[np.bool_]
    """False outside the field of view."""

    @property
    def areas_cm2(self) -> NDArray[np.float64]:
        """[z]: cross-section."""
        return _cm2(self.inside)


def check_posture(
    volume: NDArray[np.int16],
    affine: NDArray[np.float64],
    valid: NDArray[np.bool_] | None = None,
) -> tuple[Finding, ...]:
    """Return what contradicts the geometry; nothing where nothing does or nothing can be told.

    Args:
        volume: HU, [slice, row, column].
        affine: 4x4; (slice, row, column, 1) to LPS mm.
        valid: False at padding; None: all valid.
    """
    seen = posture(volume, affine, valid)
    found = []
    if seen.spine_at_back is False:
        sentence = "In the images the spine lies where the headers say that the front is."
        found.append(Finding(code=SPINE_NOT_AT_BACK, sentence=sentence))
    if seen.head_up is False:
        sentence = "In the images the head end lies where the headers say that the feet are."
        found.append(Finding(code=UPSIDE_DOWN, sentence=sentence))
    return tuple(found)


def posture(
    volume: NDArray[np.int16],
    affine: NDArray[np.float64],
    valid: NDArray[np.bool_] | None = None,
) -> Posture:
    """Look for spine, lungs and skull; arguments as of `check_posture`."""
    body = _find_body(volume, affine, valid)
    if body is None:
        return Posture(spine_at_back=None, head_up=None)
    return Posture(spine_at_back=_spine_at_back(body), head_up=_head_up(body))


def _find_body(
    volume: NDArray[np.int16],
    affine: NDArray[np.float64],
    valid: NDArray[np.bool_] | None,
) -> _Body | None:
    """Find the patient: the largest thing that is no air once thin shells are blurred."""
    to_index, size = _grid(volume.shape, affine)
    hu = ndimage.affine_transform(
        volume, to_index, output_shape=size, order=1, cval=AIR_HU, output=np.float32
    )
    field = np.broadcast_to(np.True_, volume.shape) if valid is None else valid
    seen = ndimage.affine_transform(
        field, to_index, output_shape=size, order=0, cval=0, output=np.bool_
    )
    smooth = ndimage.uniform_filter(hu, 3, mode="nearest")
    parts, count = ndimage.label(smooth > BODY_HU)
    if not count:
        return None
    inside = parts == int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    for plane in inside:
        plane[:] = ndimage.binary_fill_holes(plane)
    return _Body(hu=hu, smooth=smooth, inside=inside, seen=seen)


def _grid(
    shape: tuple[int, ...], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Return the matrix from the grid's [z, y, x] to the volume's indices, and the grid's size."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape]), axis=-1).reshape(-1, 3)
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    low, high = world.min(axis=0), world.max(axis=0)
    size = np.floor((high - low) / GRID_MM).astype(int) + 1
    to_world = np.eye(4)
    to_world[:3, :3] = np.eye(3)[::-1] * GRID_MM
    to_world[:3, 3] = low
    return np.linalg.inv(affine) @ to_world, tuple(int(n) for n in size[::-1])


def _cm2(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray(mask.sum(axis=(-2, -1)) * GRID_MM**2 / 100)


def _spine_at_back(body: _Body) -> bool | None:
    """Whether the bone that goes on through the middle of the trunk is in its back half."""
    wide = np.flatnonzero(body.areas_cm2 >= TRUNK_CM2)
    if not wide.size:
        return None
    planes = np.arange(wide[0], wide[-1] + 1)
    windows = np.array_split(planes, max(1, round(planes.size * GRID_MM / WINDOW_MM)))
    bone = [
        found
        for window in windows
        if window.size * GRID_MM >= LEAST_WINDOW_MM
        and (found := _central_bone(body, slice(window[0], window[-1] + 1))) is not None
    ]
    votes = {back > front for front, back in bone if _prevails(front, back, PREVAILS)}
    if len(votes) != 1:
        return None
    if votes == {True}:
        return True
    fronts, backs = (sum(halves) for halves in zip(*bone, strict=True))
    return False if _prevails(fronts, backs, PREVAILS_CLEARLY) else None


def _prevails(front: float, back: float, times: float) -> bool:
    heavy, light = max(front, back), min(front, back)
    return heavy >= LEAST_BONE_CM2 and heavy >= times * light


def _central_bone(body: _Body, planes: slice) -> tuple[float, float] | None:
    """Return cm2 of lasting bone in the front and the back half; None where that is not seen."""
    inside = body.inside[planes]
    shadow = inside.mean(axis=0) > 0.5
    if _cm2(shadow) < TRUNK_CM2:
        return None
    columns = np.flatnonzero(shadow.any(axis=0))
    middle, half = (columns[0] + columns[-1]) / 2, (columns[-1] - columns[0]) / 2
    central = columns[np.abs(columns - middle) < CENTRAL * half]
    shadow, inside = shadow[:, central], inside[:, :, central]
    rows = np.arange(len(shadow))[:, None]
    front = np.where(shadow, rows, len(shadow)).min(axis=0)
    back = np.where(shadow, rows, -1).max(axis=0)
    if _is_cut(body.seen[planes][:, :, central], front, back):
        return None
    lasting = ((body.hu[planes][:, :, central] > BONE_HU) & inside).mean(axis=0)
    lasting[(lasting < GOES_ON) | ~shadow] = 0
    place = (rows - front) / np.maximum(1, back - front)
    halves = [
        float(lasting[half].sum()) * GRID_MM**2 / 100 for half in (place < FRONT, place > BACK)
    ]
    return halves[0], halves[1]


def _is_cut(seen: NDArray[np.bool_], front: NDArray[np.intp], back: NDArray[np.intp]) -> bool:
    """Whether the field of view cuts the body in front or at the back, so that its middle is not
    known."""
    whole = seen.mean(axis=0) > 0.5
    numbers = np.arange(whole.shape[1])
    ends = np.pad(whole, ((1, 1), (0, 0)))
    return bool((~ends[front, numbers]).mean() > 0.5 or (~ends[back + 2, numbers]).mean() > 0.5)


def _head_up(body: _Body) -> bool | None:
    votes = {vote for vote in (_abdomen_below(body), _brain_above(body)) if vote is not None}
    return votes.pop() if len(votes) == 1 else None


def _abdomen_below(body: _Body) -> bool | None:
    """Whether the side on which the trunk goes on beyond the lungs is the lower one."""
    gas = ndimage.binary_dilation((body.smooth < GAS_HU) & body.inside, iterations=2)
    low, high = LUNG_HU
    lung = (body.smooth > low) & (body.smooth < high) & body.inside & ~gas
    lung = ndimage.binary_opening(lung, np.ones((1, 3, 3)))
    first, last = _longest(_cm2(lung) >= LUNGS_CM2)
    if (last - first) * GRID_MM < LEAST_LUNGS_MM:
        return None
    trunk = body.areas_cm2 >= SAME_WIDTH * np.median(body.areas_cm2[first:last])
    below, above = _run(trunk[:first][::-1]), _run(trunk[last:])
    return _longer(below * GRID_MM, above * GRID_MM, ABDOMEN_MM)


def _brain_above(body: _Body) -> bool | None:
    """Whether what follows on a brain in its skull (face, neck) is below it."""
    likely = (body.areas_cm2 > HEAD_CM2[0]) & (body.areas_cm2 < HEAD_CM2[1])
    brain = np.zeros(len(likely), np.bool_)
    for plane in np.flatnonzero(likely):
        brain[plane] = _is_brain(body.hu[plane], body.smooth[plane], body.inside[plane])
    first, last = _longest(brain)
    if (last - first) * GRID_MM < LEAST_BRAIN_MM:
        return None
    more = body.areas_cm2 >= BEYOND_CM2
    below, above = _run(more[:first][::-1]) * GRID_MM, _run(more[last:]) * GRID_MM
    return None if min(below, above) >= BEYOND_MM else _longer(below, above, BEYOND_MM)


def _is_brain(
    hu: NDArray[np.float32], smooth: NDArray[np.float32], inside: NDArray[np.bool_]
) -> bool:
    """Whether a plane shows soft tissue with bone all around it."""
    inner = ndimage.binary_erosion(inside, iterations=round(RIM_MM / GRID_MM))
    if not inner.any():
        return False
    low, high = BRAIN_HU
    values = smooth[inner]
    if np.mean((values > low) & (values < high)) < BRAIN_PART:
        return False
    middle = np.argwhere(inside).mean(axis=0)
    y, x = (np.argwhere((hu > BONE_HU) & inside & ~inner) - middle).T
    directions = np.floor((np.arctan2(y, x) / (2 * np.pi) + 0.5) * DIRECTIONS).astype(int)
    return np.unique(directions % DIRECTIONS).size >= SKULL_PART * DIRECTIONS


def _longer(below: float, above: float, least: float) -> bool | None:
    """Whether `below` is the longer way; None where neither is clearly so."""
    longer, shorter = max(below, above), min(below, above)
    return None if longer < least or longer < 2 * shorter else below > above


def _run(mask: NDArray[np.bool_]) -> int:
    """Return how many are True before the first that is not."""
    return int(np.argmin(np.append(mask, False)))


def _longest(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return begin and end of the longest run of True; (0, 0) where there is none."""
    steps = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    if not steps.size:
        return 0, 0
    begins, ends = steps[::2], steps[1::2]
    longest = int(np.argmax(ends - begins))
    return int(begins[longest]), int(ends[longest])
