"""What is done to an image before its network: crop to a box, scale its values, as nnU-Net does it.

On the device where the image lies, in single precision; CT normalisation is rounded as NumPy rounds
it, statistics of an image are taken in double precision, which nnU-Net does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from scipy import ndimage

from inference.card import Scheme

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ZScore:
    """(x - mean) / sd of the image itself."""

    masked: bool
    """Of what is not 0, holes filled; outside it stays 0."""


@dataclass(frozen=True, slots=True)
class NoNorm:
    """The values as they are."""


@dataclass(frozen=True, slots=True)
class Rescale01:
    """From the image's least and greatest value to 0 and 1."""


Normalisation = Intensities | ZScore | NoNorm | Rescale01
SCHEMES: Mapping[Scheme, str] = {
    "CT": "CTNormalization",
    "zscore": "ZScoreNormalization",
    "nonorm": "NoNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
}
"""What nnU-Net's plans call them. Colour images (RGBTo01Normalization) have no place here."""
LEAST_SD = 1e-8


def normalisation_of(
    scheme: Scheme, properties: Mapping[str, Any], *, masked: bool
) -> Normalisation:
    """Return what the plans say of a channel.

    Args:
        scheme: of the card.
        properties: of the channel's foreground intensities.
        masked: `use_mask_for_norm` of the plans; it counts for z-scores only.

    Raises:
        KeyError: CT normalisation without its numbers.
    """
    if scheme == "zscore":
        return ZScore(masked=masked)
    if scheme == "nonorm":
        return NoNorm()
    if scheme == "rescale_to_0_1":
        return Rescale01()
    return Intensities(
        lower=float(properties["percentile_00_5"]),
        upper=float(properties["percentile_99_5"]),
        mean=float(properties["mean"]),
        sd=float(properties["std"]),
    )


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


def normalise(image: torch.Tensor, by: Normalisation) -> torch.Tensor:
    """Return a scaled copy of a float32 `image` that has been cropped to its nonzero box."""
    if isinstance(by, Intensities):
        return _clipped(image, by)
    if isinstance(by, ZScore):
        return _standardised(image, masked=by.masked)
    if isinstance(by, Rescale01):
        moved = image - image.min()
        return moved.div_(moved.max().clamp_min(LEAST_SD))
    return image.clone()


def _clipped(image: torch.Tensor, by: Intensities) -> torch.Tensor:
    # Tensors, not numbers: CUDA divides by a number with its rounded reciprocal.
    lower, upper, mean, sd = (
        torch.tensor(value, dtype=torch.float32, device=image.device)
        for value in (by.lower, by.upper, by.mean, max(by.sd, LEAST_SD))
    )
    return image.clamp(lower, upper).sub_(mean).div_(sd)


def _standardised(image: torch.Tensor, *, masked: bool) -> torch.Tensor:
    mask = _without_holes(image != 0) if masked else None
    parts = [plane if mask is None else plane[mask[n]] for n, plane in enumerate(image)]
    number = max(1, sum(part.numel() for part in parts))
    # Plane by plane: in double precision the whole image would need twice its room.
    mean = sum(part.sum(dtype=torch.float64) for part in parts) / number
    squares = sum((part.double() - mean).square().sum() for part in parts) / number
    sd = torch.as_tensor(squares, device=image.device).sqrt().clamp_min(LEAST_SD)
    scaled = image.sub(torch.as_tensor(mean).to(image.dtype)).div_(sd.to(image.dtype))
    return scaled if mask is None else torch.where(mask, scaled, image)


def _without_holes(mask: torch.Tensor) -> torch.Tensor:
    filled = ndimage.binary_fill_holes(mask.cpu().numpy())
    return torch.from_numpy(filled).to(mask.device)
