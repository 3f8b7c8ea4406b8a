"""Which images of a series can be part of a CT volume, and which cannot, with the reason.

Identity is checked here too: a result may only be made for a series whose patient and study are
beyond doubt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage

from dicomnode.domain.identifiers import InvalidUIDError, parse_uid
from dicomnode.errors import Refusal
from dicomnode.imaging.fields import number, numbers, text, texts
from dicomnode.imaging.frames import MULTIFRAME, Image
from dicomnode.imaging.parsing import Parsed

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_IDENTITY = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "AccessionNumber",
)
# Image Type of multi-energy CT (PS3.3 C.8.15.2.1.1), and of projections, perfusion and vendors.
_MAP_WORDS_TEXT = """
    IODINE IOD VNC VUE VIRTUALNONCONTRAST ZEFF EFFZ ZEFFECTIVE RHO ELECTRONDENSITY VMI MONO MONOE
    MONOENERGETIC MAT ATOMIC PERFUSION RCBF RCBV RMTT CBF CBV MTT TTP TMAX PBV PERMEABILITY
    MIP MINIP MAXIMUM MINIMUM PROJECTION VRT SSD SUBTRACTION SUBTRACT DIVISION MULTIPLICATION
    DEVIATION DIFFERENCE FUSION FUSED COLOR URIC CALCIUM WATER FAT OVERLAY SCREENSHOT DOSE REPORT
"""
_MAP_WORDS = frozenset(_MAP_WORDS_TEXT.split())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice:
    """One image that can be part of a CT volume."""

    image: Image
    sop_instance_uid: str
    frame_of_reference: str
    position: NDArray[np.float64]
    """[3], LPS mm: centre of the first voxel (Image Position (Patient))."""
    orientation: NDArray[np.float64]
    """[6]: unit vectors along a row and along a column (Image Orientation (Patient))."""
    pixel_spacing: tuple[float, float]
    """mm between rows, and between columns (Pixel Spacing, row first)."""
    matrix: tuple[int, int]
    """Rows, Columns."""


def check_identity(parsed: Sequence[Parsed]) -> None:
    """Refuse blank, malformed or contradictory identifiers.

    A blank Patient ID is legal (type 2) and copied as it is: the result belongs to the study by
    its UIDs.

    Raises:
        Refusal: MISSING_IDENTIFIERS, INVALID_IDENTIFIERS, MIXED_SERIES.
    """
    for keyword in _UIDS:
        blank = sum(not text(item.fields, keyword) for item in parsed)
        if blank:
            missing = [
                name for name in _UIDS if any(not text(item.fields, name) for item in parsed)
            ]
            raise Refusal(
                "MISSING_IDENTIFIERS",
                f"Blank in {blank} of {len(parsed)} instances or more: {', '.join(missing)}.",
            )
    for item in parsed:
        for keyword in _UIDS:
            try:
                parse_uid(text(item.fields, keyword))
            except InvalidUIDError as error:
                raise Refusal("INVALID_IDENTIFIERS", f"{keyword}: {error}.") from None
    for keyword in _IDENTITY:
        if len({text(item.fields, keyword) for item in parsed}) > 1:
            raise Refusal("MIXED_SERIES", f"The instances disagree on {keyword}.")


def slice_or_reason(image: Image) -> Slice | str:
    """Return the image as a slice, or the code of why it cannot be part of a CT volume in HU."""
    fields = image.fields
    modality = text(fields, "Modality").upper()
    sop_class = image.instance.sop_class_uid
    if (sop_class != CTImageStorage and sop_class not in MULTIFRAME) or modality not in ("", "CT"):
        return "NOT_CT"
    image_type = texts(fields, "ImageType")
    if "LOCALIZER" in image_type:
        return "NOT_A_VOLUME"
    if is_derived_map(image_type):
        return "DERIVED_MAP"
    slope, intercept = number(fields, "RescaleSlope"), number(fields, "RescaleIntercept")
    if slope is None or intercept is None or slope == 0:
        return "NOT_HU"
    if text(fields, "RescaleType").upper() not in ("", "HU"):
        return "NOT_HU"
    if not text(fields, "FrameOfReferenceUID"):
        return "NO_FRAME_OF_REFERENCE"
    return _slice(image) or "NO_POSITION"


@lru_cache(maxsize=64)
def is_derived_map(image_type: tuple[str, ...]) -> bool:
    """Whether Image Type (upper case) names a computed map or a projection instead of CT."""
    words = {word for value in image_type[2:] for word in re.split(r"[^A-Z]+", value)}
    joined = {re.sub(r"[^A-Z]+", "", value) for value in image_type[2:]}
    return bool((words | joined) & _MAP_WORDS)


def _slice(image: Image) -> Slice | None:
    """Return the slice with its geometry, or None where that is missing or impossible."""
    fields = image.fields
    position = numbers(fields, "ImagePositionPatient", 3)
    spacing = numbers(fields, "PixelSpacing", 2)
    rows, columns = number(fields, "Rows"), number(fields, "Columns")
    cosines = _cosines(numbers(fields, "ImageOrientationPatient", 6))
    if position is None or cosines is None or spacing is None or rows is None or columns is None:
        return None
    if min(spacing) <= 0 or min(rows, columns) < 2:
        return None
    return Slice(
        image=image,
        sop_instance_uid=text(fields, "SOPInstanceUID"),
        frame_of_reference=text(fields, "FrameOfReferenceUID"),
        position=np.asarray(position),
        orientation=cosines,
        pixel_spacing=(spacing[0], spacing[1]),
        matrix=(int(rows), int(columns)),
    )


@lru_cache(maxsize=64)
def _cosines(orientation: tuple[float, ...] | None) -> NDArray[np.float64] | None:
    """Return Image Orientation as an array if it is two unit vectors at a right angle."""
    if orientation is None:
        return None
    cosines = np.asarray(orientation)
    along_row, along_column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if max(abs(length - 1) for length in lengths) > 1e-3 or abs(along_row @ along_column) > 1e-3:
        return None
    cosines.flags.writeable = False
    return cosines
