"""What is done to an image before its network: crop to a box, clip and scale, as nnU-Net does it.

On the device where the image lies, in single precision, rounded as NumPy rounds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

BODY_ABOVE_HU = -500
"""Between air (-1000, with noise) and skin; a table is inside the box too."""
BODY_MARGIN = 4
"""Samples of the model's grid around the body's box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensities:
    """CT normalisation of the plans: clip to [lower, upper], then (x - mean) / sd, in HU."""

    lower: float
    upper: float
    mean: float
    sd: float


def nonzero_box(image: torch.Tensor) -> tuple[slice, ...]:
    """Return the smallest box with all voxels that are not 0; all of an image of zeros.

    nnU-Net crops to it before anything else. In CT, where air is -1000, it is the whole image
    except where padding of 0 was added.
    """
    return box_around(image != 0)


def body_box(image: torch.Tensor) -> tuple[slice, ...]:
    """Return the box around all that is no air, in HU; all of an image of air."""
    return tuple(
        slice(max(0, inside.start - BODY_MARGIN), min(length, inside.stop + BODY_MARGIN))
        if inside.start is not None
        else inside
        for inside, length in zip(box_around(image > BODY_ABOVE_HU), image.shape, strict=True)
    )


def box_around(mask: torch.Tensor) -> tuple[slice, ...]:
    """Return the smallest box with all that is set in `mask`; everything if nothing is."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        hits = torch.nonzero(mask.any(dim=others)).ravel().tolist()
        box.append(slice(hits[0], hits[-1] + 1) if hits else slice(None))
    return tuple(box)


def normalise(image: torch.Tensor, by: Intensities) -> torch.Tensor:
    """Return a clipped and scaled copy of a float32 `image`."""
    # Tensors, not numbers: CUDA divides by a number with its rounded reciprocal.
    lower, upper, mean, sd = (
        torch.tensor(value, dtype=torch.float32, device=image.device)
        for value in (by.lower, by.upper, by.mean, max(by.sd, 1e-8))
    )
    return image.clamp(lower, upper).sub_(mean).div_(sd)
