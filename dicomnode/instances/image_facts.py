"""Read from an image's header what the rules and the chooser look at (`domain.images`).

What is read here came from a peer. A value that does not fit is as if it were not stated: whether
that hinders an analysis is decided elsewhere. `KEYWORDS` decide the facts and nothing else does, so
they need not be read again for every slice of a series.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from dicomnode.domain.images import ImageFacts

POSITION = "ImagePositionPatient"
KEYWORDS = (
    # What `facts_of` reads; all of it stands before the pixels.
    "SpecificCharacterSet",
    "ImageType",
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "PixelSpacing",
    "SliceThickness",
    "PhotometricInterpretation",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "RealWorldValueMappingSequence",
    "PixelPresentation",
    "VolumetricProperties",
    "VolumeBasedCalculationTechnique",
    "DerivationCodeSequence",
    "DerivationDescription",
    "MultienergyCTAcquisition",
    "MultienergyCTProcessingSequence",
    "MultienergyCTCharacteristicsSequence",
    "KVP",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "Manufacturer",
    "ManufacturerModelName",
    "StationName",
    "StudyDescription",
    "ProtocolName",
    "SeriesDescription",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
_MAX_ITEMS = 64
"""Items of a sequence that are looked at, except frames."""
_MAX_TEXT = 128


def place_of(dataset: Dataset) -> float | None:
    """Return where the image lies along its own normal: mm, LPS, to three decimals.

    The normal is the cross product of the directions of a row and of a column (PS3.3 C.7.6.2.1.1).
    """
    orientation = _numbers(dataset, "ImageOrientationPatient", 6)
    position = _numbers(dataset, POSITION, 3)
    return _along_normal(position, orientation)


def facts_of(dataset: Dataset) -> ImageFacts:
    """Return the facts of an image; see `ImageFacts`."""
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    frame = _first(dataset, "PerFrameFunctionalGroupsSequence")  # the first stands for the others

    def group(name: str) -> Dataset | None:
        return _first(shared, name) or _first(frame, name)

    measures = group("PixelMeasuresSequence") or dataset
    values = group("PixelValueTransformationSequence") or dataset
    plane = group("PlaneOrientationSequence") or dataset
    orientation = _numbers(plane, "ImageOrientationPatient", 6)
    frames = _whole(dataset, "NumberOfFrames")
    return ImageFacts(
        image_type=tuple(
            dict.fromkeys(
                [*_values(dataset, "ImageType"), *_frame_types(group("CTImageFrameTypeSequence"))]
            )
        ),
        frame_of_reference_uid=_text(dataset, "FrameOfReferenceUID", 64),
        orientation=tuple(round(value, 3) + 0.0 for value in orientation),
        rows=_whole(dataset, "Rows"),
        columns=_whole(dataset, "Columns"),
        frames=frames,
        span=_span(dataset, _first(shared, "PlaneOrientationSequence"))
        if frames is not None
        else (),
        pixel_spacing=tuple(round(value, 4) for value in _numbers(measures, "PixelSpacing", 2)),
        slice_thickness_mm=_number(measures, "SliceThickness"),
        photometric=_text(dataset, "PhotometricInterpretation", 16).upper(),
        rescaled=_number(values, "RescaleIntercept") is not None
        and _number(values, "RescaleSlope") not in (None, 0.0),
        rescale_type=_text(values, "RescaleType", 64).upper(),
        units=tuple(_units(dataset, shared, frame)),
        pixel_presentation=_text(dataset, "PixelPresentation", 16).upper(),
        volumetric_properties=_text(dataset, "VolumetricProperties", 16).upper(),
        calculation_technique=_text(dataset, "VolumeBasedCalculationTechnique", 16).upper(),
        derivation_codes=tuple(sorted(set(_codes(dataset, shared, frame)))),
        derivation=_text(dataset, "DerivationDescription"),
        multienergy=_text(dataset, "MultienergyCTAcquisition", 16).upper() == "YES",
        kev=_kev(dataset),
        kvp=_number(dataset, "KVP"),
        kernel=_values(dataset, "ConvolutionKernel"),
        contrast=_text(dataset, "ContrastBolusAgent", 64)
        or ("coded" if _first(dataset, "ContrastBolusAgentSequence") else ""),
        acquisition=_text(dataset, "AcquisitionNumber", 16),
        temporal_position=_text(dataset, "TemporalPositionIdentifier", 16),
        cardiac_phase=_text(dataset, "NominalPercentageOfCardiacPhase", 16),
        manufacturer=_text(dataset, "Manufacturer", 64),
        device=_text(dataset, "ManufacturerModelName", 64),
        station=_text(dataset, "StationName", 16),
        study_description=_text(dataset, "StudyDescription", 64),
        protocol=_text(dataset, "ProtocolName", 64),
        description=_text(dataset, "SeriesDescription", 64),
    )


def _get(dataset: Dataset | None, keyword: str) -> Any:
    """Return a value, or None where there is none that can be read."""
    if dataset is None:
        return None
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001 - hostile bytes can raise anything: as if it were not stated
        return None


def _items(dataset: Dataset | None, keyword: str) -> Iterator[Dataset]:
    found = _get(dataset, keyword)
    for item in islice(found or (), _MAX_ITEMS) if isinstance(found, Sequence) else ():
        if isinstance(item, Dataset):
            yield item


def _first(dataset: Dataset | None, keyword: str) -> Dataset | None:
    return next(_items(dataset, keyword), None)


def _text(dataset: Dataset, keyword: str, most: int = _MAX_TEXT) -> str:
    """Return a value as text without padding and control characters; empty where there is none."""
    value = _get(dataset, keyword)
    if value is None:
        return ""
    return "".join(c for c in str(value) if c.isprintable()).strip()[:most]


def _values(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    value = _get(dataset, keyword)
    if value is None:
        return ()
    parts = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    shown = ["".join(c for c in str(part) if c.isprintable()) for part in islice(parts, 16)]
    upper = [part.strip()[:64] for part in shown]
    return tuple(part.upper() if keyword.endswith("Type") else part for part in upper if part)


def _finite(values: Iterable[Any]) -> tuple[float, ...]:
    try:
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return ()
    return found if all(math.isfinite(value) and abs(value) < 2**31 for value in found) else ()


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    value = _get(dataset, keyword)
    if not isinstance(value, (list, tuple, MultiValue)) or len(value) != count:
        return ()
    return _finite(value)


def _number(dataset: Dataset, keyword: str) -> float | None:
    found = _finite([_get(dataset, keyword)])
    return found[0] if found else None


def _whole(dataset: Dataset, keyword: str) -> int | None:
    found = _number(dataset, keyword)
    return None if found is None else int(found)


def _frame_types(frame_type: Dataset | None) -> tuple[str, ...]:
    return () if frame_type is None else _values(frame_type, "FrameType")


def _units(*owners: Dataset | None) -> Iterator[str]:
    for owner in owners:
        for mapping in _items(owner, "RealWorldValueMappingSequence"):
            for unit in _items(mapping, "MeasurementUnitsCodeSequence"):
                yield _text(unit, "CodeValue", 16)


def _codes(dataset: Dataset, *groups: Dataset | None) -> Iterator[str]:
    for owner in (dataset, *(_first(group, "DerivationImageSequence") for group in groups)):
        for code in _items(owner, "DerivationCodeSequence"):
            yield f"{_text(code, 'CodingSchemeDesignator', 16)}:{_text(code, 'CodeValue', 16)}"


def _kev(dataset: Dataset) -> float | None:
    """Return Monoenergetic Energy Equivalent (PS3.3 C.8.15.3.13), wherever the object has it."""
    for name in ("MultienergyCTProcessingSequence", "MultienergyCTCharacteristicsSequence"):
        for item in _items(dataset, name):
            found = _number(item, "MonoenergeticEnergyEquivalent")
            if found is not None:
                return found
    return None


def _along_normal(position: tuple[float, ...], orientation: tuple[float, ...]) -> float | None:
    if len(position) != 3 or len(orientation) != 6:
        return None
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    return round(sum(p * n for p, n in zip(position, normal, strict=True)), 3) + 0.0


def _span(dataset: Dataset, shared_plane: Dataset | None) -> tuple[float, ...]:
    """Return least place, greatest place and number of different places of a multi-frame image."""
    frames = _get(dataset, "PerFrameFunctionalGroupsSequence")
    places = set()
    for frame in frames if isinstance(frames, Sequence) else ():
        at = _first(frame, "PlanePositionSequence")
        plane = shared_plane or _first(frame, "PlaneOrientationSequence")
        if at is None or plane is None:
            continue
        orientation = _numbers(plane, "ImageOrientationPatient", 6)
        place = _along_normal(_numbers(at, POSITION, 3), orientation)
        if place is not None:
            places.add(place)
    return (min(places), max(places), float(len(places))) if places else ()
