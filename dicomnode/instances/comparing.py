"""Are two files of one SOP Instance the same image? For what came again in another form.

Equal pixels at other places are another image: of a multi-frame image each frame's place counts,
with what makes Hounsfield units of its values (PS3.3 section C.7.6.16).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicomnode.instances.fields import UnreadableError

log = logging.getLogger(__name__)

MAX_DECODED = 1 << 27
"""Pixels that are decoded for a comparison, at most: 512 frames of 512 x 512."""
_MACROS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}


def same_image(one: Path, other: Path, *, decode: bool) -> bool | None:
    """Whether two files of one SOP Instance hold the same pixels at the same places.

    Args:
        one: of the files; likewise the next.
        other: of them.
        decode: the pixels too; else they are known to be the same.

    Returns:
        None where one of them cannot be read or decoded here.
    """
    try:
        images = [pydicom.dcmread(path, stop_before_pixels=not decode) for path in (one, other)]
        if _frames(images[0]) != _frames(images[1]):
            return False
        return not decode or _same_pixels(*images)
    except Exception as error:  # noqa: BLE001 - hostile bytes can raise anything in a decoder
        fields = {"error": type(error).__name__}
        log.warning("PIXELS_NOT_COMPARED", extra={"fields": fields})
        return None


def _frames(image: Dataset) -> list[list[Any]]:
    """Return where the frames are and what their values mean: what they share, then each one's."""
    groups = [
        *image.get("SharedFunctionalGroupsSequence", ()),
        *image.get("PerFrameFunctionalGroupsSequence", ()),
    ]
    return [
        [
            _numbers(macro, keywords)
            for name, keywords in _MACROS.items()
            for macro in group.get(name, ())
        ]
        for group in groups
    ]


def _numbers(macro: Dataset, keywords: tuple[str, ...]) -> list[Any]:
    found: list[Any] = []
    for keyword in keywords:
        value = macro.get(keyword)
        if isinstance(value, MultiValue):
            found.append([float(part) for part in value])
        else:
            found.append(None if value is None else float(value))
    return found


def _same_pixels(one: Dataset, other: Dataset) -> bool:
    decoded = [_pixels(image) for image in (one, other)]
    return decoded[0].shape == decoded[1].shape and bool((decoded[0] == decoded[1]).all())


def _pixels(image: Dataset) -> Any:
    cells = int(image.Rows) * int(image.Columns) * int(image.get("NumberOfFrames") or 1)
    if cells * int(image.SamplesPerPixel) > MAX_DECODED:
        raise UnreadableError("there are too many pixels")  # decoders believe what a header says
    return image.pixel_array
