"""A picture of a scan with its segments: axial, coronal and sagittal, for a person to look at."""

from __future__ import annotations

from pathlib import Path

import highdicom
import highdicom.color
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dicomnode.results.codes import load_codes
from dicomnode.scan import Scan

WINDOW_CENTRE_HU, WINDOW_WIDTH_HU = 40.0, 400.0
OPACITY = 0.45
HEIGHT = 560
CAPTION = "AI result, not verified, not for diagnosis"
"""On every picture."""


def write_picture(
    path: Path, scan: Scan, labels: NDArray[np.uint8], code_table: str, caption: str
) -> None:
    """Write a PNG of three planes through the middle of what was segmented.

    Args:
        labels: [slice, row, column] on the scan's grid.
        code_table: names the colours.
        caption: what model it was and on what.
    """
    hu = _facing(scan, scan.volume)
    marks = _facing(scan, labels)
    spacing = tuple(float(step) for step in hu.spacing)
    middle = _middle(marks.array)
    palette = np.zeros((256, 3), dtype=np.float64)
    for label, codes in load_codes(code_table).items():
        palette[label] = highdicom.color.CIELabColor.from_dicom_value(codes.cielab).to_rgb()
    planes = []
    for axis, letters in ((0, "RL"), (1, "RL"), (2, "AP")):
        across = [step for number, step in enumerate(spacing) if number != axis]
        cut = [np.take(array, middle[axis], axis) for array in (hu.array, marks.array)]
        planes.append(_plane(cut[0], cut[1], palette, across, letters))
    _join(planes, caption).save(path)


def _facing(scan: Scan, array: NDArray[np.generic]) -> highdicom.Volume:
    """Turn to rows from head to feet, then front to back, then the patient's right to left."""
    volume = highdicom.Volume(
        array=array,
        affine=scan.affine,
        coordinate_system=highdicom.CoordinateSystemNames.PATIENT,
    )
    return volume.to_patient_orientation("FPL")


def _middle(labels: NDArray[np.uint8]) -> list[int]:
    found = np.nonzero(labels)
    if not found[0].size:
        return [size // 2 for size in labels.shape]
    return [int(np.median(places)) for places in found]


def _plane(
    hu: NDArray[np.int16],
    labels: NDArray[np.uint8],
    palette: NDArray[np.float64],
    spacing: list[float],
    letters: str,
) -> Image.Image:
    low = WINDOW_CENTRE_HU - WINDOW_WIDTH_HU / 2
    grey = np.clip((hu - low) / WINDOW_WIDTH_HU, 0, 1)[..., None] * 255.0
    mixed = np.where(labels[..., None] > 0, (1 - OPACITY) * grey + OPACITY * palette[labels], grey)
    rows_mm, columns_mm = (size * step for size, step in zip(hu.shape, spacing, strict=True))
    width = max(1, round(HEIGHT * columns_mm / rows_mm))
    image = Image.fromarray(mixed.round().astype(np.uint8)).resize(
        (width, HEIGHT), Image.Resampling.BILINEAR
    )
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(22)
    draw.text((8, HEIGHT // 2), letters[0], fill="white", font=font, anchor="lm")
    draw.text((width - 8, HEIGHT // 2), letters[1], fill="white", font=font, anchor="rm")
    return image


def _join(planes: list[Image.Image], caption: str) -> Image.Image:
    gap, foot = 8, 64
    width = sum(plane.width for plane in planes) + gap * (len(planes) - 1)
    sheet = Image.new("RGB", (max(width, 900), HEIGHT + foot), "black")
    left = 0
    for plane in planes:
        sheet.paste(plane, (left, 0))
        left += plane.width + gap
    draw = ImageDraw.Draw(sheet)
    draw.text((10, HEIGHT + 6), CAPTION, fill="#ffcc66", font=ImageFont.load_default(22))
    draw.text((10, HEIGHT + 36), caption, fill="#bbbbbb", font=ImageFont.load_default(16))
    return sheet
