"""Are two files of one SOP Instance the same image? For what came again in another form."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pydicom

from dicomnode.instances.fields import UnreadableError

log = logging.getLogger(__name__)

MAX_DECODED = 1 << 27
"""Pixels that are decoded for a comparison, at most: 512 frames of 512 x 512."""


def same_pixels(one: Path, other: Path) -> bool | None:
    """Whether two files of one SOP Instance decode to the same pixels.

    Returns:
        None where one of them cannot be decoded here.
    """
    try:
        decoded = [_pixels(path) for path in (one, other)]
    except Exception as error:  # noqa: BLE001 - hostile bytes can raise anything in a decoder
        fields = {"error": type(error).__name__}
        log.warning("PIXELS_NOT_COMPARED", extra={"fields": fields})
        return None
    return decoded[0].shape == decoded[1].shape and bool((decoded[0] == decoded[1]).all())


def _pixels(path: Path) -> Any:
    dataset = pydicom.dcmread(path)
    cells = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames") or 1)
    if cells * int(dataset.SamplesPerPixel) > MAX_DECODED:
        raise UnreadableError("there are too many pixels")  # decoders believe what a header says
    return dataset.pixel_array
