"""From a volume with its affine to labels on the same grid: canonical, zoom, predict, and back.

The one path between the source grid and the model's. Axes are permuted and flipped only as the
affine says. NumPy and SciPy; the network comes in as a `Predictor`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inference.catalog import ModelCard
from inference.resampling import zoom_back, zoom_in

Progress = Callable[[str, float], None]
"""Called with the stage (`resample`, `predict`, `restore`) and how much of it is done, 0 to 1.
What it raises ends the work."""

MIN_LENGTH = 2


def no_progress(stage: str, fraction: float) -> None:
    """Ignore the progress."""


class Predictor(Protocol):
    """A model that is loaded and ready."""

    def predict(
        self, image: NDArray[np.float32], progress: Progress = no_progress
    ) -> NDArray[np.uint8]:
        """Return the model's labels [z, y, x] for `image` [z, y, x].

        Args:
            image: HU on a grid of the card's spacing; x grows to the right, y to anterior, z to
                superior.
            progress: called with the stage `predict`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """How the axes of an array become right, anterior, superior."""

    axes: tuple[int, int, int]
    """Array axis that runs along x, y, z: the argument of `transpose`."""
    flipped: tuple[bool, bool, bool]
    """Whether the array axis that runs along x, y, z runs to the left, posterior, inferior."""


def to_canonical(affine: NDArray[np.float64]) -> Orientation:
    """Return the closest canonical (RAS+) orientation of an array with `affine`.

    The columns' directions are made orthogonal (polar decomposition) and each array axis, the
    clearest first, gets the world axis that it follows most. It is the choice that nibabel's
    `as_closest_canonical` makes.

    Args:
        affine: 4x4, array indices to RAS+ millimetres.

    Raises:
        ValueError: not 4x4, not finite, or two axes have one direction.
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(f"affine: expected 4x4 finite numbers, got shape {affine.shape}")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (lengths > 0).all():
        raise ValueError("affine: an axis has spacing 0")
    left, values, right = np.linalg.svd(affine[:3, :3] / lengths)
    if values[-1] < 1e-3:
        raise ValueError("affine: the axes lie in one plane")
    cosines = left @ right  # row: world axis, column: array axis
    axes, flipped = [0, 0, 0], [False, False, False]
    free = np.abs(cosines)
    # Rounded, so that two axes which are equally clear keep their order on every machine.
    clearest_first = np.argsort(-np.round(free.max(axis=0), 9), kind="stable")
    for axis in clearest_first:
        world = int(np.argmax(free[:, axis]))
        axes[world], flipped[world] = int(axis), bool(cosines[world, axis] < 0)
        free[world, :] = -1
    return Orientation(
        axes=(axes[0], axes[1], axes[2]), flipped=(flipped[0], flipped[1], flipped[2])
    )


def segment(
    volume: NDArray[np.int16],
    affine: NDArray[np.float64],
    card: ModelCard,
    predictor: Predictor,
    progress: Progress = no_progress,
) -> NDArray[np.uint8]:
    """Segment a volume.

    Args:
        volume: HU, [i, j, k], of any strides.
        affine: 4x4, array indices to RAS+ millimetres. Axes are taken as orthogonal.
        card: the model's; its spacing and zoom order are used.
        predictor: the loaded model of that card.
        progress: told about each stage.

    Returns:
        Model labels [i, j, k] on the grid of `volume`, C-contiguous, 0 where nothing was found.

    Raises:
        ValueError: volume or affine cannot be used; or the predictor returned something else than
            labels of the card on the grid it was given.
    """
    if volume.dtype != np.int16 or volume.ndim != 3 or min(volume.shape) < MIN_LENGTH:
        raise ValueError(
            f"volume: expected int16 [i, j, k] with at least {MIN_LENGTH} samples an axis, got "
            f"{volume.dtype} {volume.shape}"
        )
    orientation = to_canonical(affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[list(orientation.axes)]
    flips = tuple(slice(None, None, -1 if flip else None) for flip in orientation.flipped)

    progress("resample", 0.0)
    zoomed = zoom_in(
        volume.transpose(orientation.axes)[flips], spacing, card.spacing_mm, card.zoom_order
    )
    image = np.ascontiguousarray(zoomed.transpose(2, 1, 0), dtype=np.float32)
    progress("resample", 1.0)

    labels = predictor.predict(image, progress)
    _check_labels(labels, image.shape, card)

    progress("restore", 0.0)
    # Axes go back before the zoom, while the array is small; flips after it: which of two equally
    # near samples is taken depends on the direction, and the zoom in ran in the canonical one.
    back = tuple(int(axis) for axis in np.argsort(orientation.axes))
    flips_back = tuple(flips[axis] for axis in back)
    restored = zoom_back(labels.transpose(2, 1, 0).transpose(back), volume.shape)[flips_back]
    result = np.ascontiguousarray(restored)
    progress("restore", 1.0)
    return result


def _check_labels(labels: NDArray[np.uint8], shape: tuple[int, ...], card: ModelCard) -> None:
    if labels.dtype != np.uint8 or labels.shape != shape:
        raise ValueError(f"predictor: expected uint8 {shape}, got {labels.dtype} {labels.shape}")
    known = [0, *(structure.label for structure in card.structures)]
    unknown = np.setdiff1d(np.flatnonzero(np.bincount(labels.ravel())), known)
    if unknown.size:
        raise ValueError(f"predictor: {unknown.tolist()} are no labels of model {card.id!r}")
