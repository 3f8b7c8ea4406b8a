"""From a volume with its affine to labels on the same grid: canonical, zoom, predict, and back.

The one path between the source grid and the model's. Axes are permuted and flipped only as the
affine says. NumPy and SciPy; the network comes in as a `Predictor`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from inference.catalog import ModelCard
from inference.resampling import Border, zoom_back, zoom_back_as_scipy, zoom_in, zoom_in_as_scipy

Progress = Callable[[str, float], None]
"""Called with the stage (`resample`, `predict`, `restore`) and how much of it is done, 0 to 1.
What it raises ends the work."""

MIN_LENGTH = 2

Mode = Literal["fast", "exact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a model is run, within what its card allows."""

    mode: Mode = "fast"
    """`exact`: every label as the package that the model comes from gives it, in single precision
    on torch. `fast`: the quickest engine that agrees with it, within stated bounds."""
    step_size: float | None = None
    """Distance of neighbouring tiles as a fraction of the patch, at most; None: the card's."""
    structures: tuple[str, ...] = ()
    """Names of what is wanted; parts that find none of it do not run. Empty: everything."""
    body_crop: bool = False
    """Leave out the air around the body; the tiles lie elsewhere, so labels differ a little."""
    thrifty: bool = False
    """Take as little memory as there is a way for: on the CPU torch, without a second copy of the
    networks for OpenVINO; on CUDA neither grids nor scores of all classes in its memory."""
    half_on: frozenset[str] = frozenset({"cuda"})
    """Kinds of device (`cpu`, `cuda`) on which `fast` computes in 16-bit floats."""

    def __post_init__(self) -> None:
        """Refuse what is no way to run a model."""
        if self.mode not in ("fast", "exact"):
            raise ValueError(f"mode {self.mode!r}: expected fast or exact")
        if self.step_size is not None and not 0 < self.step_size <= 1:
            raise ValueError(f"step size {self.step_size}: expected more than 0, at most 1")


def no_progress(stage: str, fraction: float) -> None:
    """Ignore the progress."""


DEFAULT = Options()


class Predictor(Protocol):
    """A model that is loaded and ready."""

    def predict(
        self,
        image: NDArray[np.float32],
        progress: Progress = no_progress,
        options: Options = DEFAULT,
    ) -> NDArray[np.uint8]:
        """Return the model's labels [z, y, x] for `image` [z, y, x].

        Args:
            image: HU on a grid of the card's spacing; x grows to the right, y to anterior, z to
                superior.
            progress: called with the stage `predict`.
            options: how the model is run.
        """
        ...


@runtime_checkable
class ResidentPredictor(Protocol):
    """A predictor on a device that can zoom there as well."""

    def segment_resident(
        self,
        volume: NDArray[np.int16],
        orientation: Orientation,
        spacing_mm: Sequence[float],
        progress: Progress,
        options: Options,
    ) -> NDArray[np.uint8] | None:
        """Return the model's labels [i, j, k] of `volume`, as `segment` does.

        None where the host's way is the better one.

        Args:
            volume: HU, [i, j, k], of any strides.
            orientation: of its axes.
            spacing_mm: along x, y, z.
            progress: told about each stage.
            options: how the model is run.
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
    options: Options = DEFAULT,
) -> NDArray[np.uint8]:
    """Segment a volume.

    Args:
        volume: HU, [i, j, k], of any strides.
        affine: 4x4, array indices to RAS+ millimetres. Axes are taken as orthogonal.
        card: the model's; its spacing and zoom order are used.
        predictor: the loaded model of that card.
        progress: told about each stage.
        options: how the model is run.

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
    wanted = wanted_labels(card, options)
    orientation = to_canonical(affine)
    # In single precision, as a NIfTI header holds it: at a half, the shape depends on the last bit.
    spacing = np.linalg.norm(affine[:3, :3], axis=0).astype(np.float32).astype(np.float64)
    grids = (spacing[list(orientation.axes)], card.spacing_mm)
    if options.mode == "fast" and not options.thrifty and isinstance(predictor, ResidentPredictor):
        found = predictor.segment_resident(volume, orientation, grids[0], progress, options)
        if found is not None:
            return found
    flips = tuple(slice(None, None, -1 if flip else None) for flip in orientation.flipped)
    canonical = volume.transpose(orientation.axes)[flips]

    progress("resample", 0.0)
    if options.mode == "exact":
        zoomed = zoom_in_as_scipy(canonical, *grids, card.zoom_order, _border(card))
    else:
        zoomed = zoom_in(canonical, *grids, card.zoom_order)
    image = np.ascontiguousarray(zoomed.transpose(2, 1, 0), dtype=np.float32)
    del zoomed
    progress("resample", 1.0)

    labels = predictor.predict(image, progress, options)
    _check_labels(labels, image.shape, wanted, card)

    progress("restore", 0.0)
    # Axes go back before the zoom, while the array is small; flips after it: which of two equally
    # near samples is taken depends on the direction, and the zoom in ran in the canonical one.
    back = tuple(int(axis) for axis in np.argsort(orientation.axes))
    flips_back = tuple(flips[axis] for axis in back)
    small = labels.transpose(2, 1, 0).transpose(back)
    if options.mode == "exact":
        restored = zoom_back_as_scipy(small, volume.shape, _border(card))
    else:
        restored = zoom_back(small, volume.shape)
    result = np.ascontiguousarray(restored[flips_back])
    progress("restore", 1.0)
    return result


def wanted_labels(card: ModelCard, options: Options) -> frozenset[int]:
    """Return the model labels that the options ask for.

    Raises:
        ValueError: the model finds no structure of one of the names.
    """
    labels = {structure.name: structure.label for structure in card.structures}
    unknown = sorted(set(options.structures) - set(labels))
    if unknown:
        raise ValueError(f"model {card.id!r} finds no {', '.join(unknown)}")
    return frozenset(labels[name] for name in options.structures or labels)


def _border(card: ModelCard) -> Border:
    """Return what TotalSegmentator has SciPy take for samples outside; version 2 changed it."""
    return "nearest" if card.aggregation == "logits" else "constant"


def _check_labels(
    labels: NDArray[np.uint8], shape: tuple[int, ...], wanted: frozenset[int], card: ModelCard
) -> None:
    if labels.dtype != np.uint8 or labels.shape != shape:
        raise ValueError(f"predictor: expected uint8 {shape}, got {labels.dtype} {labels.shape}")
    unknown = np.setdiff1d(np.flatnonzero(np.bincount(labels.ravel())), [0, *wanted])
    if unknown.size:
        raise ValueError(f"predictor: {unknown.tolist()} are no labels of model {card.id!r}")
