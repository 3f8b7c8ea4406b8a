"""Which images of a series can be part of a volume, and which cannot, with the reason.

Identity is checked here too: a result may only be made for a series whose patient and study are
beyond doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, MRImageStorage

from dicomnode.domain.identifiers import InvalidUIDError, parse_uid
from dicomnode.domain.images import ImageFacts
from dicomnode.domain.maps import energy, signs
from dicomnode.errors import Refusal
from dicomnode.imaging.fields import Fields, number, numbers, text
from dicomnode.imaging.frames import MULTIFRAME, Image
from dicomnode.imaging.parsing import Parsed
from dicomnode.scan import Modality

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
_OF_CONTENT = (
    "ImageType",
    "RescaleType",
    "PhotometricInterpretation",
    "PixelPresentation",
    "VolumetricProperties",
    "VolumeBasedCalculationTechnique",
    "SeriesDescription",
    "DerivationDescription",
)
"""What tells whether an image is CT in Hounsfield units, beside its rescaling."""


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


def slice_or_reason(
    image: Image, modality: Modality = "CT", *, monoenergetic: bool = False
) -> Slice | str:
    """Return the image as a slice, or the code of why it cannot be part of such a volume.

    Args:
        image: to look at.
        modality: what it has to be; CT is in HU.
        monoenergetic: virtual monoenergetic images are wanted.
    """
    fields = image.fields
    classes = (CTImageStorage, *MULTIFRAME) if modality == "CT" else (MRImageStorage,)
    stated = text(fields, "Modality").upper()
    if image.instance.sop_class_uid not in classes or stated not in ("", modality):
        if modality == "MR":
            return "NOT_MR"
        return "NOT_CT"
    found = signs(content_of(fields), modality)
    if found:
        return found[0].code
    if modality == "CT" and not monoenergetic and energy(content_of(fields)) is not None:
        return "MONOENERGETIC"
    if not text(fields, "FrameOfReferenceUID"):
        return "NO_FRAME_OF_REFERENCE"
    return _slice(image) or "NO_POSITION"


def content_of(fields: Fields) -> ImageFacts:
    """Return of an image what tells whether it is CT in Hounsfield units."""
    slope, intercept = number(fields, "RescaleSlope"), number(fields, "RescaleIntercept")
    values = tuple(fields.get(keyword, ()) for keyword in _OF_CONTENT)
    return _content(values, slope not in (None, 0.0) and intercept is not None)


@lru_cache(maxsize=256)
def _content(values: tuple[tuple[str, ...], ...], rescaled: bool) -> ImageFacts:
    found = dict(zip(_OF_CONTENT, values, strict=True))

    def one(keyword: str) -> str:
        return "/".join(found[keyword])

    return ImageFacts(
        image_type=tuple(value.upper() for value in found["ImageType"]),
        rescaled=rescaled,
        rescale_type=one("RescaleType").upper(),
        photometric=one("PhotometricInterpretation").upper(),
        pixel_presentation=one("PixelPresentation").upper(),
        volumetric_properties=one("VolumetricProperties").upper(),
        calculation_technique=one("VolumeBasedCalculationTechnique").upper(),
        description=one("SeriesDescription"),
        derivation=one("DerivationDescription"),
    )


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
